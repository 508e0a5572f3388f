"""Callbacks of a trainer: stopping on a signal, periodic evaluation, what follows a checkpoint, and the log on disk."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from egm.progress import ProgressTask
from egm.training.shared.trainable import check_gradients

_log = logging.getLogger(__name__)


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
        self._signalled = False
        self._handler_before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Install the handler; Python takes one in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            self._handler_before = signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: Any) -> None:
        del number, frame
        self._signalled = True
        print("SIGTERM: the step is finished, then a checkpoint is written", file=sys.stderr)  # noqa: T201

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint and the end, once any process got the signal."""
        signalled = self._signalled
        if args.world_size > 1:
            if state.global_step % self._every:
                return
            anywhere = torch.tensor(int(signalled), device=args.device)
            torch.distributed.all_reduce(anywhere, op=torch.distributed.ReduceOp.MAX)
            signalled = bool(anywhere)
        if signalled:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the handler back that was there before."""
        if self._handler_before is not None:
            signal.signal(signal.SIGTERM, self._handler_before)


class CheckFirstGradients(TrainerCallback):  # type: ignore[misc]
    """Ends a run in whose first step a trained weight gets no gradient, before several processes wait for it."""

    def __init__(self) -> None:
        self._done = False

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Look once, after the first step's passes."""
        if not self._done:
            check_gradients(model)
            self._done = True


class NoStepLeft(Exception):  # noqa: N818 - it is the end that was asked for, and no error
    """A checkpoint is loaded, and its run has no step left."""


class EndBeforeSteps(TrainerCallback):  # type: ignore[misc]
    """Ends `Trainer.train` once all of a checkpoint is loaded, before a step and before other callbacks hear of it."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave, which no value of `control` does before the first step.

        Raises:
            NoStepLeft: Always.
        """
        raise NoStepLeft


class WarnOfWarmup(TrainerCallback):  # type: ignore[misc]
    """Says where the warm-up outlasts the run, whose learning rate then never gets to its peak."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hold the warm-up against the steps of the run, which are known by now."""
        warmup = args.get_warmup_steps(state.max_steps)
        if state.is_world_process_zero and warmup >= state.max_steps:
            _log.warning(
                "the warm-up of %d steps outlasts the run of %d, so the learning rate gets to %.3g at most, and not to "
                "optim.learning_rate %g: set optim.warmup_steps",
                *(warmup, state.max_steps, args.learning_rate * (state.max_steps - 1) / warmup, args.learning_rate),
            )


class PeriodicEvaluation(TrainerCallback):  # type: ignore[misc]
    """Evaluates before the first step, every so many steps, and after the last.

    Args:
        every: Steps between two evaluations.
        evaluate: What measures and logs.
    """

    def __init__(self, every: int, evaluate: Callable[[], Any]) -> None:
        self._every, self._evaluate = every, evaluate

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate where the run starts; one that goes on was evaluated before."""
        if state.global_step == 0:
            self._evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate after every so many steps, and after the last."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._evaluate()


class AfterCheckpoint(TrainerCallback):  # type: ignore[misc]
    """Calls a function after each checkpoint.

    Args:
        function: What to call.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Call the function; the checkpoint is written by now."""
        self._function()


class ShowProgress(TrainerCallback):  # type: ignore[misc]
    """Tells a task how many steps are done, those of a checkpoint among them.

    Args:
        task: The task.
    """

    def __init__(self, task: ProgressTask) -> None:
        self._task = task

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say how many steps there are, and which are done already."""
        self._task.update(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        self._task.update(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the loss beside it."""
        if logs is not None and isinstance(loss := logs.get("loss"), float | int):
            self._task.says = f"loss {loss:.4g}"


class LogFile(TrainerCallback):  # type: ignore[misc]
    """Writes what is logged to a file, one JSON object a line, and says the main figures on standard error.

    A run that goes on goes on from its checkpoint's line.

    Args:
        path: The file.
        main_figures: Names of those that standard error shows.
        notes: Lines of text that others add, which the next line of the log takes with it, as `note`.
    """

    def __init__(self, path: Path, main_figures: Sequence[str], notes: list[str] | None = None) -> None:
        self._path, self._main_figures = path, main_figures
        self._notes = [] if notes is None else notes

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the file with what was logged before the checkpoint, if there is one."""
        if state.is_world_process_zero:
            self._path.write_text("".join(map(_line, state.log_history)), encoding="utf-8")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the last step be logged, wherever it falls: a short run shows its loss too."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Append the last line, and show what counts of it."""
        if not state.is_world_process_zero:
            return
        if self._notes and state.log_history:
            state.log_history[-1]["note"] = "; ".join(self._notes)
            print("note:", state.log_history[-1]["note"], file=sys.stderr)  # noqa: T201
            self._notes.clear()
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, state.log_history[-1:]))
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, float | int)}
        shown = [f"{name} {numbers[name]:.4g}" for name in self._main_figures if name in numbers]
        if shown:
            print(f"step {state.global_step}/{state.max_steps}: {', '.join(shown)}", file=sys.stderr)  # noqa: T201


def _line(entry: dict[str, float]) -> str:
    return json.dumps(entry) + "\n"
