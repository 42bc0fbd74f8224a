"""Both ends of the pipes between a fleet and one of its workers.

A worker is a process with three pipes to its parent: its standard input carries the job as one JSON line and
then nothing until the parent dies, which the worker sees as the end of the file and takes as a request to
stop; its events are one JSON line each; of its output the last lines are kept for the case that it crashes.
It runs in a session of its own: Ctrl-C on a terminal reaches the parent alone, which asks each worker once.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune import api
from hpo import errors
from hpo.allocator import keep_freed_memory
from hpo.worker import Event, Settings, work
from hpo.worker.stop import Stop

INTERRUPTED = 130
"""Exit status of a worker that was asked to end; 0: no work left; 1: a fault of ours; 2: of the user's."""
DEVICE_LOST = 3
"""Exit status of a worker whose GPU failed under it: another process may go on with its trials."""
_COMMAND = (sys.executable, "-P", "-c", "from hpo.fleet.child import main; main()")
_OUTPUT_BYTES = 20_000


@dataclass(frozen=True)
class Job:
    """What a worker is told."""

    url: str
    study: str
    below: int
    settings: Settings
    fingerprint: str | None = None
    """Of the study that is meant; None: whichever has the name."""


class Child:
    """The parent's end."""

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        self.worker = ""
        """Its id in the ledger, once it has told it."""
        self.fault: Exception | None = None
        """What it raised that is the user's to mend."""
        self.ends: dict[str, int] = {}
        self._lines = b""
        self._output = b""
        events_fd, its_fd = os.pipe()
        self._process = subprocess.Popen(
            [*_COMMAND, str(its_fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(its_fd,),
            env=dict(environment),
            start_new_session=True,
            bufsize=0,
        )
        os.close(its_fd)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._events_fd = events_fd
        self.fds = [events_fd, self._stdout.fileno()]
        """Pipes that have not ended, to wait for."""
        for fd in self.fds:
            os.set_blocking(fd, False)
        self._tell(job)

    def _tell(self, job: Job) -> None:
        """Send the job through the pipe: its URL may hold a password, which a command line would show."""
        try:
            self._stdin.write(json.dumps(asdict(job), default=str).encode() + b"\n")
        except BrokenPipeError:
            return  # it is dead already, as its exit status will say

    def read(self) -> list[Event]:
        """Return the events that it has told since the last look; never waits."""
        events: list[Event] = []
        for fd in list(self.fds):
            while chunk := self._chunk(fd):
                if fd == self._events_fd:
                    *lines, self._lines = (self._lines + chunk).split(b"\n")
                    events += [event for event in map(self._understand, lines) if event is not None]
                else:
                    self._output = (self._output + chunk)[-_OUTPUT_BYTES:]
        return events

    def _chunk(self, fd: int) -> bytes:
        """Return what a pipe holds now; its end takes it off the list."""
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return b""
        if not chunk:
            self.fds.remove(fd)
        return chunk

    def _understand(self, line: bytes) -> Event | None:
        told = json.loads(line)
        if "fault" in told:
            self.fault = _fault(told["fault"])
        elif "ends" in told:
            self.ends = told["ends"]
        else:
            event = Event(**told)
            self.worker = self.worker or event.worker
            return event
        return None

    @property
    def exit_status(self) -> int | None:
        """None while it lives; negative: the number of the signal that killed it."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """The end of what it wrote to its standard output and error."""
        return self._output.decode(errors="replace").strip()

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL and wait for the death."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the pipes of a dead worker."""
        os.close(self._events_fd)
        self._stdout.close()
        self._stdin.close()


def _fault(told: Mapping[str, Any]) -> Exception:
    """Make an error of ours again from its class's name and its three parts, whose values are kept."""
    name = told["kind"]
    kind: type[Exception] = getattr(errors if hasattr(errors, name) else api, name, errors.HpoError)
    return kind(*map(_unpacked, told["parts"]))


def _packed(said: str) -> Any:
    """Return what an error says as JSON: a text, or a sentence with its values."""
    if not isinstance(said, errors.Said):
        return said
    values = {name: _packed(one) if isinstance(one, str) else one for name, one in said.values.items()}
    return {"sentence": said.sentence, "values": values}


def _unpacked(told: Any) -> Any:
    if not isinstance(told, dict):
        return told
    values = {name: _unpacked(one) for name, one in told["values"].items()}
    return errors.Said(told["sentence"], **values)


def main() -> None:
    """Work as the job on standard input says; the command line's one argument is the pipe for events."""
    keep_freed_memory()
    stop = Stop()
    with stop.listening():
        status = _work(stop, _Pipe(int(sys.argv[1])))
    # Python would now take torch apart piece by piece, which can last seconds; nothing is left to save.
    atexit._run_exitfuncs()
    os._exit(status)


def _work(stop: Stop, pipe: _Pipe) -> int:
    """Return the exit status."""
    job = _read_job()
    threading.Thread(target=_watch_parent, args=(stop,), name="parent", daemon=True).start()
    try:
        summary = work(
            job.url,
            [job.study],
            below=job.below,
            settings=job.settings,
            on_event=pipe.event,
            stop=stop,
            fingerprint=job.fingerprint,
        )
    except (errors.HpoError, api.FinetuneError) as error:
        parts = [_packed(part) for part in (error.what, error.expected, error.next_step)]
        pipe.tell({"fault": {"kind": type(error).__name__, "parts": parts}})
        return 2
    except api.DeviceLostError as error:
        sys.stderr.write(f"{error}\n")
        return DEVICE_LOST
    pipe.tell({"ends": dict(summary.ends)})
    return 0 if summary.ended == "no_work" else INTERRUPTED


class _Pipe:
    """The worker's end of the events' pipe; safe from several threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def event(self, event: Event) -> None:
        self.tell(asdict(event))

    def tell(self, told: Mapping[str, Any]) -> None:
        with self._lock:
            try:
                os.write(self._fd, json.dumps(told).encode() + b"\n")
            except BrokenPipeError:
                return  # the parent is dead; its watcher asks for the end


def _read_job() -> Job:
    """Read one line from standard input, unbuffered: the interpreter's end must find no buffer locked."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(INTERRUPTED)
        line += byte
    told = json.loads(line)
    settings = dict(told.pop("settings"))
    for name in ("data_dir", "cache_dir"):
        settings[name] = Path(settings[name])
    return Job(**told, settings=Settings(**settings))


def _watch_parent(stop: Stop) -> None:
    """Ask for the end when standard input ends: the parent is dead, however it died."""
    while os.read(0, 1024):
        continue
    stop.request("interrupted")
