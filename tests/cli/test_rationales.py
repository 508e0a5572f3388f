"""`egm rationales` against a server that answers by script: what is asked, kept and dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from egm.rationales.ledger import Decision, read_ledger
from egm.rationales.mark import COLOURS

from ..backends.faulty_server import FaultyServer, Play, fail, say, texts
from .conftest import Egm
from .explaining import GOOD, calls, good, good_script, make, phrase, room, rows


def test_what_is_asked_and_what_comes_out(egm: Egm) -> None:
    with FaultyServer(good_script(4)) as server:
        done = egm(*make(room(4), server, "--json"))
        shown = server.pictures()
    assert done.code == 0
    here = Path.cwd()
    report, sft = done.next.split(", then ")
    assert report == f"egm rationales report run --images {here}"
    assert sft == f"egm sft RECIPE.yaml --set data.train=run/train.jsonl --set data.images={here}"
    assert {name: json.loads(done.out)[name] for name in ("total", "kept", "dropped", "failed", "tries")} == {
        "total": 4,
        "kept": 4,
        "dropped": 0,
        "failed": 0,
        "tries": 4,
    }
    assert [row["rationale"] for row in rows()] == [good(number) for number in range(4)]
    assert [row["sent"] for row in rows()] == [phrase(number) for number in range(4)]
    asked = ["\n".join(texts(query)) for query in server.asked]
    for number, text in enumerate(asked):
        assert phrase(number) in text
        assert "[125, 250, 375, 667]" in text  # the box in thousandths
        assert "{" not in text
    colour = next(line.colour for line in calls(read_ledger("run")[1]))
    assert colour is not None
    assert colour in asked[0]
    for _, picture in shown:
        assert picture.convert("RGB").getpixel((19, 50)) == COLOURS[colour]
        assert picture.convert("RGB").getpixel((40, 50)) == (200, 200, 200)
    assert {(query["temperature"], query["max_tokens"]) for query in server.asked} == {(0.7, 800)}


def test_a_teacher_that_reads_coordinates_sees_no_mark(egm: Egm) -> None:
    with FaultyServer(good_script(1)) as server:
        assert egm(*make(room(1), server, "--no-mark")).code == 0
        [(_, picture)] = server.pictures()
    assert picture.convert("RGB").getcolors() == [(160 * 120, (200, 200, 200))]
    assert "rectangle" not in "\n".join(texts(server.asked[0]))


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (say("Die Tasse steht links neben dem Buch, und nur sie hat einen Henkel, der nach oben zeigt."), "language"),
        (say('<tool_call>{"name": "zoom", "arguments": {"box": [1, 2, 3, 4]}}</tool_call>'), "failure"),
        (say("", usage={"prompt_tokens": 7, "completion_tokens": 1}), "failure"),
        (say("[[125, 250, 375, 667]]"), "failure"),
        (say("I'm sorry, but I can't help with identifying things in this picture."), "failure"),
        (say(GOOD.format("cup", "corner")[:40], finish="length"), "failure"),
        (say("It is the cup that the green rectangle holds, since it alone has a handle here."), "leak"),
        (say("The cup."), "length"),
        (say(f"{good(0)} \ud83d"), "failure"),  # half an emoji, which no file of training data can hold
        (say(f"\x1b[31m{good(0)}"), "failure"),
    ],
)
def test_a_bad_answer_is_dropped_with_its_reason_and_asked_for_again(egm: Egm, bad: Play, name: str) -> None:
    script = good_script(2) | {phrase(0): [bad, say(good(0))]}
    with FaultyServer(script) as server:
        done = egm(*make(room(2), server, "--json"))
    assert (done.code, json.loads(done.out)["kept"], json.loads(done.out)["tries"]) == (0, 2, 3)
    assert name in json.loads(done.out)["filters"]
    decisions = [line for line in read_ledger("run")[1] if isinstance(line, Decision)]
    assert [bool(decision.against) for decision in decisions] == [True, False, False]
    assert decisions[0].against[name]
    assert [row["rationale"] for row in rows()] == [good(0), good(1)]
    seeds = [query["seed"] for query in server.asked if phrase(0) in "\n".join(texts(query))]
    assert len(set(seeds)) == 2  # or the second try would be the first again


def test_after_all_tries_a_sample_is_dropped_and_nothing_is_patched(egm: Egm) -> None:
    with FaultyServer(good_script(2) | {phrase(0): [say("Analysis failed: error code 500")]}) as server:
        done = egm(*make(room(2), server, "--tries", 2, "--json"))
    numbers = json.loads(done.out)
    assert (done.code, numbers["kept"], numbers["dropped"], numbers["tries"]) == (0, 1, 1, 3)
    assert [row["sent"] for row in rows()] == [phrase(1)]
    assert "Analysis failed" not in Path("run/train.jsonl").read_text()


def test_reasoning_before_the_answer_is_no_rationale(egm: Egm) -> None:
    with FaultyServer({"": [say("<think>The box is given as 125.</think>\n\n" + good(0))]}) as server:
        assert egm(*make(room(1), server)).code == 0
    assert rows()[0]["rationale"] == good(0)


def test_a_call_that_failed_is_no_answer_and_the_same_command_asks_it_again(egm: Egm) -> None:
    script = good_script(3) | {phrase(1): [fail(400, "no such picture"), say(good(1))]}
    with FaultyServer(script) as server:
        command = make(room(3), server)
        broken = egm(*command)
        assert broken.code == 1
        assert "error: 1 samples are without an answer: BackendError: 'tiny' at" in broken.err
        assert "no such picture" in broken.err
        assert [row["sent"] for row in rows()] == [phrase(0), phrase(2)]
        assert len(calls(read_ledger("run")[1], failed=True)) == 1
        mended = egm(*command)
        assert mended.code == 0
        assert len(server.asked) == 4
    assert [row["rationale"] for row in rows()] == [good(number) for number in range(3)]


def test_a_row_that_training_would_refuse_is_not_paid_for(egm: Egm) -> None:
    dataset = room(3)
    dataset.write_text(dataset.read_text().replace("[20, 30, 60, 80]", "[120, 30, 180, 80]", 1))
    with FaultyServer(good_script(3)) as server:
        done = egm(*make(dataset, server))
        assert len(server.asked) == 2
    assert done.code == 1
    assert "the true box 120, 30, 180, 80 passes the edge of its picture of 160 x 120" in done.err
    assert [row["sent"] for row in rows()] == [phrase(1), phrase(2)]


def test_a_teacher_that_calls_a_tool_or_is_kept_back_has_not_answered(egm: Egm) -> None:
    call = Play(({"tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},), finish="tool_calls")
    kept_back = say(good(1), finish="content_filter")
    with FaultyServer(good_script(2) | {phrase(0): [call, say(good(0))], phrase(1): [kept_back]}) as server:
        done = egm(*make(room(2), server, "--json"))
    assert (done.code, json.loads(done.out)["kept"], json.loads(done.out)["tries"]) == (1, 1, 1)
    assert "content filter" in done.err
    assert [row["rationale"] for row in rows()] == [good(0)]


def test_a_missing_key_is_what_the_server_says_and_no_key_is_shown(egm: Egm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-teacher")
    with FaultyServer({"": [fail(401, "Incorrect API key provided: sk-of-the-teacher")]}) as server:
        done = egm(*make(room(2), server))
    assert done.code == 1
    assert "401" in done.err
    assert "sk-of-the-teacher" not in done.err + Path("run/journal.jsonl").read_text()


def test_the_blind_check_gets_a_key_of_its_own(egm: Egm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-teacher")
    box = say('</think> [{"bbox_2d": [125, 250, 375, 667]}]')
    with FaultyServer(good_script(1)) as server, FaultyServer({"": [box]}, models=("finder",)) as finder:
        command = make(room(1), server, "--blind", "finder", "--blind-server", finder.url)
        assert egm(*command).code == 0
        assert server.headers[0]["authorization"] == "Bearer sk-of-the-teacher"
        assert "sk-of-the-teacher" not in str(finder.headers)


def test_the_blind_check_decides_and_does_not_see_the_box(egm: Egm) -> None:
    right, wrong = (say(f'</think> [{{"bbox_2d": {box}}}]') for box in ([125, 250, 375, 667], [600, 0, 900, 200]))
    none = say("</think> I see none.")
    script = good_script(3)
    with (
        FaultyServer(script) as server,
        FaultyServer({phrase(0): [right], phrase(1): [wrong, right], phrase(2): [none]}, models=("f",)) as finder,
    ):
        command = make(room(3), server, "--blind", "f", "--blind-server", finder.url, "--tries", 2, "--json")
        done = egm(*command)
        shown = ["\n".join(texts(query)) for query in finder.asked]
        [*pictures] = finder.pictures()
    numbers = json.loads(done.out)
    assert (numbers["kept"], numbers["dropped"], numbers["filters"]) == (2, 1, {"blind": 3})
    assert all("125" not in text for text in shown)
    assert [good(number) in shown[place] for place, number in ((0, 0), (1, 1), (3, 2))] == [True] * 3
    assert all(len(picture.convert("RGB").getcolors() or ()) == 1 for _, picture in pictures)  # without a mark
    decisions = [line for line in read_ledger("run")[1] if isinstance(line, Decision)]
    assert decisions[0].iou == pytest.approx(1, abs=0.01)
    assert decisions[1].against == {"blind": "the blind check's box has an IoU of 0.00 with the true one"}
    assert decisions[-1].against == {"blind": "the blind check gave no box"}
    done = egm("rationales", "report", "run", "--images", ".", "--json")
    assert json.loads(done.out)["filters"]["blind"] == 3
