"""The site of `docs/`: every page has its place, what is generated is fresh, and what the API pages show is described.

That it builds, and that no link in it is broken, `mkdocs build --strict` says (`.ci/run`).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import egm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
API = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.glob("api/*.md"))
MODULES = sorted(set(re.findall(r"^::: (\S+)$", API, flags=re.MULTILINE)))
"""What the API pages show."""
PACKAGES = ("egm", "egm.codecs", "egm.datasets", "egm.backends", "egm.evaluate", "egm.models", "egm.rationales")
PACKAGES += ("egm.models.families", "egm.rationales.filters", "egm.report", "egm.serve", "egm.doctor", "egm.bench")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages(nav: Any) -> Iterator[str]:
    """The pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav if isinstance(nav, list) else nav.values():
            yield from pages(item)


def beside() -> dict[str, str]:
    """Documents outside `docs/` that the site takes in, as its hooks have them; mkdocs is not here to load these."""
    for node in ast.parse((DOCS / "hooks.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BESIDE":
            return dict(ast.literal_eval(node.value))
    raise AssertionError("docs/hooks.py has no BESIDE")


def test_every_page_stands_in_the_navigation_once() -> None:
    listed = list(pages(CONFIG["nav"]))
    written = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted([*written, *beside().values()]), "mkdocs.yml says under nav where each page stands"


def test_documents_that_the_site_takes_in_exist_and_hide_no_page() -> None:
    assert [name for name in beside() if not (ROOT / name).is_file()] == []
    assert [name for name in beside().values() if (DOCS / name).exists()] == []


def test_nothing_is_asked_of_other_servers_by_the_site() -> None:
    assert CONFIG["theme"]["font"] is False
    assert "mermaid" not in (ROOT / "mkdocs.yml").read_text()
    from_elsewhere = r"!\[[^\]]*\]\(http[^)]*\)"
    assert [page for page in DOCS.rglob("*.md") if re.search(from_elsewhere, page.read_text())] == []


def test_the_page_of_commands_is_fresh() -> None:
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == script("make_cli").page(), "docs/cli.md is stale: uv run python docs/make_cli.py"


def test_the_page_of_commands_has_every_option() -> None:
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert {"## egm ground", "## egm eval", "## egm eval merge", "## egm models"} <= set(written.splitlines())
    assert "| `--thinking-budget N` |" in written
    assert "[required" not in written
    assert "<" not in written


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_described(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    names = [name for name in module.__all__ if not name.startswith("__")]
    bare = [name for name in names if callable(value := getattr(module, name)) and not getattr(value, "__doc__", None)]
    assert bare == []


@pytest.mark.parametrize("name", [name for name in MODULES if name != "egm"])
def test_what_the_api_pages_show_is_described(name: str) -> None:
    path = ROOT / "src" / name.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name} has no docstring"
    assert [each for each, node in public(tree) if ast.get_docstring(node) is None] == []


def public(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """The functions and classes of a module that the site shows, and the classes' methods."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                overloaded = any("overload" in ast.unparse(each) for each in getattr(inner, "decorator_list", ()))
                if isinstance(inner, kinds) and not inner.name.startswith("_") and not overloaded:
                    yield f"{node.name}.{inner.name}", inner


def test_the_api_pages_show_every_name_of_the_package() -> None:
    homes = {name: getattr(egm, name).__module__ for name in egm.__all__ if not name.startswith("__")}
    assert {name: home for name, home in homes.items() if home not in MODULES} == {}
