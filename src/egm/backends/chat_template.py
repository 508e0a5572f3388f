"""Chat templates of checkpoints, tried once in a process of their own before they are used in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from egm.backends import render_template
from egm.errors import ModelError
from egm.types import Message

CPU_SECONDS = 10
"""Time on the processor after which the system ends a template."""
MAX_BYTES = 2**30
"""Memory that it may take."""
MAX_CHARACTERS = 1_000_000
"""Longest text that it may make of one short question."""

_QUESTION = "Locate the cup."
_MESSAGES: list[Message] = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _QUESTION}]},
]
_OWN = Path(__file__).parents[1] / "models" / "tiny" / "tokenizer_files"
"""Where the templates of EGM's own sizes lie."""
_SECONDS = 120  # on a clock, where the system has no bound for the time on the processor, or lets it wait that long


def check_templates(
    templates: object, tokens: Mapping[str, Any], render: Callable[[list[Message]], str], name: str
) -> None:
    """Refuse a checkpoint whose chat template cannot ask a question.

    Args:
        templates: The template, or several by name, as a processor has them.
        tokens: The special tokens that it may use.
        render: Renders chat turns with it in this process, which is done once the template is known to end.
        name: What to call the checkpoint in messages.

    Raises:
        ModelError: If there is none, it takes too long, too much memory, makes too long a text, fails, or leaves the
            question out.
    """
    found = templates.values() if isinstance(templates, Mapping) else [templates]
    sources = [template for template in found if isinstance(template, str) and template.strip()]
    if not sources:
        raise ModelError(f"{name!r} has no chat template, or an empty one: copy all its files")
    own = {file.read_text(encoding="utf-8").strip() for file in _OWN.glob("*.jinja")}
    for source in sources:
        if source.strip() not in own:
            _try_apart(source, tokens, name)
    try:
        text = render(_MESSAGES)
    except Exception as error:  # a template raises what it likes, and what its expressions do
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(f"the chat template of {name!r} fails ({reason}): copy or download it again") from error
    if _QUESTION not in text:
        raise ModelError(f"the chat template of {name!r} leaves the question out: copy or download it again")


def _try_apart(template: str, tokens: Mapping[str, Any], name: str) -> None:
    variables = {**tokens, "messages": _MESSAGES, "add_generation_prompt": True, "tools": None, "documents": None}
    limits = {"seconds": CPU_SECONDS, "bytes": MAX_BYTES, "characters": MAX_CHARACTERS}
    asked = json.dumps({"template": template, "variables": variables, **limits}, default=str).encode()
    try:
        # By its path and without its folder among those that are searched (-P): there, numpy and openai are EGM's.
        command = [sys.executable, "-P", str(render_template.__file__)]
        done = subprocess.run(command, input=asked, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode < 0:
        raise ModelError(
            f"the chat template of {name!r} takes more than {CPU_SECONDS} seconds for one question: it "
            "is broken or hostile, so download the checkpoint again or take another"
        )
    if done.returncode == render_template.TOO_MUCH:
        raise ModelError(
            f"the chat template of {name!r} takes more than {MAX_BYTES // 2**20:,} MB or makes more than "
            f"{MAX_CHARACTERS:,} characters of one question: it is broken or hostile, so download the "
            "checkpoint again or take another"
        )


def renderer(folder: Path, name: str) -> Callable[[list[Message]], str]:
    """Return what renders chat turns with a checkpoint's own template, read from its folder without a tokenizer.

    Args:
        folder: The checkpoint.
        name: What to call it in messages.

    Raises:
        ModelError: As `check_templates` does.
    """
    source, tokens = _written(folder)
    environment = render_template.environment()

    def render(messages: list[Message]) -> str:
        text: str = environment.from_string(source).render(
            **tokens, messages=messages, add_generation_prompt=True, tools=None, documents=None
        )
        return text

    check_templates(source, tokens, render, name)
    return render


def _written(folder: Path) -> tuple[object, dict[str, Any]]:
    """Read the template and the special tokens that it may use; a template of its own file counts before others."""

    def read(file: str) -> dict[str, Any]:
        try:
            value = json.loads((folder / file).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    configuration = read("tokenizer_config.json")
    named = {key: configuration.get(key) for key in ("bos_token", "eos_token", "pad_token")}
    tokens = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace"), tokens
    found = read("chat_template.json").get("chat_template") or configuration.get("chat_template")
    if isinstance(found, list):  # several, each with its name
        by_name = {row.get("name"): row.get("template") for row in found if isinstance(row, dict)}
        found = by_name.get("default")
    return found, tokens
