"""The first answer that a new user gets, again and again: is it true?

    python benchmarks/first_answers.py --store answers/ --searches 10
    python benchmarks/first_answers.py --store answers/ --summary

Runs the search of `make run` (synthetic_rr, 30 trials) with other seeds of the sampler, one database a
search, and then trains what it points at anew, each configuration with FRESH fresh seeds: the choice, the
luckiest trial's configuration, the next lowest losses and the leaders. A configuration's true expected
validation loss is the mean of its fresh runs. Runs are kept one a line in fresh.jsonl; what is there is not
run again, so a call goes on where another was stopped. ``--summary`` asks each kept database for its answer
with the code of today and trains what a new choice lacks; with ``--runs 0`` it trains nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetune.api import Report, Run, RunResult, train
from hpo.allocator import keep_freed_memory
from hpo.analysis.leaders import leaders
from hpo.fleet import run_local
from hpo.reading.findings import Findings, find_out
from hpo.storage import open_engine
from hpo.study import Configuration, StudySpec, load_spec
from hpo.study.setting import Setting
from hpo.worker import Settings, open_study

FRESH = 5
"""Fresh seeds a configuration."""
FIRST_FRESH_SEED = 1_000_000
"""No search draws a seed from here on."""
LEADERS = 3
"""Of the model's ranking and of the lowest losses, so many are run anew."""


@dataclass
class Fresh:
    """The validation losses of fresh runs, kept in a file; implements finetune's ``RunSource``."""

    file: Path
    losses: dict[tuple[Setting, int], float] = field(default_factory=dict)
    _wanted: list[tuple[Setting, int, Run]] = field(default_factory=list)
    _under_way: dict[str, tuple[Setting, int]] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> Fresh:
        """Read what is known."""
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [json.loads(line) for line in lines]
        return cls(file, {(Setting(*row["setting"]), row["seed"]): row["loss"] for row in rows})

    def run(self, spec: StudySpec, wanted: Sequence[Setting], settings: Settings) -> None:
        """Train what is not known of the configurations."""
        for seed in range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + FRESH):
            for setting in wanted:
                one = Configuration(setting.lr, setting.backbone_lr, setting.loss, seed)
                if (setting, seed) not in self.losses:
                    self._wanted.append((setting, seed, Run(f"{setting}:{seed}", spec.run_spec(one))))
        train(self, data_dir=settings.data_dir, cache_dir=settings.cache_dir, device="cpu")

    def next_run(self) -> Run | None:
        """Hand out a run."""
        if not self._wanted:
            return None
        setting, seed, run = self._wanted.pop(0)
        self._under_way[run.run_id] = setting, seed
        return run

    def report(self, reports: Sequence[Report]) -> list[bool]:
        """Let all go on."""
        return [True] * len(reports)

    def finish(self, result: RunResult) -> None:
        """Keep a run's lowest validation loss; infinite when it diverged."""
        setting, seed = self._under_way.pop(result.run_id)
        loss = np.inf if result.reason == "diverged" else result.best_validation_loss
        self.losses[setting, seed] = float(loss)
        row = {"setting": [setting.lr, setting.backbone_lr, setting.loss], "seed": seed, "loss": float(loss),
               "elapsed_s": result.elapsed_s}  # fmt: skip
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def of(self, setting: Setting) -> list[float]:
        """Return the losses of a configuration."""
        return [loss for (known, _), loss in self.losses.items() if known == setting]


def search_spec(task: str, number: int) -> StudySpec:
    """Return the shipped study with another seed of its sampler."""
    shipped = load_spec(task)
    return shipped.model_copy(update={"sampler": shipped.sampler.model_copy(update={"seed": number})})


def search(url: str, spec: StudySpec, trials: int, settings: Settings, workers: int) -> Findings:
    """Run the search, or what is left of it; return what it says."""
    open_study(url, spec, settings, total=trials)
    run_local(url, spec.name, total=trials, workers=workers, settings=settings)
    engine = open_engine(url, create=False)
    try:
        return find_out(engine, spec.name)
    finally:
        engine.dispose()


def pointed_at(found: Findings) -> dict[str, Setting]:
    """Return what the trials point at, by why: choice, luckiest, lowest N, leader N."""
    complete = found.trials[found.trials["end"].isin(["finished", "early_stopped"])].sort_values("value")
    lowest = [Setting(row.lr, row.backbone_lr, row.loss) for row in complete.head(LEADERS).itertuples()]
    ranked = leaders(found.trials, found.curves, found.spec.space, LEADERS)
    choice = found.answer.choice
    named = {"choice": Setting(choice.lr, choice.backbone_lr, choice.loss)} if choice else {}
    named |= {f"lowest {place}": one for place, one in enumerate(lowest)}
    return named | {f"leader {place}": one for place, one in enumerate(ranked)}


def judged(found: Findings, fresh: Fresh) -> dict[str, Any]:
    """Return how the choice stands to its fresh runs, and to the best of all that were run anew."""
    answer = found.answer
    means = {name: float(np.mean(fresh.of(one) or [np.nan])) for name, one in pointed_at(found).items()}
    spreads = [np.var(fresh.of(one), ddof=1) for one in pointed_at(found).values() if len(fresh.of(one)) > 1]
    finite = [spread for spread in spreads if np.isfinite(spread)]
    seed_sd = float(np.sqrt(np.median(finite))) if finite else np.nan
    row: dict[str, Any] = {"complete": answer.trials["complete"], "seed_sd": seed_sd, **means}
    if answer.choice is not None and answer.choice.expected_validation_loss is not None:
        own = means["choice"]
        said, error = answer.choice.expected_validation_loss, answer.choice.standard_error or 0.0
        count = max(len(fresh.of(pointed_at(found)["choice"])), 1)
        row |= {
            "said": said,
            "said_error": error,
            "errors_off": (own - said) / float(np.hypot(error, seed_sd / np.sqrt(count))),
            "behind_best_sd": (own - min(means.values())) / seed_sd,
        }
    curve = answer.curve
    return row | {"identified": bool(curve and curve.identified), "interval": curve and list(curve.interval)}


def databases(store: Path) -> Iterator[tuple[str, str]]:
    """Yield the URL and the study of each kept search."""
    for file in sorted(store.glob("*.db")):
        yield f"sqlite:///{file}", file.stem.rpartition("_")[0]


def summary(store: Path, settings: Settings, *, runs: bool) -> None:
    """Print, one JSON line a search, how today's answer of each kept database stands to its fresh runs."""
    fresh = Fresh.load(store / "fresh.jsonl")
    for url, study in databases(store):
        engine = open_engine(url, create=False)
        found = find_out(engine, study)
        engine.dispose()
        if runs:
            fresh.run(found.spec, list(pointed_at(found).values()), settings)
        print(json.dumps({"database": url, **judged(found, fresh)}), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="folder of databases and fresh runs")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="folder of prepared windows")
    parser.add_argument("--study", default="synthetic_rr")
    parser.add_argument("--searches", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="seed of the first search's sampler")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1, help="0: with --summary, train nothing")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    options.store.mkdir(parents=True, exist_ok=True)
    settings = Settings(options.store, options.cache, "cpu", 1)
    if options.summary:
        return summary(options.store, settings, runs=bool(options.runs))
    for number in range(options.first, options.first + options.searches):
        url = f"sqlite:///{options.store / f'{options.study}_{number}.db'}"
        spec = search_spec(options.study, number)
        found = search(url, spec, options.trials, settings, options.workers)
        fresh = Fresh.load(options.store / "fresh.jsonl")
        fresh.run(spec, list(dict.fromkeys(pointed_at(found).values())), settings)
        print(json.dumps({"database": url, **judged(found, fresh)}), flush=True)


if __name__ == "__main__":
    main()
