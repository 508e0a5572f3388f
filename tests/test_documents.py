"""What the documents say can be done can be done, and what they point to exists."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from pydantic import TypeAdapter

from egm.cli import app, main
from egm.cli.embedded import SIGNATURE
from egm.cli.group import DefaultGroup
from egm.codecs import registry
from egm.datasets.synthetic import SynthRef
from egm.datasets.synthetic.example import EXAMPLE_SCENE, example_picture
from egm.models.families import base as families
from egm.rationales.filters import base as filters
from egm.server.__main__ import parse as read_server
from egm.training.sft.recipe import SFTRecipe

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "src/egm/models/tiny/weights/README.md"]


OF_NOW = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # which tells of names that were changed since

NEEDS = "# needs: "
"""The comment from which on the commands of a block are not run here; it says what they need."""


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{path.name}:{number}", textwrap.dedent(block))
        for path in DOCUMENTS
        for number, block in enumerate(
            re.findall(rf"^ *```{language}\n(.*?)^ *```", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        )
    ]


@dataclass(frozen=True)
class Shown:
    """A command that a document shows, without its comment, and the output that stands below it."""

    command: str
    output: str = ""
    needs: str = ""


def shown() -> list[Shown]:
    found = []
    for _, block in blocks("console"):
        needs = ""
        for part in re.split(rf"^(?=\$ |{NEEDS})", re.sub(r"\\\n\s*", "", block), flags=re.MULTILINE):
            line, _, output = part.partition("\n")
            if line.startswith(NEEDS):
                needs = line.removeprefix(NEEDS)
            elif line.startswith("$ "):
                commands = re.split(r"   #|\s# ", line.removeprefix("$ "))[0].split(" && ")
                found += [Shown(each.strip().removeprefix("uv run "), output.rstrip(), needs) for each in commands]
    for name, block in blocks("bash"):
        assert NEEDS in block, f"{name}: say on a line of its own what the script needs: {NEEDS}..."
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if command := re.search(r"(?:^|[\s=\d)])(egm .*?)(?: &)?$", line):
                words = re.sub(r"\$(?:\w+|\(\([^)]*\)\))(?=[\s\"/:])|\$\w+$", "1", command[1])
                found.append(Shown(re.sub(r" 1$", "", words), needs="bash"))
    return list(dict.fromkeys(found))


def run_here() -> list[Shown]:
    return [each for each in shown() if each.command.startswith("egm ") and not each.needs]


def elsewhere() -> list[str]:
    return list(dict.fromkeys(each.command for each in shown() if each.needs))


@pytest.mark.parametrize(("name", "code"), blocks("python"), ids=lambda value: value if ":" in value[:40] else "")
def test_python_examples_run(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CODECS", dict(registry._CODECS))  # what a page registers ends with it
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    monkeypatch.setattr(filters, "_FILTERS", dict(filters._FILTERS))
    values: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, name, "exec", dont_inherit=True), values)
    for expression, comment in commented(code):
        assert repr(eval(expression, values)) == comment, f"{name}: {expression}"


def commented(code: str) -> list[tuple[str, str]]:
    """Expressions that stand as statements with a value behind them, as a comment; a comment in words is none."""
    lines, found = code.splitlines(), []
    for node in ast.parse(code).body:
        if isinstance(node, ast.Expr) and node.end_lineno is not None:
            comment = re.fullmatch(r"  # (.*)", lines[node.end_lineno - 1][node.end_col_offset :])
            if comment is not None and is_value(comment[1]):
                found.append((ast.unparse(node), comment[1]))
    return found


def is_value(text: str) -> bool:
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return False
    return not isinstance(node, ast.Name | ast.Attribute | ast.Compare | ast.BoolOp)


def test_values_in_comments_are_told_from_words() -> None:
    code = "a  # 1\na.b  # Box(x1=1.0)\na  # what it is\na = 1  # 2\na  # words\na  # (1, None)\n"
    assert commented(code) == [("a", "1"), ("a.b", "Box(x1=1.0)"), ("a", "(1, None)")]


def test_commands_that_need_nothing_run_and_print_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(command: str) -> str:
        monkeypatch.setattr("sys.argv", shlex.split(command))
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        said = [line for line in err.splitlines() if not line.startswith("next: ")]
        assert (end.value.code, said) == (0, []), f"{command} (write {NEEDS}... above it if it needs more than is here)"
        return out

    monkeypatch.chdir(tmp_path)
    outputs: dict[str, str] = {}
    for each in run_here():  # in the order of the documents: a demo leaves what others look at
        outputs[each.command] = outputs.get(each.command) or each.output
    assert {"egm demo", "egm models"} <= outputs.keys()
    assert any(outputs.values())
    for command, output in outputs.items():
        said = run(command)
        assert not output or re.sub(r"[\d.]+ s,", "s,", said.rstrip()) == re.sub(r"[\d.]+ s,", "s,", output)


@pytest.mark.parametrize("line", elsewhere())
def test_commands_that_need_more_are_written_as_they_are_read(line: str) -> None:
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    words = words[2:] if words[:2] == ["uv", "run"] else words
    if "egm.cli" in words:  # by a launcher
        words = ["egm", *words[words.index("egm.cli") + 1 :]]
    if words[0] == "egm":
        read_egm(words[1:])
    elif words[:3] == ["python", "-m", "egm.server"]:
        assert read_server(words[3:]).model
    elif words[0] == "python":
        source = (ROOT / words[1]).read_text()
        assert [word for word in words[2:] if word.startswith("-") and f'"{word}"' not in source] == []
    else:
        assert words[0] in FOREIGN, f"{line}: nothing here reads what it is written like"


FOREIGN = ("git", "hf", "label-studio", "lmms-eval", "pip", "ray", "uv", "vllm")
"""Other people's commands, which only their own software can read."""


def read_egm(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    context = None
    while hasattr(command, "commands"):
        if isinstance(command, DefaultGroup) and words[0] not in command.commands:
            words = [next(iter(command.commands)), *words]
        context = command.make_context("egm", words[:1], parent=context)
        command, words = command.commands[words[0]], words[1:]
    command.make_context("egm", words, parent=context)  # an unknown option, or a missing argument, is an error


def test_blocks_of_yaml_are_read() -> None:
    for name, block in blocks("yaml"):
        sections = yaml.safe_load(block)
        for section, value in sections.items():
            if section in SFTRecipe.model_fields:
                fields = SFTRecipe.model_fields[section]
                TypeAdapter(fields.annotation).validate_python(value)
            else:
                assert section in ("currency", "models"), f"{name}: no recipe has a section {section}"


def test_the_example_picture_is_of_synthref() -> None:
    with Image.open(example_picture()) as picture:
        assert picture.info["Software"] == SIGNATURE
        assert np.array_equal(np.asarray(picture), SynthRef("val").scene(EXAMPLE_SCENE).pixels)
    assert example_picture().stat().st_size < 5000


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    missing = []
    for target, anchor in re.findall(r"""(?:\]\(|<img src=")([^)#\s"]*)(?:#([^)\s]*))?[)"]""", path.read_text()):
        if "://" not in target:
            there = path.parent / target if target else path
            is_page = there.suffix == ".md"
            if not there.exists() or (anchor and is_page and anchor not in headings(there)):
                missing.append(f"{target}#{anchor}")
    assert not missing


@cache
def headings(path: Path) -> set[str]:
    """The anchors of a document's headings."""
    text = re.sub(r"^ *(`{3,}).*?^ *\1", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in found}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    named = re.findall(r"[` ]((?:recipes|benchmarks|docs|examples|tests|src)/[\w./-]+\.\w+)(?=[` ])", path.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("path", OF_NOW, ids=lambda path: path.name)
def test_names_of_modules_exist(path: Path) -> None:
    text = path.read_text()
    named = re.findall(r"`egm\.([\w.]+)(?=[(`])", text)
    if path.name.startswith("grpo"):  # where `packing.pack` is of the package that the page is about
        folder = ROOT / "src/egm/training/grpo"
        short = re.findall(r"`(\w+)\.(?!yaml)(\w+)`", text)
        named += [f"training.grpo.{module}.{name}" for module, name in short if (folder / f"{module}.py").is_file()]
    assert [name for name in named if not is_named(name)] == []


def module_of(name: str) -> tuple[Path, list[str]]:
    """Find the deepest module of a dotted name, and the names that are left; none of a module itself."""
    path, names = ROOT / "src/egm", name.split(".")
    while names and ((path / names[0]).is_dir() or (path / f"{names[0]}.py").is_file()):
        path /= names.pop(0)
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")), names


def is_named(name: str) -> bool:
    source, names = module_of(name)
    return not names or re.search(rf"\b{names[0]}\b", source.read_text()) is not None


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
