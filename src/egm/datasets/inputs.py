"""Files that come from others: opened only where they are files, read up to a limit, and their JSON held to bounds.

What JSON takes in memory is many times what it takes on disk, and how many depends on what stands in it: `[]` takes 24
times as much. It is estimated from the marks in the text before it is parsed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import Any, BinaryIO, Final

from egm.errors import DataError

MAX_BYTES: Final = 512 * 2**20
"""Largest file that is held in memory whole; of files that are read line by line, only a line is."""
MAX_UNPACKED: Final = 256 * 2**20
"""Most bytes that a compressed file may unpack to."""
MAX_LINE: Final = 64 * 2**20
"""Longest line in bytes."""
MAX_MEMORY: Final = 1536 * 2**20
"""Most memory that JSON may take once it is parsed, by the estimate of `load_json`."""

_BOM: Final = b"\xef\xbb\xbf"
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """Why a text is not JSON that is read, in words that follow the name of what holds it."""


def data_folder(given: str | Path | None) -> Path:
    """Return the folder of annotations: as given, else the environment variable EGM_DATA, else `./data`."""
    return Path(given if given is not None else os.environ.get("EGM_DATA") or "data")


def open_regular(path: Path) -> BinaryIO:
    """Open a file, and nothing else: a pipe would be waited for, and a device never ends.

    Raises:
        DataError: If it is not a regular file.
        OSError: If it is not there, or cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is not a regular file: copy its content into one")
    return path.open("rb")


def read_whole(path: Path, *, unpack: bool = False) -> bytes:
    """Read a file into memory.

    Args:
        path: The file.
        unpack: Whether it may be compressed with gzip.

    Raises:
        DataError: If it is not a regular file, is damaged, or is over `MAX_BYTES` or `MAX_UNPACKED`.
        OSError: If it is not there, or cannot be read.
    """
    with open_regular(path) as file:
        content = _at_most(file, MAX_BYTES, path)
    if not (unpack and content[:2] == b"\x1f\x8b"):
        return content
    try:
        with GzipFile(path) as packed:
            del content
            return _at_most(packed, MAX_UNPACKED, path)  # type: ignore[arg-type]
    except (EOFError, zlib.error, BadGzipFile) as error:
        raise DataError(f"{path} cannot be read ({error}): copy or download it again") from None


def _at_most(file: BinaryIO, most: int, path: Path) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise DataError(f"{path} holds more than {most // 2**20} MB: split it, or write one row a line (.jsonl)")
    return content


def bounded_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file with the byte at which each begins; a byte order mark is no part of the first.

    Raises:
        DataError: If a line is longer than `MAX_LINE`.
    """
    begin, number = 0, 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise DataError(f"{path} line {number} is longer than {MAX_LINE // 2**20} MB: give each row its own line")
        mark = len(_BOM) if begin == 0 and line.startswith(_BOM) else 0
        yield begin + mark, line[mark:]
        begin += len(line)


def load_json(text: bytes) -> Any:
    """Parse JSON in UTF-8, UTF-16 or UTF-32; a byte order mark is passed over.

    Raises:
        JsonError: If it is not JSON, repeats a key within an object, so that it could be read in two ways, nests too
            deep, or would take more memory than `MAX_MEMORY`.
    """
    brackets, strings, others = text.count(b"[") + text.count(b"{"), text.count(b'"'), text.count(b",")
    if 200 * brackets + 36 * strings + 32 * others > MAX_MEMORY:
        raise JsonError(f"would take more than {MAX_MEMORY // 2**20:,} MB of memory: write fewer rows a file")
    try:
        return json.loads(text.decode(json.detect_encoding(text)), object_pairs_hook=_without_repeats)
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise JsonError(f"is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise JsonError("is not JSON that is read: it nests too deep") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"is not JSON: {error}") from None
    except ValueError:  # Python converts no more than some 4,000 digits
        raise JsonError("is not JSON that is read: it holds an integer of thousands of digits") from None


def says_halves(text: bytes) -> bool:
    """Tell whether JSON may hold surrogates without their other halves; quick, and sometimes yes for nothing."""
    return _SURROGATE.search(text) is not None


def refuse_halves(value: Any) -> None:
    """Refuse what JSON can say, and neither a file in UTF-8 nor a tokenizer can: a surrogate without its other half.

    Raises:
        JsonError: If there is one in a value that `load_json` returned.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise JsonError(
            f"holds half a character ({half!r}), which is no text: write the whole one, or drop it"
        ) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        again = next(key for key in keys if keys.count(key) > 1)
        raise JsonError(f"says {again[:40]!r} twice in one object: which of them counts is not said")
    return found
