"""The opponent: what a competent user would write in an afternoon, and its speed against ours in one run.

    pip install torchmetrics
    python benchmarks/plain_optuna.py run --data DATA --trials 100 [--mode linear_probing]
    python benchmarks/plain_optuna.py measure --data DATA --trials 6 --rounds 3 --precision fp32 bf16
    python benchmarks/plain_optuna.py measure --data DATA --trials 100 --plain-trials 4 --rounds 1 \
        --mode linear_probing

    python benchmarks/plain_optuna.py epochs --data DATA --subjects 2 --rounds 5

`run` is that program alone: ``study.optimize`` with TPE and MedianPruner over SQLite, around a loop with
DataLoader workers, torch.nn.TransformerEncoderLayer, torchmetrics in each step and one process that uses all
cores. It has the model, weights, data, split, recipe, yardstick, search space and pruning interval of the
shipped study bidmc_rr, and reads our prepared windows, so that it pays for no preparation. Kept fair: its
workers are persistent, the validation batch is large, the optimiser is fused, the frozen backbone of linear
probing runs without gradients.

`measure` alternates both, each in a process of its own (start-up and imports included), and prints trials an
hour; ours is ``hpo run`` with the sampler and pruner of the study or, for trials of like length, with TPE and
the median rule too (--same-search). Precision bf16 is ours alone. Linear probing: ours is
``linear_probing_cached``.

`epochs` alternates single epochs of both loops (training and validation) in one process and compares their
CPU time, loader workers included; a cached epoch is that of 16 heads, and its ratio is for all 16 together.

Result of `measure` on 2 otherwise idle cores of an AMD EPYC (avx512_bf16), 24 GiB, Python 3.11.7, torch
2.13.0 (CPU build), optuna 5.0.0, torchmetrics 1.9; study bidmc_rr, start-up and imports included; plain /
ours, and in brackets the ratio of each round; `same search`: --same-search, else ours with gp and median:

| mode | trials | trials an hour | epochs an hour | epochs a CPU second | n |
|---|---|---|---|---|---|
| fp32, same search | 12 / 36 | 118 / 572 (4.9) | 511 / 1890 (3.7) | 0.075 / 0.276 (3.7) | 1 |
| fp32, same search | 12 / 12 | 128 / 548 (4.3) | 556 / 1640 (3.0) | 0.080 / 0.248 (3.1) | 1 |
| bf16, same search | 12 / 36 | 118 / 720 (6.1) | 511 / 2320 (4.5) | 0.075 / 0.333 (4.5) | 1 |
| bf16, same search, later | 12 / 36 | 155 / 665 (4.3) | 670 / 2140 (3.2) | 0.095 / 0.304 (3.2) | 1 |
| bf16, same search | 12 / 12 | 128 / 602 (4.7) | 556 / 2010 (3.6) | 0.080 / 0.305 (3.8) | 1 |
| compiled loops, dropout from numpy (engine 2): | | | | | |
| fp32, same search | 12 / 12 | 162 / 630 (4.0, 3.8) | 702 / 1940 (2.9, 2.7) | 0.100 / 0.281 (2.9, 2.7) | 2 |
| bf16, same search | 12 / 12 | 162 / 626 (3.8, 3.9) | 702 / 2190 (3.1, 3.1) | 0.100 / 0.322 (3.2, 3.2) | 2 |
| bf16, same search | 12 / 36 | 136 / 500 (3.7) | 590 / 2050 (3.5) | 0.084 / 0.299 (3.6) | 1 |
| before the compiled loops (engine 1): | | | | | |
| fp32, same search | 12 / 12 | 156 / 570 (3.9, 3.4) | 678 / 1660 (2.6, 2.3) | 0.098 / 0.245 (2.6, 2.4) | 2 |
| bf16, same search | 12 / 12 | 156 / 500 (3.4, 3.0) | 678 / 1790 (2.8, 2.5) | 0.098 / 0.268 (2.8, 2.7) | 2 |
| fp32, same search | 8 / 16 | 130 / 517 (4.0) | 652 / 1780 (2.7) | 0.094 / 0.258 (2.8) | 1 |
| full fine-tuning, fp32 | 5 / 12 | 113 / 295 (2.61) | 654 / 1470 (2.25) | 0.094 / 0.225 (2.39) | 1 |
| the same, bf16 | 5 / 12 | 113 / 293 (2.60) | 654 / 1590 (2.43) | 0.094 / 0.246 (2.62) | 1 |
| fp32, short searches | 4 / 4 | 114 / 194 (1.6, 1.8) | 597 / 1210 (1.9, 2.2) | 0.086 / 0.214 (2.3, 2.7) | 2 |
| bf16, short searches | 4 / 4 | 114 / 212 (1.8, 1.9) | 597 / 1270 (2.1, 2.2) | 0.086 / 0.225 (2.5, 2.7) | 2 |
| linear probing | 4 / 100 | 205 / 18900 (92) | 1030 / 82700 (81) | 0.151 / 13.0 (86) | 1 |

A search of 4 trials is mostly start-up and the wait of one worker for the other. Trials are of different
lengths: patience and pruning end most early (the plain 12 trials had 52 epochs, ours 36 and 40 in 12, 119
and 116 in 36, fp32 and bf16), and which configurations a search draws is luck, so compare epochs too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from finetune.api import BackboneSpec, InputSpec, Mode, Recipe, Run, RunSpec
from finetune.backbones.cmssl import TINY, Positions
from finetune.backbones.cmssl_files import BUILTIN, load_cmssl_safetensors
from finetune.data.prepared import prepare
from finetune.engine.arms import CPU_HEADS
from finetune.engine.features import input_loader
from finetune.engine.loop import end_epoch, open_member
from finetune.engine.loop import train_epoch as train_epoch_ours
from finetune.engine.stacked_epoch import train_epoch_stacked
from hpo.study import StudySpec, load_spec

LOSSES = {"mse": nn.MSELoss, "l1": nn.L1Loss, "smooth_l1": nn.SmoothL1Loss}
LOADER_WORKERS = 2


class Encoder(nn.Module):
    """The same encoder from torch's own layers; loads the same weights."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.linear_projection = nn.Linear(TINY.patch, TINY.embedding)
        self.pe = Positions(TINY.max_patches, TINY.embedding)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                TINY.embedding, TINY.heads, 4 * TINY.embedding, TINY.dropout, nn.GELU(), batch_first=True
            )
            for _ in range(TINY.layers)
        )
        self.load_state_dict(load_cmssl_safetensors(weights).state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Map windows (B, T) to features (B, E)."""
        tokens = self.pe(self.linear_projection(x.view(len(x), -1, TINY.patch)))
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens.mean(dim=1)  # type: ignore[no-any-return]  # nn.Module.__call__


@dataclass
class Data:
    """Loaders of one study, and what turns outputs into label units."""

    train: DataLoader[tuple[Tensor, ...]]
    validation: DataLoader[tuple[Tensor, ...]]
    mean: float
    std: float


def make_data(spec: StudySpec, data_dir: Path, cache_dir: Path, subjects: int | None = None) -> Data:
    """Read the prepared windows once for all trials."""
    inputs = InputSpec(spec.task, spec.inputs.normalisation, spec.inputs.samples, subjects)
    prepared = prepare(inputs, data_dir, cache_dir)
    assert prepared.label_mean is not None
    assert prepared.label_std is not None
    mean, std = float(prepared.label_mean[0]), float(prepared.label_std[0])
    sets = [
        TensorDataset(
            torch.from_numpy(np.array(windows.x)), torch.from_numpy((windows.y - mean) / std).float()
        )
        for windows in (prepared.train, prepared.validation)
    ]
    size = spec.recipe.batch_size
    train = DataLoader(sets[0], size, shuffle=True, num_workers=LOADER_WORKERS, persistent_workers=True)
    validation = DataLoader(sets[1], 512, num_workers=1, persistent_workers=True)
    return Data(train, validation, mean, std)


def objective(trial: optuna.Trial, spec: StudySpec, data: Data, mode: str) -> float:
    """Fine-tune one configuration; return the best validation MAE in label units."""
    from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

    space, recipe = spec.space, spec.recipe
    lr = trial.suggest_float("lr", space.lr.low, space.lr.high, log=True)
    backbone_lr = trial.suggest_float("backbone_lr", space.backbone_lr.low, space.backbone_lr.high, log=True)
    criterion = LOSSES[trial.suggest_categorical("loss", list(space.loss))]()
    torch.manual_seed(trial.suggest_int("seed", space.seed.low, space.seed.high))
    encoder = Encoder(BUILTIN / f"{BackboneSpec(spec.backbone.name).name}.safetensors")
    width = TINY.embedding
    head = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, 1))
    groups: list[dict[str, Any]] = [{"params": head.parameters(), "lr": lr}]
    if mode == "linear_probing":
        encoder.requires_grad_(False)
    else:
        groups.append({"params": encoder.parameters(), "lr": backbone_lr})
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    metrics = MetricCollection([MeanAbsoluteError(), MeanSquaredError(), R2Score()])
    best, best_epoch = float("inf"), 0
    for epoch in range(1, recipe.epochs + 1):
        train_epoch(encoder, head, optimizer, criterion, data, metrics.clone())
        mae = validate(encoder, head, data, metrics.clone())
        if mae < best:
            best, best_epoch = mae, epoch
        trial.report(mae, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
        if epoch - best_epoch >= recipe.patience:
            break
    return best


def train_epoch(
    encoder: nn.Module,
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: nn.Module,
    data: Data,
    metrics: Any,
) -> None:
    encoder.train()
    head.train()
    for x, y in data.train:
        outputs = head(encoder(x))
        loss = criterion(outputs, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        metrics.update(outputs.detach() * data.std + data.mean, y * data.std + data.mean)
    metrics.compute()


@torch.no_grad()
def validate(encoder: nn.Module, head: nn.Module, data: Data, metrics: Any) -> float:
    encoder.eval()
    head.eval()
    for x, y in data.validation:
        metrics.update(head(encoder(x)) * data.std + data.mean, y * data.std + data.mean)
    return float(metrics.compute()["MeanAbsoluteError"])


def run(options: argparse.Namespace) -> None:
    """Search as the user would."""
    spec = load_spec(options.study)
    data = make_data(spec, options.data, options.cache)
    pruner = optuna.pruners.MedianPruner(spec.pruner.startup_trials, spec.pruner.warmup_epochs)
    study = optuna.create_study(
        storage=options.storage, sampler=optuna.samplers.TPESampler(seed=options.seed), pruner=pruner
    )
    study.optimize(lambda trial: objective(trial, spec, data, options.mode), n_trials=options.trials)
    epochs = sum(len(trial.intermediate_values) for trial in study.trials)
    print(json.dumps({"trials": len(study.trials), "epochs": epochs, "best": study.best_value}))


@dataclass(frozen=True)
class Timing:
    """One search."""

    who: str
    trials: int
    epochs: int
    wall_s: float
    cpu_s: float
    best: float


def measure(options: argparse.Namespace) -> None:
    """Alternate the programs and print one JSON line a search, then what ours is to the plain one."""
    timings: list[Timing] = []
    for _ in range(options.rounds):
        timings.append(plain(options))
        print(json.dumps(vars(timings[-1])), flush=True)
        for precision in options.precision:
            timings.append(ours(options, precision))
            print(json.dumps(vars(timings[-1])), flush=True)
    rates = {
        "trials an hour": lambda timing: 3600 * timing.trials / timing.wall_s,
        "epochs an hour": lambda timing: 3600 * timing.epochs / timing.wall_s,
        "epochs a CPU second": lambda timing: timing.epochs / timing.cpu_s,
    }
    for name, rate in rates.items():
        plainly = [rate(timing) for timing in timings if timing.who == "plain"]
        print(f"{name}: plain {statistics.median(plainly):.3g} ({_range(plainly)})")
        for precision in options.precision:
            mine = [rate(timing) for timing in timings if timing.who == f"ours {precision}"]
            ratios = [one / other for one, other in zip(mine, plainly, strict=True)]
            print(
                f"{name}: ours {precision} {statistics.median(mine):.3g} ({_range(mine)}), "
                f"ratio {statistics.median(ratios):.2f} ({_range(ratios)})"
            )


def _range(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}, n = {len(values)}"


def plain(options: argparse.Namespace) -> Timing:
    """Run this file's own search."""
    trials = options.plain_trials or options.trials
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *(sys.executable, __file__, "run", "--storage", f"sqlite:///{folder}/plain.db"),
            *("--study", options.study, "--trials", str(trials), "--mode", options.mode),
            *("--data", str(options.data), "--cache", str(options.cache)),
        ]
        out, wall_s, cpu_s = timed(words, {})
    told = json.loads(out.splitlines()[-1])
    return Timing("plain", told["trials"], told["epochs"], wall_s, cpu_s, told["best"])


def ours(options: argparse.Namespace, precision: str) -> Timing:
    """Run ``hpo run`` on the same study."""
    with tempfile.TemporaryDirectory() as folder:
        file = study_file(options, precision, Path(folder))
        words = [
            *(sys.executable, "-m", "hpo", "run", "--study", str(file), "--trials", str(options.trials)),
            *("--storage", f"sqlite:///{folder}/ours.db", "--json", "--device", "cpu"),
            *("--data", str(options.data), "--cache", str(options.cache)),
        ]
        out, wall_s, cpu_s = timed(words, {"PYTHONPATH": os.pathsep.join(sys.path)})
        with optuna_study(f"sqlite:///{folder}/ours.db") as study:
            finished = [trial for trial in study.trials if trial.state.is_finished()]
            epochs = sum(max(trial.intermediate_values, default=0) for trial in finished)
            best = study.best_value
    assert out
    return Timing(f"ours {precision}", len(finished), epochs, wall_s, cpu_s, best)


def epochs(options: argparse.Namespace) -> None:
    """Alternate single epochs of both loops in one process and print CPU seconds of each, and ratios."""
    spec = load_spec(options.study)
    loops = {
        "plain": plain_epoch(spec, options),
        "ours_fp32": our_epoch(spec, options, "full_finetuning", "fp32"),
        "ours_bf16": our_epoch(spec, options, "full_finetuning", "bf16"),
        "plain_probing": plain_epoch(spec, options, "linear_probing"),
        "ours_cached": our_epoch(spec, options, "linear_probing_cached", "fp32"),
    }
    spent: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(options.rounds + 1):
        for name, loop in loops.items():
            torch.set_num_threads(options.threads if name.startswith("plain") else 1)
            before = cpu_with_children()
            loop()
            if number:  # the first one warms up
                spent[name].append(cpu_with_children() - before)
    for name, found in spent.items():
        print(json.dumps({"loop": name, "cpu_s": [round(value, 3) for value in found]}))
    for ours, plain in (
        ("ours_fp32", "plain"),
        ("ours_bf16", "plain"),
        ("ours_cached", "plain_probing"),
    ):
        ratios = [theirs / mine for theirs, mine in zip(spent[plain], spent[ours], strict=True)]
        print(json.dumps({"ratio": f"{plain} / {ours}", "median": round(statistics.median(ratios), 2)}))


def plain_epoch(
    spec: StudySpec, options: argparse.Namespace, mode: str = "full_finetuning"
) -> Callable[[], None]:
    """Return a call that trains and validates the plain loop for one epoch."""
    from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

    data = make_data(spec, options.data, options.cache, options.subjects)
    encoder = Encoder(BUILTIN / f"{spec.backbone.name}.safetensors")
    width = TINY.embedding
    head = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, 1))
    encoder.requires_grad_(mode == "full_finetuning")
    trained = [*head.parameters(), *(p for p in encoder.parameters() if p.requires_grad)]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=spec.recipe.weight_decay, fused=True)
    metrics = MetricCollection([MeanAbsoluteError(), MeanSquaredError(), R2Score()])

    def epoch() -> None:
        train_epoch(encoder, head, optimizer, nn.L1Loss(), data, metrics.clone())
        validate(encoder, head, data, metrics.clone())

    return epoch


def our_epoch(spec: StudySpec, options: argparse.Namespace, mode: Mode, precision: Any) -> Callable[[], None]:
    """Return a call that trains and validates our loop for one epoch, a member each of 16 if cached."""
    inputs = InputSpec(spec.task, spec.inputs.normalisation, spec.inputs.samples, options.subjects)
    recipe = Recipe(1, spec.recipe.batch_size, 1, spec.recipe.weight_decay, precision=precision)
    run = RunSpec(inputs, BackboneSpec(spec.backbone.name), mode, recipe, 1e-4, 1e-5, "l1", 0)
    device = torch.device("cpu")
    data = input_loader(options.data, options.cache, device)(run)
    count = CPU_HEADS if mode == "linear_probing_cached" else 1
    members = [open_member(Run(str(seed), replace(run, seed=seed)), data, device) for seed in range(count)]

    def epoch() -> None:
        losses = train_epoch_stacked(members, count) if count > 1 else [train_epoch_ours(members[0])]
        for member, loss in zip(members, losses, strict=True):
            end_epoch(member, loss)

    return epoch


def cpu_with_children() -> float:
    """Return the CPU seconds of this process and of its living children (the loader's workers)."""
    tick = os.sysconf("SC_CLK_TCK")
    total = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / tick
    return total


def study_file(options: argparse.Namespace, precision: str, folder: Path) -> Path:
    """Write the shipped study with the mode and precision asked for."""
    import yaml

    source = Path(__file__).parent.parent / "studies" / f"{options.study}.yaml"
    content = yaml.safe_load(source.read_text())
    if options.mode == "linear_probing":
        content["mode"] = "linear_probing_cached"
    content["recipe"]["precision"] = precision
    if options.same_search:
        content["sampler"]["kind"], content["pruner"]["kind"] = "tpe", "median"
    file = folder / f"{options.study}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


class optuna_study:  # noqa: N801  # reads as a function
    """A study that is alone in its database, with the engine closed at the end."""

    def __init__(self, url: str) -> None:
        self._storage = optuna.storages.RDBStorage(url)

    def __enter__(self) -> optuna.Study:
        (name,) = optuna.get_all_study_names(self._storage)
        return optuna.load_study(study_name=name, storage=self._storage)

    def __exit__(self, *_: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()


def timed(words: list[str], environment: dict[str, str]) -> tuple[str, float, float]:
    """Run a command; return its output, wall seconds, and CPU seconds with all its children."""
    before, began = os.times(), time.monotonic()
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True)
    wall_s, after = time.monotonic() - began, os.times()
    if done.returncode != 0:
        raise SystemExit(done.stderr[-3000:])
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, wall_s, cpu_s


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, command in (("run", run), ("measure", measure), ("epochs", epochs)):
        sub = commands.add_parser(name)
        sub.set_defaults(command=command)
        for option, default in places():
            sub.add_argument(option, type=Path, default=default)
        sub.add_argument("--study", default="bidmc_rr")
        sub.add_argument("--trials", type=int, default=6)
        sub.add_argument("--mode", default="full_finetuning", choices=("full_finetuning", "linear_probing"))
        sub.add_argument("--storage", default="sqlite:///plain_optuna.db")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--rounds", type=int, default=3)
        sub.add_argument("--subjects", type=int, help="epochs: only so many training subjects")
        sub.add_argument("--threads", type=int, default=2, help="epochs: of the plain loop")
        sub.add_argument("--plain-trials", type=int)
        sub.add_argument(
            "--same-search", action="store_true", help="measure: ours with TPE and the median rule too"
        )
        sub.add_argument(
            "--precision", nargs="+", default=["fp32"], choices=("fp32", "bf16"), help="measure: of ours"
        )
    return parser.parse_args()


def places() -> Iterator[tuple[str, Path]]:
    yield "--data", Path(os.environ.get("HPO_DATA", "data"))
    yield "--cache", Path(os.environ.get("HPO_CACHE", ".cache"))


if __name__ == "__main__":
    chosen = options_of()
    chosen.command(chosen)
