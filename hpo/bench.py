"""How fast this machine searches: trials an hour, epochs a second, the service's share, workers and slots.

Everything is measured on the real parts (ledger, source, engine) with a throw-away SQLite database.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.api import Report, Run, RunResult, RunSource, SlotAdvice
from hpo.checkpoints import Checkpoints
from hpo.fleet import places, run_local
from hpo.fleet.machine import cores
from hpo.study import StudySpec
from hpo.worker.opening import fixed_configurations, open_study
from hpo.worker.session import Event, Settings, open_session
from hpo.worker.source import Source
from hpo.worker.stop import Stop

MANY = 10_000
"""Slots of the throw-away study; the clock ends the measurement, not the budget."""


@dataclass(frozen=True)
class Overhead:
    """Where the CPU time of one process went."""

    trials: int
    epochs: int
    training_s: float
    service_s: float
    """CPU seconds of claiming, suggesting, recording and pruning."""

    @property
    def share(self) -> float:
        """The service's share of a trial's CPU time."""
        return self.service_s / (self.training_s + self.service_s)


@dataclass(frozen=True)
class Rate:
    """Epochs a second (wall) with so many processes, once all of them train."""

    workers: int
    epochs_per_s: float


@dataclass(frozen=True)
class Benchmark:
    """What ``hpo bench`` tells."""

    study: str
    device: str
    cores: int
    epochs_per_trial: int
    """Of the recipe: patience and pruning end most trials earlier."""
    overhead: Overhead
    rates: tuple[Rate, ...]
    advice: SlotAdvice
    """What ``--slots auto`` takes here."""

    @property
    def best(self) -> Rate:
        """The fewest workers whose rate is within 5 % of the highest."""
        highest = max(rate.epochs_per_s for rate in self.rates)
        return min(
            (rate for rate in self.rates if rate.epochs_per_s >= 0.95 * highest), key=lambda r: r.workers
        )

    @property
    def trials_per_hour(self) -> float:
        """With the recommended workers, were every trial to run all its epochs."""
        return 3600 * self.best.epochs_per_s / self.epochs_per_trial


class TimedSource:
    """Another source, with the CPU time that its calls took."""

    def __init__(self, source: RunSource) -> None:
        self._source = source
        self.service_s = 0.0
        self.epochs = 0
        self.trials = 0

    @contextmanager
    def _counted(self) -> Iterator[None]:
        began = time.process_time()
        try:
            yield
        finally:
            self.service_s += time.process_time() - began

    def next_run(self) -> Run | None:
        """Pass on, timed."""
        with self._counted():
            return self._source.next_run()

    def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        """Pass on, timed."""
        self.epochs += len(reports)
        with self._counted():
            return self._source.report(reports)

    def finish(self, result: RunResult) -> None:
        """Pass on, timed."""
        self.trials += 1
        with self._counted():
            self._source.finish(result)


def measure(
    spec: StudySpec, settings: Settings, *, seconds: float, notify: Callable[[str], None]
) -> Benchmark:
    """Measure a study on this machine: the overhead of one trial, then ``seconds`` a number of workers.

    Raises what opening the study raises: data that are not there, a broken file.
    """
    room = places(settings.device)
    with tempfile.TemporaryDirectory(prefix="hpo-bench-") as folder:
        notify("one trial, to see what the service costs")
        overhead = measure_overhead(spec, settings, Path(folder), trials=1)
        rates = []
        for workers in sorted({1, room}):
            notify(f"{workers} worker{'s' * (workers > 1)} for {seconds:g} s")
            rates.append(measure_rate(spec, settings, Path(folder), workers, seconds))
    advice = recommended_slots(spec, settings)
    return Benchmark(spec.name, settings.device, cores(), spec.recipe.epochs, overhead, tuple(rates), advice)


def measure_overhead(spec: StudySpec, settings: Settings, folder: Path, *, trials: int) -> Overhead:
    """Run ``trials`` trials in this process and tell the service's CPU time from the training's."""
    url = f"sqlite:///{folder}/overhead.db"
    study = open_study(url, spec, settings, total=trials)
    trainer = settings.open_trainer()
    with open_session(url, settings, lambda event: None, Stop()) as session:
        timed = TimedSource(
            Source(session, study, spec, Checkpoints(folder / "checkpoints"), None, {}, lambda: True)
        )
        began = time.process_time()
        trainer.train(
            timed,
            data_dir=settings.data_dir,
            cache_dir=settings.cache_dir,
            device=settings.device,
            slots=settings.slots,
        )
        whole_s = time.process_time() - began
    return Overhead(timed.trials, timed.epochs, whole_s - timed.service_s, timed.service_s)


class EpochClock:
    """When each worker's epochs ended."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}

    def take(self, event: Event) -> None:
        """Note an epoch."""
        if event.kind == "epoch":
            self._times.setdefault(event.worker, []).append(time.monotonic())

    def rate(self) -> float:
        """Return epochs a second of all workers together, each from its first epoch to its last."""
        return sum(
            (len(times) - 1) / (times[-1] - times[0]) for times in self._times.values() if len(times) > 1
        )


def measure_rate(spec: StudySpec, settings: Settings, folder: Path, workers: int, seconds: float) -> Rate:
    """Search for ``seconds`` with so many workers; the start of their processes is not counted."""
    url = f"sqlite:///{folder}/rate-{workers}.db"
    name = open_study(url, spec, settings, total=MANY).name
    clock = EpochClock()
    limited = replace(settings, timeout_s=seconds)
    run_local(url, name, total=MANY, workers=workers, settings=limited, on_event=clock.take)
    return Rate(workers, clock.rate())


def recommended_slots(spec: StudySpec, settings: Settings) -> SlotAdvice:
    """Return what ``--slots auto`` takes for this study, with its budget, on this device."""
    return settings.open_trainer().recommend_slots(
        spec.run_spec(fixed_configurations(spec)[0][1]),
        runs=spec.budget.trials,
        data_dir=settings.data_dir,
        cache_dir=settings.cache_dir,
        device=settings.device,
    )


def bench_lines(found: Benchmark) -> list[str]:
    """Return the summary for people."""
    best, cost = found.best, found.overhead
    return [
        f"{found.study}: {found.trials_per_hour:.0f} trials an hour of {found.epochs_per_trial} epochs "
        f"(patience and pruning make it more)",
        *(f"  {rate.workers} workers: {rate.epochs_per_s:.2f} epochs a second" for rate in found.rates),
        f"  the service takes {100 * cost.share:.1f} % of a trial's CPU time "
        f"({1000 * cost.service_s / max(1, cost.epochs):.0f} ms an epoch, n = {cost.epochs} epochs)",
        *(
            f"  --slots {slots}: {seconds:.3g} s a run and epoch, with validation and checkpoint"
            for slots, seconds in found.advice.seconds.items()
        ),
        f"recommended on these {found.cores} cores: --workers {best.workers} --slots {found.advice.slots}",
    ]


def to_json(found: Benchmark) -> dict[str, object]:
    """Return the summary for programs."""
    return {
        "study": found.study,
        "device": found.device,
        "cores": found.cores,
        "trials_per_hour": found.trials_per_hour,
        "epochs_per_trial": found.epochs_per_trial,
        "epochs_per_s": {str(rate.workers): rate.epochs_per_s for rate in found.rates},
        "service_share": found.overhead.share,
        "seconds_by_slots": {str(slots): seconds for slots, seconds in found.advice.seconds.items()},
        "recommended": {"workers": found.best.workers, "slots": found.advice.slots},
    }
