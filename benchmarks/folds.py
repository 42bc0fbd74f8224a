"""What validating on folds of people changes: the same search on the reference split and on grouped folds.

    python benchmarks/folds.py --data DATA --storage sqlite:///folds.db --trials 60
    python benchmarks/folds.py --study synthetic_hr --storage sqlite:///folds.db --trials 20 --workers 1

Two studies, made from a shipped one: every fourth window of each subject, batches of 32, the last part of the
budget on fresh seeds of three leaders and the baseline. They differ in ``validation`` alone. The same command
again goes on where it was stopped, and prints the table of what is there.

Result on bidmc_hr, 50 trials each: 71 % of the variance of a random trial on folds is people, 2 % seeds, 27 %
configurations; on the reference split 42 % seeds, 58 % configurations. The table: docs/results/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from hpo.cli.app import main as hpo
from hpo.reading.findings import Findings, find_out
from hpo.storage import open_engine
from hpo.study import StudySpec, load_spec

VALIDATIONS: dict[str, dict[str, Any]] = {
    "reference": {"kind": "reference"},
    "folds": {"kind": "grouped_folds", "k": 5},
}


def spec_of(study: str, validation: str, every: int) -> StudySpec:
    """Return the shipped study, cheaper, with one of the two kinds of validation."""
    shipped = load_spec(study).model_dump(exclude={"known", "published"})
    return StudySpec.model_validate(
        {
            **shipped,
            "name": f"{study}_on_{validation}",
            "inputs": shipped["inputs"] | {"every": every},
            "recipe": shipped["recipe"] | {"batch_size": 32},
            "validation": VALIDATIONS[validation],
            "replicate": {"top": 3, "seeds": 5},
        }
    )


def searched(spec: StudySpec, args: argparse.Namespace) -> Findings:
    """Run the study up to its budget with ``hpo run``, and return what it found."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{spec.name}.yaml"
        file.write_text(json.dumps(spec.model_dump(mode="json", exclude_none=True)))
        words = ["run", "--study", str(file), "--trials", str(args.trials), "--storage", args.storage]
        given = {"--data": args.data, "--cache": args.cache, "--workers": args.workers}
        status = hpo([*words, *(str(part) for pair in given.items() if pair[1] is not None for part in pair)])
    if status:
        raise SystemExit(status)
    engine = open_engine(args.storage)
    found = find_out(engine, spec.name)
    engine.dispose()
    return found


def lines(validation: str, found: Findings) -> list[str]:
    """Return what one study says: its answer, its ratio, and who is behind the variance of a random trial."""
    answer, unit = found.answer, found.task.unit
    if answer.choice is None or answer.curve is None or answer.baseline is None:
        return [f"{validation}: no answer from {found.counts.complete} complete trials"]
    choice, curve = answer.choice, answer.curve
    low, high = (10**end for end in curve.interval)
    shares = dict(answer.noise.shares)
    people, seeds = shares.pop("fold", 0.0), shares.pop("seed")
    return [
        f"{validation}: {found.counts.complete} complete, {found.counts.pruned} pruned",
        f"  choice: lr {choice.lr:.3g}, backbone_lr {choice.backbone_lr:.3g}, {choice.loss}; expected loss"
        f" {choice.expected_validation_loss:.4g} +- {choice.standard_error:.2g} {unit}",
        f"  baseline: {answer.baseline.value:.4g} +- {answer.baseline.standard_error:.2g} {unit}"
        f" ({answer.against_baseline}); trivial predictor: {found.trivial:.4g} ({answer.against_trivial})",
        f"  ratio: {choice.ratio:.3g}, 95 % interval {low:.3g} to {high:.3g}"
        f" ({'' if curve.identified else 'not '}identified)",
        f"  seed standard deviation: {answer.noise.seed_sd:.3g} {unit} (from the {answer.noise.source},"
        f" {answer.noise.degrees_of_freedom} degrees of freedom)",
        f"  variance of a random trial: subjects {people:.0%}, seeds {seeds:.0%},"
        f" configurations {sum(shares.values()):.0%}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", default="bidmc_hr", help="a shipped study on the reference split")
    parser.add_argument("--trials", type=int, default=60, help="of each of the two studies")
    parser.add_argument("--every", type=int, default=4, help="every n-th window of a subject")
    parser.add_argument("--storage", default="sqlite:///folds.db")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    found = {name: searched(spec_of(args.study, name, args.every), args) for name in VALIDATIONS}
    for name, one in found.items():
        print("\n".join(lines(name, one)))


if __name__ == "__main__":
    main()
