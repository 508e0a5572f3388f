"""How runs of `egm rationales` end, go on and are refused: budgets, bad teachers, bad input, a full disk, no model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from egm.rationales.ledger import read_ledger

from ..backends.faulty_server import FaultyServer, fail, say, texts
from .conftest import Egm
from .explaining import calls, good, good_script, make, phrase, room, rows


def test_a_budget_of_tokens_ends_the_run_cleanly_and_more_goes_on(egm: Egm) -> None:
    usage = {"prompt_tokens": 700, "completion_tokens": 300}
    script = {phrase(number): [say(good(number), usage=usage)] for number in range(5)}
    with FaultyServer(script) as server:
        ended = egm(*make(room(5), server, "--budget", "3400tokens"))
        assert ended.code == 0
        assert "the budget of 3,400 tokens does not cover another call: 3 samples are left" in ended.err
        assert len(server.asked) == 2  # the third may take as much as the others' 700 and its limit of 800
        assert len(rows()) == 2
        assert "not asked, as the budget of 3,400 tokens" in Path("run/README.md").read_text()
        through = egm(*make(room(5), server, "--budget", "10000tokens", "--json"))
        assert len(server.asked) == 5
    assert json.loads(through.out)["cost"] == {
        "calls": 5,
        "prompt": 3500,
        "completion": 1500,
        "money": 0.0,
        "uncounted": 0,
    }
    assert [row["rationale"] for row in rows()] == [good(number) for number in range(5)]


def test_a_budget_of_money_is_counted_by_the_price_list(egm: Egm) -> None:
    Path("prices.yaml").write_text("currency: usd\nmodels:\n  tiny: {input: 1000, output: 2000}\n")
    usage = {"prompt_tokens": 600, "completion_tokens": 100}
    script = {phrase(number): [say(good(number), usage=usage)] for number in range(4)}
    with FaultyServer(script) as server:
        command = make(room(4), server, "--prices", "prices.yaml", "--json")
        ended = egm(*command, "--budget", "3.9usd")
        numbers = json.loads(ended.out)
        assert (ended.code, len(server.asked)) == (0, 3)  # a call takes at most 0.6 + 1.6 usd, and 0.8 in the event
        assert numbers["stopped"] == "the budget of 3.9 usd does not cover another call"
        assert numbers["cost"]["money"] == pytest.approx(2.4)
        assert json.loads(egm(*command).out)["cost"]["money"] == pytest.approx(3.2)
    assert "3.2 usd" in Path("run/README.md").read_text()


def test_tokens_that_a_server_does_not_count_are_taken_for_the_most(egm: Egm) -> None:
    with FaultyServer({phrase(n): [say(good(n), usage=None)] for n in range(4)}) as server:
        numbers = json.loads(egm(*make(room(4), server, "--budget", "3000tokens", "--json")).out)
    assert numbers["cost"]["uncounted"] == len(server.asked) < 4
    assert 800 * len(server.asked) < numbers["cost"]["prompt"] + numbers["cost"]["completion"] <= 3000


def test_what_a_server_charges_for_replies_that_are_no_answers_counts_against_the_budget(egm: Egm) -> None:
    usage = {"prompt_tokens": 700, "completion_tokens": 300}
    kept_back, empty = say(good(0), finish="content_filter", usage=usage), say("", usage=usage)
    script = good_script(6) | {phrase(0): [kept_back], phrase(1): [empty, say(good(1), usage=usage)]}
    with FaultyServer(script) as server:
        command = make(room(6), server, "--json", "--budget")
        ended = egm(*command, "3900tokens")
        assert (ended.code, len(server.asked)) == (1, 3)
        cost = json.loads(ended.out)["cost"]
        assert (cost["calls"], cost["prompt"], cost["completion"]) == (1, 2100, 900)
        again = json.loads(egm(*command, "3900tokens").out)["cost"]
        assert (again["prompt"], again["completion"]) == (2100, 900)  # as the journal has it
        assert len(server.asked) == 3
    assert "2,000 of the tokens brought no answer" in Path("run/README.md").read_text()
    assert [(call.lost, call.tokens) for call in calls(read_ledger("run")[1])] == [((700, 300), (700, 300))]
    assert [call.lost for call in calls(read_ledger("run")[1], failed=True)] == [(700, 300)]


def test_tries_that_bring_no_answer_do_not_lead_beyond_the_budget(egm: Egm) -> None:
    usage = {"prompt_tokens": 700, "completion_tokens": 300}
    script = {phrase(0): [say(good(0), usage=usage)], phrase(1): [say("", usage=usage)]}
    with FaultyServer(script) as server:
        command = make(room(2), server, "--json", "--budget")
        ended = egm(*command, "3500tokens")
        assert (ended.code, len(server.asked)) == (1, 3)  # the third try might take more than is left
        cost = json.loads(ended.out)["cost"]
        assert cost["prompt"] + cost["completion"] == 3000
        assert "after 2 tries" in str(calls(read_ledger("run")[1], failed=True)[0].error)
        assert egm(*command, "3500tokens").code == 0
        assert len(server.asked) == 3


def test_a_dry_run_prints_a_whole_request_and_the_estimate_and_asks_nothing(egm: Egm) -> None:
    Path("prices.yaml").write_text("currency: usd\nmodels:\n  tiny: {input: 1, output: 4}\n")
    with FaultyServer({}) as server:
        done = egm(*make(room(3), server, "--dry-run", "--prices", "prices.yaml", "--budget", "1usd"))
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


def test_a_dry_run_starts_no_engine(egm: Egm) -> None:
    command = ("rationales", room(1), "--teacher", "egm-tiny", "--serve", "egm", "--out", "run", "--dry-run")
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


def test_a_teacher_whose_answers_are_dropped_nine_times_in_ten_is_reported_after_fifty(egm: Egm) -> None:
    with FaultyServer({"": [say("Die Tasse steht links neben dem Buch, und nur sie hat einen Henkel.")]}) as server:
        command = make(room(60), server, "--tries", 1)
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
    assert "\ncard: run\n" in done.out


def test_a_server_that_fails_every_call_is_reported_after_fifty(egm: Egm) -> None:
    with FaultyServer({"": [fail(404, "no such model")]}) as server:
        done = egm(*make(room(60), server))
        assert (done.code, len(server.asked)) == (1, 50)
    assert "50 of the last 50 calls failed: BackendError: 'tiny' at" in done.err
    assert "no such model" in done.err
    told = egm("rationales", "report", "run").out
    assert "kept 0 of 60 samples, in 0 tries, 50 without an answer: BackendError: 'tiny' at" in told


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
    egm: Egm, change: tuple[str, ...], named: str
) -> None:
    with FaultyServer(good_script(3)) as server:
        command = make(room(3), server)
        assert egm(*command).code == 0
        journal = Path("run/journal.jsonl").read_bytes()
        refused = egm(*command, *change)
        assert (refused.code, len(server.asked)) == (2, 3)
    assert named in refused.err
    assert "choose another folder (--out)" in refused.err
    assert refused.err.count("\n") == 1
    assert Path("run/journal.jsonl").read_bytes() == journal


def test_another_phrase_or_another_wording_is_another_run(egm: Egm) -> None:
    from egm.rationales.styles import STYLES_FILE

    with FaultyServer(good_script(3)) as server:
        command = make(room(3), server)
        assert egm(*command).code == 0
        Path("mine.yaml").write_text(STYLES_FILE.read_text().replace("In one or two sentences", "In a sentence"))
        assert "style.digest is" in egm(*command, "--styles", "mine.yaml").err
        dataset = Path("room.jsonl")
        dataset.write_text(dataset.read_text().replace("cup", "mug"))
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
    "prefill for nobody": (("--blind-prefill",), "--blind-prefill is how a blind check is asked, and there is none"),
    "two servers": (("--serve", "egm"), "--serve starts a server, and --server names one that is there"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=BAD)
def test_bad_options_are_refused_before_anything_is_asked(egm: Egm, options: tuple[str, ...], said: str) -> None:
    Path("prices.yaml").write_text("currency: usd\nmodels:\n  tiny: {input: 1, output: 4}\n")
    Path("typo.yaml").write_text("currency: usd\nmodels:\n  tiny: {imput: 1, output: 4}\n")
    Path("words.yaml").write_text("currency: usd\nmodels:\n  tiny: {input: cheap, output: 4}\n")
    Path("filter.yaml").write_text("leek: {}\n")
    Path("style.yaml").write_text(
        "official: {about: a, words: [1, 9], boxes: false, prompt: 'Why is {phrase} at {box} {mark}?'}\n"
    )
    with FaultyServer(good_script(1)) as server:
        refused = egm(*make(room(1), server), *options)
        assert server.asked == []
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert said in refused.err
    assert not Path("run").exists()


def test_a_full_disk_ends_the_run_and_space_lets_it_go_on(tmp_path: Path) -> None:
    run = "import sys; from egm.cli import main; main()"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000)); "
    with FaultyServer(good_script(12)) as server:
        options = ("--teacher", "tiny", "--server", server.url, "--out", "run", "--concurrency", "1")
        command = [sys.executable, "-c", run, "rationales", str(room(12, tmp_path)), *options]
        full = [part.replace("main()", f"{limit}main()") if part == run else part for part in command]
        # Bytecode that is compiled under the limit would be cut off, and stay.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        ended = subprocess.run(full, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
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


def test_the_offline_teacher_explains_sample_by_sample(egm: Egm) -> None:
    """So its shards, which are merged sample by sample, make the data of the whole run."""
    command = ("rationales", "synthref/train", "--teacher", "synthref", "--limit", 30, "--out", "run", "--corrupt", 0.9)
    assert egm(*command, "--go-on").code == 0
    order = [line.id for line in read_ledger(Path("run"))[1]]
    assert len(order) > 2 * 30
    assert [name for name, _ in groupby(order)] == list(dict.fromkeys(order))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--style", "self"), "the offline teacher does not speak 'self'"),
        (("--server", "http://127.0.0.1:9"), "leave out --server and --serve"),
        (("--no-mark",), "leave out --no-mark"),
        (("--seed", "0"), "leave out --seed"),
        (("--temperature", "0"), "leave out --temperature"),
        (("--concurrency", "2"), "leave out --concurrency"),
        (("--device", "cpu"), "leave out --device and --dtype"),
        (("--shard", "4/3"), "there is no shard 4 of 3"),
        (("--shard", "1/3"), "1 pictures cannot be dealt out to 3 shards"),
        (("--corrupt", "1.5"), "the rates of all defects make 1.5"),
        (("--styles", "mine.yaml"), "--styles is for teachers that are asked in words"),
    ],
)
def test_what_the_offline_teacher_has_no_use_for(egm: Egm, options: tuple[str, ...], said: str) -> None:
    command = ("rationales", "synthref/train", "--teacher", "synthref", "--limit", 3, "--out", "run", *options)
    refused = egm(*command)
    assert (refused.code, said in refused.err) == (2, True)
    assert not Path("run").exists()


def test_another_run_is_refused_before_a_picture_is_drawn(egm: Egm) -> None:
    command = ("rationales", "synthref/train", "--teacher", "synthref", "--out", "run", "--limit")
    assert egm(*command, 4).code == 0
    before = sorted(Path("run").rglob("*"))
    for words, said in (
        ((*command, 8), "data.n is 8, was 4"),
        ((*command, 4, "--tries", 2), "tries is 2, was 3"),
        ((*command, 8, "--shard", "1/2"), "shard.count is 2, was null"),
        (("rationales", "synthref/val", *command[2:], 4), 'data.name is "synthref/val", was "synthref/train"'),
    ):
        refused = egm(*words)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert f"'run' holds another run: {said}" in refused.err or f"; {said}" in refused.err
        assert sorted(Path("run").rglob("*")) == before


def test_shards_are_merged_and_gone_on_with_to_the_data_of_the_whole(egm: Egm) -> None:
    command = ("rationales", "synthref/train", "--teacher", "synthref", "--limit", 40, "--corrupt", 0.3, "--out")
    dry = egm(*command, "1", "--shard", "1/2", "--dry-run").out
    assert dry == "20 samples, worded without a model: nothing is asked, and nothing paid\n"
    for number in (1, 2):
        assert egm(*command, number, "--shard", f"{number}/2").code == 0
    merged = egm("rationales", "merge", "2", "1", "--out", "run", "--json")
    assert (merged.code, merged.err) == (0, "")
    numbers = json.loads(merged.out)
    assert (numbers["samples"], numbers["remarks"]) == (40, [])
    assert "shard 2 of 2 is missing" in egm("rationales", "merge", "1", "--out", "part").err
    told = egm("rationales", "merge", "1", "--out", "part", "--allow-partial")
    assert (told.code, "shard 2 of 2 is missing" in told.err) == (0, True)
    assert told.out.startswith("kept ")
    for folder in ("run", "whole"):
        assert egm(*command, folder).code == 0
    assert Path("run/train.jsonl").read_bytes() == Path("whole/train.jsonl").read_bytes()


def test_the_offline_teacher_explains_a_part_of_what_has_no_end(egm: Egm) -> None:
    refused = egm("rationales", "synthref/train", "--teacher", "synthref", "--out", "run")
    assert (refused.code, "has no end" in refused.err) == (2, True)
    dry = egm("rationales", "synthref/train", "--teacher", "synthref", "--limit", 3, "--out", "run", "--dry-run")
    assert dry.out == "3 samples, worded without a model: nothing is asked, and nothing paid\n"
    assert not Path("run").exists()
