"""What a database says: how studies stand (light), their trials as tables, one study with its answer."""
