"""A small run and a source of runs that keeps all that comes back: for tests of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune.api import BackboneSpec, InputSpec, Recipe, Report, Run, RunResult, RunSpec

SPEC = RunSpec(
    InputSpec("synthetic_hr", train_subjects=2, every=3),
    BackboneSpec("cmssl_tiny_ppg", "none"),
    "full_finetuning",
    Recipe(epochs=3, batch_size=16, patience=3),
    lr=1e-3,
    backbone_lr=1e-3,
    loss="l1",
    seed=7,
)


class ListSource:
    """Gives a list of runs and keeps all that comes back; may stop one or all, or raise, after an epoch."""

    def __init__(self, *runs: Run, prune_after: int | Mapping[str, int] = 99, raise_after: int = 99) -> None:
        self.runs, self.raise_after = list(runs), raise_after
        self._last = prune_after
        self.reports: list[Report] = []
        self.batches: list[Sequence[Report]] = []
        self.results: list[RunResult] = []

    def next_run(self) -> Run | None:
        return self.runs.pop(0) if self.runs else None

    def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        self.reports += reports
        self.batches.append(reports)
        if reports[0].epoch >= self.raise_after:
            raise ConnectionError("the source is gone")
        return [report.epoch < self._last_epoch(report.run_id) for report in reports]

    def _last_epoch(self, run_id: str) -> int:
        return self._last if isinstance(self._last, int) else self._last.get(run_id, 99)

    def finish(self, result: RunResult) -> None:
        self.results.append(result)

    def curve(self, run_id: str) -> list[tuple[float, float]]:
        return [(r.train_loss, r.validation_loss) for r in self.reports if r.run_id == run_id]
