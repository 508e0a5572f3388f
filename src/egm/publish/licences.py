"""Whose licences a model comes under: its own, its base's and its data's, as far as files or users say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from egm.backends.hub import HUB_NAME, cached_folder
from egm.errors import ModelError

UNKNOWN: Final = "not stated to the export"
_SYNTHREF: Final = "drawn by EGM, apache-2.0"
_HEAD: Final = 64_000  # bytes of a card that are looked at for its metadata


def read_license(folder: Path) -> str | None:
    """Return the licence that a model's card says in its metadata, None where there is no card or it says none."""
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(_HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    parts = text.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        head: Any = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    found = head.get("license_name") or head.get("license") if isinstance(head, dict) else None
    return found if isinstance(found, str) else None


def base_license(name: str) -> str:
    """Say the licence of the model that was trained, by its own card where that is here."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        cached = cached_folder(name) if HUB_NAME.fullmatch(name) else None
        folder = folder if cached is None else cached
    found = read_license(folder)
    return f"{found}, by its card" if found else UNKNOWN


def data_licenses(sources: Sequence[str], said: Mapping[str, str]) -> dict[str, str]:
    """Say the licence of each source of data.

    Args:
        sources: Their names.
        said: What the user says of some of them.

    Raises:
        ModelError: If the user speaks of a source that the recipe does not name.
    """
    if strangers := [name for name in said if name not in sources]:
        known = f"its sources are {', '.join(sources)}" if sources else "its recipe names no data"
        raise ModelError(f"--data-license speaks of {strangers[0]!r}, which the model was not trained on: {known}")
    return {name: said.get(name, _SYNTHREF if name.startswith("synthref/") else UNKNOWN) for name in sources}


def parse_license(text: str) -> tuple[str, str]:
    """Read `SOURCE=LICENCE`.

    Raises:
        ModelError: If it is not that.
    """
    source, sign, licence = (part.strip() for part in text.partition("="))
    if not (source and sign and licence):
        raise ModelError(f"--data-license {text!r} is not SOURCE=LICENCE, such as data.jsonl=cc-by-4.0")
    return source, licence
