"""The process of the command line: ``hpo`` and ``python -m hpo``."""

import atexit
import os
import sys

from hpo.allocator import keep_freed_memory
from hpo.cli.app import main


def run() -> None:
    """Run the command and leave; does not return."""
    keep_freed_memory()
    leave(main())


def leave(status: int) -> None:
    """End the process; does not return."""
    if "torch" not in sys.modules and status != 130:
        sys.exit(status)
    # Python would now take torch apart piece by piece, for longer than a container may be given to end. And
    # it drops signal handlers early on: an impatient second SIGTERM would have the last word on the status.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
