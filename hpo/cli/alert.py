"""Who is told when a study ends, fails or is stuck: the command, and the options of others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.terminal import (
    Json,
    Storage,
    check_file_is_there,
    check_file_may_change,
    language_of,
    print_json,
    print_lines,
    shown,
    url_of,
)
from hpo.errors import Said, UsageError

if TYPE_CHECKING:
    from hpo.alerts import Watched

STUCK_AFTER = "1h"
AlertTo = Annotated[
    list[str] | None,
    typer.Option(
        "--alert",
        metavar="TARGET",
        help="Whom to tell when a study ends, fails or is stuck: https://..., exec:COMMAND, or an address of "
        "apprise; may be repeated [HPO_ALERT, one a line].",
    ),
]
StuckAfter = Annotated[
    str, typer.Option("--stuck-after", metavar="TIME", help="Without any progress for so long it is stuck.")
]
GivenStudies = Annotated[
    list[str] | None,
    typer.Argument(metavar="STUDY...", help="Look at these only [all searches].", show_default=False),
]


def alert(
    given: GivenStudies = None,
    study: Annotated[
        list[str] | None,
        typer.Option("--study", metavar="NAME", help="The same as STUDY; may be repeated."),
    ] = None,
    alert_to: AlertTo = None,
    stuck_after: StuckAfter = STUCK_AFTER,
    once: Annotated[bool, typer.Option("--once", help="Look once and leave: for cron.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Send a test to every target and leave.")] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Tell when a study ends, fails or is stuck. Watches a database until Ctrl-C."""
    from hpo.alerts import Alerter

    url = url_of(storage)
    names = [*(given or ()), *(study or ())]
    watched = _watched(url, names, alert_to, stuck_after, os.environ.get("HPO_LANG") or "en")
    if not watched.targets:
        raise UsageError("nobody is named to be told", next_step="type: hpo alert --alert TARGET")
    if test:
        _send_tests(watched, as_json)
        return
    check_file_is_there(url)
    check_file_may_change(url)
    alerter = Alerter(watched, lambda text: print_lines([shown(text)], is_result=False))
    if once:
        unsent = alerter.look()
        if as_json:
            print_json({"storage": shown(url), "not_arrived": unsent})
        return
    print_lines(
        [f"watches {', '.join(names) or 'every search'} of {shown(url)}; Ctrl-C ends it"], is_result=False
    )
    alerter.run()


def _send_tests(watched: Watched, as_json: bool) -> None:
    from hpo.alerts.delivery import NotDeliveredError
    from hpo.alerts.message import trial_message

    for target in watched.targets:
        try:
            target.deliver(trial_message(watched.language))
        except NotDeliveredError as error:
            raise UsageError(Said("a test did not arrive: {error}", error=error)) from None
    if as_json:
        print_json({"arrived": len(watched.targets)})
    else:
        print_lines([f"{len(watched.targets)} tests arrived"])


def alerts_while(
    url: str, names: Sequence[str], alert_to: Sequence[str] | None, stuck_after: str, lang: str
) -> AbstractContextManager[None]:
    """Return what tells the targets of a command, and those of HPO_ALERT, while a block runs."""
    if not _targets_of(alert_to):
        return nullcontext()
    from hpo.alerts import alerting

    watched = _watched(url, names, alert_to, stuck_after, lang)
    return alerting(watched, lambda text: print_lines([shown(text)], is_result=False))


def _targets_of(alert_to: Sequence[str] | None) -> list[str]:
    """Return the targets that were typed, or else those of the environment (a command has blanks)."""
    lines = alert_to or os.environ.get("HPO_ALERT", "").splitlines()
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _watched(
    url: str, names: Sequence[str], alert_to: Sequence[str] | None, stuck_after: str, lang: str
) -> Watched:
    from hpo.alerts import Watched
    from hpo.alerts.delivery import parse_target
    from hpo.search_here import parse_duration

    stuck_s, targets = parse_duration(stuck_after, "--stuck-after"), _targets_of(alert_to)
    return Watched(url, names, [parse_target(word) for word in targets], stuck_s, language_of(lang))
