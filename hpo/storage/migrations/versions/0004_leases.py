"""How long a lease was given for; on SQLite, what is deleted with a tool of Optuna's is deleted here too."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Optuna's connections do not ask SQLite to follow foreign keys, so each table is named, children first.
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
    op.add_column("hpo_slot", sa.Column("lease_s", sa.Double))
    deletes = "; ".join(f"DELETE FROM {table} WHERE study_id = OLD.study_id" for table in _OURS)
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER hpo_forget_study AFTER DELETE ON studies FOR EACH ROW BEGIN {deletes}; END"
        )
    else:
        op.execute(
            "CREATE FUNCTION hpo_forget_study() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {deletes.split('; ')[-1]}; RETURN OLD; END $$"
        )
        op.execute(
            "CREATE TRIGGER hpo_forget_study AFTER DELETE ON studies "
            "FOR EACH ROW EXECUTE FUNCTION hpo_forget_study()"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER hpo_forget_study")
    else:
        op.execute("DROP TRIGGER hpo_forget_study ON studies")
        op.execute("DROP FUNCTION hpo_forget_study()")
    op.drop_column("hpo_slot", "lease_s")
