"""A sampler for the learning rates of fine-tuning: which ratio is best, with few and noisy trials.

    study = optuna.create_study(sampler=RatioSampler(seed=0), pruner=ImprovementPruner())

For any Optuna study with two log-uniform floats, the head's and the backbone's learning rate, perhaps a
categorical loss, and other categorical choices, in one objective. It models expected loss over (log lr, log
ratio, loss, choices) as
:mod:`hpo.analysis` does (a basin, a Gaussian process and the seed's noise) and asks where a trial tells most
about the lowest point. Other parameters are sampled at random. How and how well: docs/search.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # 3.6 ships no types

from hpo.analysis.box import Box, Floats, Lattice
from hpo.analysis.evidence import MIN_MODEL, Evidence, Seen, returning, surrogates_of, thinned
from hpo.analysis.landscape import draw_landscapes
from hpo.analysis.likelihood import problem_of
from hpo.analysis.surrogate import Fit, Surrogate
from hpo.search.acquisition import Rule, best_point

MAX_MODEL = 150
"""Trials in the model; of more, those that matter (:func:`hpo.analysis.evidence.thinned`)."""
GROWTH = 1.2
"""The model's parameters are drawn anew when there are so many times as many trials; in between new trials
only move the landscape."""
DRAWS = 48
"""Draws of the landscape behind one suggestion."""
STEP_DECADES = 0.2
"""Suggested rates lie on a lattice of this step, so that a configuration is often met by another seed."""
_SPREAD = 1.2207440846057596
"""The root of x^4 = x + 1: its powers give a sequence that fills a cube evenly (Roberts 2018, R3)."""
_SPREAD_CHOICES = np.sqrt([2.0, 3.0, 5.0, 7.0, 11.0, 13.0]) % 1.0
"""Steps along choices, of no rational relation to the others (Weyl): with 64 combinations there are six."""

Memory = MutableMapping[str, Floats]
"""Draws of the model's parameters by what they were learned from: a sampler's only memory, and what it holds
never changes a suggestion, only the time that it takes."""


class RatioSampler(BaseSampler):
    """Suggests learning rates of head and backbone, loss and choices, where a trial tells most.

    The first ``n_startup_trials`` fill the space evenly. With a ``seed``, a suggestion is a function of the
    trial's number and the other trials. Later rates lie on a lattice of 0.2 decades: a configuration that
    is suggested twice is another seed of it. Multi-objective studies raise ValueError.
    """

    def __init__(
        self,
        *,
        lr: str = "lr",
        backbone_lr: str = "backbone_lr",
        loss: str = "loss",
        choices: Sequence[str] = (),
        blocks: Sequence[str] = ("fold", "seed"),
        n_startup_trials: int = 10,
        rule: Rule = "information",
        seed: int | None = None,
        memory: Memory | None = None,
    ) -> None:
        """``lr``, ``backbone_lr`` and ``loss`` are the names of the parameters in the study.

        ``choices`` are the names of other categorical ones that the model is to know, at most 6.

        The first of ``blocks`` that trials have as a user attribute or a parameter says what they share
        beside them: trials of one validation fold, or of one seed, are good or bad together.
        """
        if len(choices) > len(_SPREAD_CHOICES):
            raise ValueError(f"{len(choices)} choices; expected at most {len(_SPREAD_CHOICES)}")
        self._names = (lr, backbone_lr, loss, *choices)
        self._blocks = tuple(blocks)
        self._startup = n_startup_trials
        self._rule: Rule = rule
        self._seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
        self._others = RandomSampler(seed=seed)
        self._memory: Memory = {} if memory is None else memory

    def reseed_rng(self) -> None:
        """Draw another seed: for workers that are copies of one process."""
        self._seed = int(np.random.default_rng().integers(2**31))
        self._others.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return rates, loss and choices as the latest finished trial has them; nothing without rates."""
        finished = (TrialState.COMPLETE, TrialState.PRUNED)
        for past in reversed(study.get_trials(deepcopy=False, states=finished)):
            space = {name: past.distributions.get(name) for name in self._names}
            if _is_rate(space[self._names[0]]) and _is_rate(space[self._names[1]]):
                return {name: found for name, found in space.items() if found and not found.single()}
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return rates, loss and choices for the trial."""
        if not search_space:
            return {}
        if len(study.directions) > 1:
            raise ValueError(f"{len(study.directions)} objectives; expected one")
        box = self._box(search_space)
        trials = study.get_trials(deepcopy=False)
        others = [past for past in trials if past.number != trial.number]
        seen = self._seen(others, box, -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0)
        if len(seen.kinds) < self._startup or (seen.kinds == "complete").sum() < MIN_MODEL:
            return {name: self._filling(trial.number, name, found) for name, found in search_space.items()}
        running = [past for past in others if past.state == TrialState.RUNNING]
        with threadpool_limits(1):  # matrices are small; threads cost 10x where workers keep the cores busy
            point = self._suggested(seen, running, box, np.random.default_rng([self._seed, trial.number]))
        return self._parameters(point, box, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value that fills the space evenly for rates, loss and choices, a random one for others."""
        if param_name in self._names and not param_distribution.single():
            return self._filling(trial.number, param_name, param_distribution)
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    # --- from Optuna's trials to points and back

    def _box(self, space: Mapping[str, BaseDistribution]) -> Box:
        (lr, slow), loss = (space[name] for name in self._names[:2]), space.get(self._names[2])
        assert isinstance(lr, FloatDistribution)
        assert isinstance(slow, FloatDistribution)
        losses = loss.choices if isinstance(loss, CategoricalDistribution) else ("",)
        ends = np.log10([lr.low, lr.high]), np.log10([slow.low, slow.high])
        (low, high), (slowest, fastest) = ((float(a), float(b)) for a, b in ends)
        found = {name: space[name] for name in self._names[3:] if name in space}
        choices = tuple(
            (name, tuple(one.choices))
            for name, one in found.items()
            if isinstance(one, CategoricalDistribution)
        )
        return Box((low, high), (slowest, fastest), tuple(str(choice) for choice in losses), choices)

    def _points(self, trials: Sequence[FrozenTrial], box: Box) -> Floats:
        """Return the points (n, 3 + K) of the trials whose parameters are known."""
        lr, backbone_lr = self._names[:2]
        rows = [
            (np.log10(past.params[lr]), np.log10(past.params[lr] / past.params[backbone_lr]), *levels)
            for past in trials
            if (levels := self._levels(past, box)) is not None
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, 3 + len(box.choices))

    def _levels(self, past: FrozenTrial, box: Box) -> list[int] | None:
        """Return the indices (1 + K) of the trial's loss and choices; None for one outside the box."""
        lr, backbone_lr, loss = self._names[:3]
        if lr not in past.params or backbone_lr not in past.params:
            return None
        name = "" if box.losses == ("",) else str(past.params.get(loss))
        is_inside = all(one in past.params and past.params[one] in values for one, values in box.choices)
        return box.levels(name, past.params) if is_inside and name in box.losses else None

    def _seen(self, trials: Sequence[FrozenTrial], box: Box, sign: float) -> Seen:
        """Return what the finished trials say, by their numbers."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        kept = [past for past in trials if past.state in ended and self._levels(past, box) is not None]
        curves = [best_so_far(past, sign) for past in kept]
        values = np.array([_value(past, curve, sign) for past, curve in zip(kept, curves, strict=True)])
        kinds = [_kind(past, value) for past, value in zip(kept, values, strict=True)]
        blocks = returning(self._blocks_of(kept)) if kept else None
        return Seen(self._points(kept, box), np.array(kinds, dtype="<U8"), values, curves, blocks)

    def _blocks_of(self, trials: Sequence[FrozenTrial]) -> NDArray[np.int64]:
        """Return the block (n,) of each trial; one that has none is a block of its own."""
        found = []
        for past in trials:
            known = past.params | past.user_attrs
            named = (known[name] for name in self._blocks if isinstance(known.get(name), int))
            found.append(next(named, -1 - past.number))
        return np.array(found, dtype=np.int64)

    def _parameters(self, point: Floats, box: Box, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, log in zip(self._names, (point[0], point[0] - point[1]), strict=False):
            distribution = space[name]
            assert isinstance(distribution, FloatDistribution)
            found[name] = float(np.clip(10**log, distribution.low, distribution.high))
        loss = space.get(self._names[2])
        if isinstance(loss, CategoricalDistribution):
            found[self._names[2]] = loss.choices[int(point[2])]
        return found | box.named(point[2:])[1]

    def _filling(self, number: int, name: str, distribution: BaseDistribution) -> Any:
        """Return the value of trial ``number`` in a sequence that fills the space evenly."""
        axis = self._names.index(name)
        shift = np.random.default_rng([self._seed, 3 + axis]).random()
        turn = number + 1
        way = turn * _SPREAD_CHOICES[axis - 3] if axis > 2 else turn / _SPREAD ** (axis + 1)
        unit = (shift + way) % 1.0
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[int(unit * len(distribution.choices))]
        assert isinstance(distribution, FloatDistribution)
        low, high = np.log([distribution.low, distribution.high])
        return float(np.clip(np.exp(low + unit * (high - low)), distribution.low, distribution.high))

    # --- the model

    def _suggested(
        self, seen: Seen, running: Sequence[FrozenTrial], box: Box, rng: np.random.Generator
    ) -> Floats:
        """Return the point (3 + K) to try next."""
        first, z = self._learned(seen, box)
        evidence = seen.evidence()
        if len(evidence.y) > MAX_MODEL:
            places, place = np.unique(evidence.x, axis=0, return_inverse=True)  # a lattice's: few are new
            evidence = thinned(evidence, first.expected(places)[place], MAX_MODEL)
        chosen = z[rng.permutation(len(z))[: 1 if self._rule == "thompson" else DRAWS]]
        surrogate = conditioned(evidence, box, chosen)
        points = self._points(running, box)
        if len(points) and self._rule != "thompson":
            expected = surrogate.expected(points)
            surrogate = conditioned(_with_guesses(evidence, points, expected), box, chosen)
        lattice = Lattice.of(box, STEP_DECADES)
        _, draws = draw_landscapes(surrogate, lattice, rng)
        return best_point(lattice, draws, surrogate.noise_sd**2, self._rule)

    def _learned(self, seen: Seen, box: Box) -> tuple[Surrogate, Floats]:
        """Return the model of the first trials, as many as the last growth takes in, and its parameters."""
        size = _level(len(seen.kinds), max(self._startup, MIN_MODEL))
        blocks = None if seen.blocks is None else seen.blocks[:size]
        part = Seen(seen.x[:size], seen.kinds[:size], seen.values[:size], seen.curves[:size], blocks)
        if (part.kinds == "complete").sum() < MIN_MODEL:
            part = seen
        evidence = part.evidence()
        if len(evidence.y) > MAX_MODEL:
            evidence = evidence.rows(_spread_rows(len(evidence.y)))
        arrays = [evidence.x, evidence.y, evidence.extra, evidence.late, evidence.common]
        arrays += [] if evidence.groups is None else [evidence.groups.astype(np.float64)]
        key = hashlib.sha256(b"".join(a.tobytes() for a in arrays))
        name = f"{key.hexdigest()}{box}"
        if name not in self._memory:
            (fitted,) = surrogates_of(evidence, box, draws=DRAWS, thorough=False)
            prior = fitted.problem.prior
            self._memory[name] = np.array([(fit.theta - prior.mean) / prior.sd for fit in fitted.fits])
        z = self._memory[name]
        return conditioned(evidence, box, z[::8]), z


def conditioned(evidence: Evidence, box: Box, z: Floats) -> Surrogate:
    """Return the surrogate of some evidence at draws z (S, P) of its parameters, learned from less of it."""
    problem, centre, scale = problem_of(
        evidence.x, evidence.y, evidence.extra, evidence.common, evidence.groups, box, evidence.late
    )
    return Surrogate(problem, [Fit.of(problem, row) for row in z], centre, scale)


def _with_guesses(evidence: Evidence, x: Floats, expected: Floats) -> Evidence:
    """Return the evidence as if trials at ``x`` had given what is expected, so that others go elsewhere.

    Each is a block of its own: it stands for an average over blocks.
    """
    groups = evidence.groups
    if groups is not None:
        groups = np.concatenate([groups, groups.min() - 1 - np.arange(len(x))])
    return replace(
        evidence,
        groups=groups,
        x=np.concatenate([evidence.x, x]),
        y=np.concatenate([evidence.y, expected]),
        extra=np.concatenate([evidence.extra, np.zeros(len(x))]),
        late=np.concatenate([evidence.late, np.zeros(len(x))]),
        common=np.pad(evidence.common, ((0, len(x)), (0, 0))),
    )


def _spread_rows(size: int) -> Any:
    return np.linspace(0, size - 1, MAX_MODEL).round().astype(np.int64)


def _level(size: int, first: int) -> int:
    """Return the largest of first, first * GROWTH, ... (rounded up) that is not above ``size``."""
    level = first
    while (larger := int(np.ceil(level * GROWTH))) <= size:
        level = larger
    return min(level, size)


def _is_rate(found: BaseDistribution | None) -> bool:
    return isinstance(found, FloatDistribution) and found.log and not found.single()


def best_so_far(past: FrozenTrial, sign: float = 1.0) -> Floats:
    """Return the lowest (times ``sign``) finite intermediate value up to each reported step; may be empty."""
    values = np.array([sign * past.intermediate_values[step] for step in sorted(past.intermediate_values)])
    return np.asarray(np.fmin.accumulate(values) if len(values) else values, dtype=np.float64)


def _value(past: FrozenTrial, curve: Floats, sign: float) -> float:
    """Return the trial's value; of a pruned one the lowest of its curve; NaN when nothing is known."""
    if len(curve) and past.state == TrialState.PRUNED:
        return float(curve[-1])
    return float("nan") if past.value is None else sign * past.value


def _kind(past: FrozenTrial, value: float) -> str:
    if not np.isfinite(value):
        return "diverged"
    return "complete" if past.state == TrialState.COMPLETE else "pruned"
