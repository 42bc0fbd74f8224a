"""Confirmation: choices frozen before anything runs, and what they scored on the test split."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hpo_choice",
        sa.Column(
            "study_id", sa.Integer, sa.ForeignKey("hpo_study.study_id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("choice_hash", sa.String(64), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("choice", sa.JSON, nullable=False),
        sa.Column("frozen_at", sa.Double, nullable=False),
        sa.Column("scored_at", sa.Double),
        sa.Column("labels", sa.LargeBinary),
    )
    op.create_table(
        "hpo_score",
        sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("choice_hash", sa.String(64), primary_key=True),
        sa.Column("arm", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seed", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("predictions", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "choice_hash"],
            ["hpo_choice.study_id", "hpo_choice.choice_hash"],
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    for table in ("hpo_score", "hpo_choice"):
        op.drop_table(table)
