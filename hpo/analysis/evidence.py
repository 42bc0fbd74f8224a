"""What each trial says about the expected validation loss, on a scale that a Gaussian process can bear.

Validation losses far above the good region (a plateau near the trivial predictor, a run that fell apart)
are far from normal, so losses above a knee are compressed logarithmically; below the knee, where the answer
lies, nothing is changed and a mean stays a mean. A pruned trial is a censored observation: its final loss
is extrapolated from the complete trials' curves (:mod:`hpo.analysis.outlook`), with errors of its own and
errors that all pruned trials have in common. A diverged trial counts as one of the worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpo.analysis.box import Box, Floats, SearchSpace, choices_in
from hpo.analysis.outlook import COMMON, MIN_CURVES, Foretold, Outlook
from hpo.analysis.posterior import PARTICLES, fit_surrogates
from hpo.analysis.surrogate import Surrogate
from hpo.study.choices import Value
from hpo.study.setting import HasSetting, choices_of

if TYPE_CHECKING:  # a worker, which has no tables, starts without pandas
    import pandas as pd

MIN_MODEL = 4
"""Complete trials below which there is no model at all, and trials are ranked by their own losses."""
WIDER = 10
"""Gains are learned on a scale that is so many times as wide and compresses outliers only (chosen by us)."""


@dataclass(frozen=True)
class Scale:
    """Identity up to ``knee``, logarithmic above: knee + width log(1 + (loss - knee) / width)."""

    knee: float
    width: float

    @classmethod
    def of(cls, losses: Floats) -> Scale:
        """Return the scale whose knee lies well above the noise among the best of ``losses``."""
        low, quartile = float(losses.min()), float(np.quantile(losses, 0.4))
        best = np.sort(losses)[: max(4, len(losses) // 3)]
        spread = float(np.quantile(best, 0.8) - low)
        width = max(quartile - low, 3 * spread, 1e-9 * max(1.0, abs(low)))
        return cls(low + width, width)

    def compress(self, loss: Floats) -> Floats:
        """Return losses on the surrogate's scale."""
        above = np.maximum(loss - self.knee, 0.0)
        return np.asarray(np.minimum(loss, self.knee) + self.width * np.log1p(above / self.width))

    def expand(self, value: Floats) -> Floats:
        """Return the inverse of :meth:`compress`."""
        above = np.clip(value - self.knee, 0.0, 50 * self.width)
        return np.asarray(np.minimum(value, self.knee) + self.width * np.expm1(above / self.width))

    def slope(self, loss: Floats) -> Floats:
        """Return the derivative of :meth:`compress`."""
        return np.asarray(1 / (1 + np.maximum(loss - self.knee, 0.0) / self.width))

    def wider(self) -> Scale:
        """Return the scale on which gains are learned: its knee is ``WIDER`` widths above the best."""
        return Scale(self.knee + (WIDER - 1) * self.width, WIDER * self.width)

    def moved(self, foretold: Foretold, other: Scale) -> Foretold:
        """Return on this scale what was foretold on another; errors by the slope at the mean."""
        loss = other.expand(foretold.mean)
        slope = self.slope(loss) / other.slope(loss)
        own, late = slope**2 * foretold.own, slope**2 * foretold.late
        return Foretold(self.compress(loss), own, late, slope[:, None] * foretold.common)


@dataclass(frozen=True)
class Evidence:
    """Observations of n trials for the surrogate, and their scale."""

    x: Floats
    """(n, 3 + K) as in :mod:`hpo.analysis.likelihood`."""
    y: Floats
    extra: Floats
    """(n,) variance beyond the seed's that is a trial's own; 0 for complete trials only."""
    late: Floats
    """(n,) variance of the luck that the epochs would have brought which a trial was not given."""
    common: Floats
    """(n, COMMON) what one standard deviation of each common error does to each trial."""
    groups: NDArray[np.int64] | None
    scale: Scale

    def rows(self, chosen: NDArray[np.int64]) -> Evidence:
        """Return the evidence of some trials only."""
        groups = None if self.groups is None else self.groups[chosen]
        return replace(
            self,
            x=self.x[chosen],
            y=self.y[chosen],
            extra=self.extra[chosen],
            late=self.late[chosen],
            common=self.common[chosen],
            groups=groups,
        )


def surrogates_of(
    evidence: Evidence,
    box: Box,
    *,
    draws: int = PARTICLES,
    seed: int = 0,
    runs: int = 1,
    thorough: bool = True,
) -> list[Surrogate]:
    """Return the surrogate of some evidence, once a run: :func:`hpo.analysis.posterior.fit_surrogates`."""
    return fit_surrogates(
        evidence.x,
        evidence.y,
        box,
        evidence.extra,
        evidence.common,
        evidence.groups,
        late=evidence.late,
        draws=draws,
        seed=seed,
        runs=runs,
        thorough=thorough,
    )


def thinned(evidence: Evidence, expected: Floats, size: int) -> Evidence:
    """Return ``size`` trials: three quarters where ``expected`` (n,) is lowest, the others spread evenly.

    ``expected`` is to come from a model, not from the trials' own losses: who is kept must not depend on its
    own noise.
    """
    order = np.argsort(expected, kind="stable")
    near = 3 * size // 4
    far = near + np.linspace(0, len(order) - near - 1, size - near).round().astype(np.int64)
    return evidence.rows(np.sort(np.concatenate([order[:near], order[far]])))


def in_space(trials: pd.DataFrame, space: SearchSpace) -> pd.DataFrame:
    """Return the trials whose loss and choices the space has: imported ones may have others."""
    inside = trials["loss"].isin(list(space.loss))
    for name, values in choices_in(space).items():
        inside &= _has_one_of(trials, name, values)
    return trials[inside]


def has_choices(trials: pd.DataFrame, choices: Mapping[str, Value]) -> NDArray[np.bool_]:
    """Return which trials (n,) have all of these choices."""
    same = [_has_one_of(trials, name, (value,)) for name, value in choices.items()]
    return np.asarray(np.all([np.ones(len(trials), dtype=bool), *same], axis=0))


def _has_one_of(trials: pd.DataFrame, name: str, values: Sequence[Value]) -> NDArray[np.bool_]:
    if name not in trials:  # none has begun
        return np.zeros(len(trials), dtype=bool)
    return np.array([one in values for one in trials[name]], dtype=bool)


def gather(trials: pd.DataFrame, curves: pd.DataFrame, box: Box) -> Evidence:
    """Return the evidence in the complete, pruned and diverged trials of a study.

    There must be at least two complete trials with a finite value.
    """
    kinds = classify(trials)
    rows = trials[kinds != "other"]
    best = _best_so_far(curves)
    seen = Seen(
        points(rows, box),
        kinds[kinds != "other"],
        rows["value"].to_numpy(float, na_value=np.nan),
        [best.get(number, np.empty(0)) for number in rows["number"]],
        _blocks(rows),
    )
    return seen.evidence()


@dataclass(frozen=True)
class Seen:
    """What was seen of n trials, none of which runs any more."""

    x: Floats
    """(n, 3 + K) as in :mod:`hpo.analysis.likelihood`."""
    kinds: NDArray[np.str_]
    """(n,) complete, pruned or diverged."""
    values: Floats
    """(n,) best loss, of a pruned trial so far; anything for a diverged one."""
    curves: Sequence[Floats]
    """(n,) lowest validation loss up to each epoch; empty where the epochs are not known."""
    blocks: NDArray[np.int64] | None = None
    """(n,) what trials share beside their configuration: a validation fold, or a seed that returns."""

    @property
    def order(self) -> NDArray[np.int64]:
        """Where the rows of :meth:`evidence` stand here: complete trials, then pruned, then diverged."""
        return np.concatenate([self._rows(kind) for kind in ("complete", "pruned", "diverged")])

    def scale(self) -> Scale:
        """Return the scale on which the losses of the complete trials are compared."""
        return Scale.of(self.values[self._rows("complete")])

    def evidence(self) -> Evidence:
        """Return the observations; at least two complete trials must have a finite value."""
        scale = self.scale()
        complete, pruned, diverged = (self._rows(kind) for kind in ("complete", "pruned", "diverged"))
        y = scale.compress(self.values[complete])
        censored = self._extrapolated(complete, pruned, scale)
        worst = float(max(y.max(), censored.mean.max(initial=-np.inf)))
        doubt = np.full(len(diverged), (scale.width / 2) ** 2)
        return Evidence(
            self.x[self.order],
            np.concatenate([y, censored.mean, np.full(len(diverged), worst)]),
            np.concatenate([np.zeros(len(y)), censored.own, doubt]),
            np.pad(censored.late, (len(y), len(diverged))),
            np.pad(censored.common, ((len(y), len(diverged)), (0, 0))),
            None if self.blocks is None else self.blocks[self.order],
            scale,
        )

    def _rows(self, kind: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.kinds == kind)

    def _extrapolated(self, complete: NDArray[np.int64], pruned: NDArray[np.int64], scale: Scale) -> Foretold:
        """Return what is expected of each pruned trial, on the scale.

        From the last epoch to the first, so that those stopped later, with what is foretold of them, are
        among the runs that the earlier ones are compared with: what complete runs gained is what lucky ones
        gained. The common errors are the same at all epochs: the regressions of two epochs are of the same
        runs.
        """
        epochs = np.array([len(self.curves[row]) for row in pruned], dtype=np.int64)
        known = self._complete_ones(complete, scale.wider())
        mean, own, late = (np.empty(len(pruned)) for _ in range(3))
        common = np.empty((len(pruned), COMMON))
        for epoch in np.unique(epochs)[::-1]:
            here = epochs == epoch
            part, known = self._foretold(complete, known, pruned[here], int(epoch), scale)
            mean[here], own[here], late[here], common[here] = part.mean, part.own, part.late, part.common
        return Foretold(mean, own, late, common)

    def _complete_ones(self, complete: NDArray[np.int64], scale: Scale) -> Known:
        """Return the complete trials as runs to learn gains from, on a scale."""
        return Known(complete, scale.compress(self.values[complete]), np.zeros(len(complete)))

    def _foretold(
        self, complete: NDArray[np.int64], known: Known, pruned: NDArray[np.int64], epoch: int, scale: Scale
    ) -> tuple[Foretold, Known]:
        """Return what is expected, on the scale, of trials that were all pruned after the same epoch.

        Gains are learned on a wider one: above the knee of this one what a run gains would depend on how
        well it ends, its luck included, and all that was pruned for bad luck would be foretold too low.
        Also return ``known`` with these trials.
        """
        far_enough = sum(len(self.curves[row]) >= epoch for row in complete) if epoch else 0
        enough = far_enough >= MIN_CURVES
        used = scale.wider() if enough else scale
        learned = known if enough else self._complete_ones(complete, used)
        curves = [used.compress(self.curves[row]) for row in learned.rows]
        outlook = Outlook.of(
            self.x[learned.rows], curves, learned.final, epoch, scale.width, unseen=learned.variance
        )
        reached = np.stack([used.compress(self.curves[row]) for row in pruned])
        found = outlook.foretell(self.x[pruned], reached, used.compress(self.values[pruned]))
        return scale.moved(found, used), known.and_those(pruned, found) if enough else known


@dataclass(frozen=True)
class Known:
    """Runs to learn gains from: complete ones, and pruned ones of which the end is foretold."""

    rows: NDArray[np.int64]
    """(n,) among those seen."""
    final: Floats
    """(n,) final losses, on the scale of gains."""
    variance: Floats
    """(n,) of final losses that are foretold."""

    def and_those(self, rows: NDArray[np.int64], found: Foretold) -> Known:
        """Return these and the trials at ``rows``."""
        return Known(
            np.concatenate([self.rows, rows]),
            np.concatenate([self.final, found.mean]),
            np.concatenate([self.variance, found.own + found.late]),
        )


def classify(trials: pd.DataFrame) -> NDArray[np.str_]:
    """Return for each trial (n,): complete, pruned (with a finite loss so far), diverged, or other."""
    state = trials["state"].to_numpy(str)
    is_finished = np.isin(state, ["complete", "pruned"])
    is_finite = np.isfinite(trials["value"].to_numpy(float, na_value=np.nan))
    has_value = is_finite & (trials["end"].to_numpy(str) != "diverged")
    return np.where(is_finished, np.where(has_value, state, "diverged"), "other")


def points(rows: pd.DataFrame, box: Box) -> Floats:
    """Return the surrogate's points (n, 3 + K) of trials; what the space lacks raises ValueError."""
    lr = np.log10(rows["lr"].to_numpy(float))
    ratio = lr - np.log10(rows["backbone_lr"].to_numpy(float))
    levels = [np.array([box.losses.index(loss) for loss in rows["loss"]], float)]
    levels += [np.array([values.index(one) for one in rows[name]], float) for name, values in box.choices]
    return np.stack([lr, ratio, *levels], axis=1)


def points_of(settings: Sequence[HasSetting], box: Box) -> Floats:
    """Return the surrogate's points (n, 3 + K) of settings; what the space lacks raises ValueError."""
    lr, backbone_lr = np.log10([(one.lr, one.backbone_lr) for one in settings]).T
    levels = np.array([box.levels(one.loss, choices_of(one)) for one in settings], dtype=np.float64)
    return np.column_stack([lr, lr - backbone_lr, levels])


def has_folds(trials: pd.DataFrame) -> bool:
    """Return whether trials were validated on folds."""
    return "fold" in trials and bool(trials["fold"].notna().any())


def _blocks(rows: pd.DataFrame) -> NDArray[np.int64] | None:
    if has_folds(rows):
        return rows["fold"].fillna(-1).to_numpy(np.int64)
    return returning(rows["seed"].fillna(-1).to_numpy(np.int64)) if "seed" in rows else None


def returning(seeds: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the seeds (n,) of trials if they are blocks: if at least half of them have been there before."""
    return seeds if 2 * len(np.unique(seeds)) <= len(seeds) else None


def _best_so_far(curves: pd.DataFrame) -> dict[int, Floats]:
    ordered = curves.sort_values(["number", "epoch"])
    numbers, firsts = np.unique(ordered["number"], return_index=True)
    each = np.split(ordered["validation_loss"].to_numpy(float), firsts[1:])
    return dict(zip(numbers.tolist(), map(np.fmin.accumulate, each), strict=False))  # of none there is one
