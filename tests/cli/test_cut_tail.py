"""`--cut-tail`: answers that end behind their box, noted in the journal and beside the figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from egm import example_picture
from egm.datasets.synthetic import SynthRef
from egm.journal import read_journal

from ..backends.faulty_server import FaultyServer, say
from .conftest import Egm

TEXT = 'Mine is a "label".\n</think>\n[{"bbox_2d": [0, 0, 500, 500], "label": "it"}]'
OPTIONS = ("synthref/val", "--scenes", 1, "--script", "script.txt")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    lines = [json.dumps(TEXT)[1:-1].replace('\\"', '"')] * len(SynthRef("val").samples(0))
    (tmp_path / "script.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "script.txt"


@pytest.mark.usefixtures("script")
def test_the_journal_says_so_and_the_boxes_are_the_same(egm: Egm) -> None:
    assert egm("eval", *OPTIONS, "--out", "cut", "--cut-tail").code == 0
    assert egm("eval", *OPTIONS, "--out", "whole").code == 0
    (header, cut), (plain, whole) = read_journal("cut"), read_journal("whole")
    assert (header.settings["stop"], plain.settings["stop"]) == (['"label"'], [])
    assert [record.box for record in cut] == [record.box for record in whole]
    assert all(record.box for record in cut)
    assert {record.finish_reason for record in cut} == {"stop_string"}
    assert {record.text for record in cut} == {TEXT.rpartition('"label"')[0]}
    outcome = egm("report", "cut")
    assert "answers end behind their box (--cut-tail)" in " ".join(outcome.out.split())
    assert "--cut-tail" not in egm("report", "whole").out
    # Read again from the journal: the same.
    assert egm("eval", *OPTIONS[:3], "--script", "cut", "--out", "again", "--cut-tail").code == 0
    assert [record.iou for record in read_journal("again")[1]] == [record.iou for record in cut]


@pytest.mark.usefixtures("script")
def test_whole_answers_of_a_journal_are_cut_as_they_are_replayed(egm: Egm) -> None:
    assert egm("eval", *OPTIONS, "--out", "whole").code == 0
    assert egm("eval", *OPTIONS[:3], "--script", "whole", "--out", "cut", "--cut-tail").code == 0
    whole, cut = read_journal("whole")[1], read_journal("cut")[1]
    assert [record.box for record in cut] == [record.box for record in whole]
    assert {record.text for record in cut} == {TEXT.rpartition('"label"')[0]}
    assert {(record.finish_reason, record.completion_tokens) for record in cut} == {("stop_string", None)}


@pytest.mark.usefixtures("script")
def test_another_choice_is_another_run_and_journals_from_before_had_made_none(egm: Egm) -> None:
    assert egm("eval", *OPTIONS, "--out", "run").code == 0
    journal = Path("run/journal.jsonl")
    text = journal.read_text()
    journal.write_text(text.replace(', "stop": []', "", 1))
    assert journal.read_text() != text
    assert egm("eval", *OPTIONS, "--out", "run").code == 0
    refused = egm("eval", *OPTIONS, "--out", "run", "--cut-tail")
    assert refused.code == 2
    assert 'settings.stop is ["\\"label\\""], was []' in refused.err


def test_of_a_server_and_refused_where_the_box_ends_the_answer(egm: Egm) -> None:
    command = ("ground", example_picture(), "the square", "--json", "--cut-tail")
    with FaultyServer({"": [say(TEXT.rpartition('"label"')[0])]}) as server:
        outcome = egm(*command, "--server", server.url)
        assert server.asked[0]["stop"] == ['"label"']
        refused = egm(*command, "--server", server.url, "--codec", "internvl")
        options = ("--concurrency", 1, "--requests", 1, "--rounds", 1, "--warmup", 0, "--json", "--cut-tail")
        measured = egm("bench", "latency", "--server", server.url, *options)
        assert server.asked[-1]["stop"] == ['"label"']
    answer = json.loads(outcome.out)
    assert (outcome.code, answer["tail_cut"], answer["repairs"]) == (0, True, [])
    assert refused.code == 2
    assert "codec 'internvl' has answers that end with their box: leave cut_tail (--cut-tail) out" in refused.err
    assert json.loads(measured.out)["cut_tail"] is True
