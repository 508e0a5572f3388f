"""What data, servers and users write never steers the terminal: no escape sequence, control or change of direction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from ..backends.faulty_server import FaultyServer, fail, say
from .conftest import Egm, Outcome

NASTY = "a\x1b]0;x\x07\x9b31m\u202eb"
SCRIPTED = ("--script", "script.txt", "--max-errors", 1)


@pytest.fixture
def folder(egm: Egm, tmp_path: Path) -> Path:
    """A picture and rows whose names, ids and phrases all try it; of the second row the picture is missing."""
    Image.new("RGB", (64, 64), "teal").save(tmp_path / f"{NASTY}.png")
    row = {"id": NASTY, "sent": f"the {NASTY}", "bbox": [0, 0, 50, 50], "height": 64, "width": 64}
    lines = [{**row, "image": f"{NASTY}.png"}, {**row, "id": "2", "image": f"{NASTY}none.png"}]
    (tmp_path / f"{NASTY}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / f"{NASTY}.yaml").write_text(json.dumps({"stage": NASTY, NASTY: 3}))
    (tmp_path / "script.txt").write_text(f'{NASTY}</think> [{{"bbox_2d": [0, 0, 900, 900], "label": "{NASTY}"}}]')
    return tmp_path


def quiet(outcome: Outcome) -> Outcome:
    assert outcome.out + outcome.err
    assert not set("\x1b\x07\x9b\u202e") & set(outcome.out + outcome.err)
    return outcome


@pytest.mark.parametrize(
    "command",
    [
        ("ground", f"{NASTY}.png", f"the {NASTY}", "--show-reasoning", "--max-tokens", 2),
        ("ground", f"{NASTY}none.png", "x"),
        ("ground", f"{NASTY}.png", "x", "--model", NASTY),
        ("ground", f"{NASTY}.png", "x", "--draw", NASTY),
        ("demo", "--out", f"{NASTY}.png/in-a-file"),
        ("data", "check", f"{NASTY}.jsonl", "--no-leaks", "--images", "."),
        ("data", "convert", f"{NASTY}.jsonl", f"{NASTY}.parquet.x"),
        ("data", "convert", f"{NASTY}.jsonl", f"{NASTY}.2.jsonl"),
        ("data", "synthetic", "--scenes", 1, "--out", NASTY),
        ("eval", f"{NASTY}.jsonl", "--images", ".", "--out", NASTY, *SCRIPTED),
        ("eval", f"{NASTY}.jsonl", "--images", ".", "--out", NASTY, *SCRIPTED[:2], "--max-errors", 0),
        ("eval", f"refcoco/{NASTY}"),
        ("score", f"{NASTY}.jsonl"),
        ("report", NASTY, "--name", NASTY),
        ("sft", f"{NASTY}.yaml"),
        ("reproduce", f"{NASTY}.yaml"),
        ("models", "export", NASTY),
        ("models", "push", NASTY, NASTY),
    ],
    ids=lambda command: " ".join(map(str, command)).replace(NASTY, "N"),
)
def test_names_and_rows(egm: Egm, folder: Path, command: tuple[object, ...]) -> None:
    quiet(egm(*command))


def test_runs_and_reports(egm: Egm, folder: Path) -> None:
    quiet(egm("eval", f"{NASTY}.jsonl", "--images", ".", "--out", NASTY, "--model", NASTY, *SCRIPTED))
    for more in ((), ("--format", "markdown"), ("--format", "csv"), ("--format", "latex"), ("--out", f"{NASTY}2")):
        assert quiet(egm("report", NASTY, *more)).code == 0
    assert quiet(egm("score", f"{NASTY}/journal.jsonl", f"{NASTY}/journal.jsonl")).code == 0


@pytest.mark.parametrize("play", [say(f"{NASTY}</think> [100, 100, 900, 900]"), fail(400, f"no {NASTY}")])
def test_servers(egm: Egm, folder: Path, play: object) -> None:
    with FaultyServer({"": [play]}, models=(NASTY,)) as server:  # type: ignore[list-item]
        where = ("--server", server.url)
        quiet(egm("ground", f"{NASTY}.png", "x", "--show-reasoning", *where))
        quiet(egm("eval", f"{NASTY}.jsonl", "--images", ".", "--out", "run", "--max-errors", 1, *where))
        load = ("--requests", 1, "--rounds", 1, "--warmup", 0, "--concurrency", 1)
        quiet(egm("bench", "latency", *load, *where))
    with FaultyServer({}, models=(NASTY, f"{NASTY}2")) as server:
        quiet(egm("ground", f"{NASTY}.png", "x", "--server", server.url))
