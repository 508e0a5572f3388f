"""What a training shows while it goes on."""

from __future__ import annotations

from transformers import TrainerControl, TrainerState

from egm.progress import ProgressTask
from egm.training.shared.callbacks import ShowProgress


def test_steps_are_counted_from_the_checkpoint_on() -> None:
    now = [0.0]
    task = ProgressTask("training", clock=lambda: now[0])
    shown, state, control = ShowProgress(task), TrainerState(max_steps=100, global_step=40), TrainerControl()
    shown.on_train_begin(None, state, control)
    assert task.figures() == "40 of 100, 0:00:00 so far"
    now[0], state.global_step = 20.0, 50
    shown.on_step_end(None, state, control)
    shown.on_log(None, state, control, logs={"loss": 0.51234, "grad_norm": 1.0})
    assert task.figures() == "50 of 100, loss 0.5123, 2.0 s each, 0:01:40 to go"
    shown.on_log(None, state, control, logs={"eval_accuracy": 0.5})
    assert task.figures() == "50 of 100, loss 0.5123, 2.0 s each, 0:01:40 to go"
