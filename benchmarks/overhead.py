"""What the service costs beside the training: CPU time of one trial of 30 epochs, SQLite.

    python benchmarks/overhead.py --data DATA [--study bidmc_rr] [--epochs 30] [--trials 1] [--subjects N]

Runs the real source, ledger, pruner and sampler in one process and counts the CPU time of every call that
the engine makes to them; all the rest is training. Process start-up is not in it.

Result, one trial of 30 epochs of bidmc_rr (9,912 windows), n = 1, one of 2 shared cores of an AMD EPYC,
Python 3.11.7, torch 2.13.0 (CPU build): training 137.2 CPU s, service 0.059 CPU s: 0.04 %. The first trial
is the baseline; a later one's suggestion costs another 0.06 to 0.2 CPU s (docs/search.md): 0.2 % at most.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from hpo.bench import measure_overhead
from hpo.study import load_spec
from hpo.worker.session import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HPO_DATA", "data")))
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("HPO_CACHE", ".cache")))
    parser.add_argument("--study", default="bidmc_rr")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--subjects", type=int, help="only so many training subjects: shorter epochs")
    options = parser.parse_args()
    spec = load_spec(options.study)
    recipe = spec.recipe.model_copy(update={"epochs": options.epochs, "patience": options.epochs})
    inputs = spec.inputs.model_copy(update={"train_subjects": options.subjects})
    spec = spec.model_copy(update={"recipe": recipe, "inputs": inputs})
    settings = Settings(options.data, options.cache, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        found = measure_overhead(spec, settings, Path(folder), trials=options.trials)
    print(json.dumps({**vars(found), "share": found.share}))


if __name__ == "__main__":
    main()
