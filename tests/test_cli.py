"""The command line: its contract with people and scripts."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from small_study import NAME, Place

from hpo import __version__
from hpo.cli.app import main
from hpo.cli.terminal import options_again
from hpo.ledger.values import Point
from hpo.search_here import read_spec
from hpo.study import shipped_studies
from hpo.worker import work

ROOT = Path(__file__).resolve().parent.parent
TINY = """\
name: tiny
task: synthetic_rr
inputs: {train_subjects: 1}
backbone: {name: cmssl_tiny_ppg, weights: none}
recipe: {epochs: EPOCHS, batch_size: 256, patience: 1000}
space:
  lr: {low: 1e-4, high: 1e-2}
  backbone_lr: {low: 1e-5, high: 1e-2}
  loss: [mse, l1]
sampler: {kind: random}
baseline: {name: published default, lr: 1e-4, backbone_lr: 1e-5, loss: mse}
"""
COUNTS = {"budget", "finished", "complete", "pruned", "failed", "running"}
CONTRACT = COUNTS | {"study", "task", "storage", "best", "answer"}
SECRET = "s3cret-w0rd"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the person's own database and data out of these tests."""
    for name in ("HPO_STORAGE", "HPO_DATA", "HPO_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A study that really trains, in seconds."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY.replace("EPOCHS", "1"))
    return file


def environment(folder: Path, cache: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
    places = {"HPO_STORAGE": f"sqlite:///{folder}/hpo.db", "HPO_DATA": str(folder), "HPO_CACHE": str(cache)}
    return {**os.environ, **places, "PYTHONPATH": path}


def hpo(folder: Path, cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpo", *words]
    return subprocess.run(command, cwd=folder, env=environment(folder, cache), capture_output=True, text=True)


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the one line that the user's fault gives."""
    status = main(words)
    told = capsys.readouterr()

    assert status == 2, told
    assert told.out == ""
    faults = [line for line in told.err.splitlines() if not line.endswith(" ...")]  # on a slow machine
    assert len(faults) == 1
    return faults[0]


# --- hpo run


@pytest.mark.slow
def test_a_run_ends_with_an_answer_and_the_same_command_again_does_nothing(
    tiny: Path,
    tmp_path: Path,
    shared_cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ("run", "--study", str(tiny), "--trials", "4", "--workers", "2", "--device", "cpu")

    first = hpo(tmp_path, shared_cache_dir, *command)
    for name, value in environment(tmp_path, shared_cache_dir).items():
        monkeypatch.setenv(name, value)
    status = main([*command, "--json"])
    again = capsys.readouterr()

    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("tiny [synthetic signals]: ")
    assert "published default: with new seeds expect MAE " in first.stdout.splitlines()[0]
    assert "Use lr " in first.stdout
    assert "Published default (lr 1e-4, backbone_lr 1e-5, mse): " in first.stdout
    assert "next: hpo " in first.stdout
    assert "4/4 finished" in first.stderr
    assert status == 0, again.err
    assert "4 of 4 trials are finished, nothing to do" in again.err
    found = json.loads(again.out)
    assert set(found) >= CONTRACT
    assert (found["finished"], found["budget"], found["running"]) == (4, 4, 0)
    assert_optuna_reads_it(tmp_path)


def assert_optuna_reads_it(folder: Path) -> None:
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder}/hpo.db")
    assert [trial.state.is_finished() for trial in study.trials] == [True] * 4
    for trial in study.trials:
        assert set(trial.params) == {"lr", "backbone_lr", "loss", "seed"}
        assert trial.user_attrs["ratio"] == pytest.approx(trial.params["lr"] / trial.params["backbone_lr"])


@pytest.mark.slow
def test_an_interrupted_run_ends_within_5_s_leaves_nothing_running_and_says_how_to_go_on(
    tmp_path: Path, shared_cache_dir: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY.replace("EPOCHS", "1000"))
    command = [
        sys.executable,
        "-m",
        "hpo",
        "run",
        "--study",
        "./tiny.yaml",
        "--workers",
        "1",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path, shared_cache_dir), stderr=subprocess.PIPE, text=True
    )
    wait_for_epochs(tmp_path, process)

    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _, told = process.communicate(timeout=30)

    assert process.returncode == 130, told
    assert time.monotonic() - asked < 5 * crowding()
    assert "interrupted; to go on, type: hpo run --study ./tiny.yaml --workers 1" in told
    trials = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/hpo.db").trials
    assert [trial for trial in trials if trial.state == TrialState.RUNNING] == []


def crowding() -> float:
    """Return how many processes share a core, at least 1: promises in seconds hold on a free machine."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def wait_for_epochs(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "hpo.db").exists():
            with sqlite3.connect(folder / "hpo.db") as connection, suppress(sqlite3.OperationalError):
                if connection.execute("SELECT count(*) FROM hpo_curve").fetchone()[0] > 1:
                    return
        time.sleep(0.3)
    process.kill()
    pytest.fail(f"no epoch came: {process.communicate()[1]}")


def test_missing_data_is_told_and_no_database_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/hpo.db"

    told = complaint(capsys, "run", "--study", "bidmc_rr", "--storage", url, "--data", str(tmp_path))

    assert "bidmc" in told
    assert not (tmp_path / "hpo.db").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--study", "bidmc_r"], "unknown study 'bidmc_r'; expected a YAML file or one of"),
        (["run", "--study", "bidmc_rr", "--trials", "-5"], "--trials is -5; expected a whole number"),
        (["run", "--study", "bidmc_rr", "--trials", "0"], "--trials is 0; expected a whole number"),
        (["run", "--study", "bidmc_rr", "--trials", "many"], "--trials is 'many'; expected a whole number"),
        (["bench", "bidmc_rr", "--seconds", "1"], "--seconds is '1'; expected at least 5."),
        (["run", "bidmc_rr", "--trials"], "--trials needs a value."),
        (["run", "bidmc_rr", "--json=1"], "--json takes no value."),
        (["report", "a", "b"], "There is a word too many. Type: hpo report --help"),
        (["run", "--study", "bidmc_rr", "--workers", "0"], "--workers is 0; expected a whole number"),
        (
            ["run", "--study", "bidmc_rr", "--timeout", "soon"],
            "--timeout is 'soon'; expected a time with its unit",
        ),
        (["run", "--study", "bidmc_rr", "--device", "gpu"], "unknown device 'gpu'; expected cpu, cuda"),
        (["run", "--study", "bidmc_rr", "--trails", "5"], "No such option: --trails"),
        (["run"], "no study is named; type: hpo run NAME"),
        (["report"], "no study is named; type: hpo report NAME"),
        (["stop", "a", "--study", "b"], "two studies are named, 'a' and 'b'; expected one"),
        (
            ["run", "bidmc_rr", "--timeout", "4"],
            "expected a time with its unit, such as 90s, 30m or 2h; type: --timeout 4m",
        ),
        (["rnu"], "No such command: 'rnu'. Did you mean run"),
        (["data"], "No command is named; there are status, get. Type: hpo data --help"),
        (["data", "get", "bidmc_xx"], "unknown data set"),
        (["status", "--storage", "sqlite:////nowhere/at/all.db"], "does not exist"),
        (["status", "--storage", "nonsense"], "is no database URL; expected a file such as hpo.db, or a URL"),
        (["status", "--storage", "no/such.db"], "does not exist"),
        (["status", "--storage", "mysql://host/name"], "is not supported"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_fault_of_the_user_is_one_line_and_exit_status_2(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert told in complaint(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_every_fault_of_a_study_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(TINY.replace("task: synthetic_rr", "task: synthetic_r").replace("[mse, l1]", "[mse, l3]"))

    status = main(["run", "--study", str(file)])

    told = capsys.readouterr().err
    assert status == 2
    assert "unknown task 'synthetic_r'" in told
    assert "unknown loss 'l3'" in told


def test_another_spec_under_the_same_name_says_what_differs_and_offers_a_new_name(
    place: Place, tmp_path: Path, shared_cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place.open(3)
    work(place.url, [NAME], below=1, settings=place.settings())
    file = tmp_path / "small.yaml"
    file.write_text(TINY.replace("name: tiny", f"name: {NAME}").replace("EPOCHS", "1"))

    told = complaint(
        capsys, "run", "--study", str(file), "--storage", place.url, "--cache", str(shared_cache_dir)
    )

    assert "recipe.epochs: 1 here, 6 there" in told
    assert "type the same command with --as small-2" in told


# --- hpo status, studies, version, data


def test_status_shows_each_study_in_a_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.open(6)
    work(place.url, [NAME], below=4, settings=place.settings())

    assert main(["status", "--storage", place.url]) == 0

    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["study", "state", "finished"]
    assert line.split()[:3] == [NAME, "open", "4/6"]
    assert "synthetic signals" in line


def test_status_as_json_is_one_object(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.open(6)
    work(place.url, [NAME], below=4, settings=place.settings())

    main(["status", "--study", NAME, "--storage", place.url, "--json"])

    found = json.loads(capsys.readouterr().out)
    assert set(found) >= CONTRACT - {"answer"}
    assert (found["budget"], found["finished"], found["running"]) == (6, 4, 0)
    best = {"number", "lr", "backbone_lr", "ratio", "loss", "seed", "validation_loss"}
    assert set(found["best"]) == best
    assert isinstance(found["best"]["seed"], int)
    assert found["trials_per_hour"] > 0
    assert found["remaining_s"] > 0
    assert found["workers"] == []


def test_status_shows_who_works_on_what(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.open(3)
    ledger = place.ledger()
    idle = ledger.register_worker("machine-2", 2, "cpu", {})
    busy = ledger.register_worker("machine-1", 1, "cuda:1", {})
    claim = ledger.claim(ledger.study(NAME).study_id, busy, lease_s=60)
    assert claim is not None
    ledger.report([Point(claim, epoch, 1.0, 1.0, {}, 1.0) for epoch in (1, 2)], lease_s=60)

    assert main(["status", "--storage", place.url]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    main(["status", "--storage", place.url, "--study", NAME, "--json"])
    (worker,) = json.loads(capsys.readouterr().out)["workers"]

    assert lines[busy][1:6] == ["machine-1", "cuda:1", NAME, "0", "2"]
    assert lines[idle][1:6] == ["machine-2", "cpu", "-", "-", "-"]
    assert (worker["worker"], worker["number"], worker["epoch"]) == (busy, 0, 2)


def test_watch_ends_when_no_trial_is_left_and_shows_it_in_80_columns(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.open(6)
    work(place.url, [NAME], below=6, settings=place.settings())

    assert main(["watch", NAME, "--storage", place.url]) == 0
    told = capsys.readouterr()

    assert f"{NAME} (finished): 6/6 finished" in told.out
    assert "no trial is left to run" in told.err
    assert max(map(len, told.out.splitlines())) <= 80
    main(["watch", "--storage", place.url, "--json"])
    assert json.loads(capsys.readouterr().out)["studies"][0]["finished"] == 6


def test_watch_looks_again_while_trials_are_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.open(6)
    looks = 0

    def and_then_work(_: float) -> None:
        nonlocal looks
        looks += 1
        work(place.url, [NAME], below=3 * looks, settings=place.settings())

    monkeypatch.setattr("hpo.cli.watch.sleep", and_then_work)

    assert main(["watch", "--storage", place.url]) == 0
    assert looks == 2


def test_report_as_json_has_the_whole_contract(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.open(12)
    work(place.url, [NAME], below=12, settings=place.settings())

    main(["report", "--study", NAME, "--storage", place.url, "--out", str(place.folder / "r"), "--json"])

    found = json.loads(capsys.readouterr().out)
    assert set(found) >= CONTRACT | {"files"}
    answer = {"lr", "backbone_lr", "ratio", "loss", "expected_validation_loss", "baseline", "trivial"}
    assert set(found["answer"]) >= answer


def test_studies_lists_what_is_shipped_without_making_a_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studies", "--storage", f"sqlite:///{tmp_path}/hpo.db"]) == 0

    told = capsys.readouterr().out
    assert [name for name in shipped_studies() if name not in told] == []
    assert "in the database: none" in told
    assert list(tmp_path.iterdir()) == []


def test_studies_lists_those_of_the_database(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.open(3)

    main(["studies", "--storage", place.url, "--json"])

    found = json.loads(capsys.readouterr().out)
    assert [study["study"] for study in found["studies"]] == [NAME]
    assert {study["study"] for study in found["shipped"]} == set(shipped_studies())


def test_version_names_what_results_depend_on(capsys: pytest.CaptureFixture[str]) -> None:
    main(["version"])

    told = capsys.readouterr().out
    assert [
        name
        for name in ("hpo", "python", "torch", "numpy", "numba", "optuna", "SQLAlchemy")
        if f"{name} " not in told
    ] == []


def test_data_status_names_every_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "status", "--data", str(tmp_path), "--json"]) == 0

    sets = {one["name"]: one["state"] for one in json.loads(capsys.readouterr().out)["sets"]}
    assert sets["bidmc"] == "missing"
    assert sets["synthetic"] == "complete"


@pytest.mark.real_data
def test_data_status_sees_the_complete_bidmc(hpo_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "status", "--data", str(hpo_data)])

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bidmc", "complete", "53", "of", "53"] in [line[:5] for line in lines]


# --- what holds for every command


def test_a_study_is_a_word_or_an_option_and_a_database_a_file_or_a_url(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.open(3)
    file = place.url.removeprefix("sqlite:///")
    told = []
    for words in (["status", NAME, "--storage", file], ["status", "--study", NAME, "--storage", place.url]):
        assert main([*words, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))

    assert told[0]["storage"] == told[1]["storage"] == place.url
    assert told[0]["study"] == told[1]["study"] == NAME


def test_a_study_that_came_from_a_file_is_found_in_the_database_by_its_name(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.open(3)
    assert NAME not in shipped_studies()

    found = read_spec(NAME, url=place.url)

    assert found.fingerprint() == place.ledger().study(NAME).fingerprint
    assert f"unknown study '{NAME}'" in complaint(
        capsys, "submit", NAME, "--storage", f"{place.folder}/other.db"
    )


def test_the_version_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hpo {__version__}\n"


def test_the_shell_completes_commands_and_studies(tmp_path: Path) -> None:
    def completed(words: str) -> list[str]:
        asked = {"_HPO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        command = [sys.executable, "-m", "hpo"]
        where = environment(tmp_path, tmp_path) | asked
        return subprocess.run(command, env=where, capture_output=True, text=True, cwd=tmp_path).stdout.split()

    assert completed("hpo conf") == ["confirm"]
    assert completed("hpo run synthetic_") == ["synthetic_hr", "synthetic_rr"]


def test_the_next_command_names_the_database_and_works_as_it_stands(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.open(3)
    main(["pause", NAME, "--storage", place.url])

    told = capsys.readouterr().out
    main(shlex.split(told.partition("to go on: ")[2])[1:])

    assert f"{NAME} was paused and is open" in capsys.readouterr().out


def test_options_that_differ_from_the_environments_are_part_of_the_next_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HPO_DATA", "/d")

    assert options_again("sqlite:///hpo.db", Path("/d"), None) == ""
    told = options_again("sqlite:///other.db", Path("my data"), Path("/c"), "cpu")
    assert told == " --storage other.db --data 'my data' --cache /c --device cpu"


def test_the_folder_of_code_is_part_of_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_CODE", "")
    main(["check", "nowhere", "--code", str(tmp_path)])

    assert f" --code {tmp_path}" in options_again("sqlite:///hpo.db", code=tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--study", "synthetic_rr"],
        ["status"],
        ["report", "--study", "x"],
        ["studies"],
        ["run", "--study", "synthetic_rr", "--nonsense"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/x?connect_timeout=2",
        f"mysql://me:{SECRET}@127.0.0.1/x",
        f"postgresql://me:{SECRET}@@127.0.0.1:1/x",
    ],
    ids=["nobody listens", "unsupported", "malformed"],
)
def test_a_password_never_shows(
    command: list[str], url: str, shared_cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ["--cache", str(shared_cache_dir)] if command[0] == "run" else []

    status = main([*command, "--storage", url, *cache])

    told = capsys.readouterr()
    assert status == 2, told
    assert SECRET not in told.out + told.err


def test_help_takes_less_than_a_second_of_processor_time(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = hpo(tmp_path, tmp_path, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert done.returncode == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
