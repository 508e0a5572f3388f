"""verl's trainer as a process of its own, and what its last words mean when it fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from egm.errors import EgmError
from egm.processes import adopt_orphans, descendants, end_with_parent, interruptible, send
from egm.training.verl.packages import INSTALL, installed

CONFIGURATION: Final = "verl.yaml"
"""Name of the configuration in a run folder."""
OUTPUT: Final = "verl.log"
"""Name of the file in a run folder that takes what verl and its workers say."""
_POLL = 2.0  # seconds between two looks at what is new
_GRACE = 30.0  # seconds for verl to end by itself
_TAIL = 200_000  # bytes of its last words

_MEANINGS: Final = (
    (r"Total available GPUs \S+ is less than|No available node types can fulfill", "the cluster has too few free GPUs"),
    (r"node running low on memory|exceeds the memory usage threshold", "a node is out of memory"),
    (r"(?i)CUDA out of memory|OutOfMemoryError|no available memory for the cache blocks", "a GPU is out of memory"),
    (r"(?i)No space left on device|Disk quota exceeded", "the disk is full"),
    (
        r"(?i)address already in use|EADDRINUSE|port \d+ is (?:already )?(?:in use|occupied)"
        r"|use a port number \d+ that is used by",
        "a port is taken",
    ),
    (
        r"ActorDiedError|ActorUnavailableError|WorkerCrashedError|NodeDiedError|OwnerDiedError|ObjectLostError"
        r"|RayChannelError|worker died or was killed",
        "a worker was lost",
    ),
    (r"No module named '([\w.]+)'", "a package is missing on a worker"),
)
"""What is looked for, the first that is found counts, and what it means."""
_ERROR: Final = re.compile(
    r"^(?:\x1b\[\d+m)?(?:\(\w+ pid=\d+[^)]*\)(?:\x1b\[0m)? )?(\w*(?:Error|Exception): .+)$", re.MULTILINE
)
_ADVICE: Final = {
    "the cluster has too few free GPUs": "lower --gpus or --nodes, or wait for the job that holds them",
    "a node is out of memory": "lower run.workers, or give its job more memory: Ray ends workers at 95 % of a node's",
    "a GPU is out of memory": "raise optim.accumulation, lower rollout.gpu_memory or rollout.rows, or set "
    "optim.recompute",
    "the disk is full": "free some: a checkpoint with its optimiser takes some 18 bytes a parameter, and two are kept",
    "a port is taken": "end what uses it, or start the Ray cluster with another --port, outside of 10002 to 19999, "
    "which are its workers', and name it with --cluster",
    "a worker was lost": "ray status and dmesg tell whether it ran out of memory or its node went down",
    "a package is missing on a worker": "use one environment on all nodes",
}


def trainer_command(out: Path, overrides: Sequence[str]) -> list[str]:
    """Return the command that trains in place."""
    config = ["--config-path", str(out), "--config-name", Path(CONFIGURATION).stem]
    return [sys.executable, "-m", "verl.trainer.main_ppo", *config, *overrides]


def job_command(
    address: str,
    recipe: Path,
    folder: Path,
    *,
    flags: Mapping[str, bool],
    values: Mapping[str, Any],
    lists: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the command that hands `egm verl` over to a cluster's job server, which runs it beside its head.

    Args:
        address: Of the job server, `http://HOST:PORT`.
        recipe: The recipe.
        folder: Where paths in the recipe and on the command line begin; the job server has a folder of its own.
        flags: Options without a value; those that are set are passed on.
        values: Options with one, passed on where it is not None.
        lists: Options that may be given several times.
    """
    ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", address, "--"]
    words = [str(recipe.resolve()), *(name for name, given in flags.items() if given)]
    words += [word for name, value in values.items() if value is not None for word in (name, str(value))]
    words += [word for name, several in lists.items() for value in several for word in (name, value)]
    there = ["env", f"--chdir={folder}"]
    return [*ray, *there, sys.executable, "-m", "egm.cli", "verl", *words, "--cluster", "auto"]


def submit(command: Sequence[str]) -> int:
    """Hand a job over, show what it says to its end, and return its exit code.

    Raises:
        EgmError: If Ray is not installed here.
    """
    if installed("ray") is None:
        raise EgmError(f"a job server is asked by Ray, which is not installed here: {INSTALL}")
    return subprocess.run(command, check=False).returncode  # noqa: S603


def run_trainer(command: Sequence[str], out: Path, *, address: str, look: Callable[[], None]) -> bool:
    """Run the trainer to its end.

    Args:
        command: See `trainer_command`.
        out: The run folder.
        address: `local` for a Ray cluster that ends with the trainer, or that of another.
        look: Called every few seconds, and once more at the end.

    Returns:
        Whether it ended by itself; False if it was told to end by SIGTERM or Ctrl-C.

    Raises:
        EgmError: If it failed; the message says what is known of why, what is kept, and how to go on.
    """
    adopt_orphans()
    before = set(descendants(os.getpid()))
    path = out / OUTPUT
    with path.open("ab") as log:
        begin = log.tell()
        child = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"RAY_ADDRESS": address, "HYDRA_FULL_ERROR": "1"},
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
        stopped = False
        try:
            with interruptible():
                while child.poll() is None:
                    look()
                    try:
                        child.wait(_POLL)
                    except subprocess.TimeoutExpired:
                        continue
        except KeyboardInterrupt:
            stopped = True
        finally:
            _end(child, before)
    look()
    if stopped:
        return False
    if child.returncode:
        raise EgmError(explain_end(_tail(path, begin), child.returncode, out))
    return True


def explain_end(words: str, code: int, out: Path) -> str:
    """Say in one line why a trainer failed, what is kept, and how to go on.

    Args:
        words: The last that it and its workers said.
        code: What it ended with.
        out: The run folder.
    """
    from egm.publish.verl_run import last_global_step

    found = next(((meaning, hit) for pattern, meaning in _MEANINGS if (hit := re.search(pattern, words))), None)
    errors = _ERROR.findall(words)
    said = " ".join(errors[-1].split())[:200] if errors else f"exit code {code}"
    meaning = said if found is None else f"{found[0]} ({' '.join(found[1][0].split())[:80]})"
    step = last_global_step(out)
    kept = "no checkpoint was written yet" if step is None else f"checkpoint global_step_{step} is kept"
    again = "start again" if step is None else "go on with --resume"
    advice = "" if found is None else f"; {_ADVICE[found[0]]}"
    return f"verl ended: {meaning}; {kept}: {again}{advice}; {out / OUTPUT} has all that it said"


def _tail(path: Path, begin: int) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - _TAIL))
        return file.read().decode("utf-8", errors="replace")


def _end(child: subprocess.Popen[bytes], before: set[int]) -> None:
    """End the trainer, and what a local cluster leaves behind, but no process that was there before."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    send([number for number in descendants(os.getpid()) if number not in before], signal.SIGKILL)
