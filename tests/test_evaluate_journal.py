"""An evaluation and its journal: lines written as they come, kept, and checked when gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.backends import Backend, GenerationSettings, Request
from egm.boxes import Box
from egm.codecs import get_codec
from egm.errors import DataError
from egm.evaluate import evaluate
from egm.grounder import Grounder
from egm.journal import read_journal, read_whole_run
from egm.types import Completion, Sample

RIGHT = '</think> [{"bbox_2d": [0, 0, 500, 500]}]'


class Acting(Backend):
    """Answers right, and does something before each batch."""

    model = "acting"

    def __init__(self, act: Callable[[int], Any] = lambda batch: None, reply: Completion | None = None) -> None:
        self.act, self.batches, self.reply = act, 0, reply or Completion(RIGHT)

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        self.act(self.batches)
        self.batches += 1
        return [self.reply for _ in requests]


def samples(count: int) -> list[Sample]:
    # Of sizes that would put the first picture last, if batches were made by size.
    pictures = [Image.new("RGB", (40 + 8 * (count - number), 20)) for number in range(count)]
    return [Sample(f"s{i}", picture, f"thing {i}", Box(0, 0, 20, 10)) for i, picture in enumerate(pictures)]


def run(folder: Path, backend: Backend, count: int = 9, **options: Any) -> Any:
    return evaluate(
        samples(count), Grounder(backend, get_codec("qwen3_vl"), batch_size=2), folder, progress=False, **options
    )


@pytest.mark.parametrize("votes", [1, 2])
def test_a_batchs_answers_are_in_the_journal_before_the_next_is_asked(tmp_path: Path, votes: int) -> None:
    seen: list[int] = []

    def look(batch: int) -> None:
        seen.append(len(read_journal(tmp_path)[1]))

    settings = GenerationSettings(votes=votes, temperature=1.0)
    grounder = Grounder(Acting(look), get_codec("qwen3_vl"), batch_size=2, settings=settings)
    evaluate(samples(9), grounder, tmp_path, progress=False)
    step = 2 // votes
    assert seen == list(range(0, 9, step))


def deleted(file: Path) -> None:
    file.unlink()


def replaced(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)


def moved_away_with_its_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("elsewhere"))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def appended_to(file: Path) -> None:
    with file.open("ab") as other:
        other.write(b"{}\n")


@pytest.mark.parametrize("harm", [deleted, replaced, moved_away_with_its_folder, emptied, appended_to])
@pytest.mark.parametrize("when", [1, 4], ids=["under way", "at the last batch"])
def test_a_journal_that_is_harmed_under_a_run_ends_it(tmp_path: Path, harm: Callable[[Path], None], when: int) -> None:
    file = tmp_path / "run" / "journal.jsonl"
    backend = Acting(lambda batch: harm(file) if batch == when else None)
    with pytest.raises(DataError, match=r"journal.jsonl' (is gone|was replaced|was written to).* while the run") as end:
        run(file.parent, backend)
    assert "\n" not in str(end.value)
    assert backend.batches == when + 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "s99"}, "sample 's99' of samples is none of the samples that are evaluated"),
        ({"split": "other"}, "sample 's1' of other is none of the samples"),
        ({"phrase": "another thing"}, "sample 's1' of samples is 'thing 1' at"),
        ({"truth": [0.0, 0.0, 1.0, 1.0]}, "sample 's1' of samples is 'thing 1' at"),
        ({"iou": 0.25}, "sample 's1' of samples has an IoU of 0.25, and its boxes one of"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_going_on_refuses_a_record_that_is_none_of_the_run(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    run(tmp_path, Acting(), 4)
    file = tmp_path / "journal.jsonl"
    head, *rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1] |= change
    file.write_text("".join(json.dumps(row) + "\n" for row in [head, *rows]))
    content = file.read_bytes()
    with pytest.raises(DataError, match=says):
        run(tmp_path, Acting(), 4)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "reply",
    [
        Completion(RIGHT, completion_tokens=10**400),
        Completion(RIGHT, seconds=float("nan")),
        Completion(RIGHT, first_token_seconds=-1.0),
        Completion(RIGHT, finish_reason=["stop"]),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_what_an_engine_counts_absurdly_is_its_error_and_never_a_line_that_cannot_be_read(
    tmp_path: Path, reply: Completion
) -> None:
    result = run(tmp_path, Acting(reply=reply), 3, max_errors=1.0)
    assert result.summary()["all"]["errors"] == {"BackendError": 3}
    assert "the reply cannot be kept: its " in result.records[0].error


def test_a_log_probability_that_is_no_number_is_unknown(tmp_path: Path) -> None:
    result = run(tmp_path, Acting(reply=Completion(RIGHT, logprob=float("-inf"), answer_logprob=-0.5)), 1)
    assert [(r.logprob, r.answer_logprob, r.failure) for r in result.records] == [(None, -0.5, None)]


@pytest.mark.parametrize(
    "other",
    [{"phrase": "something else"}, {"truth": [1, 0, 20, 10]}, {"image": "b.png"}, {"amodal": True}, {"id": "s9"}],
)
def test_a_whole_journal_of_other_questions_than_its_header_names_is_refused(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    header = run(tmp_path, Acting(), 5).header
    file = tmp_path / "journal.jsonl"
    first, *rows = map(json.loads, file.read_text().splitlines())
    changed = [*rows[:2], {**rows[2], **other, "box": None, "iou": 0.0}, *rows[3:]]

    def put(*lines: dict[str, Any]) -> None:
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    put(first, *changed)
    with pytest.raises(DataError, match="holds answers to other questions than those of samples that its header"):
        read_whole_run(tmp_path)
    put(first, *rows[::-1])  # in any order
    assert len(read_whole_run(tmp_path)[1]) == 5
    put({**first, "datasets": {"samples": {"n": 5, "digest": header.datasets["samples"]["digest"]}}}, *changed)
    assert len(read_whole_run(tmp_path)[1]) == 5  # journals from before do not say
    put(first, *changed[:3])
    assert len(read_whole_run(tmp_path)[1]) == 3  # as a whole alone tells


def test_a_journal_from_before_questions_were_digested_in_any_order_goes_on(tmp_path: Path) -> None:
    run(tmp_path, Acting(), 5)
    file = tmp_path / "journal.jsonl"
    first, *rows = map(json.loads, file.read_text().splitlines())
    del first["datasets"]["samples"]["questions"]
    file.write_text("".join(json.dumps(line) + "\n" for line in (first, *rows[:2])))
    backend = Acting()
    assert (len(run(tmp_path, backend, 5).records), backend.batches) == (5, 2)
