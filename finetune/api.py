"""The only doorway into finetune: what a search, a confirmation or a script may call.

The test split is not behind it: that is :mod:`finetune.test_split`, for a confirmation alone.

Light at import: torch is loaded inside the calls that train or score, so that names and types can be had
in milliseconds. The frozen values that pass are in :mod:`finetune.spec`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.backbones import BACKBONES, BackboneCard, check_backbone
from finetune.data.seal import sealed_test_split
from finetune.errors import (
    CheckpointError,
    CodeError,
    DataError,
    DeviceLostError,
    FinetuneError,
    MissingDataError,
    NoDeviceError,
    SettingError,
    UnknownNameError,
)
from finetune.own import Allowance, Filter, FilterKind, Modality, OwnData, OwnKind, OwnSplit
from finetune.spec import (
    BackboneSpec,
    Checked,
    CheckFault,
    DataStatus,
    DataSummary,
    EndReason,
    Factory,
    InputSpec,
    Mode,
    Normalisation,
    Precision,
    Predictions,
    Recipe,
    Report,
    Run,
    RunResult,
    RunSource,
    RunSpec,
    Schedule,
    SlotAdvice,
    Slots,
    TestScores,
)
from finetune.tasks import LOSSES, METRIC_RANGES, TASKS, Task, find_task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENGINE_VERSION = "3"
"""Another number where a change of the engine changes results: workers of one study must have the same."""

__all__ = [
    "Allowance",
    "BACKBONES",
    "BackboneCard",
    "BackboneSpec",
    "CheckFault",
    "Checked",
    "CheckpointError",
    "CodeError",
    "DataError",
    "DataStatus",
    "DeviceLostError",
    "DataSummary",
    "ENGINE_VERSION",
    "EndReason",
    "Factory",
    "Filter",
    "FilterKind",
    "FinetuneError",
    "InputSpec",
    "LOSSES",
    "METRIC_RANGES",
    "MissingDataError",
    "Modality",
    "Mode",
    "NoDeviceError",
    "Normalisation",
    "OwnData",
    "OwnKind",
    "OwnSplit",
    "Precision",
    "Predictions",
    "Recipe",
    "Report",
    "Run",
    "RunResult",
    "RunSource",
    "RunSpec",
    "Schedule",
    "SettingError",
    "SlotAdvice",
    "Slots",
    "TASKS",
    "Task",
    "TestScores",
    "UnknownNameError",
    "check_backbone",
    "check_code",
    "check_run",
    "data_status",
    "check_model",
    "describe_data",
    "evaluate_predictions",
    "export_model",
    "find_task",
    "get_data",
    "gpu_count",
    "recommend_slots",
    "predict_signal",
    "seal_backbone",
    "sealed_test_split",
    "settle_own_data",
    "train",
    "window_losses",
]


def train(
    source: RunSource,
    *,
    data_dir: Path,
    cache_dir: Path,
    device: str = "auto",
    slots: Slots = 1,
) -> None:
    """Take runs from ``source`` until it has none, ``slots`` of them at a time, on one device.

    ``device`` is ``cpu``, ``cuda``, ``cuda:N`` or ``auto``. On the CPU a run uses one thread: start one
    process a core. With several slots all members train as one model whose weights have a leading member
    axis; with ``graph`` the step of one is a CUDA graph; ``auto`` takes what pays on the device
    (docs/engine.md). What ``source`` raises passes through; so
    do faults of ours, and want of memory of a run alone (several are halved first). Raises
    :class:`DeviceLostError` when the device fails: this process should then end. Raises
    :class:`FinetuneError` for what the user can mend (data, weights, settings).
    """
    from finetune.engine.devices import guarded, open_device, reproducible
    from finetune.engine.features import input_loader
    from finetune.engine.population import run_all

    if isinstance(slots, int) and slots < 1:
        raise SettingError(f"slots {slots}", "a whole number of at least 1, graph or auto")
    chosen = open_device(device)
    with guarded(), reproducible():
        run_all(source, input_loader(data_dir, cache_dir, chosen), chosen, slots)


def gpu_count() -> int:
    """Return how many GPUs torch can use here; takes as long as loading torch does."""
    from finetune.engine.devices import gpu_count

    return gpu_count()


def recommend_slots(
    spec: RunSpec, *, runs: int, data_dir: Path, cache_dir: Path, device: str = "auto"
) -> SlotAdvice:
    """Return what ``slots="auto"`` takes for so many runs like ``spec``; on a GPU each way is timed."""
    from finetune.engine.arms import choose_slots, costs_here
    from finetune.engine.devices import open_device
    from finetune.engine.features import input_loader

    chosen = open_device(device)
    load = input_loader(data_dir, cache_dir, chosen)
    costs = costs_here(spec, load, chosen, runs)
    return SlotAdvice(choose_slots(spec, load, chosen, runs), dict(costs.items()))


def export_model(
    spec: RunSpec, checkpoint: Path, out: Path, *, card: str, data_dir: Path, cache_dir: Path
) -> list[Path]:
    """Write a finished run as a folder of its own (weights, config, preparation, card); return its files.

    ``card`` is the text of MODEL_CARD.md. Raises :class:`SettingError` when ``out`` cannot be written.
    """
    from finetune.export.folder import export

    return export(spec, checkpoint, card, out, data_dir, cache_dir)


def predict_signal(
    model: Path,
    file: Path,
    *,
    rate_hz: float | None,
    column: str | None = None,
    stride_s: float | None = None,
    device: str = "auto",
) -> Predictions:
    """Return what an exported model says of each window of the signal in ``file``.

    See :func:`finetune.signal_files.read_signal` for what a file may be. Raises :class:`DataError` for the
    file, :class:`CheckpointError` for the model folder, :class:`SettingError` for a signal too short.
    """
    import numpy as np

    from finetune.engine.devices import open_device
    from finetune.export.folder import load_exported
    from finetune.signal_files import read_signal

    exported = load_exported(model)
    names = [None] if exported.inputs.channels == 1 and column is None else exported.columns_of(column)
    parts = [read_signal(file, rate_hz, name) for name in names]
    signal = np.stack([part for part, _ in parts])
    return exported.predict(signal, parts[0][1], stride_s, open_device(device))


def evaluate_predictions(
    task: Task, predictions: NDArray[np.float64], labels: NDArray[np.float64]
) -> dict[str, float]:
    """Return all metrics of stored predictions (:class:`TestScores`), such as those of some subjects."""
    from finetune.metrics import evaluate_predictions

    return evaluate_predictions(task, predictions, labels)


def window_losses(
    task: Task, predictions: NDArray[np.float64], labels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the yardstick of each window (N,) of stored predictions (:class:`TestScores`)."""
    from finetune.metrics import window_losses

    return window_losses(task, predictions, labels)


def check_model(spec: RunSpec) -> None:
    """Build the encoder of a run once, with its weights, on the CPU.

    Raises :class:`SettingError` for a window that it cannot take, :class:`CheckpointError` for weights that
    are not there, cannot be read or do not fit.
    """
    from finetune.backbones import build_backbone

    task = find_task(spec.inputs.task, spec.inputs.own)
    build_backbone(spec.backbone, task, spec.inputs.samples, None, spec.seed)


def seal_backbone(spec: BackboneSpec) -> tuple[str, str]:
    """Return the hashes of the code and of the weights that ``spec`` names, as they are here now.

    Empty texts for what is shipped. No code runs. Raises :class:`CodeError` for code outside the
    folder that this process was started with, :class:`CheckpointError` for weights that are not there.
    """
    from finetune.backbones.code_folder import sealed

    return sealed(spec)


def check_run(spec: RunSpec, *, data_dir: Path, cache_dir: Path, device: str = "auto") -> Checked:
    """Return what a few training steps of ``spec`` show, in seconds; raises as :func:`train`."""
    from finetune.checking import check
    from finetune.engine.devices import open_device

    return check(spec, data_dir, cache_dir, open_device(device))


def check_code(spec: BackboneSpec) -> None:
    """Raise :class:`CodeError` unless this process may run the code of ``spec``; runs none itself."""
    from finetune.backbones.code_folder import check_backbone_code

    check_backbone_code(spec)


def settle_own_data(own: OwnData, data_dir: Path) -> OwnData:
    """Return a user's own signals with what only their files say: classes, rate and window length.

    Raises :class:`DataError` for files that cannot be read as the study says.
    """
    from finetune.datasets.own import settle

    return settle(own, data_dir)


def data_status(data_dir: Path) -> list[DataStatus]:
    """Return the state of every data set; looks at names and sizes only, and needs no network."""
    from finetune.data.download import data_status

    return data_status(data_dir)


def get_data(
    name: str, data_dir: Path, *, base_url: str | None = None, notify: Callable[[str], None] | None = None
) -> DataStatus:
    """Fetch what is missing of a data set (or of a task's) into ``data_dir`` and return what is there then.

    Raises :class:`DataError` for what its publisher (or ``base_url`` instead) does not send,
    :class:`SettingError` for a folder that cannot be written; the same call again goes on.
    """
    from finetune.data.download import get_data

    return get_data(name, data_dir, base_url=base_url, notify=notify)


def describe_data(inputs: InputSpec, *, data_dir: Path, cache_dir: Path) -> DataSummary:
    """Prepare the data of a task (or find them prepared) and say what a search must know of them.

    With ``inputs.folds``: of all folds together. Needs no torch.
    Raises :class:`MissingDataError` when the data set, or a part of it that was not allowed to be
    missing, is not in ``data_dir``.
    """
    from finetune.data.prepared import describe

    return describe(inputs, data_dir, cache_dir)
