from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from egm.datasets.synthetic import SynthRef
from egm.journal import read_journal

from ..backends.faulty_server import FaultyServer, Play, fail, say
from .conftest import Egm

ANSWER = r'At the left.\n</think> [{"bbox_2d": [0, 0, 500, 500]}]'
EVAL = [sys.executable, "-c", "from egm.cli import main; main()", "eval"]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Right answers to the first scenes of SynthRef val, but for the first sample, which gets none."""
    file = tmp_path / "script.txt"
    lines = ["</think> There is no such thing."]
    for sample in list(SynthRef("val", scenes=20))[1:]:
        assert sample.box is not None
        assert sample.size is not None
        lines.append(rf'It is there.\n</think>\n[{{"bbox_2d": {list(sample.box.to_1000(sample.size))}}}]')
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Five rows, of which only the last has its picture."""
    Image.new("RGB", (10, 10)).save(tmp_path / "4.png")
    row = {"sent": "it", "bbox": [0, 0, 5, 5], "height": 10, "width": 10}
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({**row, "id": str(i), "image": f"{i}.png"}) + "\n" for i in range(5)))
    return file


def test_numbers_for_people_and_for_programs(egm: Egm, script: Path, tmp_path: Path) -> None:
    command = ("eval", "synthref/val", "--scenes", 20, "--script", script, "--out", tmp_path / "run")
    n = len(list(SynthRef("val", scenes=20)))
    outcome = egm(*command)
    assert (outcome.code, outcome.err) == (0, "")
    assert re.search(rf"synthref/val +{n} +{100 * (n - 1) / n:.2f} +0\.\d+ +1 +0 ", outcome.out)
    assert "no box: refused 1\n" in outcome.out
    again = egm(*command, "--json")
    assert (again.code, again.err) == (0, f"{n} of {n} answers were there already\n")
    numbers = json.loads(again.out)
    assert numbers["folder"] == str(tmp_path / "run")
    assert (numbers["samples"], numbers["stopped"]) == (n, None)
    split = numbers["splits"]["synthref/val"]
    assert (split["n"], split["accuracy"]) == (n, (n - 1) / n)
    assert split["tokens"]["reasoning"] == pytest.approx(3 * (n - 1) / n)
    header, records = read_journal(tmp_path / "run")
    assert (len(records), header.datasets["synthref/val"]["n"]) == (n, n)
    assert {"journal.jsonl", "run.json", "summary.json"} == {path.name for path in (tmp_path / "run").iterdir()}


def test_without_a_folder_of_images_links_out_of_the_current_one_are_refused(egm: Egm, tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "secret.png")
    here = tmp_path / "here"
    here.mkdir()
    row = {"problem": "it", "solution": [0, 0, 5, 5], "height": 10, "width": 10}
    (tmp_path / "rows.json").write_text(json.dumps([{**row, "image": "0.png"}]))
    (tmp_path / "script.txt").write_text(ANSWER + "\n")
    command = ("eval", tmp_path / "rows.json", "--script", tmp_path / "script.txt", "--out", tmp_path / "run")
    with contextlib.chdir(here):
        (here / "0.png").symlink_to(tmp_path / "secret.png")
        outcome = egm(*command)
        assert (outcome.code, outcome.out) == (2, "")
        assert "image '0.png' lies outside .; only files inside it are read" in outcome.err
        (here / "0.png").unlink()
        (tmp_path / "secret.png").rename(here / "0.png")
        assert egm(*command).code == 0
    assert read_journal(tmp_path / "run")[1][0].iou == 1.0


def test_a_limit_takes_the_first_of_each_dataset_and_says_how_many(egm: Egm, rows: Path, tmp_path: Path) -> None:
    for number in range(5):
        Image.new("RGB", (10, 10)).save(tmp_path / f"{number}.png")
    (tmp_path / "script.txt").write_text(ANSWER)
    outcome = egm("eval", rows, "synthref/train", "--limit", 3, "--script", "script.txt", "--out", "run")
    assert outcome.code == 0
    header, records = read_journal(tmp_path / "run")
    assert {split: facts["n"] for split, facts in header.datasets.items()} == {"rows": 3, "synthref/train": 3}
    assert [record.id for record in records if record.split == "rows"] == ["0", "1", "2"]
    assert egm("eval", rows, "--limit", 0, "--script", "script.txt").code == 2


def test_several_datasets_have_a_folder_named_after_them(egm: Egm, script: Path, tmp_path: Path) -> None:
    outcome = egm("eval", "synthref/val", "synthref/test-simple", "--scenes", 3, "--script", script)
    assert outcome.code == 0
    assert re.search(r"^all +\d+ ", outcome.out, re.MULTILINE)
    folder = tmp_path / "runs" / "eval" / "scripted_synthref-val_synthref-test-simple"
    assert {record.split for record in read_journal(folder)[1]} == {"synthref/val", "synthref/test-simple"}


def test_egm_tiny_and_its_settings(egm: Egm, tmp_path: Path) -> None:
    command = ("eval", "synthref/val", "--scenes", 1, "--max-tokens", 2, "--out", tmp_path / "run", "--json")
    numbers = json.loads(egm(*command).out)
    assert numbers["all"]["failures"] == {"truncated": numbers["samples"]}
    assert numbers["all"]["latency"]["cold"]["n"] == 1
    assert numbers["all"]["latency"]["tokens_per_second"] > 0
    other = egm(*command, "--max-tokens", 3)
    assert (other.code, other.out) == (2, "")
    assert "holds another run: settings.max_new_tokens is 3, was 2" in other.err


def test_another_script_or_dataset_is_refused(egm: Egm, script: Path, tmp_path: Path) -> None:
    command = ("eval", "synthref/val", "--script", script, "--out", tmp_path / "run", "--scenes")
    assert egm(*command, 2).code == 0
    assert "datasets.synthref/val.n is" in egm(*command, 3).err
    script.write_text(ANSWER)
    outcome = egm(*command, 2)
    assert (outcome.code, "engine.script is" in outcome.err) == (2, True)


def test_missing_pictures_are_errors_by_kind(egm: Egm, rows: Path, script: Path, tmp_path: Path) -> None:
    outcome = egm("eval", rows, "--script", script, "--out", tmp_path / "run", "--max-errors", 1)
    assert outcome.code == 0
    assert "errors: ImageError 4\n" in outcome.out


def test_without_a_single_picture_nothing_begins(egm: Egm, rows: Path, script: Path, tmp_path: Path) -> None:
    (tmp_path / "4.png").rename(tmp_path / "moved.png")
    outcome = egm("eval", rows, "--script", script, "--out", tmp_path / "run")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "none of the pictures of rows is there" in outcome.err
    assert outcome.err.endswith("with --images\n")
    outcome = egm("eval", rows, "--script", script, "--out", tmp_path / "run", "--images", tmp_path / "nowhere")
    assert (outcome.code, outcome.err.count("\n"), "check --images" in outcome.err) == (2, 1, True)
    assert not (tmp_path / "run").exists()


def test_pictures_of_synthref_are_not_kept_as_pixels(script: Path, tmp_path: Path) -> None:
    def megabytes(scenes: int) -> float:
        options = ["--scenes", str(scenes), "--script", str(script), "--out", str(tmp_path / str(scenes))]
        child = subprocess.Popen([*EVAL, "synthref/val", *options], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        return usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)

    sizes = [sample.size for sample in SynthRef("val", scenes=200, phrases=1)]
    pixels = sum(3 * size[0] * size[1] for size in sizes if size is not None) / 1024**2
    assert megabytes(200) - megabytes(1) < 1.5 * pixels  # the grounder keeps some of them for a while


def test_too_many_errors_end_with_code_1(egm: Egm, rows: Path, script: Path, tmp_path: Path) -> None:
    outcome = egm("eval", rows, "--script", script, "--out", tmp_path / "run", "--max-errors", 0.5, "--json")
    assert outcome.code == 1
    said = r"error: 3 errors among 3 samples are more than the share of 0\.5 that may fail, .*, as at sample '0': mend"
    assert re.match(said, outcome.err)
    assert json.loads(outcome.out)["all"]["n"] == len(read_journal(tmp_path / "run")[1]) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["synthref/train"], "synthref/train has no end: say how much of it, such as --scenes 100"),
        (["synthref/nope"], "no split 'nope'"),
        (["synthref/val", "synthref/val", "--scenes", "1"], "'synthref/val' is given twice"),
        (["rows.jsonl", "--scenes", "3"], "--scenes is for SynthRef"),
        (["synthref/val", "--scenes", "1", "--script", "nope.txt"], "script 'nope.txt' cannot be read"),
        (["synthref/val", "--script", "x", "--server", "y"], "two sources of answers"),
        (
            ["synthref/val", "--scenes", "1", "--script", "x", "--device", "cpu"],
            "--device and --dtype are for a model in this process",
        ),
        (["synthref/val", "--instruct"], "no --instruct here any more: --codec qwen3_vl_instruct"),
        (["synthref/val", "--data", "x"], "no --data here any more: give the folder of the annotations with --data-"),
        (["synthref/val", "--scenes", "1", "--codec", "qwen"], "unknown codec 'qwen': did you mean 'qwen"),
        (["synthref/val", "--scenes", "1", "--max-errors", "2"], "max_errors 2.0 is out of range"),
        (["synthref/val", "--scenes", "1", "--model", "nope"], "nope"),
        (["synthref/val", "--scenes", "1", "--concurrency", "0"], "out of range"),
    ],
)
def test_bad_input_is_one_line_and_code_2(egm: Egm, tmp_path: Path, arguments: list[str], says: str) -> None:
    outcome = egm("eval", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert says in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_journal_is_a_script_too(egm: Egm, tmp_path: Path) -> None:
    data = list(SynthRef("val", scenes=4))
    usage = {"prompt_tokens": 70, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    plays = {
        "": [say("Left.", '</think> [{"bbox_2d": [0, 0, 500, 500]}]', usage=usage)],
        data[1].phrase: [fail(400, "no such thing")],
        data[2].phrase: [say("I am th", finish="length", usage=usage)],
    }
    command = ("eval", "synthref/val", "--scenes", 4, "--max-errors", 1, "--json", "--out")
    with FaultyServer(plays) as server:
        first = json.loads(egm(*command, "first", "--server", server.url).out)["all"]
    for script in ("first", "first/journal.jsonl"):  # in another order of asking
        again = json.loads(egm(*command, "again", "--script", script, "--concurrency", 1).out)["all"]
    names = ("n", "accuracy", "mean_iou", "failures", "truncated", "tokens")
    assert [again[name] for name in names] == [first[name] for name in names]
    assert (first["failures"], again["errors"]) == ({"truncated": 1}, {"BackendError": 1})
    more = json.loads(egm("eval", "synthref/val", "--scenes", 5, "--script", "first", "--max-errors", 1, "--json").out)
    assert more["all"]["errors"]["BackendError"] > 1
    assert "has no answer to this sample" in (tmp_path / more["folder"] / "journal.jsonl").read_text()


def test_an_empty_script_is_refused(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "script.txt").touch()
    outcome = egm("eval", "synthref/val", "--scenes", 1, "--script", "script.txt")
    assert (outcome.code, "is empty: give a text a line" in outcome.err) == (2, True)


def test_interrupted_and_killed_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    command = [*EVAL, "synthref/val", "--scenes", "7", "--json", "--max-tokens", "3", "--out"]
    whole, part = tmp_path / "whole", tmp_path / "part"
    numbers = json.loads(subprocess.run([*command, str(whole)], check=True, capture_output=True).stdout)
    journal = part / "journal.jsonl"
    for name, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        before = journal.stat().st_size if journal.exists() else 0
        with subprocess.Popen([*command, str(part)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            end = time.monotonic() + 60
            while not (journal.exists() and journal.stat().st_size > before + 800):
                assert time.monotonic() < end, "the journal does not grow"
                with pytest.raises(subprocess.TimeoutExpired):  # it is at work still
                    process.wait(0.01)
            process.send_signal(name)
            out, err = process.communicate()
        assert (process.returncode, out) == (code, b"")
        said = f"interrupted: {part} keeps the answers, and the same command goes on"
        assert (said in err.decode().splitlines()) == (code == 130)
        assert journal.stat().st_size > before
    resumed = json.loads(subprocess.run([*command, str(part)], check=True, capture_output=True).stdout)
    assert resumed["all"]["accuracy"] == numbers["all"]["accuracy"]
    assert resumed["all"]["failures"] == numbers["all"]["failures"]
    facts = [[(r.split, r.id, r.text, r.iou, r.cold) for r in read_journal(run)[1]] for run in (whole, part)]
    assert facts[0] == facts[1]
    assert len(journal.read_bytes().splitlines()) == 1 + numbers["samples"]


def test_a_server_that_refuses_some(egm: Egm, tmp_path: Path) -> None:
    data = list(SynthRef("val", scenes=5))
    usage = {"prompt_tokens": 70, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    answer = say("Left.", '</think> [{"bbox_2d": [0, 0, 500, 500]}]', usage=usage)
    command = ("eval", "synthref/val", "--scenes", 5, "--out", tmp_path / "run", "--max-errors", 0.2)
    with FaultyServer({"": [answer], data[3].phrase: [fail(400, "no such thing"), answer]}) as server:
        outcome = egm(*command, "--server", server.url, "--concurrency", 3, "--json")
        count = len(server.asked)
        shown = egm(*command[:-2], "--server", server.url, "--concurrency", 3, "--max-errors", 0.2).out
        again = egm(*command, "--server", server.url, "--concurrency", 3, "--json", "--retry-errors")
    assert (outcome.code, outcome.err, count) == (0, "", len(data))
    whole = json.loads(outcome.out)["all"]
    assert (whole["n"], whole["errors"]) == (len(data), {"BackendError": 1})
    assert whole["tokens"] == {"prompt": 70, "reasoning": 4, "answer": 5, "completion": 9}
    assert whole["latency"]["first_token"]["n"] == whole["latency"]["queue"]["n"] == len(data) - 1
    assert json.loads(again.out)["all"]["errors"] == {}
    n, cold = len(data) - 1, len({sample.id.rsplit("/", 1)[0] for sample in data})
    assert re.search(r"^split +n +Acc@0.5 +mean IoU +no box +errors +tokens +reasoning +answer$", shown, re.MULTILINE)
    assert re.search(rf"^synthref/val +{n + 1} .* 0 +1 +9 +4 +5$", shown, re.MULTILINE)
    assert re.search(r"^seconds, 3 at once +n +mean +p50 +p90 +p99$", shown, re.MULTILINE)
    for title, count in (("to the last token", n), ("to the first token", n), ("waiting before", n)):
        assert re.search(rf"^{title} +{count}( +\d+\.\d{{3}}){{4}}$", shown, re.MULTILINE)
    assert re.search(
        rf"^  first question of an image +{cold} .*\n  its other questions +{n - cold} ", shown, re.MULTILINE
    )
    assert re.search(r"^\d+\.\d tokens a second in one request$", shown, re.MULTILINE)
    assert len(server.asked) == len(data) + 1
    header, records = read_journal(tmp_path / "run")
    assert (header.model, header.concurrency, len(records)) == ("tiny", 3, len(data))


def test_what_a_model_without_thoughts_says_is_an_answer(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "script.txt").write_text('Here: [{"bbox_2d": [0, 0, 500, 500]}]')
    command = ("eval", "synthref/val", "--scenes", 1, "--script", "script.txt", "--json", "--out")
    mistaken = egm(*command, "a")
    n = json.loads(mistaken.out)["samples"]
    assert json.loads(mistaken.out)["all"]["failures"] == {"no_box": n}
    missing, cause = mistaken.err.splitlines()
    assert missing.startswith(f"note: none of the {n} answers holds the </think> that codec qwen3_vl expects")
    assert (
        "think first, --codec qwen3_vl_instruct asks and reads it; if it does, the server hides its reasoning"
        in missing
    )
    assert cause.startswith(f"note: {n} of {n} answers are no_box, which usually means: ")
    right = egm(*command, "b", "--codec", "qwen3_vl_instruct")
    assert (json.loads(right.out)["all"]["failures"], right.err) == ({}, "")


def test_a_codec_that_is_named_asks_and_reads_a_model_in_this_process_too(egm: Egm, tmp_path: Path) -> None:
    command = ("eval", "synthref/val", "--scenes", 1, "--max-tokens", 2, "--out", tmp_path / "run")
    assert egm(*command, "--codec", "internvl").code == 0
    header, _ = read_journal(tmp_path / "run")
    assert (header.codec, header.prompt["style"]) == ({"name": "internvl"}, "grounding")
    assert 'codec.name is "qwen3_vl", was "internvl"' in egm(*command).err


def test_an_interrupted_run_of_an_instruct_model_from_before_it_had_a_codec_goes_on(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "script.txt").write_text('[{"bbox_2d": [0, 0, 500, 500]}]')
    command = ("eval", "synthref/val", "--scenes", 2, "--script", "script.txt", "--out", "run", "--json")
    whole = json.loads(egm(*command, "--codec", "qwen3_vl_instruct").out)["all"]
    header, *records = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    old = {**json.loads(header), "codec": {"name": "qwen3_vl", "thinking_prefilled": False}}
    (tmp_path / "run" / "journal.jsonl").write_text("".join(f"{line}\n" for line in (json.dumps(old), records[0])))
    assert "holds another run: codec.name is" in egm(*command).err
    resumed = egm(*command, "--codec", "qwen3_vl_instruct")
    assert (resumed.code, json.loads(resumed.out)["all"]["accuracy"]) == (0, whole["accuracy"])
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    assert (json.loads(lines[0]), lines[1:]) == (old, records)
    score = json.loads(egm("score", "run", "--json").out)["scores"][0]
    assert score["pooled"]["acc@0.5"]["value"] == whole["accuracy"]


def test_a_full_disk_ends_the_run_and_space_lets_it_go_on(script: Path, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)); "
    command = [
        *EVAL,
        "synthref/val",
        "--scenes",
        "20",
        "--script",
        str(script),
        "--out",
        str(tmp_path / "run"),
        "--json",
    ]
    full = [part.replace("main()", f"{limit} main()") if part == EVAL[2] else part for part in command]
    # Bytecode that is compiled under the limit would be cut off, and stay.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(full, capture_output=True, text=True, check=False, env=env)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert str(tmp_path / "run" / "journal.jsonl") in ended.stderr
    kept = (tmp_path / "run" / "journal.jsonl").read_bytes()
    assert 0 < len(read_journal(tmp_path / "run")[1]) < 40
    numbers = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert numbers["all"]["n"] == len(list(SynthRef("val", scenes=20)))
    whole = (tmp_path / "run" / "journal.jsonl").read_bytes()
    assert whole.startswith(kept[: kept.rfind(b"\n") + 1])
    assert len(whole.splitlines()) == 1 + numbers["samples"]


def test_two_processes_cannot_write_one_folder(tmp_path: Path) -> None:
    answer = say('</think> [{"bbox_2d": [0, 0, 500, 500]}]')
    data = list(SynthRef("val", scenes=2))
    with FaultyServer({"": [answer], data[-1].phrase: [Play(before="stall"), answer]}) as server:
        command = [*EVAL, "synthref/val", "--scenes", "2", "--server", server.url, "--out", str(tmp_path / "run")]
        journal = tmp_path / "run" / "journal.jsonl"
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
            try:
                end = time.monotonic() + 60
                while len(journal.read_bytes().splitlines() if journal.exists() else b"") < len(data):
                    assert time.monotonic() < end, "the journal does not grow"
                    with pytest.raises(subprocess.TimeoutExpired):
                        first.wait(0.01)
                before, asked = journal.read_bytes(), len(server.asked)
                second = subprocess.run(command, capture_output=True, text=True, check=False)
                assert (second.returncode, second.stdout) == (2, "")
                assert second.stderr.count("\n") == 1
                assert "is being written by another process: wait for it, or end it" in second.stderr
                assert (journal.read_bytes(), len(server.asked)) == (before, asked)
            finally:
                first.kill()
        # The lock has gone with its holder.
        third = subprocess.run([*command, "--json"], capture_output=True, check=True)
    assert json.loads(third.stdout)["all"]["n"] == len(data)
    assert journal.read_bytes().startswith(before)


def test_help(egm: Egm) -> None:
    outcome = egm("eval", "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert "DATASET..." in outcome.out


def test_votes_and_budgets_are_part_of_the_run(egm: Egm, tmp_path: Path) -> None:
    file = tmp_path / "script.txt"
    file.write_text("\n".join([ANSWER, ANSWER, r"</think> [1, 2]"]))
    command = ("eval", "synthref/val", "--scenes", 1, "--script", file, "--out", tmp_path / "run", "--sample")
    outcome = egm(*command, "--votes", 3, "--thinking-budget", 2)
    assert (outcome.code, outcome.err) == (0, "")
    header, records = read_journal(tmp_path / "run")
    assert (header.settings["votes"], header.settings["thinking_budget"]) == (3, 2)
    assert {(record.votes, round(record.confidence or 0, 4)) for record in records} == {(3, 0.6667)}
    assert records[0].text.startswith("At the\n</think>\n\n```json")
    other = egm(*command, "--votes", 5, "--thinking-budget", 2)
    assert other.code == 2
    assert "settings.votes is 5, was 3" in other.err
    greedy = egm("eval", "synthref/val", "--scenes", 1, "--script", file, "--votes", 4)
    assert (greedy.code, greedy.out) == (2, "")
    assert "sample, as --sample does" in greedy.err
