"""Trials that cost nothing, run by our ledger and by plain Optuna: what is left is the database's part."""

from __future__ import annotations

import random
import time
from dataclasses import asdict

import optuna
from optuna.trial import TrialState

from finetune.api import DataSummary
from hpo.ledger.ledger import Ledger
from hpo.ledger.on_postgresql import ledger_on
from hpo.ledger.values import Claim, Outcome, Point, StudyRow
from hpo.storage import open_engine
from hpo.study import Configuration, StudySpec

NAME = "benchmark"
LOSSES = ("mse", "l1", "smooth_l1")


def spec(epochs: int = 50, *, sampler: str = "random", pruner: str = "median") -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": NAME,
            "task": "bidmc_rr",
            "backbone": {"name": "cmssl_tiny_ppg"},
            "recipe": {"epochs": epochs},
            "space": {
                "lr": {"low": 1e-5, "high": 1e-2},
                "backbone_lr": {"low": 1e-6, "high": 1e-2},
                "loss": LOSSES,
            },
            "baseline": {"name": "default", "lr": 1e-4, "backbone_lr": 1e-5, "loss": "mse"},
            "sampler": {"kind": sampler},
            "pruner": {"kind": pruner},
        }
    )


DATA = DataSummary("bidmc_rr", "0", {}, {}, {"validation_loss": 1.0}, "constant 1")


def open_study(ledger: Ledger, slots: int) -> StudyRow:
    study = ledger.create_study(spec(), kind="search", data=asdict(DATA), versions={})
    ledger.add_slots(study.study_id, slots)
    return study


def configuration() -> Configuration:
    return Configuration(
        10 ** random.uniform(-5, -2),
        10 ** random.uniform(-6, -2),
        random.choice(LOSSES),
        random.randint(0, 9999),
    )


def start(ledger: Ledger, study: StudyRow, worker: str) -> Claim | None:
    """Claim a slot and begin its trial."""
    claim = ledger.claim(study.study_id, worker, lease_s=60)
    if claim is None:
        return None
    return ledger.begin(claim, claim.configuration or configuration(), spec().space, {"device": "cpu"})


def point(claim: Claim, epoch: int) -> Point:
    loss = random.random()
    return Point(claim, epoch, loss, loss, {"mae": loss, "rmse": loss, "r2": loss}, 1.0)


def outcome(value: float, epochs: int) -> Outcome:
    return Outcome("finished", value, epochs, epochs, {"mae": value}, 1.0, "cpu")


def run_ours(
    url: str, slots: int, begin: float = 0.0, seconds: float = float("inf"), *, plain_steps: bool = False
) -> list[int]:
    """Run trials of one epoch until no slot is free or the time is over; return what finished in the time.

    The clock runs for ``seconds`` from ``begin`` (of time.time()); trials before it are for warming up.
    """
    engine = open_engine(url)
    ledger = Ledger(engine) if plain_steps else ledger_on(engine)
    study = open_study(ledger, slots)
    worker = ledger.register_worker("benchmark", 0, "cpu", {})
    done: list[int] = []
    while time.time() < begin + seconds and (claim := start(ledger, study, worker)) is not None:
        ledger.report([point(claim, 1)], lease_s=60)
        if ledger.finish(claim, outcome(random.random(), 1)) and begin < time.time() < begin + seconds:
            done.append(claim.slot)
    engine.dispose()
    return done


def suggest(trial: optuna.Trial) -> None:
    trial.suggest_float("lr", 1e-5, 1e-2, log=True)
    trial.suggest_float("backbone_lr", 1e-6, 1e-2, log=True)
    trial.suggest_categorical("loss", LOSSES)
    trial.suggest_int("seed", 0, 9999)


def plain_study(url: str, pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
    """Return the study in plain Optuna's cached storage, tuned as well as its options allow.

    The file is in WAL mode already; SQLite waits 60 s for a lock, PostgreSQL's connections are pinged.
    """
    is_file = url.startswith("sqlite")
    options = {"connect_args": {"timeout": 60}} if is_file else {"pool_pre_ping": True}
    return optuna.create_study(
        study_name=NAME,
        storage=optuna.storages.RDBStorage(url, engine_kwargs=options),
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(),
        pruner=pruner or optuna.pruners.NopPruner(),
    )


def run_plain(url: str, begin: float, seconds: float) -> list[int]:
    """Run trials of one report with plain Optuna; begin, seconds and result as for :func:`run_ours`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = plain_study(url)
    done: list[int] = []
    while time.time() < begin + seconds:
        trial = study.ask()
        suggest(trial)
        trial.report(random.random(), 1)
        study.tell(trial, random.random())
        if begin < time.time() < begin + seconds:
            done.append(trial.number)
    return done


def run_plain_budget(url: str, budget: int) -> bool:
    """Run plain Optuna's own way to share a budget; return whether the process came through."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = plain_study(url)

    def objective(trial: optuna.Trial) -> float:
        suggest(trial)
        trial.report(random.random(), 1)
        return random.random()

    states = (TrialState.COMPLETE, TrialState.PRUNED)
    try:
        # The callback looks after a trial: a process that starts late has to look before its first.
        if len(study.get_trials(states=states)) < budget:
            study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(budget, states=states)])
    except Exception:  # whatever it died of: that is the result
        return False
    return True
