"""The tasks: one frozen object each, with its data set, its yardstick, its metrics and its losses.

Sources: CM-SSL (Cross-modality self-supervision for unimodal physiological signals representation
learning, repository ximosss/CM-SSL) for the nine reference tasks; ``bidmc_rr_30s``,
``ppg_bp_*``, ``wesad``, ``ptb``, ``cpsc2018`` and the ``synthetic_*`` tasks are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from finetune.errors import UnknownNameError
from finetune.own import OwnData, OwnKind

Kind = Literal["regression", "multiclass", "multilabel"]
Yardstick = Literal["mae", "cross_entropy", "bce"]

REGRESSION_LOSSES = ("mse", "l1", "smooth_l1", "huber")
MULTICLASS_LOSSES = ("cross_entropy", "cross_entropy_smooth", "cross_entropy_balanced", "focal")
MULTILABEL_LOSSES = ("bce", "bce_balanced", "bce_focal")
LOSSES = REGRESSION_LOSSES + MULTICLASS_LOSSES + MULTILABEL_LOSSES
OWN = "own"
"""Data set of every task on a user's own signals."""


@dataclass(frozen=True)
class Task:
    """What is predicted from what, and how it is judged."""

    name: str
    kind: Kind
    dataset: str
    """Name of the reader in :mod:`finetune.datasets`."""
    signal: Literal["ppg", "ecg", "any"]
    """``any``: a user's own, of a kind that nobody told."""
    outputs: int
    unit: str
    """Of the labels; empty for classes."""
    window_s: float
    """Length of one window in seconds."""
    unit_of_independence: Literal["subject", "patient", "record", "block"]
    """What a bootstrap resamples; ``block`` where subjects cannot be told apart (UCI)."""
    classes: tuple[str, ...] = ()
    """Names of the outputs, where they are known before the data are read."""
    synthetic: bool = False
    knows_subjects: bool = True
    """False: windows of one person may be in several splits, and every output says so (a user's own data)."""

    @property
    def yardstick(self) -> Yardstick:
        """The validation loss that ranks and prunes every trial, whatever it was trained with."""
        yardsticks: dict[Kind, Yardstick] = {
            "regression": "mae",
            "multiclass": "cross_entropy",
            "multilabel": "bce",
        }
        return yardsticks[self.kind]

    @property
    def losses(self) -> tuple[str, ...]:
        """Training losses that fit this kind of task; the first is the published default."""
        return {
            "regression": REGRESSION_LOSSES,
            "multiclass": MULTICLASS_LOSSES,
            "multilabel": MULTILABEL_LOSSES,
        }[self.kind]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the validation and test metrics, the yardstick first."""
        return {
            "regression": ("mae", "rmse", "r2"),
            "multiclass": (
                "cross_entropy",
                "auroc",
                "auc_pr",
                "balanced_accuracy",
                "accuracy",
                "kappa",
                "f1_weighted",
                "f1_macro",
            ),
            "multilabel": ("bce", "auroc", "auc_pr", "accuracy", "f1_weighted", "f1_macro"),
        }[self.kind]


METRIC_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("mae", "rmse", "cross_entropy", "bce"), (0.0, math.inf)),
    **dict.fromkeys(
        ("auroc", "auc_pr", "accuracy", "balanced_accuracy", "f1_weighted", "f1_macro"), (0.0, 1.0)
    ),
    "r2": (-math.inf, 1.0),
    "kappa": (-1.0, 1.0),
}
"""Lowest and highest value that each metric can have, whatever the predictions."""

PTB_XL_CLASSES = ("CD", "HYP", "MI", "NORM", "STTC")
PHYSIONET2017_CLASSES = ("N", "A", "O", "~")
WESAD_CLASSES = ("baseline", "stress", "amusement")
PTB_CLASSES = ("healthy", "infarction", "other")
CPSC2018_CLASSES = (
    "426783006",  # sinus rhythm
    "164889003",  # atrial fibrillation
    "270492004",  # first-degree atrioventricular block
    "164909002",  # left bundle branch block
    "59118001",  # right bundle branch block
    "284470004",  # premature atrial contraction
    "164884008",  # premature ventricular contraction
    "429622005",  # ST depression
    "164931005",  # ST elevation
)
"""SNOMED CT codes of the nine classes, in the challenge's order (table ``dx_mapping_scored.csv`` of 2020)."""
_CSN_CODE_TABLE = """
    10370003 106068003 111288001 11157007 111975006 13640000 164865005 164873001 164889003 164890007
    164896001 164909002 164912004 164917005 164930006 164931005 164934002 164937009 164942001 164947007
    17338001 17366009 195042002 195060002 195101003 233892002 233897008 233917008 251120003 251146004
    251164006 251166008 251170000 251173003 251180001 251187003 251198002 251199005 251205003 251223006
    270492004 27885002 284470004 29320008 365413008 39732003 418818005 425856008 426177001 426183003
    426627000 426648003 426664006 426761007 426783006 426995002 427084000 427172004 427393009 428417006
    428750005 429622005 445118002 445211001 446358003 446813000 47665007 49578007 50799005 54016002
    54329005 55827005 55930002 5609005 57054005 59118001 59931005 61277005 61721007 63593006 6374002
    65778007 67741000119109 67751000119106 698252002 713422000 713426002 713427006 733534002 74390002
    75532003 77867006 81898007 89792004
"""
CSN_CODES = tuple(_CSN_CODE_TABLE.split())
"""Names of the outputs, sorted as text as the reference sorts what it finds. These are the 94 codes for which
the tables ``dx_mapping_scored.csv`` and ``dx_mapping_unscored.csv`` of the PhysioNet/CinC Challenge 2021
(repository physionetchallenges/evaluation-2021) count a record in Chapman-Shaoxing or Ningbo, which together
are this data set. Fixed here, so that a part of the set has the same outputs as the whole."""


def _regression(
    name: str, dataset: str, unit: str, window_s: float, *, synthetic: bool = False, block: bool = False
) -> Task:
    independent: Literal["subject", "block"] = "block" if block else "subject"
    return Task(name, "regression", dataset, "ppg", 1, unit, window_s, independent, synthetic=synthetic)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _regression("bidmc_hr", "bidmc", "bpm", 10.0),
        _regression("bidmc_rr", "bidmc", "breaths/min", 10.0),
        _regression("bidmc_rr_30s", "bidmc", "breaths/min", 30.0),
        _regression("ppg_dalia_hr", "ppg_dalia", "bpm", 8.0),
        _regression("ppg_dalia_rr", "ppg_dalia", "Hz", 1250 / 64),
        _regression("uci_sbp", "uci_bp", "mmHg", 5.0, block=True),
        _regression("uci_dbp", "uci_bp", "mmHg", 5.0, block=True),
        Task("ptb-xl", "multilabel", "ptb-xl", "ecg", 5, "", 10.0, "patient", PTB_XL_CLASSES),
        Task(
            "physionet2017",
            "multiclass",
            "physionet2017",
            "ecg",
            4,
            "",
            61.0,
            "record",
            PHYSIONET2017_CLASSES,
        ),
        _regression("ppg_bp_sbp", "ppg_bp", "mmHg", 2.1),
        _regression("ppg_bp_dbp", "ppg_bp", "mmHg", 2.1),
        Task("wesad", "multiclass", "wesad", "ppg", 3, "", 60.0, "subject", WESAD_CLASSES),
        Task("ptb", "multiclass", "ptb", "ecg", 3, "", 10.0, "patient", PTB_CLASSES),
        Task(
            "cpsc2018",
            "multilabel",
            "cpsc2018",
            "ecg",
            len(CPSC2018_CLASSES),
            "",
            10.0,
            "record",
            CPSC2018_CLASSES,
        ),
        Task("csn", "multilabel", "csn", "ecg", len(CSN_CODES), "", 10.0, "record", CSN_CODES),
        _regression("synthetic_hr", "synthetic", "bpm", 10.0, synthetic=True),
        _regression("synthetic_rr", "synthetic", "breaths/min", 30.0, synthetic=True),
    )
}


KIND_OF_OWN: dict[OwnKind, Kind] = {
    "regression": "regression",
    "classes": "multiclass",
    "multilabel": "multilabel",
}


def own_task(own: OwnData) -> Task:
    """Return the task of a user's own signals; without outputs while its classes are not known yet."""
    return Task(
        name=own.name,
        kind=KIND_OF_OWN[own.kind],
        dataset=OWN,
        signal=own.modality,
        outputs=max(1, len(own.label)) if own.kind == "regression" else len(own.classes),
        unit=own.unit,
        window_s=own.window_s or 0.0,
        unit_of_independence="subject" if own.knows_subjects else "record",
        classes=own.classes,
        knows_subjects=own.knows_subjects,
    )


def find_task(name: str, own: OwnData | None = None) -> Task:
    """Return the task of that name, or that of a user's own signals.

    Raises :class:`UnknownNameError` with the nearest names.
    """
    if own is not None:
        return own_task(own)
    if name not in TASKS:
        raise UnknownNameError.of("task", name, TASKS)
    return TASKS[name]
