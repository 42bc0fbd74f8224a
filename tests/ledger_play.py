"""A small study and the moves that tests of the ledger make, also from processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.forkserver import ensure_running
from typing import Any

import pytest

from hpo.ledger.ledger import Ledger
from hpo.ledger.on_postgresql import ledger_on
from hpo.ledger.values import Claim, Outcome, Point, StudyRow
from hpo.storage import open_engine
from hpo.study import Configuration, StudySpec

VERSIONS = {"torch": "2.13.0", "hpo": "0.1.0"}
DATA = {"data_hash": "d0", "trivial": {"validation_loss": 2.2}, "trivial_name": "constant 18"}


def spec_of(name: str = "study", **parts: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": name,
            "task": "bidmc_rr",
            "backbone": {"name": "cmssl_tiny_ppg"},
            "recipe": {"epochs": 50},
            "space": {
                "lr": {"low": 1e-5, "high": 1e-2},
                "backbone_lr": {"low": 1e-6, "high": 1e-2},
                "loss": ["mse", "l1", "smooth_l1"],
            },
            "baseline": {"name": "published", "lr": 1e-4, "backbone_lr": 1e-5, "loss": "mse"},
            **parts,
        }
    )


def configuration(slot: int = 0) -> Configuration:
    return Configuration(1e-3, 1e-4 * (1 + slot % 7), ("mse", "l1", "smooth_l1")[slot % 3], 17 + slot)


def make_study(ledger: Ledger, slots: int = 0, **parts: Any) -> StudyRow:
    study = ledger.create_study(spec_of(**parts), kind="search", data=DATA, versions=VERSIONS)
    ledger.add_slots(study.study_id, slots)
    return study


def worker(ledger: Ledger) -> str:
    return ledger.register_worker("host", 1, "cpu", VERSIONS)


def take(
    ledger: Ledger,
    study: StudyRow,
    *,
    lease_s: float = 60.0,
    fold: int | None = None,
    holder: str = "worker",
) -> Claim:
    """Claim the next slot and begin its trial."""
    claim = ledger.claim(study.study_id, holder, lease_s=lease_s)
    assert claim is not None
    chosen = claim.configuration or configuration(claim.slot)
    begun = ledger.begin(claim, chosen, spec_of().space, {"device": "cpu"}, fold=fold)
    assert begun is not None
    return begun


def report(ledger: Ledger, claim: Claim, epoch: int, loss: float) -> bool:
    (held,) = ledger.report([point(claim, epoch, loss)], lease_s=60)
    return held


def point(claim: Claim, epoch: int, loss: float) -> Point:
    return Point(claim, epoch, 2 * loss, loss, {"mae": loss, "rmse": 1.2 * loss}, 0.1 * epoch)


def outcome(value: float | None = 1.0, **changes: Any) -> Outcome:
    given = {
        "end": "finished",
        "value": value,
        "best_epoch": 2,
        "epochs": 3,
        "metrics": {"mae": value},
        "elapsed_s": 1.5,
        "device": "cpu",
        **changes,
    }
    return Outcome(**given)


def processes(count: int) -> ProcessPoolExecutor:
    """Return a pool of processes that have imported this module already (optuna takes a second)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:  # the server of Python 3.11.7 has no path of ours otherwise
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        ensure_running()
    return ProcessPoolExecutor(count, mp_context=context)


def work_until_none(url: str, slots: int) -> list[int]:
    """Open the database, the study and its budget, and run trials until there is none: one process."""
    engine = open_engine(url)
    ledger = ledger_on(engine)
    study = make_study(ledger, slots)
    done = []
    while (claim := ledger.claim(study.study_id, worker(ledger), lease_s=60)) is not None:
        begun = ledger.begin(claim, configuration(claim.slot), spec_of().space, {})
        assert begun is not None
        report(ledger, begun, 1, 1.0 + claim.slot)
        assert ledger.finish(begun, outcome(1.0 + claim.slot, epochs=1, best_epoch=1))
        done.append(claim.slot)
    engine.dispose()
    return done
