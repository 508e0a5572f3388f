"""The whole way with the offline teacher: data in every format, the card, the report, and a run that goes on."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from egm.codecs import get_codec
from egm.datasets import Dataset, open_dataset
from egm.errors import DataError, EgmError
from egm.images import load_image
from egm.journal import JOURNAL_NAME
from egm.rationales import (
    Corruption,
    RunSettings,
    SynthRefTeacher,
    draw_explained,
    make_rationales,
    rationale_page,
    read_report,
)
from egm.rationales.corrupt import DEFECTS
from egm.rationales.ledger import Decision, read_ledger
from egm.rationales.synthref import explain_sample
from egm.types import Sample

FORMATS = ("qwen-vl-finetune", "llama-factory", "ms-swift")
SETTINGS = RunSettings("official")
# Of a text that is planted often the first is no duplicate yet, and not every contradiction is found.
PLANTED = tuple(name for name in DEFECTS if name not in ("near_duplicate", "contradiction"))
CORRUPTION = Corruption(dict.fromkeys(PLANTED, 0.08), seed=4)
FILES = ("train.jsonl", "train.parquet", "qwen_vl_finetune.jsonl", "llama_factory.jsonl", "ms_swift.jsonl")


def source(count: int = 40) -> Dataset:
    return open_dataset("synthref/train", first=count)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which a third of the answers are bad."""
    folder = tmp_path_factory.mktemp("runs") / "made"
    teacher = SynthRefTeacher("official", CORRUPTION)
    make_rationales(source(), teacher, folder, SETTINGS, formats=FORMATS, concurrency=1, progress=False)
    return folder


def facts(sample: Sample) -> tuple[object, ...]:
    return sample.id, sample.phrase, sample.box, sample.size, sample.amodal, sample.rationale, dict(sample.meta)


def test_every_file_holds_the_same_samples_as_explained(made: Path) -> None:
    kept = open_dataset(made / "train.jsonl")
    originals = {sample.id: sample for sample in source()}
    decisions = [line for line in read_ledger(made)[1] if isinstance(line, Decision) and not line.against]
    assert [sample.id for sample in kept] == [decision.id for decision in decisions]
    for sample, decision in zip(kept, decisions, strict=True):
        original = originals[sample.id]
        assert sample.rationale == explain_sample(original, "official", decision.attempt)
        assert (sample.phrase, sample.box, sample.size) == (original.phrase, original.box, original.size)
        assert isinstance(sample.image, Path)
        assert sample.image.is_file()
    for name in FILES[2:]:
        again = open_dataset(made / name)
        assert [facts(sample) for sample in again] == [facts(sample) for sample in kept], name
        assert [sample.image for sample in again] == [sample.image for sample in kept]


def test_the_targets_are_the_codecs(made: Path) -> None:
    codec = get_codec("qwen3_vl")
    for name, turns, text in (
        ("qwen_vl_finetune", "conversations", "value"),
        ("llama_factory", "conversations", "value"),
        ("ms_swift", "messages", "content"),
    ):
        rows = [json.loads(line) for line in (made / f"{name}.jsonl").read_text().splitlines()]
        for row, sample in zip(rows, open_dataset(made / "train.jsonl"), strict=True):
            question, answer = (turn[text] for turn in row[turns])
            assert sample.box is not None
            assert sample.size is not None
            target = codec.target(sample.phrase, sample.box, size=sample.size, rationale=sample.rationale)
            assert answer == f"<think>\n{target}"
            assert question.count("<image>") == 1
            assert sample.phrase in question
            image = row["image"] if name == "qwen_vl_finetune" else row["images"][0]
            assert (made / image).is_file()


def test_parquet_is_what_training_reads(made: Path) -> None:
    rows, parquet = open_dataset(made / "train.jsonl"), open_dataset(made / "train.parquet", images=made)
    assert [(s.id, s.phrase, s.box, s.rationale) for s in parquet] == [
        (s.id, s.phrase, s.box, s.rationale) for s in rows
    ]


def test_what_was_planted_is_dropped_under_its_own_name(made: Path) -> None:
    originals = {sample.id: sample for sample in source()}
    seen = set()
    for line in read_ledger(made)[1]:
        if isinstance(line, Decision):
            sample = originals[line.id]
            planted = CORRUPTION.plant(sample, explain_sample(sample, "official", line.attempt), line.attempt)
            assert (planted.defect in line.against) if planted.defect is not None else not line.against
            seen.add(planted.defect)
    assert seen == {*PLANTED, None}


def test_the_report_counts_what_the_journal_holds(made: Path) -> None:
    report = read_report(made)
    numbers = report.to_dict()
    assert (numbers["samples"], numbers["kept"]) == (40, len(open_dataset(made / "train.jsonl")))
    dropped = [each for each in report.tries if each.against]
    assert numbers["tries"] == numbers["kept"] + len(dropped)
    assert numbers["filters"] == {
        name: sum(name in each.against for each in dropped) for name in report.header["identity"]["filters"]
    }
    assert sum(numbers["filters"].values()) >= len(dropped) > 0


def test_the_page_shows_pictures_rationales_and_verdicts_of_kept_and_dropped(made: Path) -> None:
    report = read_report(made)
    page = rationale_page(report)
    assert page.count("data:image/") == len(report.tries)  # SynthRef's are drawn again
    assert not re.search(r"(?:src|href)=[\"']?https?:", page)
    for each in report.tries:
        for why in each.against.values():
            assert why.split(":")[0].split("'")[0][:20] in page
    small = rationale_page(report, rows=4)
    assert small.count("data:image/") == 4


def test_a_page_cannot_be_steered_by_what_a_teacher_wrote(tmp_path: Path) -> None:
    class Steering(SynthRefTeacher):
        def rationale(self, reply: object) -> str:
            return "<script>alert(1)</script> The only cross here is the one at the top, which is large and green."

    make_rationales(source(1), Steering("official"), tmp_path, RunSettings("official"), progress=False)
    journal = (tmp_path / JOURNAL_NAME).read_text()
    text = json.loads(journal.splitlines()[1])["call"]["text"]
    (tmp_path / JOURNAL_NAME).write_text(journal.replace(json.dumps(text), json.dumps("<script>alert(1)</script>")))
    assert "<script>alert(1)" not in rationale_page(read_report(tmp_path))


def test_the_card_says_what_was_asked_kept_and_written(made: Path) -> None:
    card = (made / "README.md").read_text()
    numbers = read_report(made).to_dict()
    assert "# Rationales for `synthref/train`" in card
    assert f"| kept | {numbers['kept']} |" in card
    for name, count in numbers["filters"].items():
        assert re.search(rf"\| {name} \| [^|]+ \| {count} \|", card)
    for name in FILES:
        assert f"| `{name}` | `{hashlib.sha256((made / name).read_bytes()).hexdigest()}` |" in card
    assert "words of a rationale" in card
    assert "% of the phrases are complex" in card
    assert read_ledger(made)[0]["identity"]["data"]["digest"] in card


def test_a_journal_that_ends_anywhere_is_gone_on_with_to_the_same_data(made: Path, tmp_path: Path) -> None:
    teacher = SynthRefTeacher("official", CORRUPTION)
    journal = (made / JOURNAL_NAME).read_bytes()
    for end in (len(journal) // 3, 2 * len(journal) // 3, len(journal)):
        folder = tmp_path / str(end)
        folder.mkdir()
        (folder / JOURNAL_NAME).write_bytes(journal[:end])
        make_rationales(source(), teacher, folder, SETTINGS, formats=FORMATS, concurrency=1, progress=False)
        assert read_ledger(folder)[1] == read_ledger(made)[1]
        for name in ("train.jsonl", *FILES[2:]):
            assert (folder / name).read_bytes() == (made / name).read_bytes()


def test_order_and_number_of_calls_at_once_do_not_matter(made: Path, tmp_path: Path) -> None:
    teacher = SynthRefTeacher("official", CORRUPTION)
    settings = RunSettings("official", filters={"failure": {}, "leak": {}, "length": {}})
    runs = [
        make_rationales(source(), teacher, tmp_path / str(most), settings, concurrency=most, progress=False)
        for most in (1, 7)
    ]
    one, several = ([(number, each.text) for number, each in run.kept] for run in runs)
    assert one == several


def test_a_line_that_does_not_follow_is_refused(made: Path, tmp_path: Path) -> None:
    header, *lines = (made / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL_NAME).write_bytes(b"".join([header, lines[1], lines[0], *lines[2:]]))
    teacher = SynthRefTeacher("official", CORRUPTION)
    with pytest.raises(DataError, match="does not follow from those before it"):
        make_rationales(source(), teacher, tmp_path, RunSettings("official"), progress=False)
    (tmp_path / JOURNAL_NAME).write_bytes(header + b'{"call": {"id": 3}}\n')
    with pytest.raises(DataError, match="line 2: its call is damaged: id"):
        read_report(tmp_path)


def test_pictures_of_an_evaluation_split_are_dropped_before_anybody_is_asked(tmp_path: Path) -> None:
    class Unasked(SynthRefTeacher):
        def ask(self, sample: object, attempt: int) -> object:  # type: ignore[override]
            raise AssertionError("it was asked")

    run = make_rationales(
        open_dataset("synthref/val", first=5), Unasked("official"), tmp_path, RunSettings("official"), progress=False
    )
    assert (run.tally.kept, run.tally.dropped, run.tally.unasked, run.tally.tries) == (0, 5, 5, 0)
    assert read_report(tmp_path).to_dict()["filters"]["evaluation_picture"] == 5
    assert "as their pictures are evaluated on | 5 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("style", ["official", "candidates", "amodal"])
def test_what_the_offline_teacher_says_passes_in_each_style(tmp_path: Path, style: str) -> None:
    run = make_rationales(source(24), SynthRefTeacher(style), tmp_path, RunSettings(style), progress=False)
    assert run.tally.kept == 24


def test_what_the_offline_teacher_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EgmError, match="does not speak 'self': choose official"):
        SynthRefTeacher("self")
    with pytest.raises(EgmError, match="tries 0 is out of range"):
        make_rationales(source(1), SynthRefTeacher("official"), tmp_path, RunSettings("official", tries=0))
    known = source(1)[0]
    stranger = Dataset("mine", [Sample("1", "a.png", "the cup", known.box, known.size)])
    with pytest.raises(DataError, match="sample '1' is none of SynthRef 1: the offline teacher explains no other data"):
        make_rationales(stranger, SynthRefTeacher("official"), tmp_path, RunSettings("official"), progress=False)


def test_what_is_drawn_in_several_processes_is_what_one_sample_after_the_other_gives(tmp_path: Path) -> None:
    runs = [draw_explained("train", 210, tmp_path / str(n), "amodal", tries=2, workers=n) for n in (1, 2)]
    plain = open_dataset("synthref/train", first=210)
    for number, (dataset, told) in enumerate(runs, 1):
        assert [sample.id for sample in dataset] == [sample.id for sample in plain]
        for drawn, sample in zip(dataset, plain, strict=True):
            assert (drawn.phrase, drawn.box, drawn.size) == (sample.phrase, sample.box, sample.size)
            assert told[drawn.id] == tuple(explain_sample(sample, "amodal", attempt) for attempt in range(2))
            assert np.array_equal(np.asarray(load_image(drawn.image)), np.asarray(sample.image))
        assert dataset.root == tmp_path / str(number)
    with pytest.raises(DataError, match="has no end: say how many samples"):
        draw_explained("train", None, tmp_path)
    with pytest.raises(DataError, match="has no style 'self'"):
        draw_explained("train", 1, tmp_path, "self")
