"""SMAC3 and Syne Tune as searches that benchmarks/search.py can replay; each is needed only for its own."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np


class BySyneTune:
    """ASHA, or ASHA with conformal quantile regression (Salinas et al. 2023), at their defaults (0.16)."""

    seed = None

    def __init__(self, world: Any, repeat: int, method: str) -> None:
        from syne_tune.config_space import choice, loguniform
        from syne_tune.optimizer import baselines

        ends = world.space.lr, world.space.backbone_lr
        lr, slow = (loguniform(bounds.low, bounds.high) for bounds in ends)
        space = {"lr": lr, "backbone_lr": slow, "loss": choice(list(world.space.loss))}
        self._scheduler = getattr(baselines, method)(
            space, metric="validation_loss", time_attr="epoch", max_t=world.epochs, random_seed=repeat
        )
        self._number = 0

    def ask(self) -> tuple[float, float, str]:
        """Suggest the next configuration."""
        from syne_tune.backend.trial_status import Trial

        config = self._scheduler.suggest().config
        self._trial = Trial(self._number, config, datetime(2000, 1, 1))
        self._number += 1
        self._scheduler.on_trial_add(self._trial)
        return config["lr"], config["backbone_lr"], config["loss"]

    def goes_on(self, epoch: int, loss: float) -> bool:
        """Report the lowest loss so far; say whether ASHA lets the run go on."""
        self._lowest = min(loss, self._lowest) if epoch > 1 else loss
        self._result = {"validation_loss": self._lowest, "epoch": epoch}
        return bool(self._scheduler.on_trial_result(self._trial, self._result) == "CONTINUE")

    def tell(self, loss: float | None, end: str) -> None:
        """Tell the scheduler how the run ended."""
        if loss is None:
            self._scheduler.on_trial_error(self._trial)
        elif end == "finished":
            self._scheduler.on_trial_complete(self._trial, self._result)
        else:
            self._scheduler.on_trial_remove(self._trial)

    def incumbent(self) -> None:
        """The user's choice is the best complete trial."""


class BySmac:
    """SMAC3's hyperparameter optimisation facade (2.4): noise aware, it races seeds of the incumbent."""

    def __init__(self, world: Any, repeat: int) -> None:
        from ConfigSpace import Categorical, ConfigurationSpace, Float
        from smac import HyperparameterOptimizationFacade, Scenario

        ends = {"lr": world.space.lr, "backbone_lr": world.space.backbone_lr}
        space = ConfigurationSpace(seed=repeat)
        space.add(*(Float(name, (one.low, one.high), log=True) for name, one in ends.items()))
        space.add(Categorical("loss", list(world.space.loss)))
        self._folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            space, deterministic=False, n_trials=1000, seed=repeat, output_directory=Path(self._folder.name)
        )
        self._seeds: dict[int | None, int] = {}
        self._recorded = world.seeds
        self._worst = 10.0 * world.trivial
        self._smac = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, overwrite=True, logging_level=40
        )

    def ask(self) -> tuple[float, float, str]:
        """Suggest the next configuration."""
        self._asked = self._smac.ask()
        number = self._seeds.setdefault(self._asked.seed, len(self._seeds))
        self.seed = self._recorded[number % len(self._recorded)]
        return _rates(self._asked.config)

    def goes_on(self, epoch: int, loss: float) -> bool:
        """Let every run end: the facade has no epochs."""
        return True

    def tell(self, loss: float | None, end: str) -> None:
        """Tell the loss; of a diverged run a very bad one."""
        from smac.runhistory import TrialValue

        cost = self._worst if loss is None or not np.isfinite(loss) else loss
        self._smac.tell(self._asked, TrialValue(cost=cost, time=1.0), save=False)

    def incumbent(self) -> tuple[float, float, str] | None:
        """Return the configuration with the lowest mean over its seeds: SMAC's own answer."""
        found = self._smac.intensifier.get_incumbents()
        return _rates(found[0]) if found else None


def _rates(config: Any) -> tuple[float, float, str]:
    return float(config["lr"]), float(config["backbone_lr"]), str(config["loss"])
