"""What a machine has: GPUs as CUDA counts them, and cores as its control groups allow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gpu_machine import list_gpus
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.cli.app import main
from hpo.errors import UsageError
from hpo.fleet import check_device, gpus, machine, places
from hpo.fleet.machine import cores, visible_gpus

GPUS = [f"GPU {n}: NVIDIA A100-SXM4-40GB (UUID: GPU-{name})" for n, name in enumerate(("aa1", "aa2", "b3"))]
PARTS = [
    "GPU 0: NVIDIA H100 (UUID: GPU-h0)",
    "  MIG 3g.40gb     Device  0: (UUID: MIG-p0)",
    "  MIG 3g.40gb     Device  1: (UUID: MIG-p1)",
    "GPU 1: NVIDIA H100 (UUID: GPU-h1)",
]
ALL = ["GPU-aa1", "GPU-aa2", "GPU-b3"]

# The rules are CUDA's; torch/cuda/__init__.py (_parse_visible_devices) has them in Python.
CHOSEN = {
    "": [],
    "-1": [],
    "NoDevFiles": [],
    "none": [],
    "0": ["GPU-aa1"],
    "2,0": ["GPU-b3", "GPU-aa1"],
    " 1 , 2 ": ["GPU-aa2", "GPU-b3"],
    "0,-1,1": ["GPU-aa1"],
    "0,,1": ["GPU-aa1"],
    "0,3,1": ["GPU-aa1"],
    "3": [],
    "1,0,1": [],
    "2x,0": ["GPU-b3", "GPU-aa1"],
    "x2,0": [],
    "GPU-b": ["GPU-b3"],
    "GPU-b3,GPU-aa1": ["GPU-b3", "GPU-aa1"],
    "GPU-aa": [],
    "GPU-b,GPU-aa,GPU-aa1": ["GPU-b3"],
    "GPU-b,GPU-b3": [],
    "GPU-zz,GPU-b3": [],
    "2,GPU-aa1": ["GPU-b3"],
    "GPU-b,0": ["GPU-b3"],
    "MIG-b": [],
}


@pytest.mark.parametrize("chosen", CHOSEN)
def test_a_list_of_devices_means_what_cuda_says_it_means(
    chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_gpus(tmp_path, monkeypatch, GPUS)
    assert visible_gpus() == ALL

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)

    assert visible_gpus() == CHOSEN[chosen]
    assert gpus("auto") == gpus("cuda") == CHOSEN[chosen]
    assert gpus("cpu") == gpus("cuda:0") == []
    assert places("auto") == (len(CHOSEN[chosen]) or cores())


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (None, ["MIG-p0", "MIG-p1", "GPU-h1"]),
        ("MIG-p1", ["MIG-p1"]),
        ("MIG-p1,MIG-p0", ["MIG-p1", "MIG-p0"]),
        ("MIG-p", []),
        ("0", ["MIG-p0"]),
        ("GPU-h0,GPU-h1", ["MIG-p0", "GPU-h1"]),
    ],
)
def test_a_gpu_that_is_parted_computes_in_its_parts_only(
    chosen: str | None, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_gpus(tmp_path, monkeypatch, PARTS)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)

    assert visible_gpus() == found


def test_a_named_gpu_is_one_worker_and_one_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    list_gpus(tmp_path, monkeypatch, GPUS)
    for device in ("cpu", "auto", "cuda", "cuda:0", "cuda:2"):
        check_device(device)
    assert places("cuda:2") == 1
    assert places("cpu") == cores()

    with pytest.raises(UsageError, match="device cuda:3 is not there; expected cuda:0 to cuda:2"):
        check_device("cuda:3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(UsageError, match="device cuda:1 is not there; expected cuda:0;"):
        check_device("cuda:1")

    database = tmp_path / "hpo.db"
    words = ["run", "--study", "synthetic_rr", "--device", "cuda:7", "--storage", f"sqlite:///{database}"]
    assert main([*words, "--cache", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("error: the device cuda:7 is not there") == 1
    assert not database.exists()


def test_a_gpu_that_does_not_answer_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_gpus(tmp_path, monkeypatch, [GPUS[0], "Unable to determine the device handle: GPU is lost", GPUS[2]])
    with (tmp_path / "nvidia-smi").open("a") as tool:
        tool.write("exit 15\n")

    assert visible_gpus() == ["GPU-aa1", "GPU-b3"]


def test_an_nvidia_smi_that_never_ends_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_gpus(tmp_path, monkeypatch, GPUS)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(machine, "ASKED_S", 0.05)

    assert visible_gpus() == []


@pytest.mark.parametrize(
    ("chosen", "found"), [(None, ["0", "1"]), ("GPU-b, 3", ["GPU-b", "3"]), ("3,0,1", ["3", "0"])]
)
def test_without_nvidia_smi_torch_counts_the_gpus_that_there_are_files_of(
    chosen: str | None, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_gpus(tmp_path, monkeypatch, [])
    monkeypatch.setattr(machine, "DEV", tmp_path)
    monkeypatch.setattr(machine, "gpu_count", lambda: 2)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == []

    (tmp_path / "nvidia0").touch()

    assert visible_gpus() == found


# --- cores ---


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {"proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"}
V1 = {
    "proc/self/mountinfo": "34 24 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 24 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
}
DOCKER_V1 = {
    "proc/self/mountinfo": "34 24 0:30 /docker/ab /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
    "proc/self/cgroup": "4:cpu,cpuacct:/docker/ab\n2:memory:/docker/ab\n",
}
V1_FILES = ("sys/fs/cgroup/cpu,cpuacct", "cpu.cfs_quota_us", "cpu.cfs_period_us")
GROUPS = {
    "no files at all": ({}, 64),
    "no limit": (V2 | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
    "one CPU": (V2 | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
    "one and a half": (V2 | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
    "a tenth": (V2 | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
    "more than there are": (
        V2 | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"},
        64,
    ),
    "a limit of a group around it": (
        V2
        | {
            "proc/self/cgroup": "0::/pods/one\n",
            "sys/fs/cgroup/pods/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/pods/one/cpu.max": "max 100000\n",
        },
        3,
    ),
    "the least of two": (
        V2
        | {
            "proc/self/cgroup": "0::/pods/one\n",
            "sys/fs/cgroup/pods/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/pods/one/cpu.max": "200000 100000\n",
        },
        2,
    ),
    "a name of the host that is not mounted here": (
        V2 | {"proc/self/cgroup": "0::/kubepods/x\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"},
        2,
    ),
    "version 1, no limit": (
        V1
        | {
            "proc/self/cgroup": "4:cpu,cpuacct:/\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        64,
    ),
    "version 1, nested": (
        V1
        | {
            "proc/self/cgroup": "11:memory:/x\n4:cpu,cpuacct:/batch/job7\n",
            "sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_quota_us": "500000\n",
            "sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/batch/job7/cpu.cfs_quota_us": "25000\n",
            "sys/fs/cgroup/cpu,cpuacct/batch/job7/cpu.cfs_period_us": "10000\n",
        },
        3,
    ),
    "version 1 in docker": (
        DOCKER_V1
        | {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "both versions": (
        {
            "proc/self/mountinfo": V1["proc/self/mountinfo"]
            + V2["proc/self/mountinfo"].replace("group ", "group/u "),
            "proc/self/cgroup": "4:cpu,cpuacct:/\n0::/\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "a group that is being removed": (V2 | {"proc/self/cgroup": "0::/x (deleted)\n"}, 64),
}


@pytest.mark.parametrize("group", GROUPS)
def test_cores_are_those_that_the_control_groups_allow(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, expected = GROUPS[group]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))

    assert cores(write(tmp_path, files)) == expected


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=20))
def test_files_of_any_content_leave_a_number_of_cores(
    tmp_path_factory: pytest.TempPathFactory, mounts: str, groups: str, quota: str
) -> None:
    files = {
        "proc/self/mountinfo": V2["proc/self/mountinfo"] + mounts.encode("utf-8", "replace").decode(),
        "proc/self/cgroup": "0::/\n" + groups.encode("utf-8", "replace").decode(),
        "sys/fs/cgroup/cpu.max": quota.encode("utf-8", "replace").decode(),
    }

    assert 1 <= cores(write(tmp_path_factory.mktemp("c"), files)) <= len(os.sched_getaffinity(0))


def test_without_a_home_folder_one_line_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "HPO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no user of that number in /etc/passwd

    assert main(["run", "--study", "synthetic_rr", "--storage", f"sqlite:///{tmp_path}/hpo.db"]) == 2

    said = capsys.readouterr().err
    assert said.startswith("error: there is no home folder for the prepared windows")
    assert "--cache DIR, or set HPO_CACHE" in said
    assert said.count("\n") == 1
