"""Shards of a run: dealt out by picture, killed and gone on with, and merged into the run that was not cut."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from egm.backends import GenerationSettings, ReplayBackend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.errors import BackendError, DataError, EgmError
from egm.evaluate import Evaluation, Shard, assign_shards, evaluate, merge_runs
from egm.evaluate.plan import seed_index_of
from egm.grounder import Grounder
from egm.journal import JOURNAL_NAME, read_journal
from egm.report.predictions import read_records
from egm.report.runs import load_runs
from egm.types import Completion, Sample

QUESTIONS = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5)  # of each picture


def splits() -> dict[str, list[Sample]]:
    """Two splits that share pictures, each with other questions about them."""
    pictures = [Image.new("RGB", (40, 20)) for _ in QUESTIONS]
    asked = [(image, k) for image, count in zip(pictures, QUESTIONS, strict=True) for k in range(count)]
    listed = [Sample(f"s{i}", image, f"thing {i}", Box(0, 0, 8 + k, 10)) for i, (image, k) in enumerate(asked)]
    return {"odd": listed[1::2], "even": listed[::2]}


def grounder(*bad: str, batch_size: int = 1, **settings: Any) -> Grounder:
    """Answers each sample otherwise, after another time; some of them not at all."""
    answers: dict[int, list[Completion | BackendError]] = {}
    for split, samples in splits().items():
        for sample in samples:
            index = seed_index_of(split, sample.id)
            text = f'</think> [{{"bbox_2d": [0, 0, {1 + index % 1000}, 500]}}]'
            reply = Completion(text, completion_tokens=index % 99, seconds=index % 7919 / 1000)
            answers[index] = [BackendError("gone") if sample.id in bad else reply]
    backend = ReplayBackend(answers)
    return Grounder(backend, get_codec("qwen3_vl"), batch_size=batch_size, settings=GenerationSettings(**settings))


def run(folder: Path, shard: str | None = None, *bad: str, **settings: Any) -> Evaluation:
    share = None if shard is None else Shard.parse(shard)
    return evaluate(splits(), grounder(*bad, **settings), folder, shard=share, max_errors=1, progress=False)


def cut(folder: Path, count: int, **settings: Any) -> list[Path]:
    """All shards of a run."""
    places = [folder / str(number) for number in range(1, count + 1)]
    for number, place in enumerate(places, 1):
        run(place, f"{number}/{count}", **settings)
    return places


def lines(folder: Path) -> list[bytes]:
    return (folder / JOURNAL_NAME).read_bytes().splitlines()[1:]


@pytest.mark.parametrize("count", [1, 2, 3, len(QUESTIONS)])
@pytest.mark.parametrize("batch_size", [1, 2])  # blocks of 4 and of 8 pictures
def test_merged_shards_are_the_run_that_was_not_cut(tmp_path: Path, count: int, batch_size: int) -> None:
    whole = run(tmp_path / "whole", batch_size=batch_size)
    places = cut(tmp_path, count, batch_size=batch_size)
    merged = merge_runs(places[::-1], tmp_path / "merged")
    assert lines(tmp_path / "merged") == lines(tmp_path / "whole")
    assert (tmp_path / "merged" / "summary.json").read_bytes() == (tmp_path / "whole" / "summary.json").read_bytes()
    assert merged.remarks == ()
    assert merged.header.differences(whole.header) == []
    assert merged.header.to_dict().keys() == whole.header.to_dict().keys()
    again = merge_runs(places, tmp_path / "merged")
    assert again.records == merged.records
    assert run(tmp_path / "merged", batch_size=batch_size).records == whole.records  # as a run of its own


def test_a_picture_belongs_to_one_shard_and_shards_are_balanced(tmp_path: Path) -> None:
    found = [read_journal(place)[1] for place in cut(tmp_path, 3)]
    pictures = [{record.image for record in records} for records in found]
    assert sum(map(len, pictures)) == len(set.union(*pictures)) == len(QUESTIONS)
    sizes = list(map(len, found))
    assert sum(sizes) == sum(QUESTIONS)
    assert max(sizes) - min(sizes) <= max(QUESTIONS)
    assert sum(record.cold for records in found for record in records) == len(QUESTIONS)


@given(st.lists(st.integers(0, 20), min_size=1), st.integers(1, 9))
def test_shards_differ_by_no_more_than_a_picture_has(pictures: list[int], count: int) -> None:
    names, of_each = [str(picture) for picture in pictures], Counter(pictures)
    if len(of_each) < count:
        with pytest.raises(DataError, match="give no more shards than pictures"):
            assign_shards(names, count)
        return
    numbers = assign_shards(names, count)
    assert len({*zip(names, numbers, strict=True)}) == len(of_each)
    sizes = Counter(numbers)
    assert set(sizes) == {*range(1, count + 1)}
    assert max(sizes.values()) - min(sizes.values()) <= max(of_each.values())


def test_the_header_says_which_shard_it_is_and_of_what(tmp_path: Path) -> None:
    whole, part = run(tmp_path / "whole"), run(tmp_path / "part", "2/3")
    assert part.header.shard == {"number": 2, "count": 3, "of": whole.header.datasets}
    assert part.header.share == part.summary()["shard"] == "2/3"
    assert sum(facts["n"] for facts in part.header.datasets.values()) == part.total == len(part.records)
    assert "shard" not in json.loads((tmp_path / "whole" / "run.json").read_text())


def test_another_shard_is_another_run(tmp_path: Path) -> None:
    run(tmp_path / "a", "2/3")
    run(tmp_path / "b")
    for folder, shard, said in (
        ("a", "1/3", "1/3, was 2/3"),
        ("a", None, "none, was 2/3"),
        ("b", "1/3", "1/3, was no"),
    ):
        with pytest.raises(DataError, match=f"holds another run: shard is {said}"):
            run(tmp_path / folder, shard)


@pytest.mark.parametrize("text", ["3/2", "0/2", "1/0", "1", "a/b", "1/2/3", "-1/2", "1/999999999", ""])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(EgmError, match=r"no shard.*: give .*\(--shard\)$"):
        Shard.parse(text)


# ---- what is not merged


def test_shards_of_other_runs_are_refused(tmp_path: Path) -> None:
    one, two = cut(tmp_path, 2)
    run(tmp_path / "seed", "2/2", seed=1)
    run(tmp_path / "third", "2/3")
    run(tmp_path / "whole")
    fewer = {name: [s for s in samples if s.id != "s9"] for name, samples in splits().items()}
    evaluate(fewer, grounder(), tmp_path / "fewer", shard=Shard(2, 2), progress=False)
    for other, said in (
        (
            "seed",
            r"'.*seed' \(shard 2/2\) is a shard of another run than '.*1' \(shard 1/2\): settings.seed is 1, was 0",
        ),
        ("third", "there are 3 shards, and there 2"),
        ("fewer", r"datasets\.\w+\.digest is "),
        ("whole", "is no shard, but a run of its own"),
    ):
        with pytest.raises(DataError, match=said):
            merge_runs([one, tmp_path / other], tmp_path / "merged")
    with pytest.raises(DataError, match="a run is given twice"):
        merge_runs([one, two, two], tmp_path / "merged")
    run(tmp_path / "again", "2/2")
    with pytest.raises(DataError, match="are both shard 2/2: give each shard once"):
        merge_runs([one, two, tmp_path / "again"], tmp_path / "merged")
    with pytest.raises(DataError, match="there is nothing to merge"):
        merge_runs([], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_is_not_finished_is_refused_or_said(tmp_path: Path) -> None:
    one, two, three = cut(tmp_path, 3)
    whole, merged = run(tmp_path / "whole"), tmp_path / "merged"
    with pytest.raises(DataError, match=r"^shard 2 of 3 is missing: go on with .*--allow-partial$"):
        merge_runs([one, three], merged)
    file = three / JOURNAL_NAME
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-4]))
    of = len(lines(three)) + 4
    said = rf"3' \(shard 3/3\) is not finished: 4 of its {of} samples are missing"
    with pytest.raises(DataError, match=said):
        merge_runs([one, two, three], merged)
    assert not merged.exists()
    partial = merge_runs([one, three], merged, allow_partial=True)
    assert len(partial.remarks) == 2
    assert len(partial.records) == len(lines(one)) + of - 4 < partial.total
    run(three, "3/3")
    assert merge_runs([one, three], merged, allow_partial=True).records != partial.records  # more of it
    with pytest.raises(DataError, match=r"holds \d+ answers that the shards do not"):
        merge_runs([two, three], merged, allow_partial=True)
    ended = run(merged)  # the command of the whole run goes on with it
    assert sorted(ended.records, key=lambda r: r.key) == sorted(whole.records, key=lambda r: r.key)


def test_a_picture_in_two_shards_is_refused(tmp_path: Path) -> None:
    one, two = cut(tmp_path, 2)
    file, stray = two / JOURNAL_NAME, json.loads(lines(one)[0])
    rows = [json.loads(line) for line in lines(two)]
    lost = next(number for number, row in enumerate(rows) if row["split"] == stray["split"])
    header = json.loads(file.read_bytes().splitlines()[0])
    del header["datasets"][stray["split"]]["questions"]  # by which reading it would notice
    rows[lost] = stray
    file.write_text("".join(json.dumps(row) + "\n" for row in (header, *rows)))
    with pytest.raises(DataError, match="both hold answers about picture"):
        merge_runs([one, two], tmp_path / "merged")


def test_errors_that_were_tried_again_leave_no_line(tmp_path: Path) -> None:
    one, two = cut(tmp_path, 2)
    bad = json.loads(lines(one)[3])["id"]
    (one / JOURNAL_NAME).unlink()
    run(one, "1/2", bad)
    again = {"shard": Shard(1, 2), "max_errors": 1, "retry_errors": True, "progress": False}
    evaluate(splits(), grounder(), one, **again)  # type: ignore[arg-type]
    merge_runs([one, two], tmp_path / "merged")
    run(tmp_path / "whole")
    assert len(lines(one)) > len(read_journal(one)[1])
    assert lines(tmp_path / "merged") == lines(tmp_path / "whole")


def test_shards_of_other_questions_than_the_wholes_are_refused(tmp_path: Path) -> None:
    places = cut(tmp_path, 2)
    for file in (place / JOURNAL_NAME for place in places):
        header, rest = file.read_bytes().split(b"\n", 1)
        said = json.loads(header)
        said["shard"]["of"]["even"]["questions"] = "0" * 16
        file.write_bytes(json.dumps(said).encode() + b"\n" + rest)
    with pytest.raises(DataError, match="holds answers to other questions than those of even"):
        merge_runs(places, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_another_run_is_not_written_over(tmp_path: Path) -> None:
    places = cut(tmp_path, 2)
    run(tmp_path / "other", seed=1)
    before = (tmp_path / "other" / JOURNAL_NAME).read_bytes()
    with pytest.raises(DataError, match=r"holds another run: settings.seed is 0, was 1: choose another folder"):
        merge_runs(places, tmp_path / "other")
    with pytest.raises(DataError, match=r"holds another run: shard is none, was 1/2"):
        merge_runs(places, places[0])
    assert (tmp_path / "other" / JOURNAL_NAME).read_bytes() == before


def test_too_many_errors_end_a_merged_run_as_they_end_one(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    bad = tuple(f"s{number}" for number in range(12))
    for number, place in enumerate((one, two), 1):
        run(place, f"{number}/2", *bad)
    whole = evaluate(splits(), grounder(*bad), tmp_path / "whole", max_errors=1, progress=False)
    stopped = merge_runs([one, two], tmp_path / "merged").stopped
    assert stopped is not None
    assert stopped.startswith("12 errors among 44 samples are more than the share of 0.05")
    assert merge_runs([one, two], tmp_path / "merged", max_errors=1).summary() == whole.summary()


def test_servers_may_differ_from_shard_to_shard(tmp_path: Path) -> None:
    for number, server in enumerate(("b:1/v1", "a:1/v1, b:1/v1"), 1):
        engine = {"server": server}
        evaluate(splits(), grounder(), tmp_path / str(number), shard=Shard(number, 2), engine=engine, progress=False)
    merged = merge_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "merged")
    assert merged.header.engine["server"] == "a:1/v1, b:1/v1"


# ---- what takes a shard for what it is


def test_a_shard_is_reported_and_scored_only_as_one(tmp_path: Path) -> None:
    one, two = cut(tmp_path, 2)
    with pytest.raises(DataError, match=r"is shard 1/2 of a run: put all its shards together with `egm eval merge`"):
        load_runs([one])
    with pytest.raises(DataError, match="is shard 1/2 of a run"):
        read_records(one)
    [shard] = load_runs([one], allow_partial=True)
    assert shard.remarks[0] == "only shard 1/2"
    assert len(read_records(one, partial=True)) == len(shard.records)
    merge_runs([one, two], tmp_path / "merged")
    assert load_runs([tmp_path / "merged"])[0].remarks == ()


def test_a_headers_shard_is_checked(tmp_path: Path) -> None:
    run(tmp_path, "1/2")
    file = tmp_path / JOURNAL_NAME
    header, *records = file.read_text().splitlines(keepends=True)
    for wrong in ("2/3", {"number": 1, "count": 2}, {"number": 0, "count": 2, "of": {}}, {"number": 1.5}):
        file.write_text(json.dumps({**json.loads(header), "shard": wrong}) + "\n" + "".join(records))
        with pytest.raises(DataError, match="its shard is "):
            read_journal(tmp_path)


# ---- killed


SHARD = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from tests.test_shards import many, grounder_of_many
from egm.evaluate import Shard, evaluate
evaluate(many(), grounder_of_many(), sys.argv[2], shard=Shard.parse(sys.argv[3]), progress=False)
"""


def many() -> dict[str, list[Sample]]:
    pictures = [Image.new("RGB", (32 + i % 7, 16)) for i in range(200)]
    return {"many": [Sample(f"s{i}", pictures[i * i % 200], f"thing {i};", Box(0, 0, 9, 9)) for i in range(1000)]}


def grounder_of_many() -> Grounder:
    answers = {
        index: [Completion(f'</think> [{{"bbox_2d": [0, 0, {1 + index % 1000}, 500]}}]', completion_tokens=index % 99)]
        for index in (seed_index_of("many", f"s{i}") for i in range(1000))
    }
    return Grounder(ReplayBackend(answers), get_codec("qwen3_vl"))


def test_shards_that_were_killed_merge_into_the_unbroken_run(tmp_path: Path) -> None:
    def command(shard: int) -> list[str]:
        return [sys.executable, "-c", SHARD, str(Path(__file__).parents[1]), str(tmp_path / str(shard)), f"{shard}/2"]

    kills = 0
    for shard, size in ((1, 1), (1, 40_000), (2, 90_000)):
        file = tmp_path / str(shard) / JOURNAL_NAME
        with subprocess.Popen(command(shard)) as process:
            end = time.monotonic() + 60
            while not (file.exists() and file.stat().st_size >= size):
                assert time.monotonic() < end, "the journal does not grow"
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.002)
                    break
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 2
    for shard in (1, 2):
        subprocess.run(command(shard), check=True)
    evaluate(many(), grounder_of_many(), tmp_path / "whole", progress=False)
    merge_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "merged")
    assert lines(tmp_path / "merged") == lines(tmp_path / "whole")
    assert (tmp_path / "merged" / "summary.json").read_bytes() == (tmp_path / "whole" / "summary.json").read_bytes()
