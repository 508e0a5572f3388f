"""What `--help` looks like in a terminal of 80 columns."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from .conftest import Egm

COMMANDS = (
    *("ground", "demo", "eval", "score", "report", "sft", "grpo", "bench latency"),
    *("data check", "data convert", "data synthetic", "models export"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_paragraphs_fill_the_width(egm: Egm, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = egm(*command.split(), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    usage, _, text = outcome.out.partition("╭")[0].strip().partition("\n")
    assert usage.strip().startswith("Usage: ")
    lines = [line.strip() for line in text.splitlines()]
    paragraphs = [part.split("\n") for part in re.split(r"\n{2,}", "\n".join(lines).strip())]
    for paragraph in paragraphs:
        for line, following in pairwise(paragraph):
            assert len(line) + 1 + len(following.split()[0]) > 78, f"broken early: {line!r}"


def test_every_word_of_an_option_is_shown(egm: Egm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help is read as Markdown, where a tag such as <think> would be taken for HTML and vanish."""
    from typer.main import get_command

    from egm.cli import app

    def commands(group: object) -> list[object]:
        found = getattr(group, "commands", {}).values()
        return [command for each in found for command in commands(each)] or [group]

    for command in commands(get_command(app)):
        for parameter in command.params:  # type: ignore[attr-defined]
            assert "<" not in (getattr(parameter, "help", None) or ""), parameter.name
