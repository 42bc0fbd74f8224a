"""What the code of today says of a kept table of trials: the lines and the picture of README.md.

    python benchmarks/told_again.py docs/results/bidmc_hr --out docs/pictures

Reads trials.csv and report.json of a report's folder. Learning curves that were not kept are not there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from hpo.analysis import answer
from hpo.ledger.values import Counts, StudyRow
from hpo.reading.findings import Findings
from hpo.report.answer import answer_lines
from hpo.report.figures.all import draw_figure, render
from hpo.study import load_spec

WHOLE = ("seed", "fold", "best_epoch", "epochs")


def findings_of(folder: Path) -> Findings:
    """Return the findings that the trials of a report's folder give today."""
    told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    trials = pd.read_csv(folder / "trials.csv")
    trials[[*WHOLE]] = trials[[*WHOLE]].astype("Int64")
    curves = pd.DataFrame({"number": [], "epoch": [], "train_loss": [], "validation_loss": []}, dtype=float)
    if (folder / "curves.csv").exists():
        curves = pd.read_csv(folder / "curves.csv")
    spec = load_spec(told["study"])
    data = {"trivial": {"validation_loss": told["trivial"]}, "trivial_name": told["trivial_name"]}
    stored, fingerprint = spec.model_dump(mode="json"), spec.fingerprint()
    row = StudyRow(1, spec.name, "search", stored, fingerprint, data, {}, 0, "open", 0.0)
    counts = Counts(told["complete"], told["pruned"], told["failed"], 0, 0, told["epochs"])
    found = answer(trials, curves, spec.space, spec.baseline, told["trivial"])
    return Findings(row, spec, counts, trials, curves, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path())
    args = parser.parse_args()
    findings = findings_of(args.folder)
    print("\n".join(answer_lines(findings)))
    args.out.mkdir(parents=True, exist_ok=True)
    picture = args.out / f"{findings.row.name}_ratio.png"
    picture.write_bytes(render(draw_figure("ratio", findings), "png"))
    print(f"written: {picture}")


if __name__ == "__main__":
    main()
