"""verl's figures and completions become the log, the rollouts and the page of `egm grpo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from egm.boxes import Box
from egm.codecs import get_codec
from egm.training.grpo.rollouts import read_rollouts
from egm.training.rewards.verl import compute_score
from egm.training.verl.follow import Follower
from egm.training.verl.policy import AskedModel
from egm.training.verl.write_data import write_questions

from .recipes import recipe

CODEC = get_codec("qwen3_vl")
SECTION = {"terms": [{"kind": "mix"}], "overlong": {"limit": 60, "buffer": 20}}
MADE = recipe(rollout={"group": 2, "keep": 2}, optim={"steps": 1, "prompts": 4}, reward=SECTION)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_questions(MADE, AskedModel(MADE), tmp_path / "data")
    (tmp_path / "log").mkdir()
    return tmp_path


def follower(run: Path, begun: int = 0) -> Follower:
    log = run / "log" / f"from-{begun}.jsonl"
    return Follower(MADE, CODEC, run, train=run / "data" / "train.parquet", log=log, begun=begun)


def verl_writes(run: Path, step: int, begun: int = 0) -> list[dict[str, Any]]:
    """Write what verl writes of a step: for each question a right answer and none, sorted by their uid."""
    rollouts = []
    for number, row in enumerate(pq.read_table(run / "data" / "train.parquet").to_pylist()):
        extra = row["extra_info"]
        size = extra["width"], extra["height"]
        right = CODEC.target(extra["sent"], Box(*extra["bbox"]), size=size, rationale="There.")
        for answer, text in enumerate((right, "I cannot tell.\u2028\n</think>\n\nNo.")):
            score = compute_score("egm", text, extra["bbox"], extra, reward={"terms": [{"kind": "mix"}]})["score"]
            question = row["prompt"][0]["content"].removeprefix("<image>")
            rollouts.append(
                {
                    "input": f"user\n{question}\nassistant\n<think>\n",
                    "output": text,
                    "gts": row["reward_model"]["ground_truth"],
                    "score": score - 0.25,  # for its length, which verl's files do not tell
                    "step": step,
                    "uid": f"{number:02}_{answer}_0",
                }
            )
    (run / "verl_rollouts").mkdir(exist_ok=True)
    (run / "verl_rollouts" / f"{step}.jsonl").write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rollouts)
    )
    figures = {"critic/score/mean": 0.25, "timing_s/step": 3.0, "actor/grad_norm": 0.1, "perf/throughput": 9.0}
    with (run / "log" / f"from-{begun}.jsonl").open("a") as log:
        log.write(json.dumps({"step": step, "data": figures}) + "\n")
    return rollouts


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_log_has_verls_figures_and_the_accuracy(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looking = follower(run)
    verl_writes(run, 1)
    looking.look(last=True)
    looking.say()
    [line] = lines(run)
    assert (line["step"], line["reward"], line["step_time"], line["perf/throughput"]) == (1, 0.25, 3.0, 9.0)
    assert (line["accuracy"], line["no_box"], line["frac_reward_zero_std"]) == (0.5, 0.5, 0.0)
    assert line["mean_iou"] == pytest.approx(0.5, abs=0.05)
    said = capsys.readouterr().err
    assert said.startswith("rollout 1: reward 0.25, accuracy 0.5, no_box 0.5, ")
    looking.say()
    assert capsys.readouterr().err == ""


def test_the_first_groups_are_kept_with_their_pictures(run: Path) -> None:
    looking = follower(run)
    written = verl_writes(run, 1)
    looking.look(last=True)
    kept = list(read_rollouts(run / "rollouts"))
    assert [rollout["text"] for rollout in kept] == [rollout["output"] for rollout in written[:4]]
    assert [rollout["reward"] for rollout in kept] == [rollout["score"] for rollout in written[:4]]
    assert [rollout["parts"]["overlong"] for rollout in kept] == pytest.approx([-0.25] * 4)
    assert kept[0]["advantage"] == pytest.approx(-kept[1]["advantage"])
    assert kept[0]["advantage"] > 0
    rows = pq.read_table(run / "data" / "train.parquet").to_pylist()
    assert [rollout["id"] for rollout in kept[::2]] == [row["extra_info"]["id"] for row in rows[:2]]
    page = (run / "rollouts.html").read_text()
    assert page.count("<img") == 2
    assert "I cannot tell." in page


def test_a_file_that_still_grows_is_left_alone(run: Path) -> None:
    looking = follower(run)
    verl_writes(run, 1)
    path = run / "verl_rollouts" / "1.jsonl"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    looking.look()
    assert "accuracy" not in lines(run)[0]
    path.write_text(whole)
    looking.look()
    looking.look()
    assert lines(run)[0]["accuracy"] == 0.5


def test_a_run_that_goes_on_does_again_what_came_after_its_checkpoint(run: Path) -> None:
    looking = follower(run)
    for step in (1, 2, 3):
        verl_writes(run, step)
    looking.look(last=True)
    again = follower(run, begun=2)
    assert not (run / "verl_rollouts" / "3.jsonl").exists()
    verl_writes(run, 3, begun=2)
    verl_writes(run, 4, begun=2)
    again.look(last=True)
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4]
    assert all(line["accuracy"] == 0.5 for line in lines(run))
    assert len(list((run / "rollouts").glob("step-*.jsonl"))) == 4


def test_rollouts_of_other_questions_are_passed_over(run: Path) -> None:
    looking = follower(run)
    verl_writes(run, 1)
    path = run / "verl_rollouts" / "1.jsonl"
    foreign = [json.loads(line) | {"gts": [1.0, 2.0, 3.0, 4.0]} for line in path.open()]
    path.write_text("".join(json.dumps(record) + "\n" for record in foreign))
    looking.look(last=True)
    assert "accuracy" not in lines(run)[0]
