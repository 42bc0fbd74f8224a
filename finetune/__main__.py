"""The command of finetune alone: ``python -m finetune run|pretrain|backbones|tasks``.

For a search over configurations use ``hpo``; this command runs one configuration, or makes the weights of
the built-in backbones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from finetune.api import (
    BACKBONES,
    LOSSES,
    TASKS,
    BackboneSpec,
    FinetuneError,
    InputSpec,
    Recipe,
    Report,
    Run,
    RunResult,
    RunSpec,
    SettingError,
    describe_data,
    find_task,
    train,
)
from finetune.test_split import score_test

_RECIPE_HELP = {
    "epochs": "at most so many epochs",
    "batch_size": "windows a step",
    "patience": "epochs without a better validation loss before the run ends",
    "weight_decay": "of AdamW",
    "dropout": "probability; the backbone's own without it",
    "max_grad_norm": "no clipping without it",
    "precision": "of training",
}


class OneRun:
    """A source that holds one run and prints its epochs."""

    def __init__(self, run: Run) -> None:
        self._runs = [run]
        self.result: RunResult | None = None

    def next_run(self) -> Run | None:
        """Give the run once."""
        return self._runs.pop() if self._runs else None

    def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        """Print each epoch on stderr; nothing is pruned."""
        for report in reports:
            metrics = "  ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
            print(f"epoch {report.epoch}: train loss {report.train_loss:.4g}  {metrics}", file=sys.stderr)
        return [True] * len(reports)

    def finish(self, result: RunResult) -> None:
        """Keep the result."""
        self.result = result


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, and where help is, without all options before it."""

    def error(self, message: str) -> NoReturn:
        """Leave with the exit status of a user's fault."""
        self.exit(2, f"error: {message}; type: {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (0 done, 2 the user's fault)."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except FinetuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    """Fine-tune one configuration and print its result as JSON."""
    task = find_task(options.task)
    backbone, loss = options.backbone or f"cmssl_tiny_{task.signal}", options.loss or task.losses[0]
    if loss not in task.losses:
        raise SettingError(f"loss {loss!r} for {task.name}", f"one of {', '.join(task.losses)}")
    spec = RunSpec(
        InputSpec(
            options.task,
            options.normalisation,
            options.samples,
            train_subjects=options.train_subjects,
            every=options.every,
            allow_partial=options.allow_partial,
        ),
        BackboneSpec(backbone, options.weights),
        options.mode,
        Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)}),
        options.lr,
        options.backbone_lr,
        loss,
        options.seed,
    )
    found = describe_data(spec.inputs, data_dir=options.data, cache_dir=options.cache)
    labels = ["synthetic signals"] * task.synthetic + [f"partial: {found.partial}"] * bool(found.partial)
    for sentence in (*labels, *found.notes):
        print(sentence, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        source = OneRun(Run("run", spec, Path(folder)))
        where = {"data_dir": options.data, "cache_dir": options.cache, "device": options.device}
        train(source, **where)
        result = source.result
        assert result is not None
        printed = {"labels": labels, **asdict(result), "checkpoint": None}
        if options.test and result.checkpoint is not None:
            printed["test"] = score_test(spec, result.checkpoint, **where).metrics
    print(json.dumps(_finite(printed), indent=2))


def _finite(value: Any) -> Any:
    """Return ``value`` with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pretrain(options: argparse.Namespace) -> None:
    """Pretrain a built-in backbone and write its weights and model card."""
    from finetune.pretraining.pretrain import pretrain, usual_spec

    spec = usual_spec(options.backbone, steps=options.steps, batch_size=options.batch_size, seed=options.seed)
    pretrain(spec, options.data, options.out, notify=lambda text: print(text, file=sys.stderr))


def _backbones(options: argparse.Namespace) -> None:
    """Print the card of every backbone."""
    print(json.dumps({name: asdict(card) for name, card in BACKBONES.items()}, indent=2))


def _tasks(options: argparse.Namespace) -> None:
    """Print every task."""
    print(json.dumps({name: asdict(task) for name, task in TASKS.items()}, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m finetune", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="fine-tune one configuration")
    _add_run_options(run)
    _add_places(run)
    run.set_defaults(command=_run)
    pretrain = commands.add_parser("pretrain", help="make the weights of a built-in backbone")
    pretrain.add_argument("--backbone", default="cmssl_tiny_ppg", help="which built-in backbone")
    pretrain.add_argument("--steps", type=int, default=20_000, help="optimiser steps")
    pretrain.add_argument("--batch-size", type=int, default=128, help="windows a step")
    pretrain.add_argument("--seed", type=int, default=0, help="seed of all random draws")
    pretrain.add_argument("--out", type=Path, default=Path("weights"), help="folder for weights and card")
    _add_places(pretrain)
    pretrain.set_defaults(command=_pretrain)
    for name, command, text in (
        ("backbones", _backbones, "list the backbones"),
        ("tasks", _tasks, "list the tasks"),
    ):
        commands.add_parser(name, help=text).set_defaults(command=command)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", required=True, help=f"one of {', '.join(TASKS)}")
    parser.add_argument(
        "--backbone", help=f"one of {', '.join(BACKBONES)}; the tiny one of the task's signal by default"
    )
    parser.add_argument("--weights", default="builtin", help="builtin, none (from scratch) or a file")
    parser.add_argument("--mode", default="full_finetuning", help="or linear_probing, linear_probing_cached")
    parser.add_argument("--normalisation", default="window", help="window or position (the reference)")
    parser.add_argument("--samples", type=int, default=1250, help="samples per window after interpolation")
    parser.add_argument("--lr", type=float, default=1e-4, help="learning rate of the head")
    parser.add_argument("--backbone-lr", type=float, default=1e-5, help="learning rate of the backbone")
    parser.add_argument("--loss", help=f"one of {', '.join(LOSSES)}; the task's published default without it")
    parser.add_argument("--seed", type=int, default=0, help="head initialisation, data order and dropout")
    for field in fields(Recipe):
        _add_recipe_option(parser, field)
    parser.add_argument("--every", type=int, default=1, help="only every n-th window of a subject")
    parser.add_argument("--train-subjects", type=int, help="only the first so many training subjects")
    parser.add_argument("--allow-partial", action="store_true", help="accept a data set with records missing")
    parser.add_argument("--test", action="store_true", help="score the test split too, after the run")


def _add_recipe_option(parser: argparse.ArgumentParser, field: Field[Any]) -> None:
    """Add the option of one key of a recipe, with its type and default."""
    kind = get_type_hints(Recipe)[field.name]
    choices = next((get_args(part) for part in (kind, *get_args(kind)) if get_origin(part) is Literal), None)
    if kind is bool:
        words = "see docs/studies.md"
        parser.add_argument(f"--{field.name.replace('_', '-')}", action="store_true", help=words)
        return
    plain = {part for part in (kind, *get_args(kind)) if isinstance(part, type)} - {type(None)}
    parser.add_argument(
        f"--{field.name.replace('_', '-')}",
        type=str if choices else next(iter(plain)),
        choices=choices,
        default=field.default,
        help=_RECIPE_HELP.get(field.name, "see docs/studies.md")
        + ("" if field.default is None else f" [{field.default}]"),
    )


def _add_places(parser: argparse.ArgumentParser) -> None:
    data, cache = os.environ.get("HPO_DATA", "data"), os.environ.get("HPO_CACHE", ".cache")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the data sets [HPO_DATA]")
    parser.add_argument("--cache", type=Path, default=Path(cache), help="prepared windows [HPO_CACHE]")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")


if __name__ == "__main__":
    sys.exit(main())
