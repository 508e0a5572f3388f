"""Callbacks of a run: stopping when told to, measuring, what is done at checkpoints, and the log on disk."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """On SIGTERM finishes the step, writes a checkpoint and ends the run, on all processes alike.

    Args:
        every: Steps after which several processes agree, for which they wait for their GPUs; one alone need not.

    Attributes:
        stopped: Whether it did.
    """

    def __init__(self, every: int = 1) -> None:
        self.stopped = False
        self._every = every
        self._told = False
        self._before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listen, where signals can be heard."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: Any) -> None:
        del number, frame
        self._told = True
        print("SIGTERM: the step is finished, then a checkpoint is written", file=sys.stderr)  # noqa: T201

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint and the end, once any process was told."""
        told = self._told
        if args.world_size > 1:
            if state.global_step % self._every:
                return
            heard = torch.tensor(int(told), device=args.device)
            torch.distributed.all_reduce(heard, op=torch.distributed.ReduceOp.MAX)
            told = bool(heard)
        if told:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listen no more."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def leave_signals_to_the_trainer(worker: int, then: Callable[[int], None] | None = None) -> None:
    """Let a data loader's worker outlive a SIGTERM or Ctrl-C that is sent to all processes of a run.

    `timeout`, job schedulers and terminals send it so. The trainer still needs the worker for the step that it
    finishes, and a worker ends with its trainer in any case. Meant as `worker_init_fn`.

    Args:
        worker: Number of the worker.
        then: Another `worker_init_fn` to call.
    """
    if then is not None:
        then(worker)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class Measure(TrainerCallback):  # type: ignore[misc]
    """Measures before the first step, every so many steps, and after the last.

    Args:
        every: Steps between two measurements.
        measure: What measures and logs.
    """

    def __init__(self, every: int, measure: Callable[[], Any]) -> None:
        self._every, self._measure = every, measure

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure where the run starts; one that goes on was measured before."""
        if state.global_step == 0:
            self._measure()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure if it is time."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._measure()


class AtCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Does something after each checkpoint.

    Args:
        do: What to do.
    """

    def __init__(self, do: Callable[[], Any]) -> None:
        self._do = do

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Do it; the checkpoint is there."""
        self._do()


class LogFile(TrainerCallback):  # type: ignore[misc]
    """Writes what is logged to a file, one JSON object a line, and says the main figures on standard error.

    A run that goes on goes on from its checkpoint's line.

    Args:
        path: The file.
        shown: Names of the main figures.
    """

    def __init__(self, path: Path, shown: Sequence[str]) -> None:
        self._path, self._shown = path, shown

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the file with what was logged before the checkpoint, if there is one."""
        if state.is_world_process_zero:
            self._path.write_text("".join(map(_line, state.log_history)), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Append the last line, and show what counts of it."""
        if not state.is_world_process_zero:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, state.log_history[-1:]))
        shown = [f"{name} {logs[name]:.4g}" for name in self._shown if logs and isinstance(logs.get(name), float | int)]
        if shown:
            print(f"step {state.global_step}/{state.max_steps}: {', '.join(shown)}", file=sys.stderr)  # noqa: T201


def _line(entry: dict[str, float]) -> str:
    return json.dumps(entry) + "\n"
