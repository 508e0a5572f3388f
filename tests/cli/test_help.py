"""What `--help` looks like in a terminal of 80 columns."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from .conftest import Egm

COMMANDS = (
    *(
        "ground",
        "demo",
        "eval",
        "score",
        "report",
        "export",
        "mcp",
        "sft",
        "grpo",
        "verl",
        "bench latency",
        "serve",
        "download",
    ),
    *("doctor", "data check", "data convert", "data synthetic", "models export", "eval merge", "calibrate"),
)


NAMES = {"latency": "bench", "run": "eval", "make": "rationales"}
"""What a command that is named by its group is called below."""


def commands() -> list[Any]:
    """Every command, as Typer has built it."""
    from typer.main import get_command

    from egm.cli import app

    def inside(group: Any) -> list[Any]:
        found = getattr(group, "commands", {}).values()
        return [command for each in found for command in inside(each)] or [group]

    return inside(get_command(app))


@pytest.mark.parametrize("command", COMMANDS)
def test_paragraphs_fill_the_width(egm: Egm, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = egm(*command.split(), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    usage, _, text = re.split(r"\n(?:Arguments|Options):", outcome.out)[0].strip().partition("\n\n")
    assert usage.strip().startswith("Usage: ")
    lines = [line.strip() for line in text.splitlines()]
    paragraphs = [part.split("\n") for part in re.split(r"\n{2,}", "\n".join(lines).strip())]
    for paragraph in paragraphs:
        for line, following in pairwise(paragraph):
            assert len(line) + 1 + len(following.split()[0]) > 76, f"broken early: {line!r}"


def test_every_word_of_an_option_is_shown(egm: Egm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word such as <think> is shown as it is, whatever a mode of help might take it for."""
    for command in commands():
        for parameter in command.params:
            assert "<" not in (getattr(parameter, "help", None) or ""), parameter.name


@pytest.mark.parametrize(
    ("option", "users"),
    [
        ("--model", "bench calibrate doctor eval ground mcp"),
        ("--server", "bench calibrate doctor eval ground mcp rationales web"),
        ("--codec", "bench calibrate convert doctor eval ground mcp rationales score web"),
        ("--data", "score"),
        ("--data-root", "calibrate check convert eval rationales score"),
        ("--images", "calibrate check convert eval export rationales report score web"),
        ("--serve", "bench doctor eval ground rationales"),
        ("--aim", "bench doctor eval ground rationales serve"),
        ("--engine", "serve"),
        ("--device", "bench calibrate doctor eval ground mcp rationales serve web"),
        ("--max-tokens", "bench calibrate eval ground mcp web"),
        ("--votes", "eval ground mcp"),
        ("--think", "eval ground mcp"),
        ("--gate", "eval ground mcp"),
        ("--thinking-budget", "calibrate eval ground mcp"),
        ("--prompt", "calibrate convert eval ground mcp"),
    ],
)
def test_an_option_means_the_same_wherever_it_is(option: str, users: str) -> None:
    found = {
        NAMES.get(command.name, command.name): (parameter.help, parameter.metavar)
        for command in commands()
        for parameter in command.params
        if option in parameter.opts and not parameter.hidden
    }
    assert sorted(found) == users.split()
    if option == "--codec":  # which score reads texts by, as it asks no model
        assert "tells which conventions can be meant" in found.pop("score")[0]
    assert len(set(found.values())) == 1


def test_help_says_where_the_codecs_are_listed() -> None:
    for command in commands():
        for parameter in command.params:
            if "--codec" in parameter.opts:
                assert "egm codecs lists all" in parameter.help
