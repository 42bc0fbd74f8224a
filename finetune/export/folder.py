"""A fine-tuned model as a folder of its own, and what it says of a new signal.

    weights.safetensors       backbone and head
    config.json               run, task, backbone architecture, input preparation, label scale
    code/                     of a user's own encoder: what hpo predict --code needs
    preparation.safetensors   mean and standard deviation of every position (normalisation "position" only)
    MODEL_CARD.md             in words, from whoever exports

Nothing else is needed: neither the data set nor the weights that fine-tuning began with.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from finetune import private
from finetune.backbones import build_backbone
from finetune.backbones.base import Backbone
from finetune.backbones.cmssl import CmsslArchitecture, CmsslEncoder
from finetune.backbones.code_folder import HUGGING_FACE, code_files, code_folder
from finetune.backbones.each_channel import EachChannel, for_channels
from finetune.data.cache import prepare_windows
from finetune.data.prepared import preparation
from finetune.engine.checkpoint import load_best
from finetune.engine.device_data import to_label_units
from finetune.engine.loop import predict
from finetune.engine.scoring import to_probabilities
from finetune.errors import CheckpointError, SettingError
from finetune.model import FineTunedModel, Head, build_model
from finetune.own import OwnData
from finetune.random import Purpose, torch_generator
from finetune.signals import CHUNK, Float32s, at_rate, cut_windows
from finetune.spec import BackboneSpec, Factory, InputSpec, Predictions, RunSpec
from finetune.tasks import Task, find_task

FORMAT = 1
WEIGHTS, CONFIG, STATISTICS, CARD = (
    "weights.safetensors",
    "config.json",
    "preparation.safetensors",
    "MODEL_CARD.md",
)
PADDED = ("physionet2017",)
"""Tasks whose short recordings were followed by zeros up to the window."""


def export(
    spec: RunSpec, checkpoint: Path, card: str, out: Path, data_dir: Path, cache_dir: Path
) -> list[Path]:
    """Write the model folder ``out`` of a finished run and return its files: whole, or not at all.

    Raises :class:`SettingError` when ``out`` holds something else or cannot be written, and
    :class:`CheckpointError` when the weights do not fit the run.
    """
    if out.exists() and (not out.is_dir() or {file.name for file in out.iterdir()} - _NAMES):
        raise SettingError(f"{out} holds other files", "a folder of its own for the model", "use --out DIR")
    task = find_task(spec.inputs.task, spec.inputs.own)
    model = build_model(spec, task)
    load_best(checkpoint, model)
    prepared = preparation(spec.inputs, data_dir, cache_dir, fold=spec.fold)
    config = {
        "format": FORMAT,
        "task": asdict(task),
        "run": asdict(spec),
        "architecture": _architecture(model.backbone),
        "window_samples": prepared.samples,
        "rate_hz": prepared.samples / task.window_s,
        "label_scale": _label_scale(prepared.label_mean, prepared.label_std),
    }
    writers: dict[str, Callable[[Path], object]] = {
        WEIGHTS: lambda file: shutil.copyfile(checkpoint, file),
        CONFIG: lambda file: file.write_text(json.dumps(config, indent=2) + "\n"),
        CARD: lambda file: file.write_text(card, encoding="utf-8"),
    }
    writers |= _code_writers(spec.backbone.factory)
    if prepared.statistics is not None:
        statistics = {"mean": prepared.statistics[0], "std": prepared.statistics[1]}
        writers[STATISTICS] = lambda file: save_file(statistics, file)
    return _write(out, writers)


CODE = "code"
_NAMES = {WEIGHTS, CONFIG, STATISTICS, CARD, CODE}


def _code_writers(factory: Factory | None) -> dict[str, Callable[[Path], object]]:
    """Return how the code of a user's own encoder is copied: name in the model folder -> a call."""
    folder = code_folder()
    if factory is None or factory.entry == HUGGING_FACE or folder is None:
        return {}
    files = {path for entry in factory.entries for path in code_files(entry, folder)}

    def copy(source: Path) -> Callable[[Path], object]:
        return lambda file: shutil.copyfile(source, file)

    return {f"{CODE}/{path.relative_to(folder).as_posix()}": copy(path) for path in sorted(files)}


def _write(out: Path, writers: dict[str, Callable[[Path], object]]) -> list[Path]:
    """Write all files beside ``out`` and rename the folder into place, for its owner alone to read."""
    try:
        private.make_folder(out.parent)
        made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        try:
            for name, write in writers.items():
                private.make_folder((made / name).parent)
                write(private.make_file(made / name))
            shutil.rmtree(out, ignore_errors=True)
            made.rename(out)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        what = f"cannot write the model folder {out} ({error.strerror or error})"
        raise SettingError(what, "a folder that can be written", "use --out DIR") from error
    return [out / name for name in writers]


def _architecture(backbone: object) -> dict[str, Any] | None:
    """Return what a CM-SSL encoder is built from; other families have one architecture each."""
    backbone = backbone.encoder if isinstance(backbone, EachChannel) else backbone
    architecture = getattr(backbone, "architecture", None)
    return asdict(architecture) if isinstance(architecture, CmsslArchitecture) else None


def _label_scale(mean: NDArray[np.float64] | None, std: NDArray[np.float64] | None) -> dict[str, Any] | None:
    return None if mean is None or std is None else {"mean": mean.tolist(), "std": std.tolist()}


@dataclass(frozen=True)
class ExportedModel:
    """A model folder, loaded."""

    model: FineTunedModel
    task: Task
    inputs: InputSpec
    window_samples: int
    rate_hz: float
    """That the model's windows have."""
    statistics: Float32s | None
    label_mean: NDArray[np.float64] | None
    label_std: NDArray[np.float64] | None

    def columns_of(self, told: str | None) -> list[str]:
        """Return the columns or leads of the channels: those ``told`` with commas, or those of training."""
        own = self.inputs.own.signal if self.inputs.own is not None else self.inputs.leads
        names = list(own) if told is None else [name.strip() for name in told.split(",")]
        if len(names) != self.inputs.channels:
            raise SettingError(
                f"{len(names)} channels are named",
                f"{self.inputs.channels}, as in training",
                "type: --column A,B",
            )
        return names

    def predict(
        self, signal: Float32s, rate_hz: float, stride_s: float | None, device: torch.device
    ) -> Predictions:
        """Return what the model says of every window of a signal (C, samples).

        ``stride_s`` None: 2 s for PPG, the window's length for ECG. Raises :class:`SettingError` for a
        signal that is shorter than a window, where training windows were never padded.
        """
        stride = round((stride_s or self._usual_stride_s) * self.rate_hz)
        if stride < 1:
            raise SettingError(f"stride {stride_s} s", f"at least {1 / self.rate_hz:g} s")
        fitted = self._fitted(resample(self._filtered(signal, rate_hz), rate_hz, self.rate_hz))
        windows = np.stack([cut_windows(one, self.window_samples, stride) for one in fitted], axis=1)
        windows = windows[:, 0] if windows.shape[1] == 1 else windows
        model = self.model.to(device)
        parts = [
            self._values(model, windows[start : start + CHUNK], device)
            for start in range(0, len(windows), CHUNK)
        ]
        starts = [place * stride / self.rate_hz for place in range(len(windows))]
        return Predictions(
            self.task.name, columns(self.task), self.task.window_s, starts, np.concatenate(parts).tolist()
        )

    @property
    def _usual_stride_s(self) -> float:
        return 2.0 if self.task.signal == "ppg" else self.task.window_s

    def _filtered(self, signal: Float32s, rate_hz: float) -> Float32s:
        """Return the signal as the training recordings were filtered."""
        if self.inputs.own is None or not self.inputs.own.filters:
            return signal
        from finetune.datasets.own.cutting import filtered

        return filtered(signal, rate_hz, self.inputs.own.filters)

    def _fitted(self, signal: Float32s) -> Float32s:
        """Return the signal, padded with zeros where the training recordings were."""
        short = self.window_samples - signal.shape[1]
        if short > 0 and self.task.name in PADDED:
            return np.pad(signal, ((0, 0), (0, short)))
        if short > 0:
            raise SettingError(
                f"the signal has {signal.shape[1] / self.rate_hz:g} s", f"at least {self.task.window_s:g} s"
            )
        return signal

    def _values(self, model: FineTunedModel, windows: Float32s, device: torch.device) -> NDArray[np.float32]:
        """Return the outputs (N, outputs) of raw windows; NaN for one with missing samples."""
        whole = np.isfinite(windows).all(axis=tuple(range(1, windows.ndim)))
        values = np.full((len(windows), self.task.outputs), np.nan, np.float32)
        if whole.any():
            x = prepare_windows(windows[whole], self.inputs, self.statistics)
            outputs = predict(model, torch.from_numpy(x).to(device))
            outputs = to_label_units(outputs, self.label_mean, self.label_std)
            values[whole] = to_probabilities(self.task.kind, outputs)
        return values


def columns(task: Task) -> tuple[str, ...]:
    """Return the names of a task's outputs: the unit for regression, the classes otherwise."""
    if task.kind == "regression":
        return (f"{task.name} ({task.unit})",)
    return task.classes or tuple(f"class {place}" for place in range(task.outputs))


def resample(signal: Float32s, rate_hz: float, wanted_hz: float) -> Float32s:
    """Return a signal (..., samples) at another rate (polyphase filter); itself when the rates agree."""
    if rate_hz <= 0:
        raise SettingError(f"rate {rate_hz} Hz", "a rate above 0")
    return at_rate(signal, rate_hz, wanted_hz)


def load_exported(folder: Path) -> ExportedModel:
    """Return the model that :func:`export` wrote; raises :class:`CheckpointError` for anything else."""
    config = _config(folder)
    inputs, run = _inputs(config["run"]["inputs"]), config["run"]
    task = find_task(config["task"]["name"], inputs.own)
    backbone = _empty_backbone(_backbone_spec(run["backbone"]), config["architecture"], task, inputs)
    head = Head(backbone.embedding, task.outputs, torch_generator(0, Purpose.HEAD))
    model = FineTunedModel(backbone, head)
    try:
        load_best(folder / WEIGHTS, model)
        arrays = load_file(folder / STATISTICS) if inputs.normalisation == "position" else {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be read ({error})", "a model folder of hpo export") from error
    scale = config["label_scale"] or {"mean": None, "std": None}
    mean, std = (None if scale[key] is None else np.array(scale[key]) for key in ("mean", "std"))
    statistics = np.stack([arrays["mean"], arrays["std"]]) if arrays else None
    return ExportedModel(
        model, task, inputs, config["window_samples"], config["rate_hz"], statistics, mean, std
    )


def _inputs(stored: dict[str, Any]) -> InputSpec:
    own = stored.get("own")
    leads = tuple(stored.get("leads", ()))
    return InputSpec(**{**stored, "own": None if own is None else OwnData.of_json(own), "leads": leads})


def _backbone_spec(stored: dict[str, Any]) -> BackboneSpec:
    factory = stored.get("factory")
    return BackboneSpec(**{**stored, "factory": None if factory is None else Factory(**factory)})


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} cannot be read ({error})", "a model folder that hpo export has written"
        ) from error
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{folder} has format {config.get('format')}", f"format {FORMAT}")
    return config


def _empty_backbone(
    spec: BackboneSpec, architecture: dict[str, Any] | None, task: Task, inputs: InputSpec
) -> Backbone:
    """Return the backbone without its pretrained weights, which the model's own will fill."""
    if architecture is not None:
        return for_channels(CmsslEncoder(CmsslArchitecture(**architecture)), 1, inputs.channels)
    factory = None if spec.factory is None else replace(spec.factory, weights_hash="")
    empty = BackboneSpec(spec.name, "none", factory)
    return build_backbone(empty, task, samples=inputs.samples, dropout=None, seed=0, channels=inputs.channels)
