"""The Dockerfile's steps, done in a tree of Debian instead of a container engine, and its image tried there.

For machines without an engine (root is needed, and `debootstrap`). The base image stands for a fresh Debian
with its own Python 3.11; every other instruction is done as it is written. Then the image is tried as
Kubernetes runs it: as its user, its root read-only, /tmp a tmpfs.

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm TREE
    python benchmarks/dockerfile_in_chroot.py --base TREE --work FOLDER [--arg NAME=VALUE] [--show PATH ...]

--show names files and folders of this machine that the steps may read at the same place, such as pip's
settings and a folder of wheels.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = {name: value for name, value in os.environ.items() if name.upper().startswith("PIP_")}


@dataclass
class Stage:
    """One image under way."""

    name: str
    tree: Path
    folder: str = "/"
    user: str = "0:0"
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    )
    command: list[str] = field(default_factory=list)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Give (word, rest) of each instruction."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            yield word.upper(), rest.strip()


class Build:
    """All stages of a Dockerfile."""

    def __init__(self, base: Path, work: Path, shown: Sequence[Path], given: dict[str, str]) -> None:
        self._base, self._work, self._shown, self._given = base, work, shown, given
        self.stages: dict[str, Stage] = {}

    def run(self, text: str) -> None:
        """Do every instruction."""
        stage = Stage("", Path())
        for word, rest in instructions(text):
            began = time.monotonic()
            if word == "FROM":
                stage = self._begin(rest)
            else:
                self._do(stage, word, rest)
            print(f"{stage.name:8} {word:10} {time.monotonic() - began:7.1f} s  {rest[:80]}", flush=True)

    def _begin(self, rest: str) -> Stage:
        image, _, name = rest.partition(" AS ")
        before = self.stages.get(image)
        if before is None and not re.fullmatch(r"python:3\.11-slim@sha256:[0-9a-f]{64}", image):
            raise SystemExit(f"no stand-in for {image}")
        stage = Stage(name, self._work / name)
        if before is not None:
            stage = Stage(
                name, stage.tree, before.folder, before.user, dict(before.environment), before.command
            )
        shutil.rmtree(stage.tree, ignore_errors=True)
        subprocess.run(
            ["cp", "-a", "--reflink=auto", before.tree if before else self._base, stage.tree], check=True
        )
        python = stage.tree / "usr/local/bin/python"
        if not python.is_symlink():
            python.symlink_to("/usr/bin/python3")  # where the base image has it
        self.stages[name] = stage
        return stage

    def _do(self, stage: Stage, word: str, rest: str) -> None:
        if word in {"ENV", "ARG"}:
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                value = self._given.get(name, value) if word == "ARG" else value
                stage.environment[name] = value.replace("$PATH", stage.environment["PATH"])
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.tree / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word == "COPY":
            self._copy(stage, rest.split())
        elif word == "RUN":
            self.inside(stage, ["/bin/sh", "-c", rest], stage.environment | KEPT, user="0:0")
        elif word == "CMD":
            stage.command = json.loads(rest)
        elif word != "STOPSIGNAL":
            raise SystemExit(f"no such instruction here: {word}")

    def _copy(self, stage: Stage, words: list[str]) -> None:
        source = ROOT
        if words[0].startswith("--from="):
            source = self.stages[words.pop(0).removeprefix("--from=")].tree
        *files, target = words
        to = stage.tree / (target if target.startswith("/") else f"{stage.folder}/{target}").lstrip("/")
        for name in files:
            found = source / name.lstrip("/")
            if found.is_dir():
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(found, to, symlinks=True, dirs_exist_ok=True)
            else:
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, to)

    def inside(
        self,
        stage: Stage,
        words: Sequence[str],
        environment: dict[str, str],
        *,
        user: str,
        is_read_only: bool = False,
    ) -> str:
        """Run a command in a stage's tree, in mounts of its own; return what it printed."""
        tree, steps = str(stage.tree), ["mount --make-rprivate /", f"mount --bind {stage.tree} {stage.tree}"]
        if is_read_only:
            steps += [f"mount -o remount,bind,ro {tree}", f"mount -t tmpfs -o mode=1777 tmpfs {tree}/tmp"]
        else:
            for path in (*self._shown, Path("/etc/resolv.conf"), Path("/etc/hosts")):
                there = stage.tree / str(path).lstrip("/")
                if path.is_dir():
                    there.mkdir(parents=True, exist_ok=True)
                elif not there.exists():
                    there.parent.mkdir(parents=True, exist_ok=True)
                    there.touch()
                steps.append(f"mount --bind {path} {there}")
        steps += [f"mount -t proc proc {tree}/proc", f"mount --bind /dev {tree}/dev"]
        last = [
            "chroot",
            f"--userspec={user}",
            tree,
            "/bin/sh",
            "-c",
            f"cd {stage.folder} && exec {shlex.join(words)}",
        ]
        script = " && ".join([*steps, shlex.join(["exec", *last])])
        found = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "/bin/sh", "-c", script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if found.returncode:
            raise SystemExit(f"{shlex.join(words)} ended with {found.returncode}:\n{found.stdout[-4000:]}")
        return found.stdout


TRIED = [
    "hpo --help",
    "hpo version",
    "touch /opt/hpo/x && exit 1 || echo the root is read-only",
    "id -u",
    "python -c 'import s3fs, torch; print(s3fs.__version__, torch.__version__)'",
    "HPO_CACHE=/tmp/cache hpo run synthetic_rr --trials 1 --workers 1 --storage /tmp/hpo.db",
]


def main() -> None:
    """Build, try, and print what each took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--show", action="append", type=Path, default=[], metavar="PATH")
    parser.add_argument("--target", default="cpu")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    given = dict(pair.partition("=")[::2] for pair in options.arg)
    build = Build(options.base.resolve(), options.work.resolve(), options.show, given)
    build.run((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    stage = build.stages[options.target]
    size = subprocess.run(
        ["du", "-sm", stage.tree], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    print(f"{stage.name}: {size} MB, as {stage.user}, {stage.command}")
    for command in TRIED:
        said = build.inside(
            stage, ["/bin/sh", "-c", command], stage.environment, user=stage.user, is_read_only=True
        )
        print(f"$ {command}\n{said.strip()[-600:]}", flush=True)


if __name__ == "__main__":
    main()
