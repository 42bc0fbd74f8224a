"""Whether a run goes on after an epoch: the spec's pruner, in one place. Pure but for what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from hpo.ledger.values import Origin, Peers
from hpo.study import Configuration, Pruner

if TYPE_CHECKING:
    from hpo.search.prospects import Prospects

SOUGHT: frozenset[Origin] = frozenset({"search", "transferred"})
"""Only trials that a search chose are stopped: the baseline, known configurations and replicates are what
everything else is compared with, and are therefore always complete."""


@dataclass(frozen=True)
class UnderWay:
    """A run at the end of an epoch."""

    origin: Origin
    configuration: Configuration
    epoch: int
    """From 1."""
    epochs: int
    """Of the recipe: after the last there is nothing to decide."""
    is_finite: bool
    """Whether this epoch's loss was; the trainer itself ends a run that diverged."""
    lowest: tuple[float, ...]
    """Lowest validation loss up to each epoch that had a finite one."""


def goes_on(
    pruner: Pruner,
    run: UnderWay,
    *,
    peers: Callable[[], Peers],
    prospects: Callable[[], Prospects | None],
) -> bool:
    """Return whether a run is worth another epoch.

    ``peers`` tells what others had reached at this epoch, ``prospects`` what ended trials teach, None while
    they are too few; each is asked only by the pruner that needs it.
    """
    if run.origin not in SOUGHT or not run.is_finite or run.epoch >= run.epochs:
        return True
    if run.epoch <= pruner.warmup_epochs + _head_epochs(run.configuration):
        return True
    match pruner.kind:
        case "none":
            return True
        case "median":
            best = run.lowest[-1] if run.lowest else None
            return not is_above_median(pruner, best, peers())
        case "improvement":
            known = prospects()
            return known is None or not run.lowest or not known.is_hopeless(run.configuration, run.lowest)
        case other:
            assert_never(other)


def _head_epochs(configuration: Configuration) -> int:
    """Return the epochs in which a run that chose so trains its head alone, and others more than that."""
    return int(configuration.choices.get("head_epochs") or 0)


def is_above_median(pruner: Pruner, best: float | None, peers: Peers) -> bool:
    """Return whether the median rule stops a run whose ``best`` loss so far is this. Pure.

    ``best`` is None when no epoch was finite. The rule (Golovin et al. 2017, Vizier, section 3.2; as
    Optuna's MedianPruner): stop when the best value so far is worse than the median of the peers' best
    values up to the same epoch, but never with fewer than ``startup_trials`` peers.
    """
    has_peers = peers.count >= max(1, pruner.startup_trials)
    return has_peers and (best is None or best > peers.median)
