"""From the trials of a study to its answer: which configuration and ratio are best, and how sure that is.

Pure functions on tidy rows (columns as in docs/architecture.md); no database, no files, no training. The
method and its calibration are in docs/answer.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # 3.6 ships no types

from hpo.analysis.box import Box, Floats, Lattice, SearchSpace
from hpo.analysis.evidence import Evidence, classify, gather, has_folds, points_of, thinned
from hpo.analysis.landscape import draw_landscapes
from hpo.analysis.noise import replicate_sd, shares
from hpo.analysis.posterior import fit_surrogate
from hpo.analysis.ratio import RatioCurve, bowl_minimum, lowest_at, ratio_curve, unknown_curve
from hpo.analysis.surrogate import Surrogate
from hpo.analysis.values import Against, Answer, BestTrial, Choice, Expected, Noise, RateMap
from hpo.study.setting import HasSetting

if TYPE_CHECKING:  # a worker, which needs the model but has no tables, starts without pandas
    import pandas as pd

MIN_MODEL = 4
"""Complete trials below which there is no model at all."""
MIN_COMPLETE = 10
"""Complete trials below which no ratio is called identified (chosen by us: two for each coefficient of
the surrogate's trend)."""
MAX_MODEL = 400
"""Trials in the model; of more, those where a first model expects the lowest losses, and a quarter spread
over the others. Time grows with the cube."""
MIN_RATIOS = 3
MIN_REPLICATES = 8
"""Degrees of freedom from which the replicates' standard deviation is reported instead of the model's."""


def answer(
    trials: pd.DataFrame,
    curves: pd.DataFrame,
    space: SearchSpace,
    baseline: HasSetting | None,
    trivial: float,
) -> Answer:
    """Return what the trials of a study say; every table is legal, an empty one too.

    ``trials`` and ``curves`` are as :mod:`hpo.reading.frames` gives them, ``trivial`` is the validation loss
    of the trivial predictor. The same tables give the same answer, bit for bit.
    """
    trials = trials[trials["loss"].isin(list(space.loss))]
    kinds = classify(trials)
    counts = {kind: int((kinds == kind).sum()) for kind in ("complete", "pruned", "diverged", "other")}
    complete = trials[kinds == "complete"]
    best = _best_trial(complete)
    box = Box.of(space)
    bare = Answer(
        counts,
        best,
        trivial,
        curve=unknown_curve(box.ratio, float(np.log10(best.ratio)) if best else None),
        notes=_notes(counts, complete, box, baseline),
    )
    if len(complete) < MIN_MODEL:
        return bare
    if np.ptp(complete["value"].to_numpy(float)) == 0:
        return _constant(bare, complete)
    with threadpool_limits(1):  # matrices are small; threads cost 10x where workers keep the cores busy
        return _modelled(bare, trials, curves, box, baseline)


def _best_trial(complete: pd.DataFrame) -> BestTrial | None:
    if complete.empty:
        return None
    row = complete.iloc[int(np.argmin(complete["value"].to_numpy(float)))]
    lr, backbone_lr = float(row["lr"]), float(row["backbone_lr"])
    return BestTrial(
        int(row["number"]),
        lr,
        backbone_lr,
        lr / backbone_lr,
        str(row["loss"]),
        int(row["seed"]),
        float(row["value"]),
    )


def _notes(
    counts: dict[str, int], complete: pd.DataFrame, box: Box, baseline: HasSetting | None
) -> tuple[str, ...]:
    """Return, in words, what these trials cannot say and why."""
    notes = []
    finished = counts["complete"] + counts["pruned"] + counts["diverged"]
    for kind in ("pruned", "diverged"):
        if finished and counts[kind] == finished:
            notes.append(f"all {finished} trials {'were pruned' if kind == 'pruned' else 'diverged'}")
    if counts["complete"] < MIN_COMPLETE:
        notes.append(f"{counts['complete']} complete trials; a best ratio needs at least {MIN_COMPLETE}")
    ratios = (complete["lr"].astype(float) / complete["backbone_lr"].astype(float)).round(12).nunique()
    if 0 < ratios < MIN_RATIOS:
        notes.append(f"{ratios} ratio{'s' * (ratios > 1)} tried; a best one needs at least {MIN_RATIOS}")
    if len(box.losses) > 1 and not complete.empty and complete["loss"].nunique() == 1:
        notes.append(f"only the loss {complete['loss'].iloc[0]} has complete trials: losses are not compared")
    if baseline is None:
        notes.append("no baseline: nothing says whether the search was worth it")
    return tuple(notes)


def _constant(bare: Answer, complete: pd.DataFrame) -> Answer:
    """Return the answer of trials that all have the same loss: none is better than another."""
    assert bare.best is not None
    best, value = bare.best, bare.best.validation_loss
    return replace(
        bare,
        choice=Choice(best.lr, best.backbone_lr, best.ratio, best.loss, value, 0.0),
        baseline=Expected(value, 0.0),
        optimism=0.0,
        noise=Noise(0.0, "model", 0, shares(np.zeros((1, 1, 1)), {"seed": 0.0})),
        notes=(*bare.notes, f"all {len(complete)} complete trials have the same validation loss"),
    )


def _modelled(
    bare: Answer, trials: pd.DataFrame, curves: pd.DataFrame, box: Box, baseline: HasSetting | None
) -> Answer:
    assert bare.best is not None
    evidence = gather(trials, curves, box)
    evidence, surrogate = _fit(evidence, box)
    lattice = Lattice.of(box)
    mean, draws = draw_landscapes(surrogate, lattice, np.random.default_rng(1))
    curve = ratio_curve(lattice, mean, draws)
    if bare.trials["complete"] < MIN_COMPLETE:
        place = _lowest_tried(surrogate, evidence)
    else:
        place = _lowest(lattice, mean)
    settings = [bare.best, baseline or bare.best]
    points_asked = np.concatenate([place[None], points_of(settings, box)])
    chosen, naive, default = _expected(surrogate, evidence, points_asked)
    noise = _noise(surrogate, trials, lattice, mean)
    assert noise.seed_sd is not None
    return replace(
        bare,
        choice=_choice(place, box, chosen),
        baseline=replace(default, runs=_own_runs(trials, baseline)) if baseline else None,
        against_trivial=_verdict(bare.trivial - chosen.value, chosen.standard_error, noise.seed_sd),
        against_baseline=_lead(surrogate, points_asked[[0, 2]]) if baseline else "cannot be told",
        optimism=naive.value - bare.best.validation_loss,
        curve=_in_losses(curve, evidence, enough="needs at least" not in " ".join(bare.notes)),
        rates=_rate_map(lattice, mean, evidence),
        noise=noise,
        diagnostics=_diagnostics(surrogate, evidence),
    )


def _fit(evidence: Evidence, box: Box) -> tuple[Evidence, Surrogate]:
    """Return the surrogate and the evidence that it rests on: of many trials, those that matter."""
    if len(evidence.y) > MAX_MODEL:
        sample = np.random.default_rng(3).permutation(len(evidence.y))[: MAX_MODEL // 2]
        _, first = _fit(evidence.rows(np.sort(sample)), box)
        evidence = thinned(evidence, first.posterior(evidence.x)[0], MAX_MODEL)
    return evidence, fit_surrogate(
        evidence.x, evidence.y, box, evidence.extra, evidence.common, evidence.groups
    )


def _lowest(lattice: Lattice, mean: Floats) -> Floats:
    """Return the surrogate's point (3,) where the mean landscape is lowest, between the lattice's points."""
    loss, row, column = (int(place) for place in np.unravel_index(int(np.argmin(mean)), mean.shape))
    around = mean[loss, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    offset = bowl_minimum(around)
    if offset is None:
        lr = lowest_at(lattice.lr, mean[None, loss, :, column])[0]
        ratio = lowest_at(lattice.ratio, mean[None, loss, row, :])[0]
    else:
        lr, ratio = np.array([lattice.lr[row], lattice.ratio[column]]) + lattice.step * offset
    lr = float(np.clip(lr, *lattice.box.lr))
    backbone_lr = float(np.clip(lr - ratio, *lattice.box.backbone_lr))
    return np.array([lr, lr - backbone_lr, loss], dtype=np.float64)


def _lowest_tried(surrogate: Surrogate, evidence: Evidence) -> Floats:
    """Return the point (3,) of the complete trial whose expected loss is lowest."""
    tried = evidence.x[evidence.extra == 0]
    return np.asarray(tried[int(np.argmin(surrogate.posterior(tried)[0]))])


def _own_runs(trials: pd.DataFrame, setting: HasSetting) -> tuple[float, ...]:
    """Return the validation losses of the complete trials of one configuration."""
    rates = np.isclose(trials["lr"].astype(float), setting.lr) & np.isclose(
        trials["backbone_lr"].astype(float), setting.backbone_lr
    )
    own = trials[rates & (trials["loss"] == setting.loss) & (classify(trials) == "complete")]
    return tuple(own["value"].astype(float))


def _choice(place: Floats, box: Box, expected: Expected) -> Choice:
    lr, ratio = float(10 ** place[0]), float(10 ** place[1])
    return Choice(lr, lr / ratio, ratio, box.losses[int(place[2])], expected.value, expected.standard_error)


def _expected(surrogate: Surrogate, evidence: Evidence, x: Floats) -> list[Expected]:
    """Return the expected loss at points (m, 3), in units of the loss."""
    value, sd = surrogate.posterior(x)
    middle, above = evidence.scale.expand(value), evidence.scale.expand(value + sd)
    return [Expected(float(m), float(a - m)) for m, a in zip(middle, above, strict=True)]


def _verdict(margin: float, standard_error: float, noise: float) -> Against:
    """Return whether a lead exceeds its noise: the estimate's 95 % error, and one run's seed."""
    if margin > max(1.96 * standard_error, noise):
        return "beats"
    return "does not beat" if margin + 1.96 * standard_error < noise else "cannot be told"


def _lead(surrogate: Surrogate, two: Floats) -> Against:
    """Return whether the first of two points is below the second in 95 % of the posterior's draws."""
    draws = surrogate.draw(two, 2000, np.random.default_rng(2))
    low, high = np.quantile(draws[:, 1] - draws[:, 0], [0.025, 0.975])
    return "beats" if low > 0 else "does not beat" if high < 0 else "cannot be told"


def _noise(surrogate: Surrogate, trials: pd.DataFrame, lattice: Lattice, mean: Floats) -> Noise:
    model, between = surrogate.noise_sd, surrogate.block_sd
    by_fold = has_folds(trials)
    if not by_fold:
        model = float(np.hypot(model, between))  # blocks are seeds: their effect is the seed's
    replicated, degrees = replicate_sd(trials)
    by_model = replicated is None or degrees < MIN_REPLICATES
    sources = {"seed": model**2} | ({"fold": between**2} if by_fold and between > 0 else {})
    spread = shares(_on_box(lattice, mean), sources)
    return Noise(model if by_model else replicated, "model" if by_model else "replicates", degrees, spread)


def _on_box(lattice: Lattice, mean: Floats) -> Floats:
    """Return the mean landscape (L, I, J) as (lr, backbone_lr, loss): a diagonal of the lattice each."""
    step = lattice.lr[1] - lattice.lr[0]
    width = lattice.box.backbone_lr[1] - lattice.box.backbone_lr[0]
    backbones = int(np.floor(width / step + 1e-6)) + 1
    rows = np.arange(len(lattice.lr))[:, None]
    return np.moveaxis(mean[:, rows, rows + np.arange(backbones)[None, :]], 0, 2)


def _rate_map(lattice: Lattice, mean: Floats, evidence: Evidence) -> RateMap:
    """Return the mean landscape (L, I, J) over both rates, in units of the loss."""
    lowest = _on_box(lattice, mean).min(axis=2)
    fastest = lattice.lr[0] - lattice.ratio[0]
    backbone_lr = fastest - lattice.step * np.arange(lowest.shape[1], dtype=np.float64)
    return RateMap(lattice.lr, backbone_lr, evidence.scale.expand(lowest))


def _in_losses(curve: RatioCurve, evidence: Evidence, *, enough: bool) -> RatioCurve:
    """Return the curve in units of the loss; not identified when there were too few trials or ratios."""
    mean, low, high = (evidence.scale.expand(values) for values in (curve.mean, curve.low, curve.high))
    return replace(curve, mean=mean, low=low, high=high, identified=curve.identified and enough)


def _diagnostics(surrogate: Surrogate, evidence: Evidence) -> dict[str, float | None]:
    """Return how well each complete trial is foretold from all others, on the surrogate's scale."""
    mean, sd = surrogate.leave_one_out()
    complete = evidence.extra == 0
    error, scale = (evidence.y - mean)[complete], sd[complete]
    spread = float(np.var(evidence.y[complete]))
    return {
        "leave_one_out_rmse": float(np.sqrt(np.mean(error**2))),
        "leave_one_out_r2": 1 - float(np.mean(error**2)) / spread if spread > 0 else None,
        "within_95": float(np.mean(np.abs(error) <= 1.96 * scale)),
        "standardised_rms": float(np.sqrt(np.mean((error / scale) ** 2))),
    }
