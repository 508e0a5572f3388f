"""What the documents say can be done can be done, and what they point to exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from egm.codecs import registry
from egm.datasets.synthetic import SynthRef

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += [*sorted((ROOT / "docs").glob("*.md")), ROOT / "src/egm/models/tiny/weights/README.md"]


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{path.name}:{number}", block)
        for path in DOCUMENTS
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL))
    ]


@pytest.mark.parametrize(("name", "code"), blocks("python"), ids=lambda value: value if ":" in value[:40] else "")
def test_python_examples_run(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = SynthRef("val").samples(0)[0].image
    assert isinstance(picture, Image.Image)
    picture.save(tmp_path / "shapes.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CODECS", dict(registry._CODECS))  # what a page registers ends with it
    exec(compile(code, name, "exec"), {"__name__": "__main__"})


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
