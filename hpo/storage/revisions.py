"""Which tables this version of the program reads and writes."""

REVISION = "0006"
"""The newest of ``hpo/storage/migrations/versions``."""
OPTUNA_REVISION = "v3.2.0.a"
"""The schema of Optuna 5.0, on whose tables we write."""
VERSION_TABLE = "hpo_alembic_version"
