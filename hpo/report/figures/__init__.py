"""Figures of a study's answer, its search and its confirmation."""
