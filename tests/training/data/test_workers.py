"""The worker processes of a data loader: deaf to what is sent to a whole run, and no burden to its end."""

from __future__ import annotations

import subprocess
import sys

RUN = """
import multiprocessing, os, signal
from egm.training.data.workers import end_workers_at_exit, ignore_signals

def work(ready):
    ignore_signals(0)
    os.kill(os.getpid(), signal.SIGTERM)
    ready.set()
    multiprocessing.Event().wait()

context = multiprocessing.get_context("fork")
ready = context.Event()
worker = context.Process(target=work, args=(ready,), daemon=True)
worker.start()
print(ready.wait(60))
end_workers_at_exit()
"""


def test_a_worker_that_ignores_signals_ends_with_its_process() -> None:
    ended = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "True\n")
