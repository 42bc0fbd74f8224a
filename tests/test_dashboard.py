"""The dashboard's door, what its pages say of the answer, and that it reads as plain Optuna does."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

import optuna
import optuna_dashboard
import pytest
import sqlalchemy as sa
from bottle import Bottle
from hypothesis import given
from hypothesis import strategies as st
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.storages import RDBStorage
from optuna_dashboard import get_note, save_note
from optuna_dashboard._app import create_app
from small_study import NAME, Place, finished_study
from web import TOKEN, Answer, ask, running, served

from hpo.dashboard import (
    Access,
    PageKeeper,
    build,
    check_token,
    ended_by_signals,
    listening,
    make_access,
    make_door,
)
from hpo.dashboard.door import WriteCheck
from hpo.dashboard.kept import AnswerStore
from hpo.dashboard.kept_studies import mark_of
from hpo.dashboard.listening import listen
from hpo.dashboard.login import IDLE_S, Sessions
from hpo.dashboard.study_page import figure, note, write_study_page
from hpo.errors import UsageError
from hpo.reading.findings import find_out
from hpo.report.answer import answer_lines
from hpo.storage import open_engine, optuna_storage
from hpo.storage.quick_storage import QuickStorage
from hpo.storage.tables import studies

FOREIGN = "attacker.example"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def own_place(tmp_path: Path) -> Place:
    return finished_study(tmp_path, total=5)


@pytest.fixture(scope="module")
def engine(place: Place) -> Iterator[sa.Engine]:
    engine = open_engine(place.url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def private(place: Place, engine: sa.Engine) -> WSGIApplication:
    """The dashboard as it is without options: on loopback, without a login."""
    return build(place.url, engine, Access())


@pytest.fixture
def public(place: Place, engine: sa.Engine) -> WSGIApplication:
    """The dashboard for everybody on the network."""
    access = Access("0.0.0.0", token=TOKEN, allowed_hosts=("hpo.example",))
    return build(place.url, engine, access)


def routes() -> list[tuple[str, str]]:
    """Return (method, path) of everything that the Optuna dashboard answers, and of what is ours."""
    app: Bottle = create_app(optuna.storages.InMemoryStorage())
    found = {(route.method, re.sub(r"<[^>]*>", "1", route.rule)) for route in app.routes}
    ours = {("GET", "/answer"), ("GET", f"/answer/{NAME}"), ("POST", "/login"), ("GET", "/nowhere")}
    ours |= {("GET", path) for path in ("/live", f"/live/{NAME}", f"/study/{NAME}", "/own/hpo.js")}
    ours |= {("GET", f"/study/{NAME}/ratio.svg"), ("POST", "/logout")}
    return sorted(found | ours)


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].split(";")[0]


# --- who may come in


def test_the_list_of_routes_is_the_real_one() -> None:
    assert {("DELETE", "/api/studies/1"), ("GET", "/static/1"), ("GET", "/artifacts/1/1")} <= set(routes())


@pytest.mark.parametrize("method", METHODS)
def test_every_route_refuses_a_foreign_host(public: WSGIApplication, method: str) -> None:
    for _, path in routes():
        answer = ask(public, path, method, host=FOREIGN)

        assert answer.status in {401, 403}, (method, path)
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", METHODS)
def test_every_route_refuses_an_anonymous_visitor(public: WSGIApplication, method: str) -> None:
    for _, path in routes():
        assert ask(public, path, method, host="hpo.example").status == 401, (method, path)


@pytest.mark.parametrize(
    "host", ["", FOREIGN, "0.0.0.0:8080", "127.0.0.1.attacker.example", "localhost@x", "a b"]
)
def test_a_host_that_is_not_ours_is_refused_without_a_login_too(private: WSGIApplication, host: str) -> None:
    assert ask(private, "/api/studies", host=host).status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "127.9.9.9"])
def test_loopback_names_are_ours(private: WSGIApplication, host: str) -> None:
    assert ask(private, "/api/studies", host=host).status == 200


def test_a_script_sends_the_token_with_each_request(public: WSGIApplication) -> None:
    answer = ask(public, "/api/studies", host="hpo.example", **bearer())

    assert answer.status == 200
    assert answer.json["study_summaries"][0]["study_name"] == NAME
    assert "set-cookie" not in answer.headers


def test_the_printed_address_opens_a_session_and_hides_its_token(public: WSGIApplication) -> None:
    answer = ask(public, f"/dashboard/studies/1?token={TOKEN}&view=2", host="hpo.example")

    assert answer.status == 303
    assert answer.headers["location"] == "/dashboard/studies/1?view=2"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
    assert TOKEN not in answer.headers["set-cookie"]
    again = ask(public, "/api/studies", host="hpo.example", cookie=cookie_of(answer))
    assert again.status == 200


def test_the_login_page_speaks_the_browsers_language(public: WSGIApplication) -> None:
    def page(language: str, body: bytes | None = None) -> str:
        asked = {"host": "hpo.example", "ACCEPT": "text/html", "ACCEPT_LANGUAGE": language}
        told = (
            ask(public, "/", **asked) if body is None else ask(public, "/login", "POST", body=body, **asked)
        )
        return told.body.decode()

    assert '<html lang="zh">' in page("zh-CN,zh;q=0.9")
    assert "令牌不对。" in page("zh-CN", b"token=wrong")
    assert '<html lang="en">' in page("de,en;q=0.5")
    assert "This is not the token." in page("de", b"token=wrong")


def test_the_login_form_opens_a_session(public: WSGIApplication) -> None:
    page = ask(public, "/dashboard/studies/1", host="hpo.example", accept="text/html")
    form = f"token={TOKEN}&next=/dashboard/studies/1".encode()
    answer = ask(public, "/login", "POST", host="hpo.example", body=form)

    assert page.status == 401
    assert b'value="/dashboard/studies/1"' in page.body
    assert (answer.status, answer.headers["location"]) == (303, "/dashboard/studies/1")


@pytest.mark.parametrize(
    "further", ["//attacker.example", "https://attacker.example", "/\\attacker.example", "a\r\nb"]
)
def test_a_login_leads_to_no_other_site(public: WSGIApplication, further: str) -> None:
    form = f"token={TOKEN}&next={further}".encode()

    assert ask(public, "/login", "POST", host="hpo.example", body=form).headers["location"] == "/"


@pytest.mark.parametrize("cookie", ["hpo-8080=", "hpo-8080=guess", f"hpo-8080={TOKEN}", '"', "=;=,\x00"])
def test_a_made_up_cookie_is_no_session(public: WSGIApplication, cookie: str) -> None:
    assert ask(public, "/api/studies", host="hpo.example", cookie=cookie).status == 401


def test_guesses_are_slowed_down_and_sessions_go_on(public: WSGIApplication) -> None:
    session = cookie_of(ask(public, f"/?token={TOKEN}", host="hpo.example"))
    guesses = [ask(public, "/api/studies", host="hpo.example", **bearer(f"guess {n}")) for n in range(11)]

    assert [guess.status for guess in guesses] == [401] * 10 + [429]
    assert ask(public, "/api/studies", host="hpo.example", cookie=session).status == 200


def test_the_guesses_of_one_lock_out_nobody_who_shares_the_address(public: WSGIApplication) -> None:
    """Behind a proxy everybody has the proxy's address."""
    for number in range(20):
        ask(public, "/api/studies", host="hpo.example", **bearer(f"guess {number}"))

    assert ask(public, "/api/studies", host="hpo.example", **bearer()).status == 200
    assert ask(public, f"/?token={TOKEN}", host="hpo.example").status == 303


def test_whoever_logs_out_has_to_log_in_again(public: WSGIApplication) -> None:
    session = cookie_of(ask(public, f"/?token={TOKEN}", host="hpo.example"))
    left = ask(public, "/logout", "POST", host="hpo.example", cookie=session)

    assert (left.status, left.headers["location"]) == (303, "/")
    assert "Max-Age=0" in left.headers["set-cookie"]
    assert ask(public, "/api/studies", host="hpo.example", cookie=session).status == 401
    assert ask(public, "/logout", "POST", host="hpo.example").status == 401


@pytest.mark.parametrize(
    ("waits", "is_open"),
    [([IDLE_S - 1], True), ([IDLE_S + 1], False), ([IDLE_S - 1] * 6, True), ([IDLE_S - 1] * 8, False)],
)
def test_a_session_ends_after_a_day_without_a_request_and_after_a_week(
    waits: list[float], is_open: bool
) -> None:
    now = [0.0]
    sessions = Sessions(clock=lambda: now[0])
    name = sessions.open()
    for wait in waits:
        now[0] += wait
        found = sessions.is_open(name)

    assert found is is_open


@pytest.mark.parametrize("behind_tls", [True, False])
def test_behind_tls_cookies_go_over_nothing_else(place: Place, engine: sa.Engine, behind_tls: bool) -> None:
    access = make_access("0.0.0.0", 8080, ["hpo.example"], allow_writes=False, behind_tls=behind_tls)
    answer = ask(build(place.url, engine, access), f"/?token={access.token}", host="hpo.example")

    assert ("Secure" in answer.headers["set-cookie"].split("; ")) is behind_tls
    assert access.address(8080).startswith(
        "https://hpo.example/" if behind_tls else "http://hpo.example:8080/"
    )


def test_behind_tls_wants_the_name_of_the_proxy() -> None:
    with pytest.raises(UsageError, match="--allowed-host"):
        make_access("0.0.0.0", 8080, [], allow_writes=False, behind_tls=True)


@pytest.mark.parametrize(
    ("host", "allowed", "token", "needs_login"),
    [
        ("127.0.0.1", [], None, False),
        ("localhost", [], None, False),
        ("::1", [], None, False),
        ("127.0.0.1", [], TOKEN, True),
        ("127.0.0.1", ["hpo.example"], None, True),
        ("0.0.0.0", [], None, True),
        ("::", [], None, True),
        ("192.0.2.1", [], None, True),
        ("hpo.example", [], TOKEN, True),
    ],
)
def test_a_login_is_required_wherever_others_can_come(
    monkeypatch: pytest.MonkeyPatch, host: str, allowed: list[str], token: str | None, needs_login: bool
) -> None:
    monkeypatch.delenv("HPO_DASHBOARD_TOKEN", raising=False)
    monkeypatch.delenv("HPO_DASHBOARD_TOKEN_FILE", raising=False)
    if token is not None:
        monkeypatch.setenv("HPO_DASHBOARD_TOKEN", token)
    access = make_access(host, 8080, allowed, allow_writes=False)

    assert (access.token is not None) is needs_login
    assert ("?token=" in access.address(8080)) is (needs_login and token is None)
    assert access.token is None or access.token not in repr(access)


def test_a_token_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN_FILE", str(tmp_path / "token"))

    assert make_access("0.0.0.0", 8080, [], allow_writes=False).token == TOKEN


def test_a_short_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN", "secret")

    with pytest.raises(UsageError, match=r"6 characters; expected at least 16; make one: openssl"):
        make_access("0.0.0.0", 8080, [], allow_writes=False)


@pytest.mark.parametrize(
    "token",
    [
        "a" * 24,
        "1234567890123456",
        "abcdefghijklmnopqrst",
        "Password-of-the-lab-7",
        "ab" * 12,
        "tøken-of-sixteen-s",
    ],
)
def test_a_token_that_is_tried_among_the_first_is_refused(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN", token)

    with pytest.raises(UsageError, match="openssl"):
        make_access("0.0.0.0", 8080, [], allow_writes=False)


@given(st.binary(min_size=8, max_size=32))
def test_random_tokens_pass(random: bytes) -> None:
    digest = hashlib.sha256(random).hexdigest()

    check_token(digest)
    check_token(base64.urlsafe_b64encode(bytes.fromhex(digest)).decode()[:24])


# --- what may be written


def test_nothing_can_be_written_unless_asked_for(private: WSGIApplication, place: Place) -> None:
    before = repr(place.trials())
    for method, path in routes():
        if method not in {"GET", "HEAD"}:
            assert ask(private, path, method).status == 403, (method, path)

    assert repr(place.trials()) == before  # repr: a NaN of a diverged trial is not equal to itself


def test_with_writes_a_page_of_ours_may_write_and_another_may_not(own_place: Place) -> None:
    engine = open_engine(own_place.url)
    app = build(own_place.url, engine, Access(allow_writes=True))
    body = json.dumps({"body": "by hand", "version": 1}).encode()
    foreign = ask(app, "/api/studies/1/note", "PUT", body=body, origin=f"http://{FOREIGN}")
    cross = ask(app, "/api/studies/1/note", "PUT", body=body, sec_fetch_site="cross-site")
    ours = ask(app, "/api/studies/1/note", "PUT", body=body, origin="http://127.0.0.1:8080")
    engine.dispose()

    assert (foreign.status, cross.status, ours.status) == (403, 403, 204)
    assert get_note(optuna.load_study(study_name=NAME, storage=own_place.url)) == "by hand"


WRITABLE = [
    ("PUT", "/api/studies/1/note"),
    ("PUT", "/api/studies/1/1/note"),
    ("DELETE", "/api/studies/1"),
    ("POST", "/api/artifacts/1"),
    ("POST", "/api/artifacts/1/1"),
    ("DELETE", "/api/artifacts/1/1"),
    ("DELETE", "/api/artifacts/1/1/1"),
]


def is_passed_on(method: str, path: str) -> bool:
    """Whether a write comes to the dashboard itself."""
    passed = []

    def app(environ: object, start_response: Callable[..., object]) -> list[bytes]:
        passed.append(environ)
        start_response("200 OK", [])
        return []

    ask(WriteCheck(app, allow_writes=True), path, method, body=b"{}")  # type: ignore[arg-type]  # a smaller start_response
    return bool(passed)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"body":', b"5", b"\xff", b"[" * 100_000])
def test_a_note_that_is_no_json_object_is_the_askers_fault(own_place: Place, body: bytes) -> None:
    engine = open_engine(own_place.url)
    app = build(own_place.url, engine, Access(allow_writes=True))
    answer = ask(app, "/api/studies/1/note", "PUT", body=body)
    engine.dispose()

    assert (answer.status, "a note is a JSON object" in answer.body.decode()) == (400, True)


def test_even_with_writes_only_notes_files_and_a_studys_end_are_written() -> None:
    writes = [(method, path) for method, path in routes() if method not in {"GET", "HEAD"}]

    assert {(method, path) for method, path in writes if is_passed_on(method, path)} == set(WRITABLE)


@pytest.mark.parametrize("path", ["/api/studies/1/rename", "/api/trials/1/tell", "/api/studies/1/1/skip"])
@pytest.mark.parametrize("end", ["", "/", "//", "///"])
@pytest.mark.parametrize("one", ["1", "\u0661", "\u0967", "\uff11", "01", "+1", "%31"])
def test_no_spelling_of_an_address_reaches_the_ledgers_rows(path: str, end: str, one: str) -> None:
    spelt = (path.replace("1", one) + end).encode().decode("latin-1")  # as a server hands it on

    assert not is_passed_on("POST", spelt)


@given(st.sampled_from(["POST", "PUT", "DELETE", "PATCH"]), st.text(max_size=30))
def test_whatever_else_is_asked_for_with_writes_stays_outside(method: str, path: str) -> None:
    assert not is_passed_on(method, f"/api/{path}".replace("?", "")) or any(
        re.fullmatch(rule.replace("1", "[0-9]+"), f"/api/{path}".rstrip("/")) for _, rule in WRITABLE
    )


# --- how much a stranger may take


@pytest.fixture
def port(place: Place, engine: sa.Engine) -> Iterator[int]:
    """A dashboard for everybody that listens on loopback; its port."""
    access = Access("0.0.0.0", token=TOKEN, allowed_hosts=("hpo.example",), allow_writes=True)
    door = make_door(place.url, engine, access)
    with running(listen(door.app, "127.0.0.1", 0, door.may_write)) as found:
        yield found


def knock(port: int, head: str, body: bytes = b"") -> bytes:
    """Send a request as it is and return the status line."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + body)
        return connection.makefile("rb").readline()


def test_a_stranger_sends_no_more_than_a_login_form(port: int) -> None:
    head = "POST /login HTTP/1.1\nHost: hpo.example\n"
    big = knock(port, f"{head}Content-Length: 5000\n\n", b"x" * 5000)
    chunked = knock(port, f"{head}Transfer-Encoding: chunked\n\n", b"1388\r\n" + b"x" * 5000 + b"\r\n")
    small = knock(port, f"{head}Content-Length: 7\n\n", b"token=x")

    assert (big.split()[1], chunked.split()[1], small.split()[1]) == (b"413", b"413", b"401")


def test_who_has_the_token_may_send_a_file(port: int) -> None:
    head = f"PUT /api/studies/1/note HTTP/1.1\nHost: hpo.example\nAuthorization: Bearer {TOKEN}\n"
    body = json.dumps({"body": "n" * 20_000, "version": 99}).encode()

    status = knock(port, f"{head}Content-Type: application/json\nContent-Length: {len(body)}\n\n", body)

    assert status.split()[1] not in {b"413", b"401", b"403"}


def test_open_connections_and_unfinished_bodies_keep_nobody_out(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(206):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            if number >= 200:
                connection.sendall(
                    b"POST /login HTTP/1.1\r\nHost: hpo.example\r\nContent-Length: 4000\r\n\r\nx"
                )
        answers = [
            knock(port, f"GET /api/studies HTTP/1.0\nHost: hpo.example\nAuthorization: Bearer {TOKEN}\n\n")
            for _ in range(10)
        ]

    assert {answer.split()[1] for answer in answers} == {b"200"}


def test_a_request_that_trickles_in_is_cut_off(
    place: Place, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REQUEST_S", 1)
    access = Access("0.0.0.0", token=TOKEN, allowed_hosts=("hpo.example",))
    door = make_door(place.url, engine, access)
    cut = False
    with (
        running(listen(door.app, "127.0.0.1", 0, door.may_write)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.settimeout(0.2)
        for _ in range(100):
            with contextlib.suppress(TimeoutError):
                try:
                    connection.sendall(b"G")
                    cut = connection.recv(1) == b""
                except ConnectionError:
                    cut = True
            if cut:
                break

    assert cut


def test_with_writes_a_study_can_be_deleted_and_made_anew(own_place: Place) -> None:
    engine = open_engine(own_place.url)
    app = build(own_place.url, engine, Access(allow_writes=True))
    deleted = ask(app, "/api/studies/1", "DELETE", body=b"{}")
    PageKeeper(engine).refresh()
    answer = ask(app, f"/answer/{NAME}")
    own_place.open(3)
    engine.dispose()

    assert (deleted.status, answer.status) == (204, 404)
    assert own_place.counts().free == 3


# --- how it answers


def test_answers_are_compressed_for_those_who_can_unpack(private: WSGIApplication) -> None:
    packed = ask(private, "/api/studies/1", accept_encoding="gzip, br")
    plain = ask(private, "/api/studies/1")

    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["content-length"] == str(len(packed.raw))
    assert packed.json == plain.json
    assert len(packed.raw) < len(plain.raw) / 4


def test_static_files_are_there_for_everybody_who_came_in(private: WSGIApplication) -> None:
    plain = ask(private, "/static/bundle.js")
    packed = ask(private, "/static/bundle.js", accept_encoding="gzip")

    assert (plain.status, packed.status) == (200, 200)
    assert plain.body == packed.body
    assert packed.headers["content-encoding"] == "gzip"


def test_no_page_lets_scripts_of_others_in(private: WSGIApplication) -> None:
    for path in ("/dashboard", "/api/studies", f"/answer/{NAME}", "/nowhere"):
        headers = ask(private, path).headers

        assert "access-control-allow-origin" not in headers
        assert "default-src" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"].split("script-src")[-1].split(";")[
            0
        ] or ("default-src 'none'" in headers["content-security-policy"])


@pytest.mark.parametrize(
    ("name", "content", "is_picture"),
    [
        ("page.html", b"<script>alert(1)</script>", False),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", False),
        ("table.csv", b"a,b\n", False),
        ("picture.png", b"\x89PNG\r\n\x1a\n", True),
    ],
)
def test_artifacts_are_downloads_unless_they_are_pictures(
    own_place: Place, tmp_path: Path, name: str, content: bytes, is_picture: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "artifacts").mkdir()
    study = optuna.load_study(study_name=NAME, storage=own_place.url)
    store = FileSystemArtifactStore(tmp_path / "artifacts")
    artifact = upload_artifact(artifact_store=store, file_path=str(tmp_path / name), study_or_trial=study)
    engine = open_engine(own_place.url)
    answer = ask(build(own_place.url, engine, Access(), tmp_path / "artifacts"), f"/artifacts/1/{artifact}")
    engine.dispose()

    assert (answer.status, answer.body) == (200, content)
    assert ("content-disposition" in answer.headers) is not is_picture
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].endswith("sandbox")
    assert "access-control-allow-origin" not in answer.headers


# --- what it shows


def test_trials_are_read_as_plain_optuna_reads_them(place: Place) -> None:
    storage = optuna_storage(place.url)
    plain = RDBStorage(place.url)

    assert repr(storage.get_all_trials(1)) == repr(plain.get_all_trials(1))  # a NaN is not equal to itself
    assert storage.get_best_trial(1) == plain.get_best_trial(1)
    with pytest.raises(KeyError):
        storage.get_all_trials(99)


@pytest.mark.postgres
def test_trials_are_read_from_postgresql_too(postgres_url: str) -> None:
    plain = RDBStorage(postgres_url)
    study = optuna.create_study(storage=plain, study_name="plain")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 1, 3), n_trials=4)
    study.ask()
    open_engine(postgres_url).dispose()
    quick = QuickStorage(postgres_url, skip_table_creation=True)
    trials = quick.get_all_trials(study._study_id)

    assert trials == study.get_trials()
    for storage in (plain, quick):
        storage.remove_session()
        storage.engine.dispose()


def test_a_growing_study_is_followed(own_place: Place) -> None:
    from hpo.worker import work

    storage = optuna_storage(own_place.url)
    before = len(storage.get_all_trials(1))
    own_place.open(8)
    work(own_place.url, [NAME], below=8, settings=own_place.settings())

    assert (before, len(storage.get_all_trials(1))) == (5, 8)
    assert repr(storage.get_all_trials(1)) == repr(RDBStorage(own_place.url).get_all_trials(1))


def test_a_whole_study_is_made_again_only_when_something_changed(
    own_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    plain = optuna_dashboard._app.serialize_study_detail
    monkeypatch.setattr(
        "optuna_dashboard._app.serialize_study_detail", lambda *given: made.append(0) or plain(*given)
    )
    storage = optuna_storage(own_place.url)
    app = build(own_place.url, open_engine(own_place.url, create=False), Access())
    whole = "/api/studies/1?after=0"
    first, again = (ask(app, whole, accept_encoding="gzip") for _ in range(2))
    unchanged = ask(app, whole, accept_encoding="gzip", if_none_match=first.headers["etag"])

    assert (len(made), first.raw, unchanged.status, unchanged.raw) == (1, again.raw, 304, b"")
    assert json.loads(gzip.decompress(first.raw)) == ask(app, whole).json
    assert ask(app, "/api/studies/77?after=0", accept_encoding="gzip").status == 404

    save_note(optuna.load_study(study_name=NAME, storage=storage), "something new")
    changed = ask(app, whole, accept_encoding="gzip", if_none_match=first.headers["etag"])

    assert changed.status == 200
    assert "something new" in gzip.decompress(changed.raw).decode()


@pytest.mark.parametrize("after", ["x", "", "%00", "1e3", "-1", "9" * 30])
def test_after_something_that_is_no_number_is_the_askers_fault(after: str, private: WSGIApplication) -> None:
    assert ask(private, f"/api/studies/1?after={after}").status == 400


def test_a_running_trial_that_gets_on_is_something_new(own_place: Place) -> None:
    study = optuna.load_study(study_name=NAME, storage=optuna_storage(own_place.url))
    trial = study.ask()
    marks = [mark_of(study.get_trials(deepcopy=False))]
    trial.report(1.0, 1)
    marks.append(mark_of(study.get_trials(deepcopy=False)))
    study.tell(trial, 1.0)
    marks.append(mark_of(study.get_trials(deepcopy=False)))

    assert len(set(marks)) == 3


def test_the_study_page_has_what_the_plain_dashboard_has(private: WSGIApplication, place: Place) -> None:
    plain: WSGIApplication = create_app(optuna.storages.get_storage(place.url))
    for path in ("/api/studies/1", "/api/studies/1?after=3", "/api/studies/1", "/api/studies"):
        ours, theirs = ask(private, path).json, ask(plain, path, accept_encoding="").json

        assert in_order(ours) == in_order(theirs)


def in_order(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the order of what the dashboard collects in sets."""
    for key in ("union_search_space", "intersection_search_space", "union_user_attrs"):
        for space in answer.get(key, []):
            space.get("distribution", {}).get("choices", []).sort(key=str)
        answer.get(key, []).sort(key=str)
    return answer


def test_each_study_has_its_answer_as_a_note_and_a_figure(own_place: Place) -> None:
    engine = open_engine(own_place.url)
    PageKeeper(engine).refresh()
    detail = ask(build(own_place.url, engine, Access()), "/api/studies/1").json
    found = find_out(engine, NAME)
    engine.dispose()

    assert detail["note"]["body"] == note(found)
    assert f"(/answer/{NAME})" in detail["note"]["body"]
    (shown,) = detail["plotly_graph_objects"]
    assert shown["id"] == "ratio"
    assert shown["graph_object"] == figure(found)
    assert "synthetic" in json.loads(shown["graph_object"])["layout"]["title"]["text"]


def test_what_a_person_wrote_into_the_note_stays(own_place: Place) -> None:
    study = optuna.load_study(study_name=NAME, storage=own_place.url)
    engine = open_engine(own_place.url)
    save_note(study, "Ask Ana about subject 7.")
    findings = find_out(engine, NAME)
    first = write_study_page(engine, findings)
    again = write_study_page(engine, findings)
    engine.dispose()

    assert (first, again) == (True, False)
    assert get_note(study) == f"Ask Ana about subject 7.\n\n{note(findings)}"


def test_a_study_without_a_trial_has_a_page_that_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.open(3)
    engine = open_engine(place.url)
    PageKeeper(engine).refresh()
    app = build(place.url, engine, Access())
    detail, answer = ask(app, "/api/studies/1").json, ask(app, f"/answer/{NAME}")
    engine.dispose()

    assert "no answer" in detail["note"]["body"]
    assert answer.status == 200
    assert b"no answer" in answer.body


def test_the_answer_is_a_page_of_its_own(private: WSGIApplication) -> None:
    page = ask(private, f"/answer/{NAME}").body.decode()

    assert "always guessing 5 breaths/min" in page
    assert 'src="data:image/svg+xml;base64,' in page
    assert f'href="/answer/{NAME}"' in ask(private, "/answer").body.decode()
    assert ask(private, "/answer/<script>").status == 404
    assert b"<script>" not in ask(private, "/answer/<script>").body


# --- the command


def start(place: Place, *words: str, **environment: str) -> subprocess.Popen[str]:
    names = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HPO_STORAGE": place.url, **environment}
    command = [sys.executable, "-u", "-m", "hpo", "dashboard", "--port", "0", *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**os.environ, **names}, text=True, **streams)  # type: ignore[call-overload, no-any-return]


def test_the_command_serves_until_a_signal(place: Place) -> None:
    with start(place) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().removeprefix("dashboard: http://127.0.0.1:").strip().strip("/"))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/api/studies")
        status = connection.getresponse().status
        connection.close()
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=30)

    assert (status, server.returncode, said) == (200, 0, "")


def test_a_token_that_was_given_is_never_printed_until_the_other_signal(place: Place) -> None:
    with start(place, "--host", "0.0.0.0", HPO_DASHBOARD_TOKEN=TOKEN) as server:
        assert server.stdout is not None
        first = server.stdout.readline()
        server.terminate()
        rest = "".join(server.communicate(timeout=30))

    assert server.returncode == 0
    assert first.startswith("dashboard: http://localhost:")
    assert "token" not in first + rest


def test_a_signal_before_the_first_request_can_come_is_an_end_like_any_other() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with ended_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the signal was not heard")

    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_that_is_taken_is_told_in_one_line(place: Place, private: WSGIApplication) -> None:
    with served(private) as port, start(place, "--port", str(port)) as server:
        _, said = server.communicate(timeout=60)

    assert server.returncode == 2
    assert said.startswith(f"error: cannot listen on 127.0.0.1 port {port}")
    assert said.count("\n") == 1


# --- our own pages


@pytest.fixture(scope="module")
def answered(place: Place, engine: sa.Engine) -> WSGIApplication:
    """The dashboard after its thread has worked out the answers."""
    answers = AnswerStore(engine)
    PageKeeper(engine, answers).refresh()
    return make_door(place.url, engine, Access(), answers=answers).app


def test_the_front_page_has_a_card_for_each_study_with_what_is_as_good(answered: WSGIApplication) -> None:
    (card,) = ask(answered, "/live?lang=en").json["studies"]

    assert (card["name"], card["state"], card["finished"], card["total"]) == (NAME, "done", 12, 12)
    assert card["good"]
    page = ask(answered, "/", accept="text/html")
    assert page.status == 200
    assert f'"name":"{NAME}"'.encode() in page.body


def test_a_study_shows_its_answer_first_and_the_same_as_the_command_line(
    answered: WSGIApplication, place: Place, engine: sa.Engine
) -> None:
    found = ask(answered, f"/live/{NAME}?lang=en").json

    assert found["answer"] == answer_lines(find_out(engine, NAME))
    assert {trial["number"] for trial in found["trials"]} == set(range(12))
    assert {curve["number"] for curve in found["curves"]} == set(range(12))
    assert b"<svg" in ask(answered, f"/study/{NAME}/ratio.svg").body


def test_before_an_answer_is_worked_out_the_page_says_so(private: WSGIApplication) -> None:
    found = ask(private, f"/live/{NAME}?lang=en").json

    assert found["answer"] == ["The answer is being worked out."]
    assert ask(private, f"/study/{NAME}/ratio.svg").status == 404


def test_pages_speak_the_readers_language(answered: WSGIApplication) -> None:
    english, chinese = (ask(answered, f"/live/{NAME}?lang={language}").json for language in ("en", "zh"))
    preferred = ask(answered, f"/live/{NAME}", accept_language="zh-CN,zh;q=0.9").json

    assert chinese["answer"] != english["answer"]
    assert preferred == chinese
    assert 'lang="zh-Hans"' in ask(answered, f"/study/{NAME}?lang=zh").body.decode()


def test_what_has_not_changed_is_not_sent_again(answered: WSGIApplication) -> None:
    first = ask(answered, f"/live/{NAME}")
    again = ask(answered, f"/live/{NAME}", if_none_match=first.headers["etag"])

    assert (again.status, again.raw) == (304, b"")


def test_a_study_that_is_not_there_is_told(answered: WSGIApplication) -> None:
    assert ask(answered, "/study/none").status == 404
    assert ask(answered, "/live/none").status == 404
    assert ask(answered, "/study/none/ratio.svg").status == 404


@pytest.mark.parametrize("path", ["/", f"/study/{NAME}", f"/study/{NAME}/ratio.svg", "/live", "/own/hpo.js"])
def test_our_pages_load_nothing_from_elsewhere_and_run_no_script_in_them(
    answered: WSGIApplication, path: str
) -> None:
    answer = ask(answered, path)
    policy = answer.headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(rb"(src|href)=\"(https?:)?//", answer.body)


def test_a_study_of_another_version_is_shown_as_unknown_and_breaks_no_page(own_place: Place) -> None:
    engine = open_engine(own_place.url)
    with engine.begin() as connection:
        known = connection.execute(sa.select(studies.c.spec)).scalar_one()
        connection.execute(sa.update(studies).values(spec=known | {"task": "of_tomorrow"}))
    answers = AnswerStore(engine)
    PageKeeper(engine, answers).refresh()
    app = make_door(own_place.url, engine, Access(), answers=answers).app
    (card,) = ask(app, "/live?lang=en").json["studies"]
    statuses = {ask(app, path).status for path in ("/", f"/study/{NAME}", f"/live/{NAME}")}
    engine.dispose()

    assert card["state_words"] == "unknown here"
    assert statuses == {200}


def test_a_title_of_a_study_is_a_text_and_no_script(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.open(2, title="</script><script>alert(1)</script>")
    engine = open_engine(place.url)
    app = build(place.url, engine, Access())
    pages = [ask(app, path).body for path in ("/", f"/study/{NAME}")]
    engine.dispose()

    assert all(b"<script>alert" not in page for page in pages)


@pytest.mark.parametrize("allow_writes", [True, False])
def test_optunas_pages_hide_what_is_refused(place: Place, engine: sa.Engine, allow_writes: bool) -> None:
    app = build(place.url, engine, Access(allow_writes=allow_writes))
    style = ask(app, "/own/optuna.css").body.decode()
    page = ask(app, "/dashboard/studies/1")

    assert b"/own/optuna.css" in page.body
    assert "rename study" in style
    assert ("delete study" in style) is not allow_writes


def test_optunas_pages_name_the_objective(own_place: Place) -> None:
    engine = open_engine(own_place.url)
    write_study_page(engine, find_out(engine, NAME))
    engine.dispose()

    study = optuna.load_study(study_name=NAME, storage=own_place.url)
    assert study.metric_names == ["validation MAE (breaths/min)"]
