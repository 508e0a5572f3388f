"""`egm rationales` against a server that answers by script: what is asked, kept, dropped, paid, refused and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.rationales.ledger import Call, Decision, read_ledger
from egm.rationales.mark import COLOURS

from ..backends.faulty_server import FaultyServer, Play, fail, say, texts
from .conftest import Egm

PLACES = ("corner", "middle", "shelf", "window", "table", "door", "carpet", "lamp", "curtain", "chair")
THINGS = ("cup", "book", "vase", "clock", "plate", "bottle")
GOOD = "Among the things here only the {0} near the {1} has a handle like that, which leads there and nowhere else."
Data = Callable[[int], Path]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Make a dataset of so many phrases, no two of which are part of one another."""

    def make(count: int) -> Path:
        Image.new("RGB", (160, 120), (200, 200, 200)).save(tmp_path / "room.png")
        rows = [
            {"image": "room.png", "sent": phrase(n), "bbox": [20, 30, 60, 80], "width": 160, "height": 120}
            for n in range(count)
        ]
        (tmp_path / "room.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "room.jsonl"

    return make


def phrase(number: int) -> str:
    return f"{THINGS[number % len(THINGS)]} at the {PLACES[number // len(THINGS) % len(PLACES)]}"


def good(number: int) -> str:
    """A rationale that nothing speaks against, unlike any other."""
    words = phrase(number).split()
    return GOOD.format(words[0], words[-1])


def good_script(count: int) -> dict[str, list[Play]]:
    return {phrase(number): [say(good(number))] for number in range(count)}


def make(dataset: Path, server: FaultyServer, *more: object) -> tuple[object, ...]:
    command = ("rationales", dataset, "--teacher", "tiny", "--server", server.url, "--out", "run", "--concurrency", 1)
    # These rationales are of one make; and whether RefCOCO is at hand is no matter.
    Path("filters.yaml").write_text("failure: {}\nleak: {}\nlanguage: {}\nlength: {least: 8, most: 90}\n")
    return (*command, "--filters", "filters.yaml", *more)


def rows(name: str = "train.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("run", name).read_text().splitlines()]


def calls(lines: list[Any], *, failed: bool = False) -> list[Call]:
    return [line for line in lines if isinstance(line, Call) and (line.error is not None) == failed]


def test_what_is_asked_and_what_comes_out(egm: Egm, data: Data) -> None:
    with FaultyServer(good_script(4)) as server:
        done = egm(*make(data(4), server, "--json"))
        shown = server.pictures()
    assert done.code == 0
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


def test_a_teacher_that_reads_coordinates_sees_no_mark(egm: Egm, data: Data) -> None:
    with FaultyServer(good_script(1)) as server:
        assert egm(*make(data(1), server, "--no-mark")).code == 0
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
    ],
)
def test_a_bad_answer_is_dropped_with_its_reason_and_asked_for_again(
    egm: Egm, data: Data, bad: Play, name: str
) -> None:
    script = good_script(2) | {phrase(0): [bad, say(good(0))]}
    with FaultyServer(script) as server:
        done = egm(*make(data(2), server, "--json"))
    assert (done.code, json.loads(done.out)["kept"], json.loads(done.out)["tries"]) == (0, 2, 3)
    assert name in json.loads(done.out)["filters"]
    decisions = [line for line in read_ledger("run")[1] if isinstance(line, Decision)]
    assert [bool(decision.against) for decision in decisions] == [True, False, False]
    assert decisions[0].against[name]
    assert [row["rationale"] for row in rows()] == [good(0), good(1)]
    seeds = [query["seed"] for query in server.asked if phrase(0) in "\n".join(texts(query))]
    assert len(set(seeds)) == 2  # or the second try would be the first again


def test_after_all_tries_a_sample_is_dropped_and_nothing_is_patched(egm: Egm, data: Data) -> None:
    with FaultyServer(good_script(2) | {phrase(0): [say("Analysis failed: error code 500")]}) as server:
        done = egm(*make(data(2), server, "--tries", 2, "--json"))
    numbers = json.loads(done.out)
    assert (done.code, numbers["kept"], numbers["dropped"], numbers["tries"]) == (0, 1, 1, 3)
    assert [row["sent"] for row in rows()] == [phrase(1)]
    assert "Analysis failed" not in Path("run/train.jsonl").read_text()


def test_reasoning_before_the_answer_is_no_rationale(egm: Egm, data: Data) -> None:
    with FaultyServer({"": [say("<think>The box is given as 125.</think>\n\n" + good(0))]}) as server:
        assert egm(*make(data(1), server)).code == 0
    assert rows()[0]["rationale"] == good(0)


def test_a_call_that_failed_is_no_answer_and_the_same_command_asks_it_again(egm: Egm, data: Data) -> None:
    script = good_script(3) | {phrase(1): [fail(400, "no such picture"), say(good(1))]}
    with FaultyServer(script) as server:
        command = make(data(3), server)
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


def test_a_teacher_that_calls_a_tool_or_is_kept_back_has_not_answered(egm: Egm, data: Data) -> None:
    call = Play(({"tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},), finish="tool_calls")
    kept_back = say(good(1), finish="content_filter")
    with FaultyServer(good_script(2) | {phrase(0): [call, say(good(0))], phrase(1): [kept_back]}) as server:
        done = egm(*make(data(2), server, "--json"))
    assert (done.code, json.loads(done.out)["kept"], json.loads(done.out)["tries"]) == (1, 1, 1)
    assert "content filter" in done.err
    assert [row["rationale"] for row in rows()] == [good(0)]


def test_a_missing_key_is_what_the_server_says_and_no_key_is_shown(
    egm: Egm, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-teacher")
    with FaultyServer({"": [fail(401, "Incorrect API key provided: sk-of-the-teacher")]}) as server:
        done = egm(*make(data(2), server))
    assert done.code == 1
    assert "401" in done.err
    assert "sk-of-the-teacher" not in done.err + Path("run/journal.jsonl").read_text()


def test_the_blind_check_gets_a_key_of_its_own(egm: Egm, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-teacher")
    box = say('</think> [{"bbox_2d": [125, 250, 375, 667]}]')
    with FaultyServer(good_script(1)) as server, FaultyServer({"": [box]}, models=("finder",)) as finder:
        command = make(data(1), server, "--blind", "finder", "--blind-server", finder.url)
        assert egm(*command).code == 0
        assert server.headers[0]["authorization"] == "Bearer sk-of-the-teacher"
        assert "sk-of-the-teacher" not in str(finder.headers)


def test_the_blind_check_decides_and_does_not_see_the_box(egm: Egm, data: Data) -> None:
    right, wrong = (say(f'</think> [{{"bbox_2d": {box}}}]') for box in ([125, 250, 375, 667], [600, 0, 900, 200]))
    none = say("</think> I see none.")
    script = good_script(3)
    with (
        FaultyServer(script) as server,
        FaultyServer({phrase(0): [right], phrase(1): [wrong, right], phrase(2): [none]}, models=("f",)) as finder,
    ):
        command = make(data(3), server, "--blind", "f", "--blind-server", finder.url, "--tries", 2, "--json")
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


def test_a_budget_of_tokens_ends_the_run_cleanly_and_more_goes_on(egm: Egm, data: Data) -> None:
    usage = {"prompt_tokens": 700, "completion_tokens": 300}
    script = {phrase(number): [say(good(number), usage=usage)] for number in range(5)}
    with FaultyServer(script) as server:
        ended = egm(*make(data(5), server, "--budget", "3400tokens"))
        assert ended.code == 0
        assert "the budget of 3,400 tokens does not cover another call: 3 samples are left" in ended.err
        assert len(server.asked) == 2  # the third may take as much as the others' 700 and its limit of 800
        assert len(rows()) == 2
        assert "not asked, as the budget of 3,400 tokens" in Path("run/README.md").read_text()
        through = egm(*make(data(5), server, "--budget", "10000tokens", "--json"))
        assert len(server.asked) == 5
    assert json.loads(through.out)["cost"] == {
        "calls": 5,
        "prompt": 3500,
        "completion": 1500,
        "money": 0.0,
        "uncounted": 0,
    }
    assert [row["rationale"] for row in rows()] == [good(number) for number in range(5)]


def test_a_budget_of_money_is_counted_by_the_price_list(egm: Egm, data: Data) -> None:
    Path("prices.yaml").write_text("currency: usd\nmodels:\n  tiny: {input: 1000, output: 2000}\n")
    usage = {"prompt_tokens": 600, "completion_tokens": 100}
    script = {phrase(number): [say(good(number), usage=usage)] for number in range(4)}
    with FaultyServer(script) as server:
        command = make(data(4), server, "--prices", "prices.yaml", "--json")
        ended = egm(*command, "--budget", "3.9usd")
        numbers = json.loads(ended.out)
        assert (ended.code, len(server.asked)) == (0, 3)  # a call takes at most 0.6 + 1.6 usd, and 0.8 in the event
        assert numbers["stopped"] == "the budget of 3.9 usd does not cover another call"
        assert numbers["cost"]["money"] == pytest.approx(2.4)
        assert json.loads(egm(*command).out)["cost"]["money"] == pytest.approx(3.2)
    assert "3.2 usd" in Path("run/README.md").read_text()


def test_tokens_that_a_server_does_not_count_are_taken_for_the_most(egm: Egm, data: Data) -> None:
    with FaultyServer({phrase(n): [say(good(n), usage=None)] for n in range(4)}) as server:
        numbers = json.loads(egm(*make(data(4), server, "--budget", "3000tokens", "--json")).out)
    assert numbers["cost"]["uncounted"] == len(server.asked) < 4
    assert 800 * len(server.asked) < numbers["cost"]["prompt"] + numbers["cost"]["completion"] <= 3000


def test_a_dry_run_prints_a_whole_request_and_the_estimate_and_asks_nothing(egm: Egm, data: Data) -> None:
    Path("prices.yaml").write_text("currency: usd\nmodels:\n  tiny: {input: 1, output: 4}\n")
    with FaultyServer({}) as server:
        done = egm(*make(data(3), server, "--dry-run", "--prices", "prices.yaml", "--budget", "1usd"))
        assert (server.asked, server.fetched) == ([], [])
    assert done.code == 0
    head, _, rest = done.out.partition("\n}\n")
    request = json.loads(head + "}")
    assert request["model"] == "tiny"
    assert phrase(0) in "\n".join(texts(request))
    assert "(image/png, 160 x 120 px, " in head
    assert "3 samples: 3 calls to tiny, up to 9 where all of 3 tries are dropped" in rest
    assert "usd" in rest
    assert "the run ends before it would take more than 1 usd" in rest
    assert not Path("run").exists()


def test_a_dry_run_starts_no_engine(egm: Egm, data: Data) -> None:
    command = ("rationales", data(1), "--teacher", "egm-tiny", "--serve", "egm", "--out", "run", "--dry-run")
    done = egm(*command)
    assert (done.code, "starting" in done.err) == (0, False)
    assert json.loads(done.out.partition("\n}\n")[0] + "}")["model"] == "egm-tiny"


def test_an_engine_is_started_for_teacher_and_blind_check_and_ended(egm: Egm) -> None:
    options = ("--style", "self", "--temperature", 0, "--tries", 1, "--blind-prefill")
    command = ("rationales", "synthref/train", "--limit", 1, "--teacher", "egm-tiny", "--serve", "egm", "--out", "run")
    assert egm(*command, *options, "--blind", "egm-tiny").code == 0
    header, lines = read_ledger("run")
    assert (header["identity"]["teacher"]["serve"], header["identity"]["blind"]["serve"]) == ("egm", "egm")
    assert [line.asked for line in calls(lines)] == ["teacher", "blind"]
    assert len(rows()) == 1
    other = egm(*command, *options, "--blind", "other")
    assert (other.code, "--serve starts 'egm-tiny' alone: give --blind-server" in other.err) == (2, True)


def test_a_teacher_whose_answers_are_dropped_nine_times_in_ten_is_reported_after_fifty(egm: Egm, data: Data) -> None:
    with FaultyServer({"": [say("Die Tasse steht links neben dem Buch, und nur sie hat einen Henkel.")]}) as server:
        command = make(data(60), server, "--tries", 1)
        done = egm(*command)
        assert done.code == 1
        assert "50 of the last 50 answers were dropped (language 50): mend style or teacher, or --go-on" in done.err
        assert len(server.asked) == 50
        assert egm(*command).code == 1  # and not asked for more
        assert len(server.asked) == 50
        assert egm(*command, "--go-on").code == 0
        assert len(server.asked) == 60
    assert not Path("run/train.jsonl").exists()
    assert "no rationale was kept" in done.err


def test_a_server_that_fails_every_call_is_reported_after_fifty(egm: Egm, data: Data) -> None:
    with FaultyServer({"": [fail(404, "no such model")]}) as server:
        done = egm(*make(data(60), server))
        assert (done.code, len(server.asked)) == (1, 50)
    assert "50 of the last 50 calls failed: BackendError: 'tiny' at" in done.err
    assert "no such model" in done.err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--style", "amodal"), 'style.name is "amodal", was "official"'),
        (("--teacher", "other"), 'teacher.model is "other", was "tiny"'),
        (("--no-mark",), "teacher.mark is false, was true"),
        (("--seed", "1"), "teacher.settings.seed is 1, was 0"),
        (("--tries", "2"), "tries is 2, was 3"),
        (("--limit", "2"), "data.n is 2, was 3"),
        (("--blind", "tiny"), "blind"),
    ],
)
def test_a_run_with_another_style_teacher_or_data_is_not_gone_on_with(
    egm: Egm, data: Data, change: tuple[str, ...], named: str
) -> None:
    with FaultyServer(good_script(3)) as server:
        command = make(data(3), server)
        assert egm(*command).code == 0
        journal = Path("run/journal.jsonl").read_bytes()
        refused = egm(*command, *change)
        assert (refused.code, len(server.asked)) == (2, 3)
    assert named in refused.err
    assert "choose another folder (--out)" in refused.err
    assert refused.err.count("\n") == 1
    assert Path("run/journal.jsonl").read_bytes() == journal


def test_another_phrase_or_another_wording_is_another_run(egm: Egm, data: Data) -> None:
    from egm.rationales.styles import STYLES_FILE

    with FaultyServer(good_script(3)) as server:
        command = make(data(3), server)
        assert egm(*command).code == 0
        Path("mine.yaml").write_text(STYLES_FILE.read_text().replace("In one or two sentences", "In a sentence"))
        assert "style.digest is" in egm(*command, "--styles", "mine.yaml").err
        room = Path("room.jsonl")
        room.write_text(room.read_text().replace("cup", "mug"))
        assert "data.digest is" in egm(*command).err


BAD = {
    "budget of nothing": (("--budget", "0tokens"), "pays for nothing: give more than 0"),
    "budget without a unit": (("--budget", "5"), "is no budget: give tokens, such as 200000tokens"),
    "money without prices": (("--budget", "5usd"), "nothing says what a token costs: give --prices FILE"),
    "other money": (("--budget", "5eur", "--prices", "prices.yaml"), "is not in usd, as the price list is"),
    "no such price": (("--prices", "prices.yaml", "--teacher", "tinny"), "has no 'tinny': did you mean 'tiny'"),
    "typo in prices": (
        ("--prices", "typo.yaml"),
        "prices typo.yaml: unknown key 'models.tiny.imput'; did you mean 'input'?",
    ),
    "price in words": (("--prices", "words.yaml"), "prices words.yaml: models.tiny.input"),
    "prices missing": (("--prices", "none.yaml"), "there is no file of prices at none.yaml"),
    "unknown style": (("--style", "oficial"), "there is no style 'oficial': did you mean 'official'"),
    "style with a place of its own": (("--styles", "style.yaml"), "prompt has the place {mark}"),
    "unknown filter": (("--filters", "filter.yaml"), "unknown filter 'leek': did you mean 'leak'"),
    "unknown format": (("--format", "llama"), "there is no format 'llama' of conversations"),
    "tries of one answer": (("--temperature", "0"), "3 tries at temperature 0 are one answer 3 times"),
    "corrupt a model": (("--corrupt", "0.1"), "--corrupt plants defects in what synthref says"),
    "two servers": (("--serve", "egm"), "--serve starts a server, and --server names one that is there"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=BAD)
def test_bad_options_are_refused_before_anything_is_asked(
    egm: Egm, data: Data, options: tuple[str, ...], said: str
) -> None:
    Path("prices.yaml").write_text("currency: usd\nmodels:\n  tiny: {input: 1, output: 4}\n")
    Path("typo.yaml").write_text("currency: usd\nmodels:\n  tiny: {imput: 1, output: 4}\n")
    Path("words.yaml").write_text("currency: usd\nmodels:\n  tiny: {input: cheap, output: 4}\n")
    Path("filter.yaml").write_text("leek: {}\n")
    Path("style.yaml").write_text(
        "official: {about: a, words: [1, 9], boxes: false, prompt: 'Why is {phrase} at {box} {mark}?'}\n"
    )
    with FaultyServer(good_script(1)) as server:
        refused = egm(*make(data(1), server), *options)
        assert server.asked == []
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert said in refused.err
    assert not Path("run").exists()


def test_a_full_disk_ends_the_run_and_space_lets_it_go_on(data: Data, tmp_path: Path) -> None:
    run = "import sys; from egm.cli import main; main()"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000)); "
    with FaultyServer(good_script(12)) as server:
        options = ("--teacher", "tiny", "--server", server.url, "--out", "run", "--concurrency", "1")
        command = [sys.executable, "-c", run, "rationales", str(data(12)), *options]
        full = [part.replace("main()", f"{limit}main()") if part == run else part for part in command]
        ended = subprocess.run(full, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "run/journal.jsonl" in ended.stderr
        assert "Traceback" not in ended.stderr
        before = len(server.asked)
        assert 0 < before < 12
        subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
        assert len(server.asked) <= 12 + 1  # the one whose answer the disk had no room for
    assert len(calls(read_ledger(tmp_path / "run")[1])) == 12


def test_the_offline_teacher_goes_on_and_reports(egm: Egm) -> None:
    command = ("rationales", "synthref/train", "--teacher", "synthref", "--limit", 30, "--out", "run", "--corrupt", 0.3)
    first = egm(*command, "--json")
    assert (first.code, first.err) == (0, "")
    numbers, data = json.loads(first.out), Path("run/train.jsonl").read_bytes()
    assert numbers["kept"] == len(rows()) < numbers["tries"]
    assert all(Path("run", row["image"]).is_file() for row in rows())
    journal = Path("run/journal.jsonl").read_bytes()
    Path("run/journal.jsonl").write_bytes(journal[: len(journal) // 2])
    assert egm(*command).code == 0
    assert Path("run/train.jsonl").read_bytes() == data
    report = egm("rationales", "report", "run")
    assert f"kept {numbers['kept']} of 30 samples, in {numbers['tries']} tries" in report.out
    assert Path("run/report.html").stat().st_size > 10_000
    checked = egm("data", "check", "run/train.jsonl", "--images", "run")
    assert (checked.code, "no problems" in checked.out) == (0, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--style", "self"), "the offline teacher does not speak 'self'"),
        (("--server", "http://127.0.0.1:9"), "leave out --server and --serve"),
        (("--no-mark",), "leave out --no-mark"),
        (("--corrupt", "1.5"), "the rates of all defects make 1.5"),
        (("--styles", "mine.yaml"), "--styles is for teachers that are asked in words"),
    ],
)
def test_what_the_offline_teacher_has_no_use_for(egm: Egm, options: tuple[str, ...], said: str) -> None:
    command = ("rationales", "synthref/train", "--teacher", "synthref", "--limit", 3, "--out", "run", *options)
    refused = egm(*command)
    assert (refused.code, said in refused.err) == (2, True)
    assert not Path("run").exists()


def test_the_offline_teacher_explains_a_part_of_what_has_no_end(egm: Egm) -> None:
    refused = egm("rationales", "synthref/train", "--teacher", "synthref", "--out", "run")
    assert (refused.code, "has no end" in refused.err) == (2, True)
    dry = egm("rationales", "synthref/train", "--teacher", "synthref", "--limit", 3, "--out", "run", "--dry-run")
    assert dry.out == "3 samples, worded without a model: nothing is asked, and nothing paid\n"
    assert not Path("run").exists()
