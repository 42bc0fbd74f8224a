"""The first sign of life of a command, on a person's terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpo import first_sign
from hpo.cli.quick import say_starting

LATE = """
import sys
from hpo import first_sign
first_sign.SOON_S = float(sys.argv.pop(1))
from hpo.__main__ import run
run()
"""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["report", "bidmc_rr"], "hpo report: starting ..."),
        (["--version"], "hpo: starting ..."),
        (["run", "bidmc_rr", "--lang", "zh"], "hpo run：正在启动 ..."),
        (["run", "bidmc_rr", "--lang=zh"], "hpo run：正在启动 ..."),
        (["run", "bidmc_rr", "--lang", "xx"], "hpo run: starting ..."),
        (["report", "zh"], "hpo report: starting ..."),
    ],
)
def test_a_start_is_told_in_the_language_that_was_asked_for(
    words: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HPO_LANG", raising=False)
    say_starting(words)

    assert capsys.readouterr() == ("", line + "\n")


def test_a_start_is_told_in_the_language_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPO_LANG", "zh")
    say_starting(["status"])

    assert capsys.readouterr().err == "hpo status：正在启动 ...\n"


def test_a_sign_is_given_when_nothing_is_said_and_not_when_something_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = threading.Event()
    monkeypatch.setattr(first_sign, "SOON_S", 0.0)
    first_sign.promise(told.set)
    assert told.wait(60)

    first_sign.given()
    monkeypatch.setattr(first_sign, "SOON_S", 3600.0)
    first_sign.promise(told.clear)
    (timer,) = first_sign._timers
    first_sign.given()
    timer.join(60)

    assert told.is_set()
    assert not timer.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize(("soon", "first"), [("0", "hpo studies: starting ..."), ("3600", "error: ")])
def test_the_command_line_promises_before_it_loads_anything_and_is_silent_once_it_has_spoken(
    tmp_path: Path, soon: str, first: str
) -> None:
    import pty

    ours, theirs = pty.openpty()
    words = ["studies"] if soon == "0" else ["report", "nothing"]
    environment = os.environ | {"HPO_STORAGE": str(tmp_path / "none.db"), "HPO_LANG": "en"}
    subprocess.run(
        [sys.executable, "-c", LATE, soon, *words],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
        check=False,
        timeout=300,
    )
    told = os.read(ours, 4096).decode()
    for end in (ours, theirs):
        os.close(end)

    assert told.startswith(first)
    assert "Traceback" not in told
