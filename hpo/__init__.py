"""Bayesian hyperparameter search for fine-tuning pretrained biosignal encoders."""

__version__ = "0.1.0"
