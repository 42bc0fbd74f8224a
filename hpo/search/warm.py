"""Where a new study begins: at the leaders of studies that its database holds already.

They are tried first, as trials of the new study like any other, and may be pruned; nothing else is carried
over. Data sets differ: what was best on another one is worth a try, and is no evidence on this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from hpo.analysis.leaders import leaders
from hpo.errors import Said, UsageError
from hpo.ledger.ledger import Ledger
from hpo.reading.frames import curves_frame, trials_frame
from hpo.study import Space
from hpo.study.choices import Choices, Value, value_words
from hpo.study.setting import Setting

LEADERS = 3
"""Configurations taken from each study (chosen by us: a tenth of a small budget)."""


def warm_settings(engine: sa.Engine, names: Sequence[str], space: Space) -> list[Setting]:
    """Return the leaders of the studies ``names``, best first, moved into ``space`` where they lie outside.

    Leaders with a loss or a choice that ``space`` has not are left out. Raises
    :class:`hpo.errors.UnknownStudyError`, and :class:`UsageError` for a study without any leader that can be
    tried.
    """
    found: list[Setting] = []
    for name in names:
        study = Ledger(engine).study(name)
        spec = study.known_spec()
        trials, curves = trials_frame(engine, study.study_id), curves_frame(engine, study.study_id)
        fixed = spec.recipe.model_dump()
        ranked = [
            setting
            for one in leaders(trials, curves, spec.space, LEADERS)
            if (setting := _inside(one, space, fixed)) is not None
        ]
        if not ranked:
            wanted = Said("a loss of {losses}{others}", losses=", ".join(space.loss), others=_beside(space))
            raise UsageError(
                Said("study {name!r} has no complete trial with {wanted}", name=name, wanted=wanted),
                "a study to start from",
                "leave out --warm-start, or take another study",
            )
        found += ranked
    kept: list[Setting] = []
    for setting in found:
        if not any(setting.is_close_to(other) for other in kept):
            kept.append(setting)
    return kept


def _beside(space: Space) -> str:
    """Return the other choices of a space, as a message says them."""
    others = space.choices.items()
    return Said.listed(
        (Said(" and {name} of {values}", name=name, values=_listed(values)) for name, values in others), ""
    )


def _listed(values: Sequence[Value]) -> str:
    return ", ".join(map(value_words, values))


def _inside(setting: Setting, space: Space, fixed: Mapping[str, Value]) -> Setting | None:
    """Return a leader as ``space`` can try it, its rates moved inside; None where it lacks loss or choices.

    What its study did not search was as its recipe, ``fixed``, said.
    """
    choices = Choices({name: {**fixed, **setting.choices}[name] for name in space.choices})
    has_all = all(value in space.choices[name] for name, value in choices.items())
    if setting.loss not in space.loss or not has_all:
        return None
    rates = space.lr.nearest(setting.lr), space.backbone_lr.nearest(setting.backbone_lr)
    return Setting(*rates, setting.loss, choices)
