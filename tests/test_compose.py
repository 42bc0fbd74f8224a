"""docker-compose.yml: valid, closed to others, and its services' own commands finish a study together."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from sqlalchemy.engine import make_url
from web import TOKEN

from hpo.errors import StorageError
from hpo.storage import parse_url

ROOT = Path(__file__).resolve().parent.parent
OURS = ["dashboard", "worker"]
STUDY = """\
name: compose_check
task: synthetic_rr
backbone: {name: cmssl_tiny_ppg, weights: builtin}
recipe: {epochs: 1, batch_size: 64}
space:
  lr: {low: 1e-5, high: 1e-2}
  backbone_lr: {low: 1e-6, high: 1e-2}
  loss: [mse, l1]
sampler: {kind: random}
pruner: {kind: none}
baseline: {name: default, lr: 1e-4, backbone_lr: 1e-5, loss: mse}
"""


class ComposeLoader(yaml.SafeLoader):
    """Reads the tags by which one compose file changes another."""


ComposeLoader.add_constructor("!reset", lambda loader, node: None)


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((ROOT / name).read_text(encoding="utf-8"), ComposeLoader)
    return found


COMPOSE = load("docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.cpu.yml"])
def test_the_files_follow_the_compose_specification(name: str) -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(schema)

    assert [error.message for error in validator.iter_errors(load(name))] == []
    assert list(validator.iter_errors({"services": {"worker": {"comand": "hpo"}}}))


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_published_beyond_loopback(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert port.startswith("127.0.0.1:")
    assert "network_mode" not in SERVICES[service]


@pytest.mark.parametrize("service", SERVICES)
def test_containers_are_not_root_and_can_gain_nothing(service: str) -> None:
    found = SERVICES[service]

    assert found["user"].split(":")[0] not in {"root", "0"}
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in found


@pytest.mark.parametrize("service", SERVICES)
def test_services_come_back_and_have_time_to_end(service: str) -> None:
    found = SERVICES[service]

    assert found["restart"] in {"unless-stopped", "on-failure"}
    seconds = {"s": 1, "m": 60}[found["stop_grace_period"][-1]] * int(found["stop_grace_period"][:-1])
    assert seconds >= 10


def test_secrets_come_from_files_only() -> None:
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            assert not re.search("PASSWORD|TOKEN", name) or value.startswith("/run/secrets/")
            assert make_url(value).password is None if "://" in value else True
            if value.startswith("/run/secrets/"):
                assert Path(value).name in service["secrets"]


def test_workers_reserve_gpus_and_can_be_many() -> None:
    worker = SERVICES["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]

    assert device["capabilities"] == ["gpu"]
    assert "container_name" not in worker
    assert "ports" not in worker
    assert load("docker-compose.cpu.yml")["services"]["worker"]["deploy"] is None


def test_workers_serve_what_is_submitted_and_stay_in_compose_and_kubernetes() -> None:
    documents = yaml.safe_load_all((ROOT / "docs" / "kubernetes.yaml").read_text(encoding="utf-8"))
    (worker,) = [found for found in documents if found["metadata"]["name"] == "worker"]
    (container,) = worker["spec"]["template"]["spec"]["containers"]

    assert SERVICES["worker"]["command"] == container["args"] == ["hpo", "worker", "--forever"]
    assert SERVICES["worker"]["restart"] == "unless-stopped"
    assert worker["kind"] == "Deployment"


def test_our_services_wait_for_a_healthy_database() -> None:
    assert "pg_isready" in SERVICES["postgres"]["healthcheck"]["test"]
    for service in OURS:
        assert SERVICES[service]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_every_build_target_is_in_the_dockerfile() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    files = ("docker-compose.yml", "docker-compose.cpu.yml")
    targets = {load(file)["services"][service]["build"]["target"] for file in files for service in OURS}

    assert targets == {"cpu", "cuda"}
    assert all(re.search(rf"^FROM \S+ AS {target}$", dockerfile, re.MULTILINE) for target in targets)
    assert re.search(r"^USER 10001", dockerfile, re.MULTILINE)


def test_the_kubernetes_manifest_is_as_closed_as_the_compose_file() -> None:
    documents = list(yaml.safe_load_all((ROOT / "docs" / "kubernetes.yaml").read_text(encoding="utf-8")))
    pods = [found["spec"]["template"]["spec"] for found in documents if "template" in found.get("spec", {})]

    assert len(pods) == 3
    assert {found["spec"].get("type", "ClusterIP") for found in documents if found["kind"] == "Service"} == {
        "ClusterIP"
    }
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_password_from_a_file_goes_into_the_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss/word\n")
    monkeypatch.setenv("HPO_STORAGE_PASSWORD_FILE", str(tmp_path / "password"))

    assert parse_url("postgresql://hpo@postgres/hpo").password == "p@ss/word"
    assert parse_url("postgresql://hpo:own@postgres/hpo").password == "own"
    assert parse_url("sqlite:///hpo.db").password is None
    monkeypatch.setenv("HPO_STORAGE_PASSWORD_FILE", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match="cannot read HPO_STORAGE_PASSWORD_FILE"):
        parse_url("postgresql://hpo@postgres/hpo")


class Machine:
    """Runs the commands of services as processes of this machine, with the services' environment."""

    def __init__(self, folder: Path, database: str) -> None:
        self._folder = folder
        self._database = make_url(database)
        for name, secret in (
            ("postgres_password", "not asked for on this socket"),
            ("dashboard_token", TOKEN),
        ):
            (folder / name).write_text(f"{secret}\n")
        (folder / "study.yaml").write_text(STUDY)

    def start(self, service: str, **replaced: str) -> subprocess.Popen[bytes]:
        """Start a service's own command (docker compose up)."""
        words = [replaced.get(word, word) for word in SERVICES[service]["command"]]
        return self.execute(service, *words)

    def execute(self, service: str, *words: str) -> subprocess.Popen[bytes]:
        """Start another command in the service's environment (docker compose exec)."""
        assert words[0] == "hpo"
        given = {name: self._here(value) for name, value in SERVICES[service]["environment"].items()}
        path = os.pathsep.join(filter(None, sys.path))
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **given}
        with (self._folder / f"{service}.log").open("ab") as log:
            command = [sys.executable, "-m", "hpo", *words[1:]]
            return subprocess.Popen(command, env=environment, cwd=self._folder, stdout=log, stderr=log)

    def said(self, service: str) -> str:
        file = self._folder / f"{service}.log"
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def _here(self, value: str) -> str:
        """Return an environment variable with the container's places replaced by this machine's."""
        if value.startswith("postgresql://"):
            asked, real = make_url(value), self._database
            assert (asked.host, asked.database, asked.password) == ("postgres", "hpo", None)
            moved = asked.set(host=real.host, port=real.port, database=real.database, query=real.query)
            return moved.set(username=real.username).render_as_string(hide_password=False)
        return (
            value.replace("/run/secrets", str(self._folder))
            if value.startswith("/run")
            else str(self._folder / value.lstrip("/"))
        )


def ask(port: int, path: str, token: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(claim: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


def is_up(port: int) -> bool:
    try:
        ask(port, "/")
    except OSError:
        return False
    return True


def states(port: int) -> list[str]:
    """Return the states of the first study's trials, as the dashboard has them."""
    status, body = ask(port, "/api/studies/1?after=0", TOKEN)
    return [trial["state"] for trial in json.loads(body)["trials"]] if status == 200 else []


@pytest.mark.postgres
@pytest.mark.slow
def test_the_services_finish_a_submitted_study_together_on_a_real_postgresql(
    postgres_url: str, tmp_path: Path
) -> None:
    machine, port = Machine(tmp_path, postgres_url), free_port()
    dashboard = machine.start("dashboard", **{"8080": str(port)})
    workers = [machine.start("worker"), machine.start("worker")]  # docker compose up --scale worker=2

    def told() -> str:
        return machine.said("dashboard") + machine.said("worker")

    try:
        wait_until(lambda: is_up(port), 120, told)
        wait_until(lambda: told().count("the database holds no study yet") == 2, 120, told)
        submitted = machine.execute("worker", "hpo", "submit", "--study", "study.yaml", "--trials", "3")
        assert submitted.wait(timeout=200) == 0, told()
        wait_until(lambda: states(port) == ["Complete"] * 3, 400, told)
        wait_until(lambda: told().count("all trials have ended: compose_check") == 2, 60, told)
        anonymous, _ = ask(port, "/api/studies")
        answer, page = ask(port, "/answer/compose_check", TOKEN)
    finally:
        for process in (dashboard, *workers):
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)  # our shortest stop_grace_period is 15 s, on a machine of its own

    assert (anonymous, answer) == (401, 200)
    assert b"compose_check" in page
    assert "compose_check trial 0 started" in machine.said("worker")
    assert [worker.returncode for worker in workers] == [130, 130], machine.said("worker")
    assert dashboard.returncode == 0, machine.said("dashboard")
    assert TOKEN not in machine.said("dashboard")
