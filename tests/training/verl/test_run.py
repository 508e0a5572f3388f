"""What a run needs beside verl, and what it goes on from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from egm.errors import EgmError
from egm.training.verl.configure import Cluster
from egm.training.verl.policy import AskedModel
from egm.training.verl.run import check_answers, check_world
from egm.training.verl.write_data import write_questions

from .recipes import recipe


def test_neither_trl_nor_peft_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_cpu: None) -> None:
    """verl's environment has none that fits; the preflight answers in two tokens here, and says what is wrong."""
    monkeypatch.delitem(sys.modules, "egm.training.grpo.trainer", raising=False)
    for package in ("trl", "peft"):
        monkeypatch.setitem(sys.modules, package, None)
    made = recipe(rollout={"max_new_tokens": 2})
    write_questions(made, AskedModel(made), tmp_path)
    with pytest.raises(EgmError, match=r"preflight: of 16 rollouts .* cut off by rollout.max_new_tokens 2"):
        check_answers(made)


def test_as_many_gpus_go_on_as_wrote_the_checkpoint(tmp_path: Path) -> None:
    actor = tmp_path / "checkpoints" / "global_step_8" / "actor"
    actor.mkdir(parents=True)
    (actor / "model_world_size_2_rank_0.pt").touch()
    check_world(tmp_path, 8, Cluster(gpus=1, nodes=2))
    with pytest.raises(EgmError, match=r"global_step_8 was written by 2 GPUs, and there are 4: .*egm models export"):
        check_world(tmp_path, 8, Cluster(gpus=4, nodes=1))
