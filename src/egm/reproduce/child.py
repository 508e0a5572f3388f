"""Runs a module as `python -m` does, in a process that is told to end when the one that started it is gone.

`python -m egm.reproduce.child MODULE ARGUMENT...`. A killed `egm reproduce` must not leave trainings behind that write
into the folders which the next one goes on with.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from egm.processes import end_with_parent

PARENT = "EGM_REPRODUCE_PARENT"
"""Environment variable that holds the number of the process that starts this one."""


def run_child() -> None:
    """Run the module that the first argument names."""
    end_with_parent()
    if str(os.getppid()) != os.environ.get(PARENT, str(os.getppid())):  # it was gone before it could be listened to
        sys.exit(128 + signal.SIGTERM)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run_child()
