"""Runs a module as `python -m` does, in a process that is told to end when the one that started it is gone.

`python -m egm.reproduce.child MODULE ARGUMENT...`. A killed `egm reproduce` must not leave trainings behind that write
into the folders which the next one goes on with.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

PARENT = "EGM_REPRODUCE_PARENT"
"""Environment variable that holds the number of the process that starts this one."""
_PR_SET_PDEATHSIG = 1


def run_child() -> None:
    """Run the module that the first argument names."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if str(os.getppid()) != os.environ.get(PARENT, str(os.getppid())):  # it was gone before it could be listened to
        sys.exit(128 + signal.SIGTERM)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run_child()
