"""A study as event files of TensorBoard: a folder a trial, with its curves and hyperparameters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hpo.records.study import StudyRecord, TrialRecord


def write_tensorboard(study: StudyRecord, out: Path) -> list[Path]:
    """Write ``out``/NAME with a folder a trial, anew; returns it. To look: ``tensorboard --logdir OUT``."""
    folder = out / study.name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True)
    _write(folder, [(0, _text("answer", json.dumps(study.answer, indent=2)))])
    for trial in study.trials:
        _write(folder / f"{trial.number:05d}", _events(trial))
    return [folder]


def _events(trial: TrialRecord) -> list[tuple[int, Any]]:
    """Return the summaries of a trial, each with its step."""
    from tensorboard.plugins.hparams import summary_v2 as hparams

    given = {**trial.parameters, "state": trial.state, "origin": trial.origin}
    events: list[tuple[int, Any]] = [
        (0, hparams.hparams_pb(given, trial_id=str(trial.number), start_time_secs=0))
    ]
    events += [(0, _scalar(name, value)) for name, value in trial.results.items()]
    for epoch in trial.curve:
        events += [(epoch.epoch, _scalar(name, value)) for name, value in epoch.values.items()]
    return events


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


def _write(folder: Path, summaries: list[tuple[int, Any]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step, summary in summaries:
        writer.add_event(Event(wall_time=0.0, step=step, summary=summary))
    writer.close()
