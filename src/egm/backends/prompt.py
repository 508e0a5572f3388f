"""Chat turns as the text that a model reads, up to where it is to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from egm.errors import RequestError
from egm.types import Message

Render: TypeAlias = Callable[[list[Message], bool], str]
"""Renders chat turns with a template; the second argument is whether to begin an answer (`add_generation_prompt`)."""

_END = "<|the answer goes on here|>"


def render_prompt(messages: Sequence[Message], render: Render, *, continue_final_message: bool = False) -> str:
    """Render chat turns up to where the answer begins, or goes on.

    Args:
        messages: The turns.
        render: The checkpoint's template.
        continue_final_message: Whether the last turn, whose content must be text, is how the answer begins: what the
            template writes after it is then left out, as transformers and vLLM do.

    Raises:
        RequestError: If the template refuses the turns, or shows the last one otherwise than it was begun.
    """
    turns = list(messages)
    if continue_final_message:
        turns[-1] = {**turns[-1], "content": f"{turns[-1]['content']}{_END}"}
    try:
        text = render(turns, not continue_final_message)
    except RequestError:
        raise
    except Exception as error:  # a template raises what it likes, and what its expressions do
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RequestError(f"the chat template refuses: {reason}") from error
    if not continue_final_message:
        return text
    begun, found, _ = text.rpartition(_END)
    if not found:
        raise RequestError("the chat template leaves out the answer that is to be gone on with: begin none")
    return begun
