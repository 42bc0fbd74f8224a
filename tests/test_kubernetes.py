"""The manifests: as closed as Pod Security's restricted profile asks, bounded, probed, images by digest."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from small_study import NAME, Place, small_spec

from hpo.errors import UsageError
from hpo.ledger.ledger import Ledger
from hpo.storage import open_engine
from hpo.worker import open_study, work
from hpo.worker.alive import showing_alive

DOCS = Path(__file__).resolve().parent.parent / "docs"
FILES = ["kubernetes.yaml", "kueue.yaml", "keda.yaml"]
OURS = re.compile(r"hpo:(cpu|cuda)")
"""Stands for an image that the user builds and names."""
ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCS / name).read_text(encoding="utf-8")))


def pods(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what every workload says of its pods."""
    return [one["spec"]["template"]["spec"] for one in found if "template" in one.get("spec", {})]


ALL = [one for name in FILES for one in documents(name)]
PODS = pods(ALL)


def weaknesses(pod: dict[str, Any]) -> Iterator[str]:
    """Give what is not as the restricted profile asks, or as we ask besides."""
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may be root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "has the service account's token"
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares the host's"
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= ALLOWED_VOLUMES:
            yield f"volume {volume['name']}"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} without a bound"
    shm = [
        mount
        for one in pod["containers"]
        for mount in one["volumeMounts"]
        if mount["mountPath"] == "/dev/shm"
    ]
    for mount in shm:
        (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
        if volume["emptyDir"].get("medium") != "Memory":
            yield "/dev/shm is no memory"
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        yield from weaknesses_of_container(container)


def weaknesses_of_container(container: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "has capabilities"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "may write to its image"
    if context.get("privileged") or "runAsUser" in context or "seccompProfile" in context:
        yield "has rules of its own"
    resources = container.get("resources", {})
    if not {"cpu", "memory", "ephemeral-storage"} <= resources.get("limits", {}).keys() & {
        *resources["requests"]
    }:
        yield "without limits"
    if not {"startupProbe", "livenessProbe"} <= container.keys():
        yield "without probes"
    if "@sha256:" not in container["image"] and not OURS.fullmatch(container["image"]):
        yield "an image without its digest"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "a port of the host"


def test_there_are_the_pods_that_these_tests_look_at() -> None:
    names = sorted(container["name"] for pod in PODS for container in pod["containers"])

    assert names == ["dashboard", "postgres", "worker", "worker"]


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_pods_are_restricted(pod: dict[str, Any]) -> None:
    assert list(weaknesses(pod)) == []


def weakened(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> list[str]:
    pod = copy.deepcopy(PODS[0])
    change(pod, pod["containers"][0])
    return list(weaknesses(pod))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pod, one: pod["securityContext"].pop("runAsNonRoot"), "may be root"),
        (lambda pod, one: pod["securityContext"].update(runAsUser=0), "may be root"),
        (lambda pod, one: pod["securityContext"].pop("seccompProfile"), "no seccomp profile"),
        (lambda pod, one: pod.pop("automountServiceAccountToken"), "has the service account's token"),
        (lambda pod, one: pod.update(hostNetwork=True), "shares the host's"),
        (lambda pod, one: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "volume x"),
        (lambda pod, one: pod["volumes"][1].update(emptyDir={}), "volume run without a bound"),
        (lambda pod, one: pod["volumes"][3]["emptyDir"].pop("medium"), "/dev/shm is no memory"),
        (
            lambda pod, one: one["securityContext"].update(allowPrivilegeEscalation=True),
            "may gain privileges",
        ),
        (
            lambda pod, one: one["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
            "has capabilities",
        ),
        (lambda pod, one: one["securityContext"].pop("readOnlyRootFilesystem"), "may write to its image"),
        (lambda pod, one: one["securityContext"].update(privileged=True), "has rules of its own"),
        (lambda pod, one: one["resources"]["limits"].pop("memory"), "without limits"),
        (lambda pod, one: one.pop("livenessProbe"), "without probes"),
        (lambda pod, one: one.update(image="postgres:17-alpine"), "an image without its digest"),
    ],
)
def test_each_weakening_is_seen(change: Callable[[Any, Any], object], said: str) -> None:
    assert weakened(change) == [said]


def test_the_namespace_enforces_the_profile() -> None:
    (namespace,) = [one for one in ALL if one["kind"] == "Namespace"]

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def policies() -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in ALL if one["kind"] == "NetworkPolicy"}


def test_nothing_is_reached_but_what_is_allowed() -> None:
    found = policies()
    everywhere = [
        one
        for spec in found.values()
        for way in ("ingress", "egress")
        for one in spec.get(way, [])
        if not one.get("from" if way == "ingress" else "to") or not one.get("ports")
    ]

    assert found["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert everywhere == []  # a rule without a peer, or without a port, is for all of them
    assert found["to-postgres"]["podSelector"]["matchLabels"] == {"app": "hpo-postgres"}
    assert found["to-postgres"]["ingress"][0]["ports"] == [{"port": 5432}]


def test_services_are_of_the_cluster_only() -> None:
    kinds = {one["spec"].get("type", "ClusterIP") for one in ALL if one["kind"] == "Service"}

    assert kinds == {"ClusterIP"}
    assert not [one for one in ALL if one["kind"] == "Ingress"]


def test_no_secret_is_written_down() -> None:
    assert not [one for one in ALL if one["kind"] == "Secret"]
    for pod in PODS:
        for variable in pod["containers"][0]["env"]:
            assert not re.search("PASSWORD|TOKEN|KEY", variable["name"]) or variable["value"].startswith(
                "/run/"
            )


# --- queues


def test_the_job_waits_for_its_queue_and_ends_without_work() -> None:
    (job,) = documents("kueue.yaml")
    (deployment,) = [
        one for one in ALL if one["kind"] == "Deployment" and one["metadata"]["name"] == "worker"
    ]
    (pod,) = pods([job])
    theirs = copy.deepcopy(deployment["spec"]["template"]["spec"])

    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert job["spec"]["suspend"] is True
    assert pod.pop("restartPolicy") == "Never"  # podFailurePolicy asks for it
    assert pod["containers"][0].pop("args") == ["hpo", "worker"]
    assert theirs["containers"][0].pop("args") == ["hpo", "worker", "--forever"]
    assert pod == theirs
    assert (
        job["spec"]["template"]["metadata"] == deployment["spec"]["template"]["metadata"]
    )  # policies know it


def wanted_workers(url: str) -> int:
    (scaled,) = [one for one in ALL if one["kind"] == "ScaledObject"]
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    engine = open_engine(url)
    with engine.connect() as connection:
        found = int(connection.execute(sa.text(query)).scalar_one())
    engine.dispose()
    return found


def test_keda_wants_a_worker_a_slot_and_none_without_any(database_url: str, tmp_path: Path) -> None:
    place = Place(tmp_path, database_url)
    open_engine(place.url).dispose()
    counts = [wanted_workers(place.url)]
    open_study(place.url, small_spec(), place.settings(), total=3)
    counts.append(wanted_workers(place.url))
    engine = open_engine(place.url)
    ledger = Ledger(engine)
    study = ledger.study(NAME)
    claim = ledger.claim(study.study_id, "w", lease_s=60)
    assert claim is not None
    ledger.set_state(study.study_id, "paused")
    counts.append(wanted_workers(place.url))
    ledger.give_back(claim)
    ledger.set_state(study.study_id, "open")
    engine.dispose()
    work(place.url, [NAME], settings=place.settings())
    counts.append(wanted_workers(place.url))

    assert counts == [0, 3, 1, 0]  # paused: only the one that runs


def test_skypilot_takes_its_secrets_from_the_command() -> None:
    (task,) = documents("skypilot.yaml")

    assert set(task["secrets"].values()) == {None}
    assert not re.search("HPO_STORAGE|SECRET|KEY", " ".join(task["envs"]))
    assert task["run"].split()[-2:] == ["hpo", "worker"]


# --- the sign of life


def test_a_process_shows_that_it_lives_and_stops(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    with showing_alive(file, every_s=0.02):
        assert file.exists()
        file.unlink()
        for _ in range(500):
            if file.exists():
                break
            time.sleep(0.01)
        assert file.exists()  # touched again

    assert not file.exists()


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="HPO_ALIVE"), showing_alive(tmp_path / "no/folder/alive"):
        pass


def test_the_probes_look_at_the_file_that_the_worker_touches() -> None:
    for pod in PODS:
        (container,) = pod["containers"]
        if container["name"] == "worker":
            file = {one["name"]: one["value"] for one in container["env"]}["HPO_ALIVE"]
            assert container["startupProbe"]["exec"]["command"] == ["test", "-e", file]
            assert file in container["livenessProbe"]["exec"]["command"][-1]
            assert file.startswith(container["volumeMounts"][2]["mountPath"])
