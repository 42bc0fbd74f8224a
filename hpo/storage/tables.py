"""Our tables, beside Optuna's in the same database, and the one clock of all who write there.

Times are seconds since 1970: by the server's clock on PostgreSQL, by the kernel's on SQLite, so that
processes that believe in other times agree on leases. Whoever changes a table adds a revision in
``hpo/storage/migrations/versions``.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

metadata = sa.MetaData()

JSON = sa.JSON(none_as_null=True)
NO_FOLD = -1
"""Fold of a trial on the reference split. Not NULL, so that one index serves both kinds of study."""


class now_s(FunctionElement[float]):  # noqa: N801 - reads as SQL's now()
    """Seconds since 1970 by the database's clock at this moment (not at the transaction's start)."""

    type = sa.Double()
    inherit_cache = True


@compiles(now_s, "sqlite")
def _now_sqlite(element: now_s, compiler: SQLCompiler, **_: Any) -> str:
    return "hpo_now()"  # hpo.storage.clock: SQLite would ask each process for its own time


@compiles(now_s, "postgresql")
def _now_postgresql(element: now_s, compiler: SQLCompiler, **_: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


studies = sa.Table(
    "hpo_study",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),  # Optuna's
    sa.Column("name", sa.String(512), nullable=False, unique=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("spec", JSON, nullable=False),
    sa.Column("epochs", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("data", JSON, nullable=False),
    sa.Column("versions", JSON, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
slots = sa.Table(
    "hpo_slot",
    metadata,
    sa.Column(
        "study_id", sa.Integer, sa.ForeignKey("hpo_study.study_id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("config", JSON),
    sa.Column("fold", sa.Integer, nullable=False),
    sa.Column("trial_id", sa.Integer),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("faults", sa.Integer, nullable=False),
    sa.Column("worker_id", sa.String(128)),
    sa.Column("lease_until", sa.Double),
    sa.Column("lease_s", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("end", sa.String(16)),
    sa.Column("value", sa.Double),
    sa.Column("best_epoch", sa.Integer),
    sa.Column("epochs", sa.Integer),
    sa.Column("metrics", JSON),
    sa.Column("elapsed_s", sa.Double),
    sa.Column("device", sa.String(128)),
    sa.Column("checkpoint", sa.Text),
    sa.Index("hpo_slot_by_state", "study_id", "state", "slot"),
)
attempts = sa.Table(
    "hpo_attempt",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("worker_id", sa.String(128), nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("end", sa.String(16)),
    sa.Column("message", sa.Text),
    sa.Column("reached", sa.Integer),  # the trial's last epoch when the attempt ended
    sa.ForeignKeyConstraint(["study_id", "slot"], ["hpo_slot.study_id", "hpo_slot.slot"], ondelete="CASCADE"),
)
curve = sa.Table(
    "hpo_curve",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fold", sa.Integer, nullable=False),
    sa.Column("train_loss", sa.Double),
    sa.Column("validation_loss", sa.Double),
    sa.Column("best_so_far", sa.Double),
    sa.Column("metrics", JSON),
    sa.Column("elapsed_s", sa.Double),
    sa.ForeignKeyConstraint(["study_id", "slot"], ["hpo_slot.study_id", "hpo_slot.slot"], ondelete="CASCADE"),
    # The pruning query reads this index alone.
    sa.Index("hpo_curve_by_epoch", "study_id", "epoch", "fold", "best_so_far", "slot"),
    sqlite_with_rowid=False,
)
workers = sa.Table(
    "hpo_worker",
    metadata,
    sa.Column("worker_id", sa.String(128), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("device", sa.String(128), nullable=False),
    sa.Column("versions", JSON, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("last_seen", sa.Double, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
)
test_looks = sa.Table(
    "hpo_test_look",
    metadata,
    sa.Column("look_id", sa.Integer, primary_key=True),
    sa.Column(
        "study_id",
        sa.Integer,
        sa.ForeignKey("hpo_study.study_id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("choice_hash", sa.String(64), nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("worker_id", sa.String(128), nullable=False),
    sa.Column("what", JSON, nullable=False),
)
openings = sa.Table(
    "hpo_opening",  # of no study: a look is spent whatever is renamed, copied or deleted later
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("data_hash", sa.String(128), primary_key=True),
    sa.Column("choice_hash", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)
choices = sa.Table(
    "hpo_choice",
    metadata,
    sa.Column(
        "study_id", sa.Integer, sa.ForeignKey("hpo_study.study_id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("choice_hash", sa.String(64), primary_key=True),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("choice", JSON, nullable=False),
    sa.Column("frozen_at", sa.Double, nullable=False),
    sa.Column("scored_at", sa.Double),
    sa.Column("labels", sa.LargeBinary),
)
scores = sa.Table(
    "hpo_score",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("choice_hash", sa.String(64), primary_key=True),
    sa.Column("arm", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seed", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("metrics", JSON, nullable=False),
    sa.Column("predictions", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(
        ["study_id", "choice_hash"], ["hpo_choice.study_id", "hpo_choice.choice_hash"], ondelete="CASCADE"
    ),
)
alerts = sa.Table(
    "hpo_alert",  # an outbox: what somebody is to be told, written before it is sent and when it was
    metadata,
    sa.Column(
        "study_id", sa.Integer, sa.ForeignKey("hpo_study.study_id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("event", sa.String(64), primary_key=True),
    sa.Column("target", sa.String(64), primary_key=True),  # a hash: an address may hold a secret
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("slot", sa.Integer),
    sa.Column("happened_at", sa.Double, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("lease_until", sa.Double),
    sa.Column("sent_at", sa.Double),
    sa.Column("message", sa.Text),
)
alert_targets = sa.Table(
    "hpo_alert_target",
    metadata,
    sa.Column("target", sa.String(64), primary_key=True),
    sa.Column("since", sa.Double, nullable=False),
)
alert_progress = sa.Table(
    "hpo_alert_progress",  # when somebody who looked last saw a study get on
    metadata,
    sa.Column(
        "study_id", sa.Integer, sa.ForeignKey("hpo_study.study_id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("marker", sa.String(48), nullable=False),
    sa.Column("since", sa.Double, nullable=False),
)
