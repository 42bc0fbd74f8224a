"""A fine-tuned model as a folder, and what it says of a signal."""
