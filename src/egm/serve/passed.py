"""What follows `--` on the command line of `egm serve`: taken over where it is ours to know, else passed on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from egm.errors import EgmError
from egm.serve.engines import Engine

_NAME = re.compile(r"--?[A-Za-z][\w.-]*")
_OURS = {
    "--model": "the model is the argument of egm serve",
    "--model-path": "the model is the argument of egm serve",
    "--api-key": "others on this machine would read it in the list of processes: set EGM_SERVER_KEY",
    "--trust-remote-code": "EGM runs no code from checkpoints",
}


@dataclass
class Passed:
    """Options of an engine, as somebody wrote them.

    Attributes:
        options: Each with its value, None for a switch, by name; underscores are read as dashes.
        words: Them as they go on to the engine.
        host: Address to listen on, if it is among them.
        port: Port, if it is among them.
        served_model_name: Name of the model, if it is among them.
        notes: What was left out, and why.
    """

    options: dict[str, str | None] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    host: str | None = None
    port: int | None = None
    served_model_name: str | None = None
    notes: list[str] = field(default_factory=list)


def read_passed(words: Sequence[str], engine: Engine) -> Passed:
    """Read what follows `--`.

    Host, port and the model's name are taken over, whichever engine it is. A chat template that the engine does not
    have is left out, with a note: the EGM model cards name one, and the checkpoint's own is the right one.

    Raises:
        EgmError: If it is no option, one that is given elsewhere, or a port that is none.
    """
    passed = Passed()
    for name, values, asis in _options(words):
        value = values[0] if values else None
        if name in _OURS:
            raise EgmError(f"leave {name} out after --: {_OURS[name]}")
        if name in ("--host", "--port", "--served-model-name"):
            if value is None:
                raise EgmError(f"{name} after -- has no value")
            if name == "--port":
                passed.port = _port(value)
            elif name == "--host":
                passed.host = value
            else:
                passed.served_model_name = value
            continue
        if name == "--chat-template" and (why := _no_template(value, engine)):
            passed.notes.append(why)
            continue
        passed.options[name] = " ".join(values) if values else None
        passed.words += asis
    return passed


def _options(words: Sequence[str]) -> list[tuple[str, list[str], list[str]]]:
    """Part words into options: name, values, and the words themselves."""
    found: list[tuple[str, list[str], list[str]]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if _NAME.fullmatch(name):
            plain = "--" + name[2:].replace("_", "-") if name.startswith("--") else name
            found.append((plain, [value] if equals else [], [word]))
        elif found:
            found[-1][1].append(word)
            found[-1][2].append(word)
        else:
            raise EgmError(f"{word[:80]!r} is no option: write those of the engine after --, such as -- --tp 2")
    return found


def _port(value: str) -> int:
    if not value.isdecimal() or not 0 < int(value) < 65_536:
        raise EgmError(f"{value[:20]!r} is no port: give one from 1 to 65535")
    return int(value)


def _no_template(value: str | None, engine: Engine) -> str | None:
    """Say why a chat template is left out; None if the engine has it."""
    name = (value or "").strip()
    has_option = bool(engine.facts.options_in) and engine.has_option("--chat-template")
    if has_option and (Path(name).is_file() or name in engine.chat_templates() or "{" in name):
        return None
    return (
        f"--chat-template={name} is left out: {engine.name} knows no template of that name, and the checkpoint's own, "
        "which is used without the option, is the right one"
    )
