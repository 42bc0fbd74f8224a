"""How far a trial had got when an attempt at it ended: one that goes on is not failed for lost workers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hpo_attempt", sa.Column("reached", sa.Integer))


def downgrade() -> None:
    op.drop_column("hpo_attempt", "reached")
