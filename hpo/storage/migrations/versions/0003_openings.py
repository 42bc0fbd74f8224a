"""Looks at a test split, counted by spec and data: they outlive the studies that took them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    opening = op.create_table(
        "hpo_opening",
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("data_hash", sa.String(128), primary_key=True),
        sa.Column("choice_hash", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.bulk_insert(opening, _looks_so_far(op.get_bind()))


def _looks_so_far(connection: sa.Connection) -> list[dict[str, object]]:
    """Return the first look of every choice, numbered in their order within a spec and its data."""
    study = sa.table(
        "hpo_study", *(sa.column(name) for name in ("study_id", "fingerprint")), sa.column("data", sa.JSON)
    )
    look = sa.table(
        "hpo_test_look", *(sa.column(name) for name in ("look_id", "study_id", "choice_hash", "at"))
    )
    query = (
        sa.select(study.c.fingerprint, study.c.data, look.c.choice_hash, look.c.at)
        .join(study, study.c.study_id == look.c.study_id)
        .order_by(look.c.look_id)
    )
    found: dict[tuple[str, str], dict[str, float]] = {}
    for fingerprint, data, choice_hash, at in connection.execute(query):
        found.setdefault((fingerprint, str(data["data_hash"])), {}).setdefault(choice_hash, at)
    return [
        {"fingerprint": key[0], "data_hash": key[1], "choice_hash": choice, "number": number, "at": at}
        for key, looks in found.items()
        for number, (choice, at) in enumerate(looks.items(), start=1)
    ]


def downgrade() -> None:
    op.drop_table("hpo_opening")
