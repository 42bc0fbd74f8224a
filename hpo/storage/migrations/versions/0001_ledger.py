"""The ledger: studies, slots, attempts, curves, workers, looks at the test split."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hpo_study",
        sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(512), nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("epochs", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("versions", sa.JSON, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "hpo_slot",
        sa.Column(
            "study_id", sa.Integer, sa.ForeignKey("hpo_study.study_id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("config", sa.JSON),
        sa.Column("fold", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("faults", sa.Integer, nullable=False),
        sa.Column("worker_id", sa.String(128)),
        sa.Column("lease_until", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("end", sa.String(16)),
        sa.Column("value", sa.Double),
        sa.Column("best_epoch", sa.Integer),
        sa.Column("epochs", sa.Integer),
        sa.Column("metrics", sa.JSON),
        sa.Column("elapsed_s", sa.Double),
        sa.Column("device", sa.String(128)),
        sa.Column("checkpoint", sa.Text),
    )
    op.create_index("hpo_slot_by_state", "hpo_slot", ["study_id", "state", "slot"])
    op.create_table(
        "hpo_attempt",
        sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("worker_id", sa.String(128), nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("end", sa.String(16)),
        sa.Column("message", sa.Text),
        sa.ForeignKeyConstraint(
            ["study_id", "slot"], ["hpo_slot.study_id", "hpo_slot.slot"], ondelete="CASCADE"
        ),
    )
    op.create_table(
        "hpo_curve",
        sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("fold", sa.Integer, nullable=False),
        sa.Column("train_loss", sa.Double),
        sa.Column("validation_loss", sa.Double),
        sa.Column("best_so_far", sa.Double),
        sa.Column("metrics", sa.JSON),
        sa.Column("elapsed_s", sa.Double),
        sa.ForeignKeyConstraint(
            ["study_id", "slot"], ["hpo_slot.study_id", "hpo_slot.slot"], ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("hpo_curve_by_epoch", "hpo_curve", ["study_id", "epoch", "fold", "best_so_far", "slot"])
    op.create_table(
        "hpo_worker",
        sa.Column("worker_id", sa.String(128), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("device", sa.String(128), nullable=False),
        sa.Column("versions", sa.JSON, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("last_seen", sa.Double, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
    )
    op.create_table(
        "hpo_test_look",
        sa.Column("look_id", sa.Integer, primary_key=True),
        sa.Column(
            "study_id", sa.Integer, sa.ForeignKey("hpo_study.study_id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("choice_hash", sa.String(64), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("worker_id", sa.String(128), nullable=False),
        sa.Column("what", sa.JSON, nullable=False),
    )
    op.create_index("ix_hpo_test_look_study_id", "hpo_test_look", ["study_id"])


def downgrade() -> None:
    for table in ("hpo_test_look", "hpo_worker", "hpo_curve", "hpo_attempt", "hpo_slot", "hpo_study"):
        op.drop_table(table)
