"""The process of the command line: ``hpo`` and ``python -m hpo``."""

import atexit
import io
import os
import sys
from functools import partial

from hpo import first_sign
from hpo.allocator import keep_freed_memory
from hpo.cli.quick import say_starting


def run() -> None:
    """Run the command and leave; does not return."""
    keep_freed_memory()
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no Chinese shows its numbers
            stream.reconfigure(errors="backslashreplace")
    if sys.stderr.isatty():
        first_sign.promise(partial(say_starting, sys.argv[1:]))
    from hpo.cli.app import main  # with typer, after the promise

    leave(main())


def _open_what_is_closed() -> None:
    """Let what was started without an output (``>&-``) speak to nobody, and no file take its place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for the process's life
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def leave(status: int) -> None:
    """End the process; does not return."""
    first_sign.given()
    if status == 0:
        status = _flushed()
    if "torch" not in sys.modules and status != 130:
        sys.exit(status)
    # Python would now take torch apart piece by piece, for longer than a container may be given to end. And
    # it drops signal handlers early on: an impatient second SIGTERM would have the last word on the status.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _flushed() -> int:
    """Write out what is left to say, and return the exit status: it may not reach anybody."""
    try:
        sys.stdout.flush()
    except OSError as error:
        from hpo.cli.app import explain

        return explain(error)
    return 0


if __name__ == "__main__":
    run()
