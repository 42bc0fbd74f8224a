"""The test split, behind a door of its own: for ``hpo.confirm`` and finetune's own command, nobody else.

Apart from :mod:`finetune.api`, so that what a search holds has no way to it. While a search works in this
process both calls raise :class:`finetune.errors.SealedError`. Light at import: torch is loaded inside.
"""

from __future__ import annotations

from pathlib import Path

from finetune.data.seal import refuse_when_sealed
from finetune.spec import InputSpec, RunSpec, TestScores

__all__ = ["score_test", "score_trivial"]


def score_test(
    spec: RunSpec, checkpoint: Path, *, data_dir: Path, cache_dir: Path, device: str = "auto"
) -> TestScores:
    """Score the weights of a finished run on the test split, after a choice has been frozen."""
    refuse_when_sealed()
    from finetune.engine.devices import open_device
    from finetune.engine.scoring import score

    return score(spec, checkpoint, data_dir, cache_dir, open_device(device))


def score_trivial(
    inputs: InputSpec, *, data_dir: Path, cache_dir: Path, fold: int | None = None
) -> TestScores:
    """Score the trivial predictor of the training windows (of a fold) on the test split."""
    refuse_when_sealed()
    from finetune.engine.scoring import score_constant

    return score_constant(inputs, fold, data_dir, cache_dir)
