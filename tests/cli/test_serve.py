"""`egm serve`, and `--serve` of the commands that ask a model."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from PIL import Image

from egm.codecs import get_codec
from egm.datasets import EVALUATION
from egm.datasets.synthetic.example import example_picture
from egm.journal import read_journal
from egm.processes import descendants
from egm.serve.ready import free_port

from ..serve.conftest import Install, folder, install  # noqa: F401
from ..serve.test_start import is_gone, wait_until
from .conftest import Egm
from .test_bad_input import check

PHRASE = "the cross farthest from the square"
# The quickstart of nvidia/EGM-8B's model card, whose page has lost the indentation.
CLIENT = """
import openai
import base64

client = openai.Client(base_url="http://127.0.0.1:30000/v1", api_key="EMPTY")

# Load a local image as base64
with open("example.jpg", "rb") as f:
    image_base64 = base64.b64encode(f.read()).decode("utf-8")

response = client.chat.completions.create(
    model="nvidia/EGM-8B",
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image_base64}"}},
                {"type": "text", "text": "Please provide the bounding box coordinate of the region this sentence describes: the person on the left."},
            ],
        }
    ],
    temperature=0.6,
    top_p=0.95,
    max_tokens=8192,
)
print(response.choices[0].message.content)
"""  # noqa: E501 - as it stands there


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells that there is a GPU."""
    monkeypatch.setattr("egm.environment._DRIVER", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06\n")


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """`egm serve egm-tiny` under the name of another, with the card's flags: the process, its port, what it said."""
    port = free_port()
    command = [sys.executable, "-m", "egm.cli", "serve", "egm-tiny", "--served-model-name", "nvidia/EGM-8B"]
    errors = tmp_path_factory.mktemp("serve") / "errors"
    with (
        errors.open("w") as file,
        subprocess.Popen(
            [*command, "--", "--chat-template=qwen3-vl", "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        ) as served,
    ):
        assert served.stdout is not None
        said = served.stdout.readline() + served.stdout.readline()
        try:
            yield served, port, said + errors.read_text()
        finally:
            served.kill()


def test_the_quickstart_of_the_card(quickstart: tuple[subprocess.Popen[str], int, str], tmp_path: Path) -> None:
    _, port, said = quickstart
    assert re.search(rf"^nvidia/EGM-8B at http://127\.0\.0\.1:{port}/v1 by egm ", said, re.MULTILINE), said
    assert re.search(r"^checked: box 195 171 219 195 ", said, re.MULTILINE)  # it is egm-tiny, whatever it is called
    assert "note: --chat-template=qwen3-vl is left out" in said
    Image.open(example_picture()).convert("RGB").save(tmp_path / "example.jpg", quality=95)
    (tmp_path / "client.py").write_text(textwrap.dedent(CLIENT).replace("30000", str(port)))
    run = subprocess.run(
        [sys.executable, "client.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    assert get_codec("qwen3_vl").parse(run.stdout, size=Image.open(tmp_path / "example.jpg").size) is not None
    client = openai.Client(base_url=f"http://127.0.0.1:{port}/v1", api_key="EMPTY")
    assert [model.id for model in client.models.list().data] == ["nvidia/EGM-8B"]
    for other in ("egm-tiny", "nvidia/EGM-4B"):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=other, messages=[{"role": "user", "content": "anything"}])


def test_a_signal_ends_it_and_all_that_it_began(quickstart: tuple[subprocess.Popen[str], int, str]) -> None:
    served, port, _ = quickstart
    family = descendants(served.pid)
    assert len(family) >= 2 or sys.platform != "linux"
    served.send_signal(signal.SIGTERM)
    assert served.wait(60) == 0
    wait_until(lambda: all(map(is_gone, family)))
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_it_explains_and_starts_nothing(egm: Egm, install: Install, tmp_path: Path) -> None:  # noqa: F811
    install("sglang", "0.5.17")
    outcome = egm("serve", "EGM-8B", "--engine", "sglang", "--aim", "throughput", "--explain", "--", "--tp", 2)
    assert outcome.code == 0
    first, _, *rows = outcome.out.splitlines()
    assert "sglang.launch_server --model-path nvidia/EGM-8B --host 127.0.0.1 --port 30000" in first
    assert first.endswith("--schedule-policy lpm --chunked-prefill-size 16384 --tp 2")
    assert any(re.match(r"SGLANG_VLM_CACHE_SIZE_MB=4096 +pictures that come again", row) for row in rows)
    assert outcome.err.startswith("note: nvidia/EGM-8B is not here")
    assert not (tmp_path / "seen.json").exists()
    assert "--port 7 " in egm("serve", "--explain", "--", "--port", 7).out


def test_bad_input(egm: Egm, install: Install, folder: Path, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    check(egm("serve", "--engine", "tensorrt"), "there is no engine 'tensorrt'")
    check(egm("serve", "--engine", "vllm"), "vllm is not installed in this environment")
    check(egm("serve", "no/such/folder"), "there is no model 'no/such/folder'")
    check(egm("serve", "--host", "0.0.0.0", "--engine", "transformers"), "asks for no key")
    check(egm("serve", folder, "--", "--served-model-name"), "has no value")
    install("sglang", "0.5.8")
    check(egm("serve", folder, "--engine", "sglang"), "sglang 0.5.8 is known to move boxes", "install 0.5.9")
    for command in (
        ("ground", example_picture(), PHRASE),
        ("eval", "synthref/val", "--limit", 1),
        ("bench", "latency"),
    ):
        check(egm(*command, "--serve", "egm", "--server", "http://127.0.0.1:1"), "give one of them")
        check(egm(*command, "--aim", "latency"), "--aim is for a server that this command starts")
        check(egm(*command, "--serve", "sglang", "--model", folder), "sglang 0.5.8 is known to move boxes")
    check(egm("eval", "synthref/val", "--limit", 1, "--serve", "egm", "--script", folder), "give one")


def test_an_engine_that_dies_is_one_line_more(
    egm: Egm,
    install: Install,  # noqa: F811
    folder: Path,  # noqa: F811
    gpu: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install("sglang", "0.5.17")
    monkeypatch.setenv("STUB", "memory")
    outcome = egm("serve", folder, "--engine", "sglang", "--port", free_port())
    assert (outcome.code, outcome.out) == (2, "")
    start, error = outcome.err.splitlines()
    assert re.fullmatch(r"starting sglang 0\.5\.17, log: .*\.log", start)
    assert error.startswith("error: not started: sglang ended with exit code 1: torch.OutOfMemoryError: CUDA out")


def test_an_engine_that_dies_later_ends_the_command(
    egm: Egm,
    install: Install,  # noqa: F811
    folder: Path,  # noqa: F811
    gpu: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install("sglang", "0.5.17")
    monkeypatch.setenv("STUB", "dies afterwards")
    outcome = egm("serve", folder, "--engine", "sglang", "--served-model-name", "it", "--port", free_port())
    assert outcome.code == 1
    assert outcome.out.startswith("it at http://127.0.0.1:")
    assert re.search(r"^error: sglang ended with exit code 4: it said nothing \(log: ", outcome.err, re.MULTILINE)


def test_phrases_are_grounded_by_a_server_of_the_commands_own(
    egm: Egm,
    install: Install,  # noqa: F811
    folder: Path,  # noqa: F811
    gpu: None,
) -> None:
    install("vllm", "0.26.0")
    outcome = egm("ground", example_picture(), "the cup", "--serve", "auto", "--model", folder, "--json")
    answer = json.loads(outcome.out)
    assert (outcome.code, answer["model"]) == (0, str(folder))
    assert answer["box"] is not None
    loads = egm("bench", "latency", "--serve", "vllm", "--model", folder, "--requests", 1, "--concurrency", 1, "--json")
    assert json.loads(loads.out)["versions"]["stub"] == "9.9"
    assert json.loads(loads.out)["loads"][0]["errors"] == 0


def test_an_evaluation_goes_on_after_its_engine_was_killed(
    egm: Egm,
    install: Install,  # noqa: F811
    folder: Path,  # noqa: F811
    gpu: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install("sglang", "0.5.17")
    monkeypatch.setenv("STUB", "dies after 4")  # the check is the first
    command = ("eval", "synthref/val", "--scenes", 2, "--serve", "sglang", "--model", folder, "--out", "run")
    one_by_one = ("--concurrency", 8, "--retry-errors")
    first = egm(*command, *one_by_one)
    assert first.code == 1
    records = read_journal(tmp_path / "run" / "journal.jsonl")[1]
    answered = {record.id for record in records if record.failure != "error"}
    monkeypatch.setenv("STUB", "")
    again = egm(*command, *one_by_one)
    assert again.code == 0, again.err
    header, records = read_journal(tmp_path / "run" / "journal.jsonl")
    assert (header.engine["serve"], header.engine["version"]) == ("sglang", "9.9")
    assert answered <= {record.id for record in records}
    assert "error" not in {record.failure for record in list(records)[-4:]}
    other = egm(*command, "--aim", "memory")
    assert (other.code, 'holds another run: engine.aim is "memory"' in other.err) == (2, True)


def test_one_engine_answers_all_splits_of_a_suite_and_is_asked_to_leave_the_tail(
    egm: Egm,
    install: Install,  # noqa: F811
    folder: Path,  # noqa: F811
    gpu: None,
    tmp_path: Path,
) -> None:
    install("sglang", "0.5.17")
    Image.new("RGB", (10, 10)).save(tmp_path / "COCO_train2014_000000000001.jpg")
    row = {"img_id": "COCO_train2014_000000000001_0", "sents": "cup", "bbox": [1, 2, 2, 2], "height": 10, "width": 10}
    for split in EVALUATION:
        (tmp_path / f"{split.replace('/', '_')}.json").write_text(json.dumps([row]))
    data = ("--data-root", ".", "--images", ".", "--allow-partial")
    command = ("eval", "--suite", "refcoco", *data, "--serve", "sglang", "--model", folder, "--out", "run")
    check(egm(*command, "--cut-tail", "--codec", "internvl"), "leave cut_tail (--cut-tail) out")
    assert not (tmp_path / "started").exists()
    before = set(descendants(os.getpid()))
    outcome = egm(*command, "--cut-tail")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "started").read_text() == "."
    # The check asks for a whole answer.
    assert (tmp_path / "stops").read_text().splitlines() == ["null", *[json.dumps(['"label"'])] * 8]
    header, records = read_journal(tmp_path / "run" / "journal.jsonl")
    assert (list(header.datasets), header.settings["stop"]) == (list(EVALUATION), ['"label"'])
    assert {record.finish_reason for record in records} == {"stop_string"}
    table = outcome.out.partition("Acc@0.5, %")[2]
    assert re.search(r"100\.0\d* +" * 8 + r"100\.0", table)
    assert set(descendants(os.getpid())) <= before
