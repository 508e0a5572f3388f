"""Pickles of plain values, as Python 2 wrote them: lists, dicts, strings and numbers, and nothing else.

A pickle is a program. All of it is looked through before any of it runs: what could call anything is refused, and with
it tuples and sets, which RefCOCO does not have, and whose hash recurses until the process dies; so is a program that
would fill the memory.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, Final, NoReturn

from egm.errors import DataError

MAX_VALUES: Final = 20_000_000
"""Most steps of the program; RefCOCO's take some six million."""
MAX_CONTAINERS: Final = 3_000_000
"""Most lists and dicts; RefCOCO's have half a million."""

_VALUES = (
    "INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT NONE NEWTRUE NEWFALSE STRING BINSTRING SHORT_BINSTRING "
    "UNICODE SHORT_BINUNICODE BINUNICODE"
)
_CONTAINERS = "EMPTY_LIST LIST EMPTY_DICT DICT"
_REST = "PROTO FRAME MARK STOP APPEND APPENDS SETITEM SETITEMS PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET"
_PLAIN = {code.code: code for code in pickletools.opcodes if code.name in f"{_VALUES} {_CONTAINERS} {_REST}".split()}
# Of each plain opcode by its byte: how many bytes of argument follow it, or how many say the length of what follows.
_LINE, _REFUSED = -100, -200
_LENGTHS = {pickletools.TAKEN_FROM_ARGUMENT1: -1, pickletools.TAKEN_FROM_ARGUMENT4: -4}
_LENGTHS |= {pickletools.TAKEN_FROM_ARGUMENT4U: -4, pickletools.UP_TO_NEWLINE: _LINE}
_ARGUMENTS = [_REFUSED] * 256
for _code, _known in _PLAIN.items():
    _size = 0 if _known.arg is None else _known.arg.n
    _ARGUMENTS[ord(_code)] = _LENGTHS.get(_size, _size)
_IS_CONTAINER = frozenset(ord(code) for code, known in _PLAIN.items() if known.name in _CONTAINERS.split())
_NAMES = {ord(known.code): known.name for known in pickletools.opcodes}
_PUT, _LONG_PUT, _STOP = ord(pickle.PUT), ord(pickle.LONG_BINPUT), ord(pickle.STOP)


class _PlainUnpickler(pickle.Unpickler):
    """The program has been looked through; should anything have been missed, it cannot name anything all the same."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:  # noqa: ARG002
        raise pickle.UnpicklingError("it names a persistent object")


def load_plain_pickle(content: bytes, where: str) -> Any:
    """Read a pickle of plain values.

    Args:
        content: The pickle; strings of Python 2 are taken as Latin-1.
        where: What to call it in messages.

    Raises:
        DataError: If it is damaged, holds anything but lists, dicts, strings and numbers, or too much.
    """
    try:
        _look_through(content)
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises almost anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{where} is not a pickle of plain lists and dicts, and was not run: {reason}") from None


def _look_through(content: bytes) -> None:
    place, end, steps, containers = 0, len(content), 0, 0
    while place < end:
        code = content[place]
        argument = _ARGUMENTS[code]
        place += 1
        steps += 1
        if argument >= 0:
            if code == _LONG_PUT and int.from_bytes(content[place : place + 4], "little") > MAX_VALUES:
                raise pickle.UnpicklingError("it remembers a value under a number that is too large")
            place += argument
            if code in _IS_CONTAINER:
                containers += 1
        elif argument == _LINE:
            line_feed = content.find(b"\n", place)
            if line_feed < 0:
                raise pickle.UnpicklingError("it is cut off")
            if code == _PUT and line_feed - place > len(str(MAX_VALUES)):
                raise pickle.UnpicklingError("it remembers a value under a number that is too large")
            place = line_feed + 1
        elif argument == _REFUSED:
            raise pickle.UnpicklingError(f"it holds {_NAMES.get(code, 'no opcode')} at byte {place - 1:,}")
        else:
            place += int.from_bytes(content[place : place - argument], "little") - argument
        if code == _STOP:
            break
        if steps > MAX_VALUES or containers > MAX_CONTAINERS:
            raise pickle.UnpicklingError("it holds more values than RefCOCO has many times over")
    if place > end or not end:
        raise pickle.UnpicklingError("it is cut off")
