"""The recorded fine-tuning runs as one table, and what they say of each rate and of the ratio, model-free.

    python benchmarks/recorded_runs.py

1,860 fine-tunings over rates of head and backbone, losses and seeds, with their learning curves: origin,
licence and limits are in docs/results/recorded_runs.md. ``load_runs`` is all that another program needs
(NumPy and pandas). A run's value is its lowest validation loss. Of every configuration the mean over seeds is
known with an error: 4,000 normal draws of all means say, for each value of a rate and of the ratio, in how
many it costs no more than one seed's standard deviation (as good), and in how many more (worse), as
hpo.analysis.zones has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.analysis.zones import SURE, above_best, share_as_good

Floats = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results"
FILES = {"bidmc_hr": "grid_bidmc.npz", "bidmc_rr": "grid_bidmc.npz", "ptb-xl": "grid_ptb-xl.npz"}
AXES = ("lr", "backbone_lr", "loss", "seed", "epoch")
DRAWS = 4000


def load_runs(task: str) -> pd.DataFrame:
    """Return one row a run and epoch: lr, backbone_lr, loss, seed, epoch, validation_loss, train_loss.

    ``validation_loss`` is in the task's unit (bpm, breaths/min, or cross-entropy); epochs count from 1.
    """
    with np.load(RESULTS / FILES[task]) as file:
        place = file["task"].tolist().index(task)
        axes = [*(file[name].tolist() for name in AXES[:4]), range(1, file["validation_loss"].shape[-1] + 1)]
        columns = {name: file[name][place].ravel() for name in ("validation_loss", "train_loss")}
    rows = pd.DataFrame(columns, index=pd.MultiIndex.from_product(axes, names=AXES))
    return rows.dropna(subset="validation_loss").reset_index()


def provenance(task: str) -> dict[str, Any]:
    """Return the study's spec, its data's hash, windows, trivial predictor, and the parts of the recording.

    Each part has its versions, hardware and days.
    """
    with np.load(RESULTS / FILES[task]) as file:
        found: dict[str, Any] = json.loads(str(file["provenance"]))["studies"][task]
    return found


def configurations(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and number of seeds of each configuration, with its ratio.

    The standard deviation of few seeds is no better known than that of all configurations of its loss
    that are no worse: the larger of the two is taken.
    """
    ended = runs.groupby(list(AXES[:4]))["validation_loss"].min()
    table = ended.groupby(level=[0, 1, 2]).agg(["mean", "std", "count"]).reset_index()
    near = table.nsmallest(max(5, len(table) // 3), "mean")["std"].median()
    table["sd"] = np.where(table["count"] >= 10, table["std"], np.maximum(table["std"], near))
    table["ratio"] = (table["lr"] / table["backbone_lr"]).round(6)
    return table


def standings(table: pd.DataFrame, axis: str) -> Iterator[tuple[float, float, str]]:
    """Yield for each value of an axis: what it costs over the best, and whether it is as good or worse."""
    best = table.loc[table["mean"].idxmin()]
    rng = np.random.default_rng(0)
    errors = (table["sd"] / np.sqrt(table["count"])).to_numpy()
    drawn = table["mean"].to_numpy() + errors * rng.standard_normal((DRAWS, len(table)))
    values = np.sort(table[axis].unique())
    profiles = np.stack([drawn[:, (table[axis] == value).to_numpy()].min(axis=1) for value in values], axis=1)
    good = share_as_good(profiles, best["sd"])
    worse = np.mean(above_best(profiles) > best["sd"], axis=0)
    lowest = table.groupby(axis)["mean"].min()
    for place, value in enumerate(values):
        standing = "as good" if good[place] >= SURE else "worse" if worse[place] >= SURE else "open"
        yield float(value), float(lowest[value] - best["mean"]), standing


def main() -> None:
    for task in FILES:
        runs = load_runs(task)
        table = configurations(runs)
        best = table.loc[table["mean"].idxmin()]
        lowest = [(table[name] == table[name].min()) for name in ("lr", "backbone_lr")]
        print(f"\n{task}: {runs.groupby(list(AXES[:4])).ngroups} runs of {len(table)} configurations")
        print(f"  always guessing: {provenance(task)['trivial']['validation_loss']:.4g}")
        print(
            f"  best: lr {best['lr']:.1e}, backbone_lr {best['backbone_lr']:.1e}, {best['loss']} (ratio "
            f"{best['ratio']:.3g}): {best['mean']:.4g}, sd {best['sd']:.2g} of {best['count']:.0f} seeds"
        )
        for row in table[lowest[0] & lowest[1]].itertuples():
            cost = row.mean - best["mean"]
            print(f"  published default's rates, {row.loss}: {row.mean:.4g}, costs {cost:.2g}")
        for axis in ("ratio", "lr", "backbone_lr"):
            told = (
                f"{value:.2g} {standing} (+{cost:.2g})" for value, cost, standing in standings(table, axis)
            )
            print(f"  {axis}: " + "; ".join(told))


if __name__ == "__main__":
    main()
