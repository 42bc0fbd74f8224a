"""The process of the command line: ``hpo`` and ``python -m hpo``."""

import atexit
import os
import sys

from hpo.cli import main


def run() -> None:
    """Run the command and leave; does not return."""
    status = main()
    if "torch" not in sys.modules:
        sys.exit(status)
    # Python would now take torch apart piece by piece, for longer than a container may be given to end.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
