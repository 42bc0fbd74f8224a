"""The data sets on this machine, by the names a person knows: data set, task or study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from finetune.api import TASKS, DataStatus, UnknownNameError, data_status, get_data
from hpo.errors import UnknownStudyError
from hpo.study import load_spec


def data_sets(data_dir: Path, name: str | None = None) -> list[DataStatus]:
    """Return what is there of every data set, or of the one that ``name`` needs."""
    found = data_status(data_dir)
    if name is None:
        return found
    task = _task(name)
    mine = [one for one in found if task in (one.name, *one.tasks)]
    if not mine:
        raise UnknownNameError.of("data set, task or study", name, {one.name for one in found} | set(TASKS))
    return mine


def fetch(name: str, data_dir: Path, base_url: str | None, notify: Callable[[str], None]) -> list[DataStatus]:
    """Download the data set that ``name`` (a data set, task or study) needs; returns what is there then.

    Of a task that can be read from several forms (UCI) the first is fetched; the others by their own names.
    Raises what :func:`finetune.api.get_data` raises.
    """
    data_sets(data_dir, name)  # an unknown name is told with the studies among the nearest
    return [get_data(_task(name), data_dir, base_url=base_url, notify=notify)]


def _task(name: str) -> str:
    """Return the task of a study of that name; ``name`` itself when there is no such study."""
    try:
        return load_spec(name).task
    except UnknownStudyError:
        return name
