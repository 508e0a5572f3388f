"""Stop strings on servers: a server ends a text at the first one, and cannot know whether that is a thought.

Where the text has ended before its answer did, in the reasoning or before a valid box, the whole is asked for without
stop strings. To go on where it stopped would take a begun answer (`continue_final_message`), in which chat templates
close the reasoning first. The tokens of both count.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace

from egm.backends.base import GenerationSettings, Request
from egm.types import STOP_STRING, Completion, cost_of_both


async def answer_up_to_stop(
    request: Request,
    settings: GenerationSettings,
    ask: Callable[[Request, GenerationSettings], Awaitable[Completion]],
    taken: Callable[[], bool],
) -> Completion:
    """Ask for a text that may end before a stop string.

    Args:
        request: The question, with its `ends`.
        settings: Its stop strings may be none.
        ask: Sends one request.
        taken: Tells, once there is a reply, whether the server takes stop strings.

    Returns:
        The reply, or the costs of two with the text of the second.

    Raises:
        BackendError: If a request fails.

    Warns:
        UserWarning: If it had to be asked twice.
    """
    reply = await ask(request, settings)
    if not settings.stop or not taken() or reply.finish_reason not in ("stop", STOP_STRING):
        return reply
    shown = next((stop for stop in settings.stop if reply.text.endswith(stop)), None)
    if shown is not None:  # vLLM and SGLang leave the stop string out, others do not
        text = reply.text.removesuffix(shown)
        reply = replace(reply, text=text, finish_reason=STOP_STRING, stop_reason=shown)
    if request.ends is None:
        return reply
    ends = request.may_end(reply.text)
    if ends:
        return replace(reply, finish_reason=STOP_STRING)
    if ends is None and reply.finish_reason == "stop":  # by itself, as far as anybody can tell
        return reply
    warnings.warn(
        f"a server ended a text at {' or '.join(settings.stop)} before its answer was there, and was asked again "
        "without: where that is often so, cutting the tail (cut_tail, --cut-tail) costs more than it saves",
        stacklevel=2,
    )
    if request.on_again is not None:
        request.on_again()
    whole = await ask(request, replace(settings, stop=()))
    return replace(whole, **cost_of_both(reply, whole))
