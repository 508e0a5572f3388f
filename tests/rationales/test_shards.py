"""Shards of a run of rationales: explained apart, merged, and gone on with to the data of the run that was not cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from egm.datasets import Dataset, open_dataset
from egm.errors import DataError
from egm.evaluate.shards import Shard
from egm.journal import JOURNAL_NAME
from egm.rationales import Corruption, RationaleRun, RunSettings, SynthRefTeacher, draw_explained, make_rationales
from egm.rationales.corrupt import DEFECTS
from egm.rationales.ledger import Call, Decision, header_row, line_row, read_ledger
from egm.rationales.merge import merge_rationales

COUNT = 3
SETTINGS = RunSettings("official")
# Many of one canned text, so that what is a near duplicate depends on what other shards have kept.
CORRUPTION = Corruption({name: 0.3 if name == "near_duplicate" else 0.02 for name in DEFECTS}, seed=4)
DATA = "train.jsonl"


def source() -> Dataset:
    return open_dataset("synthref/train", first=60)


def make(folder: Path, shard: str | None = None, settings: RunSettings = SETTINGS, **options: Any) -> RationaleRun:
    share = None if shard is None else Shard.parse(shard)
    teacher = SynthRefTeacher("official", CORRUPTION)
    options = {"concurrency": 1, "progress": False, "shard": share} | options
    return make_rationales(source(), teacher, folder, settings, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    make(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    places = [folder / str(number) for number in range(1, COUNT + 1)]
    for number, place in enumerate(places, 1):
        make(place, f"{number}/{COUNT}")
    return places


def lines(folder: Path) -> list[Call | Decision]:
    return read_ledger(folder)[1]


def test_merged_and_gone_on_with_they_are_the_run_that_was_not_cut(
    whole: Path, shards: list[Path], tmp_path: Path
) -> None:
    merged = merge_rationales(shards[::-1], tmp_path / "all")
    assert (merged.samples, merged.remarks, merged.alike > 0) == (60, (), True)
    before = len(lines(tmp_path / "all"))
    run = make(tmp_path / "all")
    assert len(lines(tmp_path / "all")) > before  # what was alike is asked again
    assert (tmp_path / "all" / DATA).read_bytes() == (whole / DATA).read_bytes()
    assert read_ledger(tmp_path / "all")[0]["identity"] == read_ledger(whole)[0]["identity"]
    decided = [
        {(line.id, line.attempt): line.against for line in lines(place) if isinstance(line, Decision)}
        for place in (tmp_path / "all", whole)
    ]
    assert decided[0] == decided[1]
    assert run.tally.kept == sum(not against for against in decided[1].values())


def test_a_shard_explains_its_own_samples_under_their_numbers_as_the_whole_does(
    whole: Path, shards: list[Path]
) -> None:
    numbers = {sample.id: number for number, sample in enumerate(source())}
    first = {line.id: line.text for line in lines(whole) if isinstance(line, Call) and line.attempt == 0}
    seen: set[str] = set()
    for number, place in enumerate(shards, 1):
        identity, own = read_ledger(place)[0]["identity"], lines(place)
        assert {line.id: line.number for line in own} == {line.id: numbers[line.id] for line in own}
        texts = {line.id: line.text for line in own if isinstance(line, Call) and line.attempt == 0}
        assert texts == {name: first[name] for name in texts}
        assert len(texts) == identity["data"]["n"]
        assert (identity["shard"]["number"], identity["shard"]["of"]["n"]) == (number, 60)
        assert f"shard {number}/{COUNT} of the pictures, of 60 samples in all" in (place / "README.md").read_text()
        assert not seen & {name.rsplit("/", 1)[0] for name in texts}  # a picture belongs to one shard
        seen |= {name.rsplit("/", 1)[0] for name in texts}
    assert seen == {name.rsplit("/", 1)[0] for name in first}


def test_a_killed_shard_goes_on_and_another_number_is_another_run(shards: list[Path], tmp_path: Path) -> None:
    journal = tmp_path / "part" / JOURNAL_NAME
    journal.parent.mkdir()
    content = (shards[0] / JOURNAL_NAME).read_bytes()
    journal.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"holds another run: .*shard\.number is 2, was 1"):
        make(journal.parent, f"2/{COUNT}")
    with pytest.raises(DataError, match=r"holds another run: .*shard\.count is null, was 3"):
        make(journal.parent)
    make(journal.parent, f"1/{COUNT}")
    assert (journal.parent / DATA).read_bytes() == (shards[0] / DATA).read_bytes()


def said(change: str, *, at: int) -> str:
    """Of 60 pairs of words, change eight; what is changed at either end is like what is not, and unlike the other."""
    words = [f"word{number}" for number in range(61)]
    words[at : at + 7] = [f"{change}{number}" for number in range(7)]
    return " ".join(words)


@pytest.mark.parametrize("is_blind", [False, True])
def test_a_text_is_compared_with_what_the_whole_run_keeps(shards: list[Path], tmp_path: Path, is_blind: bool) -> None:
    """The first is kept, the second is like it and dropped, the third like the second alone, and so kept after all."""
    headers = [read_ledger(place)[0] for place in shards[:2]]
    for header in headers:
        header["identity"]["blind"] = {"model": "blind"} if is_blind else None
    numbers = {line.id: line.number for line in lines(shards[0]) + lines(shards[1])}
    ids = [list(dict.fromkeys(line.id for line in lines(place))) for place in shards[:2]]
    second, third = [name for name in ids[1] if numbers[name] > numbers[ids[0][0]]][:2]

    def answered(name: str, text: str, attempt: int = 0, **against: str) -> list[Call | Decision]:
        facts: dict[str, Any] = {"id": name, "attempt": attempt, "number": numbers[name]}
        place = 10.0 * ids[1].index(name) if name in ids[1] else 500.0
        shown: dict[str, Any] = {"phrase": "it", "truth": (place, 0.0, place + 5, 5.0), "size": (640, 480)}
        call = Call(asked="teacher", text=text, tokens=(100, 10), **facts, **shown)
        overlap = 1.0 if is_blind and not against else None
        return [call, Decision(against=against, iou=overlap, **facts)]

    middle, end = said("word", at=0), said("z", at=50)
    own = [
        answered(ids[0][0], said("a", at=3)),
        [*answered(second, middle), *answered(third, end, near_duplicate="alike"), *answered(third, "Another.", 1)],
    ]
    for number, (header, listed) in enumerate(zip(headers, own, strict=True)):
        rows = [header_row(header["identity"], header["about"]), *map(line_row, listed)]
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / JOURNAL_NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))
    merged = merge_rationales([tmp_path / "0", tmp_path / "1"], tmp_path / "all", allow_partial=True)
    assert (merged.kept, merged.alike) == (1 if is_blind else 2, 1)
    found = lines(tmp_path / "all")
    decided = [(line.id, [*line.against]) for line in found if isinstance(line, Decision)]
    assert decided == [(ids[0][0], []), (second, ["near_duplicate"]), *([] if is_blind else [(third, [])])]
    # The next try was for nothing; of a blind check, which was not asked, nobody knows yet.
    assert [(line.id, line.lost) for line in found if isinstance(line, Call)] == [
        *((ids[0][0], (0, 0)), (second, (0, 0)), (third, (100, 10)))
    ]


def test_what_does_not_belong_together_is_refused(whole: Path, shards: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "all"
    other = tmp_path / "other"
    make(other, "3/3", RunSettings("official", tries=2))
    for places, says in (
        ([], "there is nothing to merge"),
        ([*shards[:2], whole], "is no shard, but a run of its own"),
        ([*shards, shards[0]], "are the same shard: give each shard once"),
        ([*shards[:2], other], "tries is 2, was 3: merge the shards of one command"),
        (shards[:2], "shard 3 of 3 is missing: go on with"),
    ):
        with pytest.raises(DataError, match=says):
            merge_rationales(places, out)
        assert not out.exists()
    part = merge_rationales(shards[:2], out, allow_partial=True)
    assert part.remarks == ("shard 3 of 3 is missing",)
    make(out)
    assert (out / DATA).read_bytes() == (whole / DATA).read_bytes()
    with pytest.raises(DataError, match="holds a run already: choose another folder"):
        merge_rationales(shards, out)


def test_a_header_that_does_not_say_which_shard_it_is_is_refused(shards: list[Path], tmp_path: Path) -> None:
    header, *rest = (shards[0] / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    for number in (0, "1", None):
        row = json.loads(header)
        row["identity"]["shard"]["number"] = number
        (tmp_path / JOURNAL_NAME).write_bytes(json.dumps(row).encode() + b"\n" + b"".join(rest))
        with pytest.raises(DataError, match="does not say which shard it is: restore the file"):
            merge_rationales([tmp_path, *shards[1:]], tmp_path / "all")


def test_a_shard_that_is_not_finished_is_named(shards: list[Path], tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    header, *rest = (shards[0] / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / "1" / JOURNAL_NAME).write_bytes(header + b"".join(rest[:2]))
    n = json.loads(header)["identity"]["data"]["n"]
    with pytest.raises(DataError, match=rf"shard 1/3\) is not finished: {n - 1} samples are missing"):
        merge_rationales([tmp_path / "1", *shards[1:]], tmp_path / "all")


def pictures(folder: Path) -> set[tuple[str, bytes]]:
    return {(path.name, path.read_bytes()) for path in folder.rglob("*.png")}


def test_drawn_for_a_shard_samples_are_all_there_and_pictures_its_own(tmp_path: Path) -> None:
    everything = draw_explained("train", 12, tmp_path / "whole")
    drawn = [draw_explained("train", 12, tmp_path / f"{number}", shard=Shard(number, 2)) for number in (1, 2)]
    assert all(part.told == everything.told for part in drawn)
    assert [sample.id for sample in drawn[0].dataset] == [sample.id for sample in everything.dataset]
    assert [len(pictures(tmp_path / folder)) for folder in ("1", "2", "whole")] == [2, 1, 3]
    assert pictures(tmp_path / "1") | pictures(tmp_path / "2") == pictures(tmp_path / "whole")
