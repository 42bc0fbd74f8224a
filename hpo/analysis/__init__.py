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
from hpo.analysis.choice import Places, chosen_places
from hpo.analysis.evidence import MIN_MODEL, Evidence, classify, gather, has_choices, in_space, points_of
from hpo.analysis.look import Look, by_rates
from hpo.analysis.noise import shares
from hpo.analysis.ratio import RatioCurve, ratio_curve, unknown_curve
from hpo.analysis.surrogate import Surrogate
from hpo.analysis.values import (
    Against,
    Answer,
    BestTrial,
    Choice,
    Expected,
    Noise,
    Note,
    NoteKind,
    RateMap,
)
from hpo.analysis.zones import Standing, Zone, Zones
from hpo.study.choices import Choices, value_words
from hpo.study.setting import HasSetting, choices_of

if TYPE_CHECKING:  # a worker, which needs the model but has no tables, starts without pandas
    import pandas as pd

MIN_COMPLETE = 10
"""Complete trials below which no ratio is called identified (chosen by us: two for each coefficient of
the surrogate's trend)."""
MIN_RATIOS = 3


def answer(
    trials: pd.DataFrame,
    curves: pd.DataFrame,
    space: SearchSpace,
    baseline: HasSetting | None,
    trivial: float,
    worth: float | None = None,
) -> Answer:
    """Return what the trials of a study say; every table is legal, an empty one too.

    ``trials`` and ``curves`` are as :mod:`hpo.reading.frames` gives them, ``trivial`` is the validation loss
    of the trivial predictor, ``worth`` the difference in loss that the user cares for (None: one seed's
    standard deviation). The same tables give the same answer, bit for bit.
    """
    trials = in_space(trials, space)
    kinds = classify(trials)
    counts = {kind: int((kinds == kind).sum()) for kind in ("complete", "pruned", "diverged", "other")}
    complete = trials[kinds == "complete"]
    box = Box.of(space)
    best = _best_trial(complete, box)
    bare = Answer(
        counts,
        best,
        trivial,
        baseline=_by_its_runs(complete, baseline),
        curve=unknown_curve(box.ratio, float(np.log10(best.ratio)) if best else None),
        notes=_notes(counts, complete, box, baseline),
    )
    if len(complete) < MIN_MODEL:
        return bare
    if np.ptp(complete["value"].to_numpy(float)) == 0:
        return _constant(bare, complete)
    with threadpool_limits(1):  # matrices are small; threads cost 10x where workers keep the cores busy
        return _modelled(bare, trials, curves, box, baseline, worth)


def _best_trial(complete: pd.DataFrame, box: Box) -> BestTrial | None:
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
        Choices({name: row[name] for name, _ in box.choices}),
    )


def _notes(
    counts: dict[str, int], complete: pd.DataFrame, box: Box, baseline: HasSetting | None
) -> tuple[Note, ...]:
    """Return what these trials cannot say."""
    notes = []
    finished = counts["complete"] + counts["pruned"] + counts["diverged"]
    for name, kind in (("pruned", NoteKind.ALL_PRUNED), ("diverged", NoteKind.ALL_DIVERGED)):
        if finished and counts[name] == finished:
            notes.append(Note(kind, finished))
    if counts["complete"] < MIN_COMPLETE:
        notes.append(Note(NoteKind.FEW_COMPLETE, counts["complete"], MIN_COMPLETE))
    ratios = int((complete["lr"].astype(float) / complete["backbone_lr"].astype(float)).round(12).nunique())
    if 0 < ratios < MIN_RATIOS:
        notes.append(Note(NoteKind.FEW_RATIOS, ratios, MIN_RATIOS))
    if len(box.losses) > 1 and not complete.empty and complete["loss"].nunique() == 1:
        notes.append(Note(NoteKind.ONE_LOSS, name=str(complete["loss"].iloc[0])))
    for name in [] if complete.empty else [name for name, _ in box.choices]:
        values = set(complete[name])
        if len(values) == 1:
            notes.append(Note(NoteKind.ONE_VALUE, name=f"{name} {value_words(values.pop())}"))
    if baseline is None:
        notes.append(Note(NoteKind.NO_BASELINE))
    return tuple(notes)


def _constant(bare: Answer, complete: pd.DataFrame) -> Answer:
    """Return the answer of trials that all have the same loss: none is better than another."""
    assert bare.best is not None
    best, value = bare.best, bare.best.validation_loss
    return replace(
        bare,
        choice=Choice(best.lr, best.backbone_lr, best.ratio, best.loss, value, 0.0, best.choices),
        baseline=Expected(value, 0.0),
        optimism=0.0,
        noise=Noise(0.0, "model", 0, shares(np.zeros((1, 1, 1)), {"seed": 0.0})),
        notes=(*bare.notes, Note(NoteKind.ALL_EQUAL, len(complete))),
    )


def _modelled(
    bare: Answer,
    trials: pd.DataFrame,
    curves: pd.DataFrame,
    box: Box,
    baseline: HasSetting | None,
    worth: float | None,
) -> Answer:
    """Return the answer of the model; of few trials, or where it does not fit, only a tried configuration."""
    assert bare.best is not None
    look = Look.at(gather(trials, curves, box), box, trials, worth)
    is_enough = bare.trials["complete"] >= MIN_COMPLETE
    if is_enough and not look.fit.fits:
        look = Look.at(look.evidence, box, trials, worth, effort=2)
    found = replace(bare, noise=look.noise, fit=look.fit, diagnostics=look.diagnostics())
    if is_enough and look.fit.fits:
        found = _with_zones(found, look)
    elif is_enough:
        alone = Zones((Zone(*box.ratio, Standing.OPEN),), *look.worth)
        found = replace(found, zones=alone, notes=(*found.notes, Note(NoteKind.DOES_NOT_FIT)))
    else:
        found = replace(found, noise=replace(found.noise, shares={}))
    from_model = is_enough and look.fit.fits
    places = chosen_places(look.lattice, look.mean, look.evidence, look.surrogate, from_model=from_model)
    return _with_choice(found, look, places, trials, baseline)


def _with_zones(found: Answer, look: Look) -> Answer:
    """Return the answer with what a model that fits says of the axes: zones, what matters, curve, map."""
    zones = look.matters["ratio"].zones
    curve = ratio_curve(look.lattice, look.mean, look.draws)
    perhaps_good = zones.decades(Standing.AS_GOOD) + zones.decades(Standing.OPEN)
    is_narrow = perhaps_good <= 0.5 * look.lattice.box.narrower_decades
    identified = curve.identified and is_narrow and not found.has(NoteKind.FEW_RATIOS)
    return replace(
        found,
        curve=_in_losses(replace(curve, identified=identified), look.evidence),
        rates=_rate_map(look.lattice, look.mean, look.evidence),
        matters=look.matters,
        options=look.options,
        zones=zones,
    )


def _with_choice(
    found: Answer, look: Look, places: Places, trials: pd.DataFrame, baseline: HasSetting | None
) -> Answer:
    """Return the answer with the choice, beside the default, a constant and the luckiest trial."""
    assert found.best is not None
    assert found.noise.seed_sd is not None
    surrogate, evidence, box = look.surrogate, look.evidence, look.lattice.box
    settings = [found.best, baseline or found.best]
    asked = np.concatenate([places.choice[None], points_of(settings, box)])
    chosen, naive, default = _expected(surrogate, evidence, asked)
    lead = found.trivial - chosen.value
    better = places.worth_trying
    elsewhere = (
        None if better is None else _choice(better, box, *_expected(surrogate, evidence, better[None]))
    )
    return replace(
        found,
        choice=_choice(places.choice, box, chosen),
        worth_trying=elsewhere,
        baseline=replace(default, runs=_own_runs(trials, baseline)) if baseline else None,
        against_trivial=_verdict(lead, chosen.standard_error or 0.0, found.noise.seed_sd),
        against_baseline=_lead(surrogate, asked[[0, 2]]) if baseline else "cannot be told",
        optimism=naive.value - found.best.validation_loss,
    )


def _by_its_runs(complete: pd.DataFrame, baseline: HasSetting | None) -> Expected | None:
    """Return what the baseline's own runs say where there is no model."""
    runs = _own_runs(complete, baseline) if baseline else ()
    return Expected(float(np.mean(runs)), None, runs) if runs else None


def _own_runs(trials: pd.DataFrame, setting: HasSetting) -> tuple[float, ...]:
    """Return the validation losses of the complete trials of one configuration."""
    rates = np.isclose(trials["lr"].astype(float), setting.lr) & np.isclose(
        trials["backbone_lr"].astype(float), setting.backbone_lr
    )
    same = rates & (trials["loss"] == setting.loss) & has_choices(trials, choices_of(setting))
    own = trials[same & (classify(trials) == "complete")]
    return tuple(own["value"].astype(float))


def _choice(place: Floats, box: Box, expected: Expected) -> Choice:
    lr, ratio = float(10 ** place[0]), float(10 ** place[1])
    loss, choices = box.named(place[2:])
    return Choice(lr, lr / ratio, ratio, loss, expected.value, expected.standard_error, choices)


def _expected(surrogate: Surrogate, evidence: Evidence, x: Floats) -> list[Expected]:
    """Return the expected loss at points (m, 3 + K), in units of the loss."""
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


def _rate_map(lattice: Lattice, mean: Floats, evidence: Evidence) -> RateMap:
    """Return the mean landscape (C, I, J) over both rates, in units of the loss."""
    lowest = by_rates(lattice, mean).min(axis=2)
    return RateMap(lattice.lr, lattice.backbone_lr, evidence.scale.expand(lowest))


def _in_losses(curve: RatioCurve, evidence: Evidence) -> RatioCurve:
    """Return the curve in units of the loss."""
    mean, low, high = (evidence.scale.expand(values) for values in (curve.mean, curve.low, curve.high))
    return replace(curve, mean=mean, low=low, high=high)
