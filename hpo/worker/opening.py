"""A study's row in the database: made, grown, or checked against what this process would run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from finetune.api import DataSummary, check_code, seal_backbone, settle_own_data
from hpo.errors import MismatchError, Said, UsageError, apart
from hpo.ledger.values import StudyRow
from hpo.search import tuning_seed
from hpo.storage import patiently
from hpo.study import Configuration, NamedConfiguration, StudySpec, keep_defaults
from hpo.study.setting import Setting
from hpo.worker.session import Settings, open_ledger, versions

_RESUME = "to go on, type: hpo resume --study {name}"


def open_study(
    url: str,
    spec: StudySpec,
    settings: Settings,
    *,
    total: int | None = None,
    warm: Sequence[Setting] = (),
) -> StudyRow:
    """Create the study with its first ``total`` slots, or find it and let it grow; returns its row.

    The first slots hold the baseline, the known configurations, and in a new study the ``warm`` ones. Raises
    :class:`MismatchError` when the database has a study of that name with another spec, data or versions,
    :class:`UsageError` when it was paused or stopped, and what ``describe_data`` raises.
    """
    spec = settled(spec, settings.data_dir)
    data = _describe(spec, settings)
    with open_ledger(url) as ledger:
        here = partial(patiently, patience_s=settings.patience_s)
        stored = here(partial(ledger.find, spec.name))
        if stored is None:
            _check_model(spec, settings)
        else:
            spec = keep_defaults(spec, stored.spec)
        mine = versions(settings.doorway)
        row = here(partial(ledger.create_study, spec, data=asdict(data), versions=mine))
        if row.state != "open":
            raise UsageError(
                Said("study {name!r} is {state}", name=row.name, state=row.state),
                "an open study",
                Said(_RESUME, name=row.name),
            )
        row = here(partial(ledger.set_budget, row, spec))
        first = fixed_configurations(spec, warm)
        here(partial(ledger.add_slots, row.study_id, total or spec.budget.trials, first))
    return row


def settled(spec: StudySpec, data_dir: Path) -> StudySpec:
    """Return the study with what only a user's own files say: classes, rate, hashes of code and weights.

    What is filled in stays. Raises :class:`finetune.api.FinetuneError` for files that are not there, and for
    code outside the folder of ``--code``.
    """
    if not spec.backbone.code and not spec.backbone.weights_hash:
        code, weights = seal_backbone(spec.backbone.spec())
        backbone = spec.backbone.model_copy(update={"code": code, "weights_hash": weights})
        spec = spec.model_copy(update={"backbone": backbone})
    if spec.data is not None and not spec.data.is_settled:
        found = settle_own_data(spec.data.signals(), data_dir)
        spec = spec.model_copy(update={"data": spec.data.settled(found)})
    return spec


def _check_model(spec: StudySpec, settings: Settings) -> None:
    """Raise for weights of the user's own that are not there, are broken, or do not fit: before all else.

    Those that we ship are known to fit, and torch is not loaded for them; an encoder of the user's own code
    is for ``hpo check``.
    """
    is_ours = spec.backbone.weights in {"builtin", "none"} or spec.backbone.factory is not None
    if not is_ours:
        settings.open_trainer().check_model(spec.run_spec(fixed_configurations(spec)[0][1]))


def fixed_configurations(spec: StudySpec, warm: Sequence[Setting] = ()) -> list[tuple[str, Configuration]]:
    """Return (origin, configuration) of the first slots: baseline, known ones, those of other studies."""
    named: list[tuple[str, NamedConfiguration | Setting]] = [("baseline", spec.baseline)]
    named += [("known", known) for known in spec.known] + [("transferred", setting) for setting in warm]
    return [
        (origin, Configuration.at(given, tuning_seed(spec, slot)))
        for slot, (origin, given) in enumerate(named)
    ]


def _describe(spec: StudySpec, settings: Settings) -> DataSummary:
    inputs = spec.run_spec(fixed_configurations(spec)[0][1]).inputs
    return settings.open_trainer().describe_data(
        inputs, data_dir=settings.data_dir, cache_dir=settings.cache_dir
    )


def check_is_same(study: StudyRow, fingerprint: str | None) -> None:
    """Refuse a study of another ``fingerprint`` (None: take any) than the one that was opened."""
    if fingerprint not in {None, study.fingerprint}:
        raise MismatchError(
            Said("another command has begun the study {name!r} anew, with another spec", name=study.name),
            "one spec for a name",
            Said("type the same command with --as {name}-2", name=study.name),
        )


def check_fits(study: StudyRow, spec: StudySpec, settings: Settings) -> None:
    """Refuse to add trials to a study made with other code or data; MismatchError says what differs.

    Raises :class:`finetune.api.CodeError` for code that may not run here, before any of it does.
    """
    check_code(spec.backbone.spec())
    here = {**versions(settings.doorway), "spec": spec.fingerprint()}
    there = {**study.versions, "spec": study.fingerprint}
    here["data"] = _describe(spec, settings).data_hash
    there["data"] = str(study.data.get("data_hash", "unknown"))
    wrong = [apart(key, here.get(key), there[key]) for key in there if here.get(key) != there[key]]
    if wrong:
        raise MismatchError(
            Said(
                "study {name!r} was made with something else: {wrong}",
                name=study.name,
                wrong=Said.listed(wrong, "; "),
            ),
            "the same code and data on every worker",
            Said(
                "use the versions of the study, or type: hpo run --study {name} --as {name}-2 "
                "--warm-start {name}",
                name=study.name,
            ),
        )
