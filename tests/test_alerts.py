"""Who is told when a study ends, fails or is stuck: each happening once, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from ledger_play import configuration, make_study, outcome, report, spec_of, take, worker
from small_study import NAME, Place

from hpo.alerts import Alerter, Watched, alerting
from hpo.alerts.delivery import parse_target
from hpo.cli.app import main
from hpo.errors import Interrupted, UsageError
from hpo.ledger.ledger import Ledger
from hpo.ledger.outbox import AlertKind, Outbox
from hpo.ledger.whole_studies import delete_study
from hpo.storage import writing
from hpo.storage.tables import alert_progress, alerts, slots
from hpo.worker import work

HOUR = 3600.0


@dataclass
class Hook:
    """A webhook on this machine, and all that it was told."""

    url: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Status of the next answers; 200 when there is none left."""
    before_answer: Callable[[dict[str, Any]], None] = lambda body: None

    @property
    def events(self) -> Counter[str]:
        return Counter(body["event"] for body in self.told)

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> int:
        self.told.append(body)
        self.headers.append(headers)
        self.before_answer(body)
        return self.answers.pop(0) if self.answers else 200


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = hook.take(body, dict(self.headers))
            try:
                self.send_response(status)
                self.end_headers()
            except OSError:
                return  # who sent it is dead

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook.url = f"http://127.0.0.1:{server.server_port}/secret-path"
    yield hook
    server.shutdown()
    server.server_close()


def watched(url: str, *words: str, stuck_s: float = HOUR, lease_s: float = 60.0) -> Watched:
    targets = [parse_target(word) for word in words]
    return Watched(url, (), targets, stuck_s, look_s=0.05, lease_s=lease_s)


def alerter(url: str, *words: str, **given: float) -> Alerter:
    return Alerter(watched(url, *words, **given), lambda text: None)


def run_all(ledger: Ledger, study: Any) -> None:
    """Finish every free slot of a study."""
    while (claim := ledger.claim(study.study_id, "worker", lease_s=60)) is not None:
        begun = ledger.begin(claim, configuration(claim.slot), spec_of().space, {})
        assert begun is not None
        ledger.finish(begun, outcome(1.0 + claim.slot))


# --- what is told


def test_an_end_and_a_failure_are_told_by_webhook_once_with_what_is_known(tmp_path: Path, hook: Hook) -> None:
    place = Place(tmp_path)
    place.open(4)
    place.behave(faults={"2": ["bug", 3]})

    with alerting(watched(place.url, hook.url), print):
        work(place.url, [NAME], settings=place.settings())
    with alerting(watched(place.url, hook.url), print):
        pass

    assert hook.events == {"ended": 1, "failed": 1}
    failed, ended = sorted(hook.told, key=lambda body: body["event"], reverse=True)
    assert (failed["trial"], failed["study"]) == (2, NAME)
    assert "ZeroDivisionError: a fault of ours" in failed["text"]
    assert (ended["standing"]["finished"], ended["standing"]["failed"]) == (3, 1)
    assert ended["answer"][0] in ended["text"]
    assert all(
        headers["Idempotency-Key"] == body["id"]
        for headers, body in zip(hook.headers, hook.told, strict=True)
    )
    assert len({body["id"] for body in hook.told}) == 2


def test_a_larger_budget_is_another_end(database_url: str, ledger: Ledger, hook: Hook) -> None:
    study = make_study(ledger, 2)
    looks = alerter(database_url, hook.url)
    looks.look()
    run_all(ledger, study)
    looks.look()
    ledger.add_slots(study.study_id, 3)
    looks.look()
    assert [body["standing"]["finished"] for body in hook.told] == [2]
    run_all(ledger, study)

    looks.look()

    assert [body["standing"]["finished"] for body in hook.told] == [2, 3]
    assert hook.events == {"ended": 2}


def test_what_happened_before_the_first_call_is_not_told(
    database_url: str, ledger: Ledger, hook: Hook
) -> None:
    run_all(ledger, make_study(ledger, 2))
    time.sleep(0.05)

    assert Alerter(watched(database_url, hook.url), print).look() == 0
    assert hook.told == []


def test_a_stuck_study_is_told_once_until_it_has_moved(database_url: str, ledger: Ledger, hook: Hook) -> None:
    study = make_study(ledger, 2)
    looks = alerter(database_url, hook.url, stuck_s=0.2)
    claim = take(ledger, study, holder=worker(ledger))

    def wait_and_look() -> None:
        looks.look()
        time.sleep(0.3)
        for _ in range(3):
            looks.look()

    wait_and_look()
    assert hook.events == {"stuck": 1}
    assert "1 trials run, 1 wait" in hook.told[0]["text"]
    report(ledger, claim, 1, 2.0)
    wait_and_look()
    assert hook.events == {"stuck": 2}
    ledger.set_state(study.study_id, "paused")
    ledger.give_back(claim)
    wait_and_look()

    assert hook.events == {"stuck": 2}, "whoever pauses a study knows that it waits"


def test_a_study_that_no_worker_serves_is_stuck(database_url: str, ledger: Ledger, hook: Hook) -> None:
    make_study(ledger, 1)
    looks = alerter(database_url, hook.url, stuck_s=0.2)
    for _ in range(2):
        looks.look()
        time.sleep(0.3)

    assert hook.events == {"stuck": 1}


def test_a_study_that_waits_for_its_turn_is_not_stuck(database_url: str, ledger: Ledger, hook: Hook) -> None:
    take(ledger, make_study(ledger, 1, name="first"))
    make_study(ledger, 1, name="second")
    looks = Alerter(Watched(database_url, ["second"], [parse_target(hook.url)], 0.1), lambda text: None)
    looks.look()
    time.sleep(0.2)
    looks.look()

    assert hook.told == []


def test_a_command_is_given_the_message_and_the_database_knows_neither(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.open(2)
    said = "sys.stdin.read() + os.linesep + os.environ['HPO_ALERT_TEXT']"
    script = f"import os, sys; open(sys.argv[1], 'a').write({said})"
    target = f"exec:{sys.executable} -c {json.dumps(script)} {tmp_path}/told"

    with alerting(watched(place.url, target), print):
        work(place.url, [NAME], settings=place.settings())

    body, text = (tmp_path / "told").read_text().splitlines()
    assert json.loads(body)["event"] == "ended"
    assert text == json.loads(body)["text"]
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("hpo.db*") if file.is_file())
    assert b"HPO_ALERT_TEXT" not in stored


def test_a_webhook_that_is_away_is_told_later_and_nobody_is_shown_its_address(
    database_url: str, ledger: Ledger, hook: Hook
) -> None:
    study, said = make_study(ledger, 1), list[str]()
    looks = Alerter(watched(database_url, hook.url), said.append)
    looks.look()
    run_all(ledger, study)
    hook.answers = [503, 200]

    assert looks.look() == 1
    assert looks.look() == 1, "not at once again"
    time.sleep(2.1)
    assert looks.look() == 0
    assert [body["attempt"] for body in hook.told] == [1, 2]
    assert len({body["id"] for body in hook.told}) == 1
    assert said == ["an alert did not arrive: the webhook at 127.0.0.1 answered 503"]


# --- once


def test_of_many_that_look_one_tells(database_url: str, ledger: Ledger, hook: Hook) -> None:
    study = make_study(ledger, 3)
    many = [alerter(database_url, hook.url) for _ in range(6)]
    many[0].look()
    run_all(ledger, study)
    threads = [threading.Thread(target=one.look) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert hook.events == {"ended": 1}


WATCHER = """
import sys
from hpo.alerts import Alerter, Watched
from hpo.alerts.delivery import parse_target
url, target, lease_s = sys.argv[1:]
print(flush=True)
Alerter(Watched(url, (), [parse_target(target)], 3600.0, look_s=0.05, lease_s=float(lease_s)), print).run()
"""


Watcher = Callable[[str, str, float], subprocess.Popen[str]]


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """Starts processes that look at a database all the time."""
    started: list[subprocess.Popen[str]] = []

    def start(url: str, target: str, lease_s: float) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", WATCHER, url, target, str(lease_s)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_death_between_the_sending_and_its_note_sends_the_same_id_again(
    database_url: str, ledger: Ledger, hook: Hook, watcher: Watcher
) -> None:
    study = make_study(ledger, 2)
    alerter(database_url, hook.url).look()
    first = watcher(database_url, hook.url, 1.0)
    hook.before_answer = lambda body: os.kill(first.pid, signal.SIGKILL)
    run_all(ledger, study)
    assert first.wait(30) == -signal.SIGKILL
    hook.before_answer = lambda body: None

    second = alerter(database_url, hook.url, lease_s=1.0)
    assert second.look() == 1, "nobody else sends while the dead one's lease runs"
    time.sleep(1.1)
    assert second.look() == 0
    assert second.look() == 0

    assert [body["attempt"] for body in hook.told] == [1, 2]
    assert len({body["id"] for body in hook.told}) == 1


@pytest.mark.slow
def test_each_happening_has_one_id_whoever_is_killed_whenever(
    tmp_path: Path, hook: Hook, watcher: Watcher
) -> None:
    place, trials = Place(tmp_path), 5
    place.open(trials)
    place.behave(faults={f"{number}": ["bug", 3] for number in range(3, trials)})
    at_work = [watcher(place.url, hook.url, 0.5) for _ in range(2)]
    alerter(place.url, hook.url).look()
    searching = threading.Thread(target=work, args=(place.url, [NAME]), kwargs={"settings": place.settings()})
    searching.start()
    while searching.is_alive():
        time.sleep(0.4)
        at_work.pop(0).kill()
        at_work.append(watcher(place.url, hook.url, 0.5))
    time.sleep(1.0)
    last = alerter(place.url, hook.url, lease_s=0.5)
    while last.look():
        time.sleep(0.2)

    ids = {(body["event"], body["trial"]): set[str]() for body in hook.told}
    for body in hook.told:
        ids[body["event"], body["trial"]].add(body["id"])
    assert ids.keys() == {("ended", None), *(("failed", number) for number in range(3, trials))}
    assert {len(of_one) for of_one in ids.values()} == {1}
    attempts = [(body["id"], body["attempt"]) for body in hook.told]
    assert len(set(attempts)) == len(attempts), "one that was killed before it sent leaves an attempt out"


def test_an_interruption_waits_for_nobody(tmp_path: Path, hook: Hook) -> None:
    place = Place(tmp_path)
    place.open(1)
    may_answer, answered = threading.Event(), []
    hook.before_answer = lambda body: answered.append(may_answer.wait(30))

    with pytest.raises(Interrupted), alerting(watched(place.url, hook.url), print):
        raise Interrupted("a person")

    assert answered == []
    may_answer.set()


# --- the database


def test_a_deleted_study_takes_its_alerts_along(
    database_url: str, ledger: Ledger, engine: sa.Engine, hook: Hook
) -> None:
    study = make_study(ledger, 1)
    looks = alerter(database_url, hook.url)
    looks.look()
    run_all(ledger, study)
    looks.look()

    delete_study(engine, study.name)

    with engine.connect() as connection:
        for table in (alerts, alert_progress):
            assert connection.execute(sa.select(table)).all() == []


def test_what_happened_days_ago_is_no_news(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 1)
    run_all(ledger, study)
    with writing(engine) as connection:
        connection.execute(sa.update(slots).values(ended_at=slots.c.ended_at - 90000))

    assert Outbox(engine).happenings(study.study_id, 0.0, stuck_s=HOUR) == []


def test_a_happening_is_known_to_all_by_one_name(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 2)
    run_all(ledger, study)

    (ended,) = Outbox(engine).happenings(study.study_id, 0.0, stuck_s=HOUR)

    assert (ended.event, ended.kind) == ("ended:2", AlertKind.ENDED)


# --- the command line


@pytest.mark.parametrize("word", ["me@example.org", "exec:", "https://", "exec:'open", "ftp"])
def test_what_cannot_be_told_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        parse_target(word)


def test_apprise_is_asked_for_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)

    with pytest.raises(UsageError, match=r"pip install 'hpo\[apprise\]'"):
        parse_target("ntfy://topic")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_apprise_sends_where_it_is_installed(tmp_path: Path, hook: Hook) -> None:
    pytest.importorskip("apprise")
    target = parse_target(hook.url.replace("http://", "json://"))

    assert main(["alert", "--test", "--alert", hook.url.replace("http://", "json://")]) == 0
    assert target.key not in hook.url
    assert len(hook.told) == 1


def test_a_test_arrives_and_a_look_from_cron_leaves(
    tmp_path: Path, hook: Hook, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    place.open(1)

    assert main(["alert", "--test", "--alert", hook.url]) == 0
    assert capsys.readouterr().out == "1 tests arrived\n"
    monkeypatch.setenv("HPO_ALERT", f"\n{hook.url}\n")
    assert main(["alert", "--once", "--storage", place.url]) == 0
    work(place.url, [NAME], settings=place.settings())
    assert main(["alert", NAME, "--once", "--storage", place.url, "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["not_arrived"] == 0
    assert hook.events == {"test": 1, "ended": 1}


def test_nobody_to_tell_is_told_to_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alert", "--once", "--storage", str(tmp_path / "a.db")]) == 2
    assert "type: hpo alert --alert TARGET" in capsys.readouterr().err
