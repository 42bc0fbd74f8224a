"""What a choice that does not matter costs a search: paired studies with and without it.

    python benchmarks/irrelevant_choice.py --pairs 30 --scores scores.csv

Each pair is a landscape of benchmarks/foreign_families.py, searched twice by our sampler and pruner with one
sampler seed and, trial by trial, the same luck of the seeds: once over both rates alone (the landscape of the
first loss), once with a choice of three values beside them that does nothing. Regret is the expected loss of
the answer's choice above the lowest of all, in standard deviations of a seed. Pairs go round the families; a
pair that is in the file is not run again, and the table is of all pairs in it.

    python benchmarks/irrelevant_choice.py --pairs 30 --scores answers.csv --answers

compares the answers of the same trials, suggested half at random and half near the best so far: once as they
are, once with values of the choice thrown onto them. What the choice costs the search itself is not in it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path

import foreign_families as families
import numpy as np
import optuna
import pandas as pd
import simulated_studies as simulated
from simulated_studies import EPOCHS, LOSSES, SPACE

from hpo.allocator import keep_freed_memory
from hpo.analysis import answer
from hpo.search.pruner import ImprovementPruner
from hpo.search.sampler import RatioSampler
from hpo.study.choices import Choices, Value
from hpo.study.setting import Setting

NOISE = 0.03
LOSS = (LOSSES[0],)
IDLE: Mapping[str, tuple[Value, ...]] = {"layer_decay": (1.0, 0.75, 0.5)}
JUDGED = sorted(set(families.FAMILIES) - families.TUNED)
"""Families on which nothing was chosen."""


class Space:
    """The simulated studies' space, with choices."""

    lr, backbone_lr, loss = SPACE.lr, SPACE.backbone_lr, LOSS

    def __init__(self, choices: Mapping[str, tuple[Value, ...]]) -> None:
        self.choices = choices


def searched(
    truth: families.Truth, seed: int, trials: int, choices: Mapping[str, tuple[Value, ...]]
) -> optuna.Study:
    """Return a study of so many trials on a landscape."""
    sampler = RatioSampler(seed=seed, choices=tuple(choices))
    study = optuna.create_study(sampler=sampler, pruner=ImprovementPruner(n_warmup_steps=3))
    for number in range(trials):
        trial = study.ask()
        lr = trial.suggest_float("lr", SPACE.lr.low, SPACE.lr.high, log=True)
        slow = trial.suggest_float("backbone_lr", SPACE.backbone_lr.low, SPACE.backbone_lr.high, log=True)
        trial.suggest_categorical("loss", LOSS)
        for name, values in choices.items():
            trial.suggest_categorical(name, values)
        luck = np.random.default_rng([seed, number])
        curve = truth.curve(float(np.log10(lr)), float(np.log10(slow)), 0, luck)
        _tell(study, trial, curve)
    return study


def _tell(study: optuna.Study, trial: optuna.Trial, curve: families.Floats) -> None:
    for epoch, loss in enumerate(curve, start=1):
        if np.isnan(loss):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        trial.report(float(loss), epoch)
        if epoch < EPOCHS and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
    study.tell(trial, float(curve.min()))


def tables(
    study: optuna.Study, choices: Mapping[str, tuple[Value, ...]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return trials and curves as hpo.reading.frames has them."""
    rows, points = [], []
    for trial in study.trials:
        curve = list(trial.intermediate_values.values())
        has_failed = trial.state == optuna.trial.TrialState.FAIL
        is_pruned = trial.state == optuna.trial.TrialState.PRUNED
        rows.append(
            {
                "number": trial.number,
                "state": "pruned" if is_pruned or has_failed else "complete",
                "origin": "search",
                "lr": trial.params["lr"],
                "backbone_lr": trial.params["backbone_lr"],
                "ratio": trial.params["lr"] / trial.params["backbone_lr"],
                "loss": trial.params["loss"],
                **{name: trial.params[name] for name in choices},
                "seed": trial.number,
                "fold": None,
                "value": np.nan if has_failed else min(curve),
                "end": "diverged" if has_failed else "pruned" if is_pruned else "finished",
            }
        )
        points += [(trial.number, epoch, loss) for epoch, loss in enumerate(curve, start=1)]
    return pd.DataFrame(rows), pd.DataFrame(points, columns=["number", "epoch", "validation_loss"])


def drawn(truth: families.Truth, seed: int, trials: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return trials and curves that no model suggested, with values of a choice that does nothing."""
    rng, rows, curves = np.random.default_rng([11, seed]), [], []
    reached = np.empty((0, EPOCHS))
    for number in range(trials):
        lr, slow, _ = simulated._suggest(rows, rng, adaptive=True) if number else (-4.0, -5.0, 0)
        curve, end = simulated._pruned(truth.curve(lr, slow, 0, rng), reached)
        row = {"number": number, "state": "complete" if end == "finished" else "pruned", "origin": "search"}
        row |= {"lr": 10**lr, "backbone_lr": 10**slow, "ratio": 10 ** (lr - slow), "loss": LOSS[0]}
        row |= {name: values[int(rng.integers(len(values)))] for name, values in IDLE.items()}
        value = np.nan if end == "diverged" else float(np.nanmin(curve))
        rows.append(row | {"seed": number, "fold": None, "value": value, "end": end})
        curves += [(number, epoch, loss) for epoch, loss in enumerate(curve, start=1)]
        if np.isfinite(curve[0]):
            reached = np.vstack([reached, simulated._best_by_epoch(curve)])
    return pd.DataFrame(rows), pd.DataFrame(curves, columns=["number", "epoch", "validation_loss"])


def regret(
    truth: families.Truth,
    trials_and_curves: tuple[pd.DataFrame, pd.DataFrame],
    choices: Mapping[str, tuple[Value, ...]],
) -> float:
    """Return what the answer's choice costs, in standard deviations of a seed; infinite without a choice."""
    default = Setting(1e-4, 1e-5, "mse", Choices({name: values[0] for name, values in choices.items()}))
    found = answer(*trials_and_curves, Space(choices), default, 2.0).choice
    if found is None:
        return float("inf")
    at = np.log10(found.lr), np.log10(found.backbone_lr), 0
    expected = float(truth.expected(*(np.array(one) for one in at)))
    return (expected - float(truth.values[..., 0].min())) / truth.noise


def main() -> None:
    """Run the pairs that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--answers", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = _known(options.scores)
    for pair in range(options.pairs):
        if pair not in known:
            name = JUDGED[pair % len(JUDGED)]
            truth = families.FAMILIES[name](np.random.default_rng([7, pair]), NOISE)
            both = _answers(truth, pair, options.trials) if options.answers else []
            for choices in () if options.answers else ({}, IDLE):
                study = searched(truth, pair, options.trials, choices)
                both.append(regret(truth, tables(study, choices), choices))
            with options.scores.open("a", newline="") as file:
                csv.writer(file).writerow([pair, name, *both])
    print(table(_known(options.scores)))


def _answers(truth: families.Truth, seed: int, trials: int) -> list[float]:
    """Return the regret of the same trials' answer without and with the choice."""
    same = drawn(truth, seed, trials)
    return [regret(truth, same, choices) for choices in ({}, IDLE)]


def _known(file: Path) -> dict[int, tuple[float, float]]:
    if not file.exists():
        return {}
    with file.open(newline="") as opened:
        return {int(row[0]): (float(row[2]), float(row[3])) for row in csv.reader(opened)}


def table(known: dict[int, tuple[float, float]]) -> str:
    """Return mean regrets without and with the choice, and their difference with its bootstrapped error."""
    both = np.array(list(known.values()))
    gaps = both[:, 1] - both[:, 0]
    picks = np.random.default_rng(0).integers(0, len(both), (4000, len(both)))
    shares = gaps[picks].mean(axis=1) / both[picks, 0].mean(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    without, with_it = both.mean(axis=0)
    ends = f"[{low:+.0%}, {high:+.0%}]"
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    return (
        f"{len(both)} pairs: regret {without:.3f} without, {with_it:.3f} with the choice (seed sd); "
        f"difference {gaps.mean():+.3f} +- {error:.3f}, {gaps.mean() / without:+.1%} {ends}"
    )


if __name__ == "__main__":
    main()
