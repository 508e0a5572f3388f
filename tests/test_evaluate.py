from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image

from egm.backends import Backend, GenerationSettings, Request, ScriptedBackend
from egm.backends.retry import RetryPolicy
from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets import flip_sample, open_dataset
from egm.environment import cpu_name
from egm.errors import BackendError, DataError, EgmError, ImageError
from egm.evaluate import Evaluation, evaluate
from egm.evaluate.progress import RunningCounts, progress_bar
from egm.grounder import Grounder
from egm.journal import Record, read_journal
from egm.progress import ProgressDisplay
from egm.types import Completion, Sample

from .backends.faulty_server import FaultyServer, fail, say

RIGHT = '</think> [{"bbox_2d": [0, 0, 500, 500]}]'
HALF = '</think> [{"bbox_2d": [0, 0, 250, 500]}]'
WRONG = '</think> [{"bbox_2d": [500, 500, 1000, 1000]}]'
NONE = "</think> I cannot see it."


def sample(index: int, image: Image.Image | Path, **facts: object) -> Sample:
    return Sample(f"s{index}", image, f"thing {index};", Box(0, 0, 20, 10), **facts)  # type: ignore[arg-type]


def picture() -> Image.Image:
    return Image.new("RGB", (40, 20), "teal")


def samples(count: int, *, each: int = 2) -> list[Sample]:
    pictures = [picture() for _ in range(-(-count // each))]
    return [sample(i, pictures[i // each]) for i in range(count)]


def scripted(script: dict[str, str | Completion] | list[str], **options: object) -> Grounder:
    return Grounder(ScriptedBackend(script), get_codec("qwen3_vl"), **options)  # type: ignore[arg-type]


def number(request: Request) -> int:
    """The number of the sample that a request asks about."""
    return int(request.messages[0]["content"][-1]["text"].partition("thing ")[2].partition(";")[0])


class Failing(Backend):
    """Answers right, but fails for a batch that holds one of some samples."""

    model = "failing"

    def __init__(self, *bad: int) -> None:
        self.bad, self.asked, self.draws = bad, list[int](), dict[int, int]()

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        if any(number(request) in self.bad for request in requests):
            raise BackendError("the server\nhung up")
        self.asked += map(number, requests)
        self.draws |= {number(request): request.seed_index for request in requests}
        return [Completion(RIGHT) for _ in requests]


def failing(*bad: int, batch_size: int = 8) -> Grounder:
    return Grounder(Failing(*bad), get_codec("qwen3_vl"), batch_size=batch_size)


def asked(grounder: Grounder) -> list[int]:
    assert isinstance(grounder.backend, Failing)
    return grounder.backend.asked


def numbers(result: Evaluation) -> list[int]:
    return [int(record.id[1:]) for record in result.records]


def test_numbers_and_records(tmp_path: Path) -> None:
    script = {
        "thing 0;": Completion(RIGHT, "stop", 50, 12, 0.25),
        "thing 1;": Completion(HALF, "stop", 52, 8, 0.75),
        "thing 2;": WRONG,
        "thing 3;": NONE,
        "thing 4;": Completion("I think", "length", 50, 2),
    }
    result = evaluate(samples(5), scripted(script), tmp_path, name="toy", progress=False)
    whole = result.summary()["all"]
    assert (whole["n"], whole["accuracy"], whole["mean_iou"]) == (5, 0.4, 0.3)
    assert (whole["failures"], whole["errors"], whole["truncated"]) == ({"refused": 1, "truncated": 1}, {}, 1)
    assert result.summary()["splits"] == {"toy": whole}
    assert json.loads((tmp_path / "summary.json").read_text()) == result.summary()
    first = next(record for record in result.records if record.id == "s0")
    assert first == Record(
        "s0", "toy:s0", "thing 0;", (0, 0, 20, 10), (40, 20), False, "toy", RIGHT, (0, 0, 20, 10),
        iou=1.0, prompt_tokens=50, completion_tokens=12, seconds=0.25, cold=True,
    )  # fmt: skip
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept["settings"] == json.loads(json.dumps(asdict(GenerationSettings())))
    assert {"python", "egm", "numpy"} <= kept["versions"].keys()
    assert kept["versions"]["hardware"] == cpu_name()  # which latencies are of
    assert kept["command"] == sys.argv
    assert kept["prompt"]["modal"] == "Locate PHRASE, output its bbox coordinates using JSON format."


def test_first_questions_of_a_block_come_before_their_siblings(tmp_path: Path) -> None:
    result = evaluate(samples(18, each=3), failing(batch_size=1), tmp_path, progress=False)
    assert numbers(result) == [0, 3, 6, 9, 1, 2, 4, 5, 7, 8, 10, 11, 12, 15, 13, 14, 16, 17]
    assert [int(r.id[1:]) for r in result.records if r.cold] == [0, 3, 6, 9, 12, 15]


def test_splits_share_pictures_but_not_ids(tmp_path: Path) -> None:
    image = picture()
    image.save(tmp_path / "a.png")
    data = {"x": [sample(0, tmp_path / "a.png")], "y": [sample(0, tmp_path / "a.png"), sample(1, image)]}
    result = evaluate(data, failing(), tmp_path / "run", progress=False)
    assert [(r.split, r.id, r.image, r.cold) for r in result.records] == [
        ("x", "s0", "a.png", True),
        ("y", "s1", "y:s1", True),
        ("y", "s0", "a.png", False),
    ]
    assert result.header.images == str(tmp_path)
    assert {name: split["n"] for name, split in result.summary()["splits"].items()} == {"x": 1, "y": 2}


def test_going_on_asks_only_what_is_left_and_with_its_own_draw(tmp_path: Path) -> None:
    whole = evaluate(samples(10), failing(batch_size=1), tmp_path / "whole", progress=False)
    part = tmp_path / "part"
    part.mkdir()
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for count in (0, 1, 4, 10):
        (part / "journal.jsonl").write_bytes(b"".join(lines[: 1 + count]) + (b'{"id": "s' if count < 10 else b""))
        grounder = failing(batch_size=1)
        assert evaluate(samples(10), grounder, part, progress=False).records == whole.records
        assert asked(grounder) == numbers(whole)[count:]
        assert (part / "summary.json").read_bytes() == (tmp_path / "whole" / "summary.json").read_bytes()


def test_a_draw_depends_on_split_and_id_alone(tmp_path: Path) -> None:
    def draws(data: dict[str, list[Sample]], name: str) -> dict[int, int]:
        grounder = failing()
        evaluate(data, grounder, tmp_path / name, progress=False)
        assert isinstance(grounder.backend, Failing)
        return grounder.backend.draws

    ten = draws({"x": samples(10)}, "ten")
    assert len(set(ten.values())) == 10
    assert (
        draws({"y": samples(1), "x": samples(10)[:2:-1]}, "other").items() >= {k: ten[k] for k in range(3, 10)}.items()
    )
    assert draws({"y": samples(10)}, "y")[5] != ten[5]


def test_pictures_inside_a_file_are_read_as_they_are_asked_about(tmp_path: Path) -> None:
    files = []
    for size in ((40, 20), (40, 21)):
        stream = io.BytesIO()
        Image.new("RGB", size, "teal").save(stream, "PNG")
        files.append(stream.getvalue())
    row = {"question_id": "1", "bbox": [0.0, 0.0, 20.0, 10.0]}
    rows = [
        row
        | {"file_name": f"COCO_train2014_{n // 2:012d}_{n}.jpg", "image": {"bytes": data}, "answer": [f"thing {n};"]}
        for n, data in enumerate([files[0], files[0], files[1], None])
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "val.parquet")
    data = open_dataset(tmp_path / "val.parquet")
    result = evaluate({data.name: data}, failing(), tmp_path / "run", max_errors=1.0, progress=False)
    # Two referents in one picture are one cluster, and the picture is new once.
    assert [(r.image, r.cold, r.size, r.failure) for r in result.records] == [
        ("COCO_train2014_000000000000.jpg", True, (40, 20), None),
        ("COCO_train2014_000000000001.jpg", True, (40, 21), None),
        ("COCO_train2014_000000000000.jpg", False, (40, 20), None),
        ("COCO_train2014_000000000001.jpg", False, None, "error"),
    ]
    assert result.records[-1].error == "DataError: row 4 has no picture in column image"
    assert result.header.images == ""


def test_the_command_is_kept_without_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["egm", "eval", "--server=https://me:secret@host:1/v1"])
    evaluate(samples(1), failing(), tmp_path, progress=False)
    assert read_journal(tmp_path)[0].command == ("egm", "eval", "--server=https://host:1/v1")
    assert "secret" not in (tmp_path / "run.json").read_text() + (tmp_path / "journal.jsonl").read_text()


@pytest.mark.parametrize(
    ("grounder", "data", "says"),
    [
        (scripted([]), samples(4), 'model is "scripted", was "failing"'),
        (failing(batch_size=2), samples(4), "concurrency is 2, was 8"),
        (Grounder(Failing(), get_codec("internvl")), samples(4), 'codec.name is "internvl"'),
        (Grounder(Failing(), get_codec("qwen3_vl"), prompt="grounding"), samples(4), "prompt.style is"),
        (
            Grounder(Failing(), get_codec("qwen3_vl"), settings=GenerationSettings(seed=1)),
            samples(4),
            "settings.seed is 1, was 0",
        ),
        (failing(), samples(5), "datasets.samples.n is 5, was 4"),
        (failing(), samples(4)[::-1], "datasets.samples.digest is"),
        (failing(), [replace(s, box=Box(0, 0, 1, 1)) for s in samples(4)], "datasets.samples.digest is"),
        (failing(), [replace(s, phrase="x") for s in samples(4)], "datasets.samples.digest is"),
    ],
)
def test_another_run_in_the_folder_is_refused(
    tmp_path: Path, grounder: Grounder, data: list[Sample], says: str
) -> None:
    evaluate(samples(4), failing(), tmp_path, progress=False)
    content = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(DataError, match="holds another run") as caught:
        evaluate(data, grounder, tmp_path, progress=False)
    assert says in str(caught.value)
    assert (tmp_path / "journal.jsonl").read_bytes() == content


class Terminal(io.StringIO):
    """A terminal, as a stream tells that it is one."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar_and_what_was_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    evaluate(samples(10), failing(), tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")
    for name, value in (("COLUMNS", "200"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    evaluate(samples(10), failing(1, 2), tmp_path / "run", max_errors=1.0)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"evaluating .* \d+ of 10, ", shown)
    evaluate(samples(10), failing(), tmp_path / "run", max_errors=1.0)
    assert "10 of 10 answers were there already\n" in terminal.getvalue()
    assert capfd.readouterr() == ("", "")


def test_off_a_terminal_a_line_says_how_good_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    stream, now = io.StringIO(), [0.0]
    counts = RunningCounts(4, 1.0)
    with ProgressDisplay(stream, clock=lambda: now[0]) as display, progress_bar(counts, enabled=True) as update:
        counts.add(Record("a", "", "cup", (0.0, 0.0, 1.0, 1.0), iou=1.0, box=(0.0, 0.0, 1.0, 1.0)))
        counts.add(Record("b", "", "cup", (0.0, 0.0, 1.0, 1.0), failure="error", error="BackendError: no"))
        update()
        now[0] = 60.0
        display.tick()
    assert stream.getvalue() == "evaluating: 2 of 4, Acc@0.5 50.00, 1 error, 30.0 s each, 0:01:00 to go\n"
    assert capfd.readouterr() == ("", "")


def test_a_run_that_goes_on_says_what_was_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evaluate(samples(4), failing(1, batch_size=2), tmp_path, max_errors=1.0)
    assert capfd.readouterr() == ("", "")
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:3]))
    evaluate(samples(4), failing(batch_size=2), tmp_path, max_errors=1.0)
    assert capfd.readouterr() == ("", "2 of 4 answers were there already\n")


# ---- errors


def test_errors_are_counted_by_kind_and_stay_in_the_denominator(tmp_path: Path) -> None:
    data = [*samples(6), sample(6, tmp_path / "gone.png"), replace(sample(7, picture()), phrase=" ")]
    result = evaluate(data, failing(2, 3), tmp_path / "run", max_errors=0.5, progress=False)
    whole = result.summary()["all"]
    assert (whole["n"], whole["accuracy"], whole["failures"]) == (8, 0.5, {})
    assert whole["errors"] == {"BackendError": 2, "ImageError": 1, "PhraseError": 1}
    assert result.stopped is None
    failed = next(record for record in result.records if record.id == "s2")
    assert (failed.error, failed.finish_reason) == ("BackendError: the server hung up", None)
    assert (failed.iou, failed.text) == (0.0, "")


def test_too_many_errors_end_a_run_and_keep_what_was_done(tmp_path: Path) -> None:
    data = samples(1000, each=1)
    grounder = failing(*range(300, 1000), batch_size=1)
    result = evaluate(data, grounder, tmp_path, max_errors=0.1, progress=False)
    assert result.stopped is not None
    assert "'BackendError: the server hung up'" in result.stopped
    assert numbers(result) == list(range(334))  # 34 of 334 is the first share above 0.1
    again = evaluate(data, failing(batch_size=1), tmp_path, max_errors=0.1, progress=False)
    assert (again.records, again.stopped) == (result.records, result.stopped)
    mended = failing(batch_size=1)
    final = evaluate(data, mended, tmp_path, max_errors=0.1, retry_errors=True, progress=False)
    assert (final.stopped, asked(mended)) == (None, list(range(300, 1000)))
    assert (final.summary()["all"]["n"], final.summary()["all"]["accuracy"]) == (1000, 1.0)


def test_a_few_errors_at_the_start_do_not_end_a_run(tmp_path: Path) -> None:
    result = evaluate(samples(400), failing(0, 1, 2), tmp_path, max_errors=0.02, progress=False)
    assert (result.stopped, len(result.records)) == (None, 400)


@pytest.mark.parametrize("count", [1, 3])
def test_no_error_allowed(tmp_path: Path, count: int) -> None:
    result = evaluate(samples(count), failing(0), tmp_path, max_errors=0.0, progress=False)
    assert (len(result.records), result.stopped is None) == (1, False)


def test_what_cannot_be_evaluated(tmp_path: Path) -> None:
    for data, says in (
        ([], "there is nothing to evaluate: toy holds no samples"),
        ([replace(sample(0, picture()), box=None)], "toy: sample 's0' has no true box"),
        ([sample(0, picture()), sample(0, picture())], "toy: 2 samples have the id 's0'"),
    ):
        with pytest.raises(DataError, match=says):
            evaluate(data, failing(), tmp_path / "run", name="toy")
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(EgmError, match="out of range"):
            evaluate(samples(1), failing(), tmp_path / "run", max_errors=share)
    assert not (tmp_path / "run").exists()


# ---- a clock that jumps


class Clock(datetime):
    """A wall clock that has gone back an hour each time somebody looks at it."""

    looks = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        Clock.looks += 1
        return datetime(2026, 1, 1, tzinfo=tz) - timedelta(hours=Clock.looks)


def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody may set the machine's clock for a test, so what reads it is replaced.
    monkeypatch.setattr("time.time", lambda: Clock.now(UTC).timestamp())
    monkeypatch.setattr("egm.evaluate.plan.datetime", Clock)
    data = samples(6)
    late = fail(429, retry_after="Thu, 01 Jan 2026 00:00:00 GMT")  # hours ahead of the clock by the time it is read
    with FaultyServer({"": [say(RIGHT)], "thing 2": [late, say(RIGHT)], "thing 4": [fail(400), say(RIGHT)]}) as server:
        retry = RetryPolicy(backoff=0.0, retry_after_most=0.05)
        for name, options in (("run", {}), ("run", {"retry_errors": True})):
            grounder = Grounder.connect(server.url, concurrency=2, retry=retry)
            result = evaluate(data, grounder, tmp_path / name, max_errors=1.0, progress=False, **options)  # type: ignore[arg-type]
        count = len(server.asked)
    assert "hardware" not in result.header.versions  # which a server does not tell
    assert Clock.looks > 2
    assert count == 6 + 2  # each once, and what was told to come again, and the error
    assert sorted(numbers(result)) == list(range(6))
    assert result.summary()["all"]["accuracy"] == 1.0
    for record in result.records:
        assert 0 < (record.first_token_seconds or 0) <= record.seconds < 60
        assert 0 <= record.queue_seconds < 60


@pytest.mark.parametrize(
    ("said", "box", "stored", "turned"),
    [
        ((1280, 960), Box(640, 480, 1280, 960), (640, 480), 1),  # a copy scaled down
        ((320, 240), Box(160, 120, 320, 240), (640, 480), 1),  # and up
        ((640, 480), Box(320, 240, 640, 480), (640, 480), 6),  # turned by EXIF, the row in stored pixels
        ((480, 640), Box(240, 320, 480, 640), (640, 480), 1),  # sides swapped
        (None, Box(640, 480, 1280, 960), (640, 480), 1),  # the same name in another folder, and a row without a size
    ],
)
def test_a_row_about_another_picture_is_an_error_and_no_answer(
    tmp_path: Path, said: tuple[int, int] | None, box: Box, stored: tuple[int, int], turned: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    Image.new("RGB", stored).save(tmp_path / "a.jpg", exif=exif)
    wrong = Sample("wrong", tmp_path / "a.jpg", "it", box, said)
    upright = stored if turned == 1 else stored[::-1]
    right = Sample("right", tmp_path / "a.jpg", "it", Box(0, 0, upright[0] / 2, upright[1] / 2), upright)
    result = evaluate([wrong, right], scripted([RIGHT]), tmp_path / "run", max_errors=1, progress=False)
    by_id = {record.id: record for record in result.records}
    assert by_id["right"].iou == 1
    assert by_id["wrong"].failure == "error"
    assert "ImageError: the " in str(by_id["wrong"].error)
    assert f"{upright[0]} x {upright[1]}" in str(by_id["wrong"].error)
    assert result.summary()["all"]["errors"] == {"ImageError": 1}
    with pytest.raises(ImageError, match="item 1: the "):
        scripted([RIGHT]).ground_many([right, wrong], progress=False)
    if said is not None:
        with pytest.raises(ImageError, match="the row says"):
            flip_sample(wrong)
