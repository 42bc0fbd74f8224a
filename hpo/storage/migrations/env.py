"""Runs our revisions on the connection of :mod:`hpo.storage.schema`; Optuna's tables are not ours."""

from alembic import context

from hpo.storage.revisions import VERSION_TABLE
from hpo.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=lambda name, kind, _: kind != "table" or name in metadata.tables,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
