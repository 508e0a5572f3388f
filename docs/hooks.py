"""Make one site of `docs/` and of the documents beside it, whose links stay those by which the repository is read.

mkdocs calls `on_files` and `on_page_markdown` (`hooks:` in mkdocs.yml).
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "src/egm/models/tiny/weights/README.md": "egm-tiny.md",
}
"""Documents outside `docs/` that are pages of the site too, by their names there."""
_LINK = re.compile(r"""(\]\(|<img src=")([^()\s#:"]+)(#[^()\s]*)?([)"])""")
_SHOWN = (".png", ".svg", ".jpg")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the documents beside `docs/`, and every other file of the repository that a page links to."""
    for source, name in BESIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for page in files.documentation_pages():
        for target in _targets(page.content_string, _source(page.src_uri)):
            if files.get_file_from_path(_place(target)) is None:
                files.append(File.generated(config, _place(target), content=(ROOT / target).read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    source = _source(page.file.src_uri)
    folder = posixpath.dirname(page.file.src_uri)

    def relinked(match: re.Match[str]) -> str:
        target = _target(match[2], source)
        if target is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(_place(target), folder or '.')}{match[3] or ''}{match[4]}"

    return _LINK.sub(relinked, markdown)


def _source(name: str) -> str:
    """Name the file in the repository that a page is made of."""
    return next((source for source, page in BESIDE.items() if page == name), f"docs/{name}")


def _targets(text: str, source: str) -> list[str]:
    found = (_target(match[2], source) for match in _LINK.finditer(text))
    return [target for target in found if target is not None]


def _target(link: str, source: str) -> str | None:
    """Name the file in the repository that a link leads to; None where there is none, which mkdocs then says."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def _place(target: str) -> str:
    """Say where a file of the repository stands in the site; what is no page and no picture is shown as text."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return BESIDE.get(target) or f"files/{target}" + ("" if target.endswith(_SHOWN) else ".txt")
