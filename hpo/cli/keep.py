"""The commands for whole studies: deleted, given another name, copied into another database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.terminal import (
    CacheDir,
    Given,
    Json,
    Lang,
    Named,
    Storage,
    database,
    options_again,
    print_json,
    print_lines,
    print_said,
    shown,
    the_study,
    url_of,
)
from hpo.errors import Said

if TYPE_CHECKING:
    from hpo.checkpoints import Checkpoints
    from hpo.ledger.values import StudyRow
    from hpo.ledger.whole_studies import Contents


def delete(
    given: Given = None,
    study: Named = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without, say what would go.")] = False,
    storage: Storage = None,
    cache: CacheDir = None,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Delete a study with its trials, curves and confirmations."""
    from hpo.errors import UsageError
    from hpo.ledger.whole_studies import contents, delete_study

    url, study = url_of(storage), the_study(given, study, "delete")
    with database(url) as engine:
        found = contents(engine, study)
        if not yes:
            what = Said("this would delete {words} for good", words=_words(found))
            raise UsageError(
                what,
                "a word that you mean it",
                Said("type: hpo delete {study} --yes{option}", study=study, option=options_again(url)),
            )
        delete_study(engine, study)
    for row in found.rows:
        _reach(_checkpoints(url, row, cache).delete)
    _tell(Said("deleted: {words}", words=_words(found)), found, lang, as_json)


def rename(
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="Its new name.")],
    given: Given = None,
    study: Named = None,
    storage: Storage = None,
    cache: CacheDir = None,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Give a study another name."""
    from hpo.ledger.whole_studies import contents, rename_study
    from hpo.search_here import check_name

    check_name("--to", to)
    url, study = url_of(storage), the_study(given, study, "rename --to NEW")
    with database(url) as engine:
        before = contents(engine, study)
        rename_study(engine, study, to)
        found = contents(engine, to)
    old, new = (_checkpoints(url, one.rows[0], cache) for one in (before, found))
    _reach(lambda: old.move_to(new))
    said = "{study} is {to} now; next: hpo status {to}{option}"
    _tell(Said(said, study=study, to=to, option=options_again(url)), found, lang, as_json)


def copy(
    to: Annotated[str, typer.Option("--to", metavar="FILE|URL", help="The other database; made if need be.")],
    given: Given = None,
    study: Named = None,
    as_name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Its name there.")] = None,
    storage: Storage = None,
    cache: CacheDir = None,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Copy a study into another database. In mid-search too: it goes on there."""
    from hpo.ledger.whole_studies import contents, copy_study
    from hpo.search_here import check_name
    from hpo.storage import open_engine

    if as_name is not None:
        check_name("--as", as_name)
    url, to, study = url_of(storage), url_of(to), the_study(given, study, "copy --to FILE")
    with database(url) as engine:
        target = open_engine(to)
        try:
            found = copy_study(engine, target, study, as_name)
            copied = contents(target, as_name or study)
        finally:
            target.dispose()
    there = as_name or study
    old, new = _checkpoints(url, found.rows[0], cache), _checkpoints(to, copied.rows[0], cache)
    _reach(lambda: old.copy_to(new))
    where = {"to": shown(to), "words": _words(found), "study": there, "option": options_again(to)}
    said = Said("copied to {to}: {words}; next: hpo status {study}{option}", **where)
    _tell(said, found, lang, as_json)


def _tell(line: Said, found: Contents, lang: str, as_json: bool) -> None:
    if as_json:
        print_json({"studies": list(found.names), "trials": found.trials, "test_looks": found.looks})
    else:
        print_said([line], lang)


def _words(found: Contents) -> Said:
    """Return what belongs to a study in words."""
    own, *confirmations = found.names
    parts = [Said("{study} with {n} finished trials", study=own, n=found.trials)]
    if confirmations:
        parts.append(Said("the runs of {n} confirmations", n=len(confirmations)))
    if found.looks:
        parts.append(Said("the record of {n} looks at the test split", n=found.looks))
    return Said.listed(parts)


def _reach(call: Callable[[], None]) -> None:
    """Make a call that may go to the object store of the checkpoints, and tell while that is away."""
    from hpo.search_here import patience_s
    from hpo.worker import reach

    reach(call, patience_s(), lambda text: print_lines([text], is_result=False))


def _checkpoints(url: str, study: StudyRow, cache: Path | None) -> Checkpoints:
    """Return where the checkpoints of a study lie."""
    from hpo.search_here import make_settings
    from hpo.worker import checkpoints_of

    return checkpoints_of(url, study, make_settings(Path("data"), cache, "auto", None))
