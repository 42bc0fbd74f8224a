"""The registry of backbones: what each one is, and how to build it. Free of torch until one is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, assert_never

from finetune.errors import SettingError, UnknownNameError
from finetune.spec import BackboneSpec
from finetune.tasks import Task

if TYPE_CHECKING:
    from finetune.backbones.base import Backbone


@dataclass(frozen=True)
class BackboneCard:
    """What a user must know of a backbone before choosing it."""

    name: str
    family: Literal["cmssl", "heartgpt", "own"]
    signal: Literal["ppg", "ecg", "any"]
    """What it may be fine-tuned on."""
    rate_hz: float
    """Sampling rate that it was pretrained at. ``cmssl`` takes the prepared window as it is (the
    reference stretches every task to 1250 samples), ``heartgpt`` resamples to this rate itself."""
    window_samples: int
    """Samples at that rate that it sees of a window."""
    embedding: int | None
    """Width E of its features; None: the checkpoint says."""
    parameters: int | None
    """Without any head; None: the checkpoint says."""
    dropout: float | None
    """Of its own, unless the recipe sets another; None: the checkpoint says."""
    licence: str
    pretrained_on: tuple[str, ...]
    leakage: str
    """Which tasks' data the pretraining has seen, or may have."""
    weights: tuple[Literal["builtin", "none", "path"], ...]
    """Values of :attr:`finetune.spec.BackboneSpec.weights` that it accepts, the usual one first."""
    source: str
    """Where weights and architecture come from; for ``path``, where to get a file."""


_CMSSL_SOURCE = "github.com/ximosss/CM-SSL"
_HEARTGPT_SOURCE = "github.com/harryjdavies/HeartGPT (MIT), Model_files"

BACKBONES: dict[str, BackboneCard] = {
    card.name: card
    for card in (
        BackboneCard(
            name="cmssl",
            family="cmssl",
            signal="any",
            rate_hz=125.0,
            window_samples=1250,
            embedding=None,
            parameters=None,
            dropout=None,
            licence="that of the checkpoint (the repository states none)",
            pretrained_on=("synchronous ECG and PPG of MIMIC (named by the repository's configuration)",),
            leakage="bidmc_hr, bidmc_rr, uci_sbp, uci_dbp: drawn from MIMIC-II, their subjects may be in it",
            weights=("path",),
            source=_CMSSL_SOURCE,
        ),
        BackboneCard(
            name="cmssl_tiny_ppg",
            family="cmssl",
            signal="ppg",
            rate_hz=125.0,
            window_samples=1250,
            embedding=64,
            parameters=208_000,
            dropout=0.1,
            licence="Apache-2.0; pretraining data: see its model card",
            pretrained_on=("BIDMC, the 42 training subjects of the reference split",),
            leakage="bidmc_hr and bidmc_rr: training subjects only, no labels",
            weights=("builtin", "none", "path"),
            source="python -m finetune pretrain",
        ),
        BackboneCard(
            name="cmssl_tiny_ecg",
            family="cmssl",
            signal="ecg",
            rate_hz=125.0,
            window_samples=1250,
            embedding=64,
            parameters=208_000,
            dropout=0.1,
            licence="Apache-2.0; pretraining data: see its model card",
            pretrained_on=(
                "PhysioNet 2017, training records",
                "PTB-XL, folds 1 to 8 at hand, lead II",
                "BIDMC, lead II of the 42 training subjects",
            ),
            leakage="physionet2017 and ptb-xl: training records only, no labels",
            weights=("builtin", "none", "path"),
            source="python -m finetune pretrain",
        ),
        BackboneCard(
            name="heartgpt_ppg",
            family="heartgpt",
            signal="ppg",
            rate_hz=50.0,
            window_samples=500,
            embedding=64,
            parameters=436_992,
            dropout=0.2,
            licence="MIT",
            pretrained_on=("the PPG data sets named in arXiv:2407.20775",),
            leakage="bidmc_hr, bidmc_rr, uci_sbp, uci_dbp: it may have seen their signals, no labels",
            weights=("path", "none"),
            source=_HEARTGPT_SOURCE,
        ),
        BackboneCard(
            name="heartgpt_ecg",
            family="heartgpt",
            signal="ecg",
            rate_hz=100.0,
            window_samples=500,
            embedding=64,
            parameters=436_928,
            dropout=0.2,
            licence="MIT",
            pretrained_on=("CPSC 2018 and its extra set", "Georgia", "PTB-XL"),
            leakage="ptb-xl: the pretraining has seen its signals (all folds), no labels",
            weights=("path", "none"),
            source=_HEARTGPT_SOURCE,
        ),
    )
}


def find_backbone(name: str) -> BackboneCard:
    """Return the card of that name; raises :class:`UnknownNameError` with the nearest names."""
    if name not in BACKBONES:
        raise UnknownNameError.of("backbone", name, BACKBONES)
    return BACKBONES[name]


def own_card(spec: BackboneSpec) -> BackboneCard:
    """Return what is known of an encoder of a user's own."""
    return BackboneCard(
        name=spec.name,
        family="own",
        signal="any",
        rate_hz=spec.factory.rate_hz or 0.0 if spec.factory else 0.0,
        window_samples=0,
        embedding=None,
        parameters=None,
        dropout=None,
        licence="not known here",
        pretrained_on=("not known here",),
        leakage="not known here: whoever exports must know what its pretraining has seen",
        weights=("none", "path"),
        source="the user's own code",
    )


def check_backbone(spec: BackboneSpec, task: Task) -> BackboneCard:
    """Return the card of ``spec`` if it fits ``task``; reads no file and needs no torch.

    Raises :class:`UnknownNameError` for the name, :class:`SettingError` for a signal or weights that do
    not go with it.
    """
    if spec.factory is not None:
        return own_card(spec)
    card = find_backbone(spec.name)
    if task.signal != "any" and card.signal not in ("any", task.signal):
        raise SettingError(
            f"backbone {card.name!r} is for {card.signal} signals, task {task.name!r} has {task.signal}",
            f"one of {', '.join(c.name for c in BACKBONES.values() if c.signal in ('any', task.signal))}",
        )
    kind = spec.weights if spec.weights in ("builtin", "none") else "path"
    if kind not in card.weights:
        accepted = " or ".join("the path of a file" if w == "path" else w for w in card.weights)
        raise SettingError(
            f"weights {spec.weights!r} for backbone {card.name!r}", accepted, f"files: {card.source}"
        )
    return card


def build_backbone(
    spec: BackboneSpec, task: Task, samples: int, dropout: float | None, seed: int, channels: int = 1
) -> Backbone:
    """Return the backbone with its weights, on the CPU, for windows of ``samples`` samples.

    One that takes one channel sees each of ``channels`` alone, and its features stand side by side.

    ``dropout=None`` keeps its own. Random initialisation (``weights="none"``) is a function of ``seed``.
    Raises what :func:`check_backbone` does, :class:`SettingError` for a window that it cannot take, and
    :class:`finetune.errors.CheckpointError` when the weights are not there or do not fit.
    """
    card = check_backbone(spec, task)
    if dropout is not None and not 0 <= dropout < 1:
        raise SettingError(f"dropout {dropout}", "0 <= dropout < 1")
    if spec.sha256:
        from finetune.backbones.code_folder import check_same
        from finetune.backbones.strict import check_exists, expanded

        check_exists(expanded(spec.weights))
        check_same(expanded(spec.weights), spec.sha256)
    built = _build(spec, card, task, samples, dropout, seed, channels)
    takes = (spec.factory.channels or channels) if spec.factory is not None else 1
    from finetune.backbones.each_channel import for_channels

    return for_channels(built, takes, channels)


def _build(
    spec: BackboneSpec,
    card: BackboneCard,
    task: Task,
    samples: int,
    dropout: float | None,
    seed: int,
    channels: int,
) -> Backbone:
    match card.family:
        case "own":
            from finetune.backbones import foreign

            return foreign.build(spec, channels, samples, task.window_s, dropout, seed)
        case "cmssl":
            from finetune.backbones import cmssl_files

            return cmssl_files.build(card.name, spec.weights, samples, dropout, seed)
        case "heartgpt":
            from finetune.backbones import heartgpt_files

            rate_hz = samples / task.window_s
            return heartgpt_files.build(card.name, spec.weights, rate_hz, card.rate_hz, dropout, seed)
        case _:
            assert_never(card.family)
