"""Words typed by a person become one call; the outcome becomes text and an exit status."""
