"""A server is examined over HTTP; references are found, and those that do not fit are refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from egm.backends import GenerationSettings, Request
from egm.backends.retry import RetryPolicy
from egm.doctor import EngineVerdict, examine_backend, examine_server, known_defects, read_recording, write_recording
from egm.doctor.examine import find_reference
from egm.doctor.recording import Recording, shipped_recording
from egm.errors import BackendError, EgmError
from egm.progress import ProgressDisplay, ProgressTask
from egm.types import Completion

from . import fakes
from .replayed import Replayed
from .served import served
from .test_diagnose import Stale, answer_alone, names

SMALL = ["224", "twin-1", "twin-2", "twin-3", "twin-4", "tall", "5:1", "turned"]


class Asked(ProgressDisplay):
    """Keeps how far tasks were when they ended."""

    def __init__(self, stream: io.StringIO) -> None:
        super().__init__(stream)
        self.ended: list[tuple[str, float | None, float]] = []

    def remove(self, task: ProgressTask, *, keep: bool = False) -> None:
        self.ended.append((task.name, task.total, task.done))
        super().remove(task, keep=keep)


def examine(engine: Any, **options: Any) -> Any:
    with served(engine, **options) as url:
        return examine_server(url, pictures=SMALL)


def test_a_good_server_is_right_whole_and_streamed_and_at_once() -> None:
    engine = Replayed()
    with served(engine, logprobs=True) as url, Asked(io.StringIO()) as display:
        found = examine_server(url)
    assert (found.diagnosis.verdict, found.diagnosis.findings) == (EngineVerdict.RIGHT, ())
    assert display.ended == [("asking", 51, 51)]  # as many as were foretold
    seen = found.observation
    assert len(seen.together) == 16
    assert (len(seen.alone), len(seen.warm), len(seen.whole), len(seen.files)) == (24, 4, 2, 3)
    assert list(seen.fields) == ["role", "content"]
    assert all(one.logprob == pytest.approx(0, abs=1e-5) for one in found.diagnosis.comparisons)
    assert json.loads(json.dumps(found.to_dict()))["exit_code"] == 0


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_that_is_moved_is_read_where_it_is(field: str) -> None:
    def parsed(reply: Completion) -> dict[str, Any]:
        thought, _, answer = reply.text.rpartition("\n</think>\n\n")
        return {"content": answer, **({field: thought} if thought else {})}

    found = examine(Replayed(), fields=parsed)
    assert (found.diagnosis.verdict, found.diagnosis.findings) == (EngineVerdict.RIGHT, ())
    assert field in found.observation.fields


def test_reasoning_that_no_client_reads_is_lost_and_its_field_named() -> None:
    def parsed(reply: Completion) -> dict[str, Any]:
        thought, _, answer = reply.text.rpartition("</think>")
        return {"content": answer.strip(), "thinking": thought}

    diagnosis = examine(Replayed(), fields=parsed).diagnosis
    assert (diagnosis.verdict, names(diagnosis)) == (EngineVerdict.WRONG, ["reasoning_lost"])
    assert "its message has thinking too" in diagnosis.findings[0].seen


def test_a_stale_prefix_cache_behind_a_server() -> None:
    diagnosis = examine(Stale()).diagnosis
    assert (diagnosis.verdict, names(diagnosis)) == (EngineVerdict.WRONG, ["stale_prefix"])


def test_replies_that_are_other_when_they_are_whole() -> None:
    diagnosis = examine(Replayed(), whole=lambda reply: replace(reply, text=reply.text[6:])).diagnosis
    assert (diagnosis.verdict, names(diagnosis)) == (EngineVerdict.WRONG, ["stream_differs"])


def test_exif_that_is_passed_over_is_said_and_no_alarm() -> None:
    diagnosis = examine(Replayed(), turn=False).diagnosis
    assert diagnosis.verdict is EngineVerdict.RIGHT
    assert ["turned" in note for note in diagnosis.notes].count(True) == 1


def test_egm_tiny_with_a_dropped_newline_behind_a_server() -> None:
    with served(fakes.dropped_newline()) as url:
        found = examine_server(url, pictures=["224", "tall", "odd-1", "448"], rounds=["alone"], max_new_tokens=60)
    assert (found.diagnosis.verdict, names(found.diagnosis)) == (EngineVerdict.WRONG, ["template_newline"])


class Failing(Replayed):
    """Fails at some pictures."""

    def answer(self, request: Request, settings: GenerationSettings) -> Completion:
        reply = super().answer(request, settings)
        return replace(reply, finish_reason="abort") if self.asked[-1] in self.failing else reply

    failing: Sequence[str] = ()


# ---- references


def test_what_is_served_must_be_the_reference(tmp_path: Path) -> None:
    recording = replace(shipped_recording(), weights="0" * 16, model="other")
    write_recording(recording, tmp_path / "other.json")
    with pytest.raises(EgmError, match=r"the reference is of other weights \(other, 0{16}\) than 'egm-tiny'"):
        find_reference(tmp_path / "other.json", served="egm-tiny")
    assert find_reference(tmp_path / "other.json", served="somebody/else") == recording


def test_a_model_without_a_recording_needs_a_reference() -> None:
    with pytest.raises(EgmError, match=r"there is no recording of 'nvidia/EGM-8B' here: give .* --reference MODEL"):
        find_reference(None, served="nvidia/EGM-8B")
    with pytest.raises(EgmError, match="there is no model 'nothing'"):
        find_reference("nothing", served="nvidia/EGM-8B")
    with pytest.raises(EgmError, match="was asked by codec 'qwen3_vl', not 'internvl'"):
        find_reference("egm-tiny", served="nvidia/EGM-8B", codec="internvl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.pop("egm_doctor"), "is no recording of egm doctor: make it again"),
        (lambda value: value.update(egm_doctor=2), "is a recording in format 2, and this EGM reads 1: make it again"),
        (lambda value: value.update(pictures=0), "was made with other pictures"),
        (lambda value: value.pop("weights"), "is a damaged recording: weights: Field required"),
        (lambda value: value.update(max_new_tokens="many"), "is a damaged recording: max_new_tokens: "),
        (lambda value: value["answers"][0]["leads"].pop(), "tokens of '224' are missing"),
        (lambda value: value["answers"].pop(0), "the recording of egm-tiny lacks picture '224'"),
        (lambda value: value["answers"][0].update(digest="0"), "was made with another picture '224'"),
    ],
)
def test_recordings_that_do_not_serve(tmp_path: Path, change: Any, message: str) -> None:
    file = tmp_path / "recording.json"
    write_recording(shipped_recording(), file)
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))
    with pytest.raises(EgmError) as error:
        examine_backend(Replayed(), read_recording(file))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_json_is_no_recording(tmp_path: Path) -> None:
    file = tmp_path / "recording.json"
    file.write_text("{")
    with pytest.raises(EgmError, match=r"is not JSON.*it is no recording"):
        read_recording(file)


def test_a_recording_comes_back_as_it_was_written(tmp_path: Path) -> None:
    recording = shipped_recording()
    write_recording(recording, tmp_path / "recording.json")
    assert read_recording(tmp_path / "recording.json") == recording


def test_the_shipped_recording_is_of_the_shipped_model_and_pictures() -> None:
    from egm.backends.checkpoint import find_checkpoint, tensors_digest
    from egm.doctor import built_in_pictures

    recording: Recording = shipped_recording()
    assert recording.weights == tensors_digest(find_checkpoint("egm-tiny").path)
    for picture in built_in_pictures():
        assert recording.answer_to(picture).ends[-1] == len(recording.answer_to(picture).text) + 1
    assert set(recording.simulated) == {"positions", "positions_counted", "align_corners"}


def test_servers_that_are_no_engine() -> None:
    with pytest.raises(BackendError, match="does not say which models it serves"):
        examine_server("http://127.0.0.1:9/v1")
    engine = Failing()
    engine.failing = ["224"]
    with pytest.raises(BackendError, match="did not answer"), served(engine) as url:
        examine_server(url, retry=RetryPolicy(retries=0))


def test_what_was_not_answered_is_a_note_a_reason() -> None:
    engine = Failing()
    engine.failing = ["tall", "odd-1", "448", "wide"]
    with served(engine) as url:
        found = examine_server(url, pictures=["224", *engine.failing], rounds=["alone"], retry=RetryPolicy(retries=0))
    [note] = [note for note in found.diagnosis.notes if note.startswith("no answer")]
    assert re.fullmatch(r"no answer to .+, .+, .+ and 1 more: .+", note)


def test_every_defect_has_what_a_reader_needs() -> None:
    assert all(one.title and one.symptom.endswith(".") and one.advice.endswith(".") for one in known_defects().values())
    assert answer_alone(Completion("a</think>\n\nb")).text == "b"
