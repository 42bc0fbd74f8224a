"""Where a new study begins: at the leaders of studies that its database holds already.

They are tried first, as trials of the new study like any other, and may be pruned; nothing else is carried
over. Data sets differ: what was best on another one is worth a try, and is no evidence on this one.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from hpo.analysis.leaders import leaders
from hpo.errors import UsageError
from hpo.ledger.ledger import Ledger
from hpo.reading.frames import curves_frame, trials_frame
from hpo.study import Space, stored_spec
from hpo.study.setting import Setting

LEADERS = 3
"""Configurations taken from each study (chosen by us: a tenth of a small budget)."""


def warm_settings(engine: sa.Engine, names: Sequence[str], space: Space) -> list[Setting]:
    """Return the leaders of the studies ``names``, best first, moved into ``space`` where they lie outside.

    Leaders with a loss that ``space`` has not are left out. Raises :class:`hpo.errors.UnknownStudyError`, and
    :class:`UsageError` for a study without any leader that can be tried.
    """
    found: list[Setting] = []
    for name in names:
        study = Ledger(engine).study(name)
        theirs = stored_spec(name, study.spec).space
        trials, curves = trials_frame(engine, study.study_id), curves_frame(engine, study.study_id)
        ranked = [one for one in leaders(trials, curves, theirs, LEADERS) if one.loss in space.loss]
        if not ranked:
            raise UsageError(
                f"study {name!r} has no complete trial with a loss of {', '.join(space.loss)}",
                "a study to start from",
                "leave out --warm-start, or take another study",
            )
        found += [_inside(setting, space) for setting in ranked]
    kept: list[Setting] = []
    for setting in found:
        if not any(setting.is_close_to(other) for other in kept):
            kept.append(setting)
    return kept


def _inside(setting: Setting, space: Space) -> Setting:
    return Setting(space.lr.nearest(setting.lr), space.backbone_lr.nearest(setting.backbone_lr), setting.loss)
