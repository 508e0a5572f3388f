"""Questions that nothing or several things may match, from the model's text to the figures of a report."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from PIL import Image

from egm.backends import GenerationSettings, ScriptedBackend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.consensus import Consensus, consensus
from egm.errors import DataError, EgmError
from egm.evaluate import evaluate
from egm.failures import Miss, classify_set_miss, run_notes
from egm.grounder import Grounder
from egm.journal import Record, read_whole_run
from egm.report import compare, interval_summary
from egm.report.summary import misses_of
from egm.report.tables import summary_grids
from egm.scoring import overlaps_of, score
from egm.types import Completion, Expect, Failure, Grounding, LabelledBox, Sample

PICTURE = Image.new("RGB", (100, 100), "teal")
A, B, C = Box(0, 0, 20, 20), Box(40, 40, 60, 60), Box(70, 70, 100, 100)
CODEC = get_codec("qwen3_vl")
NONE = CODEC.target("x", [], size=(100, 100))


def text(*boxes: Box) -> str:
    return CODEC.target("x", boxes, size=(100, 100))


def grounder(*script: str | Completion, **settings: object) -> Grounder:
    return Grounder(ScriptedBackend(script), CODEC, settings=GenerationSettings(**settings))  # type: ignore[arg-type]


def answer(*boxes: Box, expect: Expect = "all", failure: Failure | None = None) -> Grounding:
    return Grounding(boxes[0] if boxes else None, failure, boxes=tuple(map(LabelledBox, boxes)), expect=expect)


# One question.


def test_none_is_an_answer_of_its_own() -> None:
    result = grounder(NONE).ground(PICTURE, "the cup", expect="any")
    assert (result.is_none, result.box, result.failure, result.boxes) == (True, None, None, ())
    assert result.to_dict()["expect"] == "any"
    assert result.draw().size[1] > 100  # with a caption
    refused = grounder(NONE).ground(PICTURE, "the cup")
    assert (refused.is_none, refused.failure) == (False, Failure.REFUSED)
    assert "expect" not in refused.to_dict()
    with pytest.raises(ValueError, match="either a box or the failure"):
        Grounding(box=None, failure=None)
    with pytest.raises(ValueError, match="either a box or the failure"):
        Grounding(box=A, failure=Failure.NO_BOX, expect="all")


def test_all_boxes_in_order_with_the_confidence_that_probabilities_give() -> None:
    sure = Completion(text(B, A), answer_logprob=-0.5)
    result = grounder(sure).ground(PICTURE, "cups", expect="all")
    assert [each.box for each in result.boxes] == [B, A] == list(result.answered)
    assert [each.confidence for each in result.boxes] == [pytest.approx(0.60653, abs=1e-4)] * 2
    assert result.to_dict()["boxes"][0]["confidence"] == pytest.approx(0.6065)
    usual = grounder(sure).ground(PICTURE, "cups")
    assert [each.confidence for each in usual.boxes] == [None, None]
    assert usual.to_dict()["boxes"][0].keys() == {"box", "label"}


@pytest.mark.parametrize("thought", ["</think>\n\n", "Two, at 1 and 2.\n</think>\n\n"])
def test_each_box_is_as_sure_as_the_tokens_of_its_own_coordinates(thought: str) -> None:
    written = text(B, A).removeprefix("</think>\n\n")
    parts = re.split(r"(?<=d\": \[)([^]]*)", written)  # what stands between the brackets of each box, and around
    sure = (-3.0, -0.1, -3.0, -0.7, -3.0)
    tokens = [(piece, each) for part, each in zip(parts, sure, strict=True) for piece in re.findall(r"\d|\D+", part)]
    ends = accumulate((len(piece) for piece, _ in tokens), initial=len(thought))
    told = ((len(thought), -9.0), *((end, each) for end, (_, each) in zip([*ends][1:], tokens, strict=True)))
    cut = told[: len(told) // 2]  # of which the second box has none
    for token_logprobs, confidences in ((told, (-0.1, -0.7)), (cut, (-1.0, -1.0)), ((), (-1.0, -1.0))):
        reply = Completion(thought + written, answer_logprob=-1.0, token_logprobs=token_logprobs)
        boxes = grounder(reply).ground(PICTURE, "cups", expect="all").boxes
        assert [each.box for each in boxes] == [B, A]
        assert [each.confidence for each in boxes] == [pytest.approx(math.exp(mean)) for mean in confidences]


def test_what_is_no_box_gives_no_place() -> None:
    said = '</think> [{"bbox_2d": [1, 2, 400, 400], "label": "1, 2, 3 or 4"}, {"bbox_2d": [0, 0, 200, 200]}]'
    size = {"size": PICTURE.size}
    boxes = [each.box for each in CODEC.parse(said, expect="all", **size).boxes]
    places = CODEC.box_places(said, boxes, **size)
    assert places is not None
    assert [said[start:end] for start, end in places] == ["1, 2, 400, 400", "0, 0, 200, 200"]
    assert CODEC.box_places(said, [C, *boxes], **size) is None
    kosmos = get_codec("kosmos2")
    assert kosmos.box_places(kosmos.target("cup", [A, B], **size), [A, B], **size) is None


def test_votes_agree_on_sets_and_say_how_sure_each_box_is() -> None:
    votes = {"temperature": 0.6, "votes": 4}
    result = grounder(text(A, B), text(B, A), text(A), NONE, **votes).ground(PICTURE, "cups", expect="all")
    assert {each.box: each.confidence for each in result.boxes} == {A: 0.75, B: 0.5}
    assert result.confidence == 0.5
    nothing = grounder(NONE, text(A), NONE, NONE, **votes).ground(PICTURE, "cups", expect="any")
    assert (nothing.is_none, nothing.confidence) == (True, 0.75)
    refused = grounder(NONE, text(A), NONE, NONE, **votes).ground(PICTURE, "cups")
    assert (refused.box, refused.confidence) == (A, 0.25)  # one box is expected, so three votes have none


def test_consensus_of_sets() -> None:
    moved = Box(1, 0, 21, 20)
    assert consensus([(A, B), (B, moved), (A,), Failure.NO_BOX]) == Consensus(0, 2, 1, 4)
    assert consensus([(), (A,), ()]) == Consensus(0, 2, 1, 3)
    assert consensus([(A,), (moved,), (C,)]) == consensus([A, moved, C])


def test_what_is_asked_in_vain_is_refused_before_anything_is_asked() -> None:
    cut = Grounder(ScriptedBackend([NONE]), CODEC, cut_tail=True)
    with pytest.raises(EgmError, match="ends behind its first box: leave cut_tail"):
        cut.ground(PICTURE, "cups", expect="all")
    assert cut.ground(PICTURE, "cups", expect="any").is_none
    internvl = Grounder(ScriptedBackend(["x"]), get_codec("internvl"))
    with pytest.raises(EgmError, match="has no answer for 'nothing matches'"):
        internvl.ground(PICTURE, "cups", expect="any")
    [error] = internvl.ground_each([Sample("1", PICTURE, "cups", expect="any")])
    assert "has no answer for 'nothing matches'" in str(error)
    with pytest.raises(ValueError, match="one true box as box"):
        Sample("1", PICTURE, "cups", boxes=(A,))


# Scores.


@pytest.mark.parametrize(
    ("given", "truths", "iou"),
    [
        (answer(A, B), (B, A), 1),
        (answer(A, Box(40, 40, 60, 58)), (B, A), 0.9),
        (answer(A), (A, B), 0),
        (answer(A, B, C), (A, B), 0),
        (answer(A, A), (A, B), 0),
        (answer(), (), 1),
        (answer(), (A,), 0),
        (answer(A), (), 0),
        (answer(failure=Failure.REFUSED), (), 0),
        (answer(A, B, expect="any"), (A,), 1),  # the first box counts
        (answer(expect="any"), (), 1),
        (answer(failure=Failure.NO_BOX, expect="any"), (), 0),
    ],
)
def test_a_hit_is_an_f1_of_one(given: Grounding, truths: tuple[Box, ...], iou: float) -> None:
    assert score(given, truths).iou == pytest.approx(iou)
    assert score(given, truths).failure is given.failure


def test_overlaps_of_one_box_are_its_own() -> None:
    near = answer(Box(0, 0, 20, 10), expect="one")
    ious, gious = overlaps_of([near, near, answer(failure=Failure.NO_BOX, expect="one")], [A, (A,), A])
    assert ious.tolist() == [0.5, 0.5, 0]
    assert gious.tolist() == [0.5, 0.5, -1]


@pytest.mark.parametrize(
    ("answered", "true", "miss"),
    [
        ([A], [], Miss.FALSE_ALARM),
        ([], [A], Miss.FALSE_REJECTION),
        ([A, B], [A], Miss.EXTRA),
        ([A, A], [A], Miss.EXTRA),
        ([A], [A, B], Miss.MISSING),
        ([A, C], [A, B], Miss.MIXED),
        ([C], [A, B], Miss.MIXED),
    ],
)
def test_misses_of_sets(answered: list[Box], true: list[Box], miss: Miss) -> None:
    assert classify_set_miss(answered, true) is miss


# A run.

SAMPLES = [
    Sample("one", PICTURE, "one thing;", A, expect="any"),
    Sample("rejected", PICTURE, "rejected thing;", A, expect="any"),
    Sample("none", PICTURE, "none thing;", boxes=(), expect="any"),
    Sample("alarm", PICTURE, "alarm thing;", boxes=(), expect="any"),
    Sample("failed", PICTURE, "failed thing;", boxes=(), expect="all"),
    Sample("both", PICTURE, "both things;", boxes=(A, B), expect="all"),
    Sample("half", PICTURE, "half things;", boxes=(A, B), expect="all"),
    Sample("usual", PICTURE, "usual thing;", A),
]
ANSWERS = {
    "one thing": text(A),
    "rejected thing": NONE,
    "none thing": NONE,
    "alarm thing": text(B),
    "failed thing": "</think> I cannot answer.",
    "both things": text(B, A),
    "half things": text(A),
    "usual thing": text(A),
}


def run(folder: Path, samples: list[Sample] = SAMPLES, answers: dict[str, str] = ANSWERS) -> list[Record]:
    script = {phrase: Completion(said, answer_logprob=-0.1) for phrase, said in answers.items()}
    evaluate(samples, Grounder(ScriptedBackend(script), CODEC), folder, progress=False)
    return read_whole_run(folder)[1]


def test_a_run_is_scored_kept_and_gone_on_with(tmp_path: Path) -> None:
    records = run(tmp_path / "run")
    hits = {record.id: record.hit() for record in records}
    assert hits == {
        **dict.fromkeys(("one", "none", "both", "usual"), True),
        **dict.fromkeys(("rejected", "alarm", "failed", "half"), False),
    }
    by_id = {record.id: record for record in records}
    assert by_id["both"].boxes == (B.corners, A.corners)
    assert by_id["none"].is_none
    assert by_id["none"].failure is None
    assert by_id["failed"].failure == "refused"
    assert by_id["one"].confidences == (pytest.approx(0.9048, abs=1e-4),)
    lines = [json.loads(line) for line in (tmp_path / "run/journal.jsonl").read_text().splitlines()]
    assert {"expect", "truths", "boxes", "confidences"}.isdisjoint(
        next(row for row in lines if row.get("id") == "usual")
    )
    assert "answer []" in lines[0]["prompt"]["any"]
    assert run(tmp_path / "run") == records
    totals = json.loads((tmp_path / "run/summary.json").read_text())["all"]["sets"]
    assert totals == {
        "n": 7,
        "none": 3,
        "f1": pytest.approx((1 + 0 + 1 + 0 + 0 + 1 + 2 / 3) / 7),
        "n_acc": pytest.approx(1 / 3),
        "false_alarms": pytest.approx(1 / 3),
        "false_rejections": pytest.approx(1 / 4),
    }


def test_a_report_knows_all_three(tmp_path: Path) -> None:
    records = run(tmp_path / "run")
    summary = interval_summary(records, draws=200)
    assert summary.sets is not None
    assert (summary.sets.rows, summary.sets.none, summary.sets.several) == (7, 3, 2)
    values = {key: estimate.value for key, estimate in summary.sets.estimates.items()}
    assert values["acc_one"] == 0.5
    assert values["n_acc"] == values["false_alarms"] == pytest.approx(1 / 3)
    assert values["precision@0.5"] == pytest.approx((1 + 0 + 1 + 0 + 0 + 1 + 1) / 7)
    assert values["recall@0.5"] == pytest.approx((1 + 0 + 1 + 0 + 0 + 1 + 0.5) / 7)
    assert summary.sets.average_precision is not None
    assert summary.pooled["acc@0.5"].value == 0.5
    assert summary.no_box == {"refused": 1}
    assert summary.misses == {"no_box": 1, "false_alarm": 1, "false_rejection": 1, "missing": 1}
    [grid] = [grid for grid in summary_grids(summary) if grid.title == "none and many, %"]
    assert "rejection accuracy (N-acc)" in str(grid)
    assert "AP@0.5:0.95" in str(grid)
    assert interval_summary([r for r in records if r.id == "usual"], draws=200).to_dict().keys() == (
        summary.to_dict().keys() - {"sets"}
    )
    unsure = interval_summary([replace(record, confidences=None) for record in records], draws=200)
    assert unsure.sets is not None
    assert unsure.sets.average_precision is None
    assert "no average precision" in str(summary_grids(unsure))


def test_runs_are_compared_on_all_three(tmp_path: Path) -> None:
    first = run(tmp_path / "first")
    second = run(
        tmp_path / "second", answers=ANSWERS | {"alarm thing": NONE, "half things": text(A, B), "one thing": NONE}
    )
    comparison = compare(first, second, draws=200)
    assert (comparison.mcnemar.only_a, comparison.mcnemar.only_b) == (1, 2)
    assert comparison.missed_by_a == {"false_alarm": 1, "missing": 1}
    assert comparison.missed_by_b == {"false_rejection": 1}
    other = [replace(record, truths=(A.corners, C.corners)) if record.id == "both" else record for record in second]
    with pytest.raises(DataError, match="not about the same dataset"):
        compare(first, other, draws=200)
    assert misses_of(first).count(None) == 4


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"expect": "some"}, 'its expect is "some", not one of one, any, all'),
        ({"expect": "one"}, "expects one: ask it with expect=all"),
        ({"truths": [[0, 0, 20, 20]]}, "its true boxes twice"),
        ({"truth": [0, 0, 20, 20]}, "its true boxes twice"),
        ({"truths": None}, "its truth is null, not four finite numbers"),
        ({"truths": [[0, 0, 20, 20], [1, 1]]}, "its truths is"),
        ({"boxes": [[0, 0, 20, 20]]}, "not those of an answer that begins with its box"),
        ({"confidences": [0.5]}, "1 confidences of 2 boxes"),
        ({"confidences": [0.5, 2]}, "numbers from 0 to 1"),
        ({"iou": 0.4}, "has an IoU of 0.4, and its boxes one of 1"),
    ],
)
def test_damage_is_told(tmp_path: Path, damage: dict[str, object], said: str) -> None:
    run(tmp_path)
    path = tmp_path / "journal.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    [row] = [row for row in rows if row.get("id") == "both"]
    row.update(damage)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    with pytest.raises(DataError) as error:
        read_whole_run(path)
    assert said in str(error.value)


def test_what_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    for sample, said in (
        (Sample("1", PICTURE, "it", boxes=()), "nothing matches, and expects one: ask it with expect=any or all"),
        (Sample("1", PICTURE, "it", boxes=(A, B), expect="any"), "several true boxes, and expects any"),
        (Sample("1", PICTURE, "it", expect="all"), "has no true box, so no answer can be scored"),
    ):
        with pytest.raises(DataError) as error:
            run(tmp_path, [sample])
        assert said in str(error.value)


def test_a_family_without_a_word_for_none_is_named(tmp_path: Path) -> None:
    said = get_codec("internvl").target("x", [A, B], size=(100, 100))
    subject = Grounder(ScriptedBackend({"both things": said, "none thing": "There is none."}), get_codec("internvl"))
    asked = [SAMPLES[5], replace(SAMPLES[2], expect="all")]
    evaluate(asked, subject, tmp_path, progress=False)
    records = read_whole_run(tmp_path)[1]
    assert [record.hit() for record in records] == [True, True]
    [note] = run_notes(records, "internvl")
    assert note == "codec internvl has no answer for 'nothing matches': where all boxes were asked for, words say it"
    assert run_notes(records, "qwen3_vl_instruct") == []


def test_expect_may_be_given_for_all(tmp_path: Path) -> None:
    samples = [Sample("1", PICTURE, "it", A)]
    subject = Grounder(ScriptedBackend([NONE]), CODEC)
    evaluate(samples, subject, tmp_path, expect="any", progress=False)
    [record] = read_whole_run(tmp_path)[1]
    assert (record.expect, record.is_none, record.hit()) == ("any", True, False)
    assert misses_of([record]) == [Miss.FALSE_REJECTION]
    with pytest.raises(DataError, match="holds another run"):
        evaluate(samples, Grounder(ScriptedBackend([NONE]), CODEC), tmp_path, progress=False)
