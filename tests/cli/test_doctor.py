from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from egm.doctor import built_in_pictures, read_recording

from ..doctor.replayed import Replayed
from ..doctor.served import served
from ..doctor.test_diagnose import Stale
from .conftest import Egm

SMALL = [word for name in ("twin-1", "twin-2", "twin-3", "twin-4") for word in ("--picture", name)]


def test_a_good_server_is_a_table_and_exit_code_0(egm: Egm) -> None:
    with served(Replayed()) as url:
        outcome = egm("doctor", "--server", url)
    lines = outcome.out.splitlines()
    assert (outcome.code, lines[-1]) == (0, "right: all 24 texts are the reference's")
    assert lines[0].startswith("egm-tiny by test, against egm-tiny (NumpyBackend, weights ")
    assert sum("the same" in line for line in lines) == 24


def test_a_defect_is_named_with_what_to_do_and_exit_code_1(egm: Egm) -> None:
    with served(Stale()) as url:
        outcome = egm("doctor", "--server", url, "--reference", "egm-tiny", *SMALL)
        told = egm("doctor", "--server", url, "--json", *SMALL)
    assert outcome.code == told.code == 1
    assert "wrong: stale prefix cache\nstale_prefix: twin-2, twin-4 answered as" in outcome.out
    assert "what to do: Switch prefix caching off (vLLM --no-enable-prefix-caching" in outcome.out
    value = json.loads(told.out)
    assert (value["verdict"], value["exit_code"], len(value["pictures"])) == ("wrong", 1, 4)
    assert value["findings"][0]["name"] == "stale_prefix"


def test_too_few_answers_are_exit_code_2(egm: Egm) -> None:
    with served(Replayed()) as url:
        outcome = egm("doctor", "--server", url, "--picture", "224", "--picture", "tall")
    assert (outcome.code, outcome.out.splitlines()[-1]) == (2, "could not tell: 2 of 2 pictures were answered")


def test_a_recording_is_a_reference(egm: Egm, tmp_path: Path) -> None:
    outcome = egm("doctor", "--record", "egm-tiny", "--out", "a.json", "--picture", "224", "--no-simulate")
    recording = read_recording(tmp_path / "a.json")
    assert (outcome.code, outcome.out) == (0, f"a.json: 1 answers of egm-tiny, weights {recording.weights}\n")
    (answer,) = recording.answers
    (picture,) = built_in_pictures(["224"])
    assert (answer.digest, len(answer.ends)) == (picture.digest, len(answer.leads))
    with served(Replayed(recording)) as url:
        asked = egm("doctor", "--server", url, "--reference", "a.json")
    assert (asked.code, asked.err.count("\n")) == (2, 1)
    assert "the recording of egm-tiny lacks picture 'twin-1': make it again" in asked.err


def test_a_server_of_its_own_is_started_examined_and_ended(egm: Egm) -> None:
    outcome = egm("doctor", "--serve", "egm", "--aim", "latency", "--picture", "224", "--picture", "tall")
    assert (outcome.code, outcome.out.splitlines()[-1]) == (2, "could not tell: 2 of 2 pictures were answered")
    assert outcome.out.startswith("egm-tiny by egm ")
    started, log = outcome.err.split(", log: ")
    note, starting = started.splitlines()
    assert "--aim latency is not used" in note
    assert starting.startswith("starting egm ")
    told = re.search(r"127\.0\.0\.1:(\d+)", Path(log.splitlines()[0]).read_text())
    assert told is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(told[1])))


def test_the_environment(egm: Egm) -> None:
    outcome = egm("doctor")
    value = json.loads(egm("doctor", "--json").out)
    assert outcome.code in (0, 1)
    for row in value["rows"]:
        assert f"\n{row['name']}" in outcome.out
        assert row["state"] == "yes" or row["advice"] in outcome.out
    assert f"torch {value['versions']['torch']}" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--record", "egm-tiny"), "--record takes --out FILE"),
        (("--record", "egm-tiny", "--out", "no/a.json"), "there is no folder 'no' to write 'a.json' into"),
        (("--record", "nothing", "--out", "a.json"), "there is no model 'nothing'"),
        (("--record", "egm-tiny", "--out", "a.json", "--picture", "223"), "no built-in picture '223': did you mean"),
        (("--out", "a.json"), "--out is for --record MODEL"),
        (("--reference", "egm-tiny"), "there is no engine to examine: give --server URL, or --serve ENGINE"),
        (("--serve", "egm", "--server", "http://127.0.0.1:9"), "give one of them"),
        (("--aim", "latency"), "--aim is for a server that this command starts"),
        (("--serve", "nothing"), "no engine 'nothing'"),
        (("--serve", "egm", "--reference", "nothing"), "there is no model 'nothing'"),
        (("--serve", "egm", "--record", "egm-tiny", "--out", "a.json"), "--record takes --out FILE"),
        (("--server", "http://127.0.0.1:9"), "does not say which models it serves"),
        (("--server", "http://127.0.0.1:9", "--model", "x"), "there is no recording of 'x' here"),
    ],
)
def test_bad_input_is_one_line(egm: Egm, arguments: tuple[str, ...], message: str) -> None:
    outcome = egm("doctor", *arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert message in outcome.err
