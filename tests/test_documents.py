"""What the documents say can be done can be done, and what they point to exists."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from egm.cli import app, main
from egm.cli.embedded import SIGNATURE
from egm.cli.group import DefaultGroup
from egm.codecs import registry
from egm.datasets.synthetic import SynthRef
from egm.datasets.synthetic.example import EXAMPLE_SCENE, example_picture
from egm.models.families import base as families

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += [*sorted((ROOT / "docs").glob("*.md")), ROOT / "src/egm/models/tiny/weights/README.md"]


ELSEWHERE = {
    r"--serve|http://|egm serve": "a server",
    r"[A-Z]{2,}|runs/|[AB]\.jsonl|(?:before|after|predictions)\.json|rows\.parquet": "files that a reader has",
    r"refcoco|annotations": "RefCOCO's annotations and pictures",
    r"egm (?:sft|grpo|verl|reproduce|calibrate|eval|download|data synthetic|models \w+)|--votes": "minutes, or a GPU",
}
"""What keeps a command from being run here: by its words, what it needs. Its arguments are read all the same."""


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{path.name}:{number}", block)
        for path in DOCUMENTS
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL))
    ]


def commands() -> dict[str, str]:
    """Each `egm` command that a document shows, without its comment, and the output that stands below it."""
    shown = {}
    for _, block in blocks("console"):
        for part in re.split(r"^ *\$ ", re.sub(r"\\\n\s*", "", block), flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            for command in line.split("   #")[0].split(" && "):
                if words := re.fullmatch(r"(?:uv run )?(egm .*?)\s*(?:# .*)?", command):
                    shown[words[1]] = output.rstrip()
    return shown


def needs(command: str) -> str | None:
    return next((what for words, what in ELSEWHERE.items() if re.search(words, command)), None)


@pytest.mark.parametrize(("name", "code"), blocks("python"), ids=lambda value: value if ":" in value[:40] else "")
def test_python_examples_run(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CODECS", dict(registry._CODECS))  # what a page registers ends with it
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    values = {"__name__": "__main__"}
    exec(compile(code, name, "exec"), values)
    for expression, shown in re.findall(r"^([\w.]+)  # (None|\w+\(.*\))$", code, flags=re.MULTILINE):
        assert repr(eval(expression, values)) == shown


def test_commands_that_need_nothing_run_and_print_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(command: str) -> str:
        monkeypatch.setattr("sys.argv", shlex.split(command))
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        assert (end.value.code, err) == (0, ""), command
        return out

    monkeypatch.chdir(tmp_path)
    runnable = {command: output for command, output in commands().items() if needs(command) is None}
    assert {"egm demo", "egm models"} <= runnable.keys()
    assert any(runnable.values())
    for command, output in runnable.items():  # in the order of the documents: a demo leaves what others look at
        said = run(command)
        assert not output or re.sub(r"[\d.]+ s,", "s,", said.rstrip()) == re.sub(r"[\d.]+ s,", "s,", output)


@pytest.mark.parametrize("line", [*filter(needs, commands())])
def test_commands_that_need_more_are_written_as_they_are_read(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words, context = shlex.split(line)[1:], None
    while hasattr(command, "commands"):
        if isinstance(command, DefaultGroup) and words[0] not in command.commands:
            words = [next(iter(command.commands)), *words]
        context = command.make_context("egm", words[:1], parent=context)
        command, words = command.commands[words[0]], words[1:]
    command.make_context("egm", words, parent=context)  # an unknown option, or a missing argument, is an error


def test_the_example_picture_is_of_synthref() -> None:
    with Image.open(example_picture()) as picture:
        assert picture.info["Software"] == SIGNATURE
        assert np.array_equal(np.asarray(picture), SynthRef("val").scene(EXAMPLE_SCENE).pixels)
    assert example_picture().stat().st_size < 5000


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)\)", path.read_text())
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    named = re.findall(r"`((?:recipes|benchmarks|docs|examples|tests)/[\w./-]+\.\w+)`", path.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_tables_of_rooms_are_the_contracts_that_are_held() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    tables = re.findall(r"^\| layer \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, flags=re.MULTILINE)
    shown = [[re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()] for table in tables]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = [[re.split(r" [|:] ", layer) for layer in contract["layers"]] for contract in contracts]
    assert shown[: len(held)] == held


def test_modules_that_the_architecture_names_exist() -> None:
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(named) > 10
    missing = [name for name in named if not list((ROOT / "src").glob(f"**/{name}"))]
    assert not missing
