"""What is imported is declared, and a missing extra is one line that names it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import egm
from egm import cli
from egm.errors import MissingExtraError
from egm.extras import EXTRAS, explained, need

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "huggingface_hub": "huggingface-hub",
    "pydantic_core": "pydantic-core",
}
"""Where a distribution is not called as its module is."""


def declared(*names: str) -> set[str]:
    """Names of the distributions that the core and some extras list, with those of the extras that these name."""
    found: set[str] = set()
    requirements = [*PROJECT["dependencies"]] if "core" in names else []
    for name in names:
        requirements += PROJECT["optional-dependencies"].get(name, [])
    for requirement in requirements:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[([^]]*)\])?.*", requirement)
        assert match is not None
        if match[1] == PROJECT["name"]:
            found |= declared(*match[2].split(","))
        else:
            found.add(match[1])
    return found


def imported() -> Iterator[tuple[str, str, bool]]:
    """Each module that the package imports from elsewhere, where, and whether importing EGM's module runs that line."""
    for path in sorted((ROOT / "src" / "egm").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"egm"}:
                yield name, f"{path.relative_to(ROOT)}:{node.lineno}", node in tree.body  # type: ignore[attr-defined]


def test_what_is_imported_is_declared() -> None:
    core, optional = declared("core"), declared(*PROJECT["optional-dependencies"])
    assert not core & {DISTRIBUTIONS.get(name, name) for name in EXTRAS}, "optional packages in the core"
    undeclared = [
        f"{where} imports {name}"
        for name, where, _ in imported()
        if DISTRIBUTIONS.get(name, name) not in (optional if name in EXTRAS else core)
    ]
    assert not undeclared


def test_each_optional_package_is_in_the_extra_that_is_named() -> None:
    for package, extra in EXTRAS.items():
        assert package in declared(extra)
    assert declared("train") > declared("torch") | declared("data")
    apart = {"fiftyone", "lmms-eval"}  # which bring more than all the others together
    assert declared("all") >= declared(*PROJECT["optional-dependencies"]) - declared("core") - apart
    assert not declared("all") & apart


def test_the_core_declares_nothing_that_is_not_imported() -> None:
    assert declared("core") == {DISTRIBUTIONS.get(name, name) for name, _, _ in imported() if name not in EXTRAS}


# ---- what is said


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make packages as if they were not installed; tests/integration/test_wheel.py goes without them in truth."""

    def hide(*packages: str) -> None:
        for package in packages:
            monkeypatch.setitem(sys.modules, package, None)

    return hide


def how(extras: str) -> str:
    return f'uv pip install ".[{extras}]" in a clone, else pip install "egm-grounding[{extras}]"'


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["trl"], "egm sft needs trl, which is not installed: " + how("train")),
        (
            ["torch", "trl"],
            "egm sft needs torch and trl, which are not installed: " + how("train"),
        ),
        (
            ["torch", "torchvision", "transformers"],
            "egm sft needs torch, torchvision and transformers, which are not installed: " + how("torch"),
        ),
        (
            ["pyarrow", "matplotlib"],
            "egm sft needs pyarrow and matplotlib, which are not installed: " + how("data,report"),
        ),
    ],
)
def test_the_line(hidden: Callable[..., None], missing: list[str], said: str) -> None:
    need("egm sft", *missing, "numpy")
    hidden(*missing)
    with pytest.raises(MissingExtraError) as caught:
        need("egm sft", *missing, "numpy")
    assert str(caught.value) == said


def test_only_what_an_extra_brings_is_explained(hidden: Callable[..., None]) -> None:
    hidden("pyarrow")
    with (
        pytest.raises(MissingExtraError, match=r"this needs pyarrow, which is not installed: .*\[data\]"),
        explained("this"),
    ):
        import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), explained("this"):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="no_such_part"), explained("this"):
        import matplotlib.no_such_part  # noqa: F401


def test_the_command_line_explains_what_nobody_asked_for(
    hidden: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        import trl  # noqa: F401

    hidden("trl")
    monkeypatch.setattr("egm.cli.commands.app", app)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == ("error: this command needs trl, which is not installed: " + how("train") + "\n")


# ---- who says it


def _calls(folder: Path) -> dict[str, tuple[tuple[str, ...], Callable[[], Any]]]:
    from egm.backends.checkpoint import find_checkpoint
    from egm.datasets import open_dataset, write_dataset
    from egm.models import build_config, build_model, build_processor, train_tokenizer
    from egm.report.prediction_files import read_predictions

    parquet, saved = folder / "rows.parquet", folder / "saved"
    saved.mkdir()
    parquet.touch()
    (saved / "dataset_info.json").write_text("{}")
    rows = folder / "rows.jsonl"
    rows.write_text('{"image": "a.png", "sent": "x", "bbox": [1, 2, 3, 4], "height": 9, "width": 9}\n')
    return {
        "a model in this process": (("torch",), lambda: egm.Grounder.load("egm-tiny", fast=False)),
        "a model of the Hub": (("transformers",), lambda: find_checkpoint("nvidia/EGM-8B")),
        "a configuration": (("transformers",), lambda: build_config(egm.models.get_preset("tiny-s"))),
        "a model from scratch": (("torch",), lambda: build_model("tiny-s")),
        "a processor": (("torchvision",), build_processor),
        "a tokenizer": (("transformers",), lambda: train_tokenizer(["a"], vocab_size=400)),
        "reading parquet": (("pyarrow",), lambda: open_dataset(parquet)),
        "writing parquet": (("pyarrow",), lambda: write_dataset(open_dataset(rows), parquet, "parquet")),
        "a saved dataset": (("pyarrow",), lambda: read_predictions(saved)),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("a model in this process", "a model of the Hub", "a configuration", "a model from scratch", "a processor"),
        *("a tokenizer", "reading parquet", "writing parquet", "a saved dataset"),
    ],
)
def test_python_users_are_told_too(hidden: Callable[..., None], tmp_path: Path, name: str) -> None:
    packages, call = _calls(tmp_path)[name]
    hidden(*packages)
    with pytest.raises(MissingExtraError, match=rf"needs {packages[0]}, which is not installed: uv pip install"):
        call()
