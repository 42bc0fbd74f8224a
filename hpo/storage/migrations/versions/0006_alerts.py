"""What people are to be told of their studies: an outbox, since when, and when a study last got on."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# As in 0004: on SQLite each table of a study is named, children first.
_NEW = ("hpo_alert_progress", "hpo_alert")
_OURS = (
    "hpo_score",
    "hpo_choice",
    "hpo_test_look",
    "hpo_curve",
    "hpo_attempt",
    "hpo_slot",
    "hpo_study",
)


def upgrade() -> None:
    op.create_table(
        "hpo_alert",
        _of_study(),
        sa.Column("event", sa.String(64), primary_key=True),
        sa.Column("target", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("slot", sa.Integer),
        sa.Column("happened_at", sa.Double, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.Double),
        sa.Column("sent_at", sa.Double),
        sa.Column("message", sa.Text),
    )
    op.create_table(
        "hpo_alert_target",
        sa.Column("target", sa.String(64), primary_key=True),
        sa.Column("since", sa.Double, nullable=False),
    )
    op.create_table(
        "hpo_alert_progress",
        _of_study(),
        sa.Column("marker", sa.String(48), nullable=False),
        sa.Column("since", sa.Double, nullable=False),
    )
    _forget((*_NEW, *_OURS))


def _of_study() -> sa.Column[int]:
    return sa.Column(
        "study_id", sa.Integer, sa.ForeignKey("hpo_study.study_id", ondelete="CASCADE"), primary_key=True
    )


def _forget(tables: tuple[str, ...]) -> None:
    """Have SQLite delete from these what is deleted with a tool of Optuna's; PostgreSQL cascades."""
    if op.get_bind().dialect.name != "sqlite":
        return
    deletes = "; ".join(f"DELETE FROM {table} WHERE study_id = OLD.study_id" for table in tables)
    op.execute("DROP TRIGGER hpo_forget_study")
    op.execute(f"CREATE TRIGGER hpo_forget_study AFTER DELETE ON studies FOR EACH ROW BEGIN {deletes}; END")


def downgrade() -> None:
    _forget(_OURS)
    for table in ("hpo_alert_progress", "hpo_alert_target", "hpo_alert"):
        op.drop_table(table)
