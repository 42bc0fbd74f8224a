"""A study as event files of TensorBoard: a folder a trial, with its curves and hyperparameters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hpo.records.study import StudyRecord, TrialRecord


def write_tensorboard(study: StudyRecord, out: Path) -> list[Path]:
    """Write ``out``/NAME with a folder a trial, anew; returns it. To look: ``tensorboard --logdir OUT``."""
    events = TensorboardEvents(study.name, out)
    shutil.rmtree(out / study.name, ignore_errors=True)
    for trial in study.trials:
        events.trial(trial)
    events.study(study)
    events.close()
    return [out / study.name]


class TensorboardEvents:
    """One study's folder; a trial may be written again and again while it runs."""

    def __init__(self, name: str, out: Path) -> None:
        import tensorboard  # noqa: F401 - fails here, before anything is written, where it is not installed

        self._folder = out / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[int, tuple[Any, int, int]] = {}
        """Trial -> its writer, attempt, and how many epochs are written."""

    def trial(self, trial: TrialRecord) -> None:
        """Write what is new of a trial: its epochs, and its results and hyperparameters once it has ended."""
        writer, attempt, written = self._open.get(trial.number, (None, 0, 0))
        if writer is None or attempt != trial.attempt:
            if writer is not None:
                writer.close()
            writer, written = self._anew(trial.number), 0  # of a command or an attempt before
        for epoch in trial.curve[written:]:
            _add(writer, [(epoch.epoch, _scalar(name, value)) for name, value in epoch.values.items()])
        self._open[trial.number] = (writer, trial.attempt, len(trial.curve))
        if trial.state == "running":
            writer.flush()
            return
        _add(writer, _result(trial))
        writer.close()
        del self._open[trial.number]

    def _anew(self, number: int) -> Any:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = self._folder / f"{number:05d}"
        shutil.rmtree(folder, ignore_errors=True)
        return EventFileWriter(str(folder))

    def study(self, study: StudyRecord) -> None:
        """Write what the study says now, in place of what it said."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        for file in self._folder.glob("events.out.*"):
            file.unlink()
        writer = EventFileWriter(str(self._folder))
        _add(writer, [(0, _text("answer", json.dumps(study.answer, indent=2)))])
        writer.close()

    def close(self) -> None:
        """Close what is open."""
        for writer, _, _ in self._open.values():
            writer.close()
        self._open.clear()


def _result(trial: TrialRecord) -> list[tuple[int, Any]]:
    """Return the hyperparameters and results of a trial as summaries, each with its step."""
    from tensorboard.plugins.hparams import summary_v2 as hparams

    given = {**trial.parameters, "state": trial.state, "origin": trial.origin}
    known = (0, hparams.hparams_pb(given, trial_id=str(trial.number), start_time_secs=0))
    return [known, *((0, _scalar(name, value)) for name, value in trial.results.items())]


def _scalar(name: str, value: float) -> Any:
    """Return a number in double precision: what is read back is what was written."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.scalar.metadata import create_summary_metadata

    tensor = TensorProto(dtype="DT_DOUBLE", double_val=[value], tensor_shape=TensorShapeProto())
    metadata = create_summary_metadata(display_name=name, description="")
    return Summary(value=[Summary.Value(tag=name, tensor=tensor, metadata=metadata)])


def _text(name: str, text: str) -> Any:
    """Return a text as its page shows it: Markdown, here a block of code."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.text.metadata import create_summary_metadata

    block = f"    {text}".replace("\n", "\n    ")
    tensor = TensorProto(dtype="DT_STRING", string_val=[block.encode()], tensor_shape=TensorShapeProto())
    metadata = create_summary_metadata(display_name=name, description="")
    return Summary(value=[Summary.Value(tag=name, tensor=tensor, metadata=metadata)])


def _add(writer: Any, summaries: list[tuple[int, Any]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    for step, summary in summaries:
        writer.add_event(Event(wall_time=0.0, step=step, summary=summary))
