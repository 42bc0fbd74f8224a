"""The frozen values that pass the doorway: what to run (down), what came of it (up). Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from finetune.own import OwnData

Mode = Literal["full_finetuning", "linear_probing", "linear_probing_cached"]
"""``linear_probing`` freezes the backbone but leaves its dropout on, as the reference does;
``linear_probing_cached`` computes the frozen features once with dropout off: another protocol."""
Normalisation = Literal["position", "window"]
"""``position``: per-position mean and std over the training windows (the reference, CM-SSL);
``window``: each window by its own mean and std."""
Precision = Literal["fp32", "tf32", "bf16"]
"""Of training; validation is always fp32. ``tf32``: matrix products on the tensor cores of a GPU that has
them (Ampere or later), elsewhere as fp32; ``bf16``: autocast."""
Schedule = Literal["constant", "cosine", "one_cycle"]
"""How the rates move over the epochs of a recipe; see :mod:`finetune.engine.recipe`."""
Slots = int | Literal["auto", "graph"]
"""Runs at a time on a device; ``graph``: one, its step a CUDA graph; ``auto``: what pays there."""
EndReason = Literal["finished", "patience", "pruned", "diverged"]
"""Why a run ended by itself: all epochs done, no better epoch for ``patience`` epochs, told to stop
by the source, or a loss that is not finite."""


@dataclass(frozen=True)
class InputSpec:
    """Which windows a run sees and how they are prepared."""

    task: str
    normalisation: Normalisation = "window"
    samples: int = 1250
    """Samples per window after linear interpolation (T)."""
    train_subjects: int | None = None
    """Only the first so many training subjects of the split; None means all."""
    every: int = 1
    """Only every n-th training and validation window of each subject, from its first; 1 means all. Test
    windows are never left out."""
    folds: int | None = None
    """None: the reference split. k: grouped folds over all non-test subjects; a run validates on fold
    ``seed % k`` and trains on the others. Test subjects are the reference split's in both cases."""
    allow_partial: bool = False
    """Accept a data set of which only some records are there."""
    own: OwnData | None = None
    """Signals of a user's own; ``task`` is then their name."""
    leads: tuple[str, ...] = ()
    """Of a data set with several, by name; empty: the reference's one."""

    @property
    def channels(self) -> int:
        """Channels C of a window; 1 means windows (N, T)."""
        return self.own.channels if self.own is not None else max(1, len(self.leads))


@dataclass(frozen=True)
class Factory:
    """A function of the user's that builds an encoder; see :mod:`finetune.backbones.foreign`."""

    entry: str
    """``file.py:function`` in the folder of code, or ``huggingface:AutoModel``."""
    code_hash: str = ""
    """Of all files of the folder that it needs."""
    weights_hash: str = ""
    options: str = "{}"
    """Its keyword arguments, as JSON with sorted keys."""
    channels: int | None = None
    """That the encoder takes; 1 with windows of several: each passes alone. None: those of the windows."""
    rate_hz: float | None = None
    """That it was made for; None: that of the prepared windows."""
    seconds: float | None = None
    """How much of a window it sees, from its beginning; None: all."""
    prepare: str | None = None
    """``file.py:function`` on windows (B, C, T), before the encoder."""
    groups: str | None = None
    """``file.py:function``: encoder -> its layers, ordered from the input."""

    @property
    def entries(self) -> list[str]:
        """All that it names in the folder of code."""
        return [entry for entry in (self.entry, self.prepare, self.groups) if entry is not None]


@dataclass(frozen=True)
class BackboneSpec:
    """Which encoder, and where its weights come from."""

    name: str
    weights: str = "builtin"
    """``builtin`` (shipped in the package), ``none`` (random initialisation), or a path."""
    factory: Factory | None = None
    """An encoder that is none of ours; ``name`` is then what outputs call it."""
    sha256: str = ""
    """Of the file of weights of one of ours; empty: any will do."""


@dataclass(frozen=True)
class Recipe:
    """What stays fixed in a study."""

    epochs: int = 20
    batch_size: int = 64
    patience: int = 5
    """Epochs without a better validation loss before a run ends."""
    weight_decay: float = 1e-4
    dropout: float | None = None
    """None: the backbone's own."""
    max_grad_norm: float | None = None
    precision: Precision = "fp32"
    schedule: Schedule = "constant"
    warmup_epochs: float = 0.0
    """Epochs, or a part of one, over which the rates rise from nothing."""
    head_epochs: int = 0
    """Epochs in which the head trains alone, before the backbone joins (LP-FT)."""
    unfreeze_epochs: int = 0
    """Every so many epochs another layer of the backbone joins, from the head down; 0: all at once."""
    layer_decay: float = 1.0
    """Rate of a layer over that of the next one towards the head."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes; not for regression."""
    accumulate: int = 1
    """Parts of a batch that pass one after another; the step is that of the whole batch."""
    checkpoint_activations: bool = False
    """Compute a layer's activations again in the backward pass instead of keeping them."""


@dataclass(frozen=True)
class RunSpec:
    """One fine-tuning: everything that can change its numbers, and nothing else."""

    inputs: InputSpec
    backbone: BackboneSpec
    mode: Mode
    recipe: Recipe
    lr: float
    backbone_lr: float
    loss: str
    seed: int

    @property
    def fold(self) -> int | None:
        """The validation fold of this run; None on the reference split."""
        return None if self.inputs.folds is None else self.seed % self.inputs.folds


@dataclass(frozen=True)
class Run:
    """A :class:`RunSpec` under way, with the name that its source knows it by."""

    run_id: str
    spec: RunSpec
    checkpoint: Path | None = None
    """Folder of this run's checkpoints: ``last.pt`` of an epoch, now and then (a run whose folder has
    one goes on from it, with the numbers of an uninterrupted run) and ``best.safetensors``. None: none."""
    on_kept: Callable[[Path], None] | None = None
    """Called with each of those files as soon as it is whole, ``best.safetensors`` before the ``last.pt``
    that needs it; mostly by a thread of the engine's."""
    others: Callable[[], int] | None = None
    """How many more runs its source may have now: no more slots are worth a try. None: nobody knows."""


@dataclass(frozen=True)
class SlotAdvice:
    """What ``slots="auto"`` takes, and why."""

    slots: Slots
    seconds: Mapping[Slots, float]
    """A run and epoch, with validation and checkpoint, each way as measured here; none on a CPU."""


@dataclass(frozen=True)
class Report:
    """One member at the end of one epoch."""

    run_id: str
    epoch: int
    """From 1."""
    train_loss: float
    """Mean of the run's own training criterion over the epoch (not comparable between losses)."""
    validation_loss: float
    """The task's yardstick on the validation split: MAE in label units, cross-entropy, or BCE."""
    metrics: Mapping[str, float]
    """All validation metrics of the task, in label units."""
    elapsed_s: float
    """Seconds since this run began (in this attempt)."""
    is_finite: bool


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    run_id: str
    reason: EndReason
    epochs: int
    best_epoch: int
    """From 1; 0 when no epoch was finite."""
    best_validation_loss: float
    """``inf`` when no epoch was finite."""
    best_metrics: Mapping[str, float]
    elapsed_s: float
    device: str
    checkpoint: Path | None
    """Weights of the best epoch, when the run had a folder for them."""


class RunSource(Protocol):
    """Where runs come from and where their numbers go; :mod:`hpo.worker` implements it."""

    def next_run(self) -> Run | None:
        """Return the next run, or None when there is none to be had."""
        ...

    def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        """Take one epoch's reports of all members; return, in the same order, which of them go on."""
        ...

    def finish(self, result: RunResult) -> None:
        """Take the end of one run."""
        ...


@dataclass(frozen=True)
class DataSummary:
    """What a search must know of a task's data before its first trial. No test labels in it."""

    task: str
    data_hash: str
    """Of the content of the files and of the preparation."""
    windows: Mapping[str, int]
    """Windows per split (train, validation, test)."""
    subjects: Mapping[str, tuple[str, ...]]
    """Independent units (subjects, patients or records) per split, in the split's order."""
    trivial: Mapping[str, float]
    """Validation metrics of the trivial predictor; key ``validation_loss`` is the yardstick's (training
    median for MAE, class prior for cross-entropy and BCE)."""
    trivial_name: str
    """In words, such as ``constant 18 breaths/min (training median)``."""
    partial: str = ""
    """Empty, or ``n of N records``: every output must then say so."""
    notes: tuple[str, ...] = ()
    """What was dropped and why (subjects without a valid window, broken records)."""
    trivial_constant: tuple[float, ...] = ()
    """What the trivial predictor of a regression always says, in label units (with folds: in the first)."""


CheckFault = Literal[
    "not_repeatable",
    "batch_mates_matter",
    "constant_features",
    "no_gradient_head",
    "no_gradient_backbone",
    "part_without_gradient",
    "not_finite",
    "loss_not_lowered",
    "state_not_kept",
]
"""What a look at an encoder may find; see :mod:`finetune.checking`."""


@dataclass(frozen=True)
class Checked:
    """What the first steps of a run show."""

    windows: tuple[int, ...]
    """(N, T) or (N, C, T) of the training windows."""
    embedding: int
    backbone_parameters: int
    head_parameters: int
    trained_parameters: int
    steps: int
    """Taken on a few windows: until the loss is lower, ten at most."""
    loss_before: float
    """Training loss of a few windows, without dropout."""
    loss_after: float
    """The same after the steps on them."""
    epoch_s: float
    memory_mib: float
    faults: tuple[CheckFault, ...]


@dataclass(frozen=True)
class TestScores:
    """Predictions of one checkpoint on the test split, in label units."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    task: str
    predictions: Sequence[Sequence[float]] = field(repr=False)
    """(N, outputs): label units (regression), probabilities (classes, multi-label)."""
    labels: Sequence[Sequence[float]] = field(repr=False)
    """(N, outputs) for regression and multi-label; (N, 1) class index for classes."""
    groups: Sequence[str] = field(repr=False)
    """(N,) independent unit of each window."""
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Predictions:
    """What an exported model says of one signal, window by window."""

    task: str
    columns: tuple[str, ...]
    """Names of the outputs, with the unit for regression."""
    window_s: float
    start_s: Sequence[float] = field(repr=False)
    """(N,) where each window begins in the signal."""
    values: Sequence[Sequence[float]] = field(repr=False)
    """(N, outputs): label units (regression) or probabilities; NaN for a window with missing samples."""


@dataclass(frozen=True)
class DataStatus:
    """What is in the data folder of one data set."""

    name: str
    tasks: tuple[str, ...]
    state: Literal["complete", "partial", "missing"]
    found: int
    """Records (subjects, recordings or files, as the publisher counts) of which all files are there."""
    expected: int
    bytes: int
    licence: str
    citation: str
    lacks: tuple[str, ...] = ()
    """Tables, such as labels, that are not there and without which no record can be used."""
    whole_bytes: int | None = None
    """What the publisher serves of the complete set; None where it does not say."""
