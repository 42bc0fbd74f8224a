"""What each group of commands does: words -> one call -> text."""
