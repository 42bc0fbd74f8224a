"""Which formats there are, and what each needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hpo.errors import Said, UsageError
from hpo.reading.findings import Findings
from hpo.records.mlflow_store import write_mlflow
from hpo.records.study import StudyRecord, record_of
from hpo.records.tables import write_tables
from hpo.records.tensorboard_events import write_tensorboard
from hpo.records.wandb_offline import write_wandb

WRITERS: Mapping[str, Callable[[StudyRecord, Path], list[Path]]] = {
    "csv": write_tables,
    "mlflow": write_mlflow,
    "tensorboard": write_tensorboard,
    "wandb": write_wandb,
}
"""Name of a format -> what writes it into a folder and returns the files and folders of it."""


def check_format(to: str) -> None:
    """Raise :class:`UsageError` for a format that is not known."""
    if to not in WRITERS:
        raise UsageError(Said("no format {to!r}", to=to), ", ".join(["model", *WRITERS]), "use --to csv")


def export_records(findings: Findings, url: str, to: str, out: Path) -> list[Path]:
    """Write a study in a format, for its owner alone to read.

    Raises :class:`UsageError` for a format that is not known or not installed.
    """
    check_format(to)
    try:
        return WRITERS[to](record_of(findings, url), out)
    except ModuleNotFoundError as error:
        if to == "csv" or (error.name or "").partition(".")[0] != to:
            raise
        next_step = Said("type: pip install 'hpo[{to}]'", to=to)
        raise UsageError(
            Said("--to {to} needs the package {to}", to=to), "it installed", next_step
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            Said("cannot write to {out!r} ({reason})", out=str(out), reason=reason),
            "a folder to write to",
            "use --out",
        ) from error
