"""PTB-XL's part with twelve leads beside lead II, on the built-in encoder: paired seeds.

    python benchmarks/leads.py --data DATA --seeds 5

Rates lr 1e-3, backbone_lr 1e-3 (the better of two in docs/backbones.md), loss bce, its recipe. Results
go to ``benchmarks/results/leads_ptb-xl.json``; a run that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from recipes import RESULTS, Runs

from finetune.api import Run, train
from hpo.confirm.paired import sign_flip_p
from hpo.study import Configuration, load_spec
from hpo.study.parts import TWELVE_LEADS

ARMS = {"lead II": (), "12 leads": TWELVE_LEADS}


def main() -> None:
    """Run what is missing and print the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    one = load_spec("ptb-xl").run_spec(Configuration(1e-3, 1e-3, "bce", 0))
    file = RESULTS / "leads_ptb-xl.json"
    kept: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    runs = [
        Run(
            f"{arm} / {seed}",
            replace(one, inputs=replace(one.inputs, leads=leads, allow_partial=True), seed=seed),
        )
        for seed in range(options.seeds)
        for arm, leads in ARMS.items()
        if f"{arm} / {seed}" not in kept
    ]
    train(Runs(runs, kept, file), data_dir=options.data, cache_dir=options.cache, device="cpu")
    losses = {arm: np.array([kept[f"{arm} / {seed}"] for seed in range(options.seeds)]) for arm in ARMS}
    for arm, found in losses.items():
        print(f"{arm}: {found.mean():.4f} ({found.std(ddof=1):.4f})")
    gap = losses["12 leads"] - losses["lead II"]
    print(f"difference {gap.mean():+.4f} ({gap.std(ddof=1):.4f}), sign-flip p {sign_flip_p(gap):.3f}")


if __name__ == "__main__":
    main()
