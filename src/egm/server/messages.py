"""Chat turns of the protocol as a backend's request: pictures decoded, from `data:` URLs alone."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from typing import TYPE_CHECKING

from egm.backends.base import Request
from egm.errors import ImageError
from egm.images import MAX_PIXELS, load_image
from egm.server.errors import HttpError
from egm.server.protocol import ChatMessage, ChatRequest, TextPart
from egm.types import Message

if TYPE_CHECKING:
    from PIL.Image import Image

_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,", re.IGNORECASE)


def read_request(body: ChatRequest) -> Request:
    """Make a backend's request of a body; takes as long as its pictures take to decode.

    Raises:
        HttpError: With 422, if a picture is none, is over the limits of `egm.images`, or would have to be fetched, or
            if the last message is to be gone on with and cannot be.
        EgmError: As `ChatRequest.banned_token` raises.
    """
    goes_on = _goes_on(body)
    images: list[Image] = []
    messages = [_message(message, f"messages.{place}", images) for place, message in enumerate(body.messages)]
    return Request(
        messages,
        images,
        seed_index=secrets.randbits(63) if body.seed is None else body.seed,
        continue_final_message=goes_on,
        banned_token=body.banned_token(),
        token_logprobs=bool(body.logprobs),
    )


def _goes_on(body: ChatRequest) -> bool:
    goes_on = bool(body.continue_final_message)
    if goes_on and body.add_generation_prompt is not False:
        said = "an answer is either begun or gone on with: send false beside continue_final_message"
        raise HttpError(422, f"add_generation_prompt: {said}", field="add_generation_prompt")
    if not goes_on and body.add_generation_prompt is False:
        said = "without it nothing would be answered, but where continue_final_message is true"
        raise HttpError(422, f"add_generation_prompt: {said}", field="add_generation_prompt")
    if goes_on and body.messages[-1].role != "assistant":
        said = "the last message must be the assistant's, for its answer is gone on with"
        raise HttpError(422, f"continue_final_message: {said}", field="continue_final_message")
    return goes_on


def _message(message: ChatMessage, field: str, images: list[Image]) -> Message:
    if isinstance(message.content, str):
        return {"role": message.role, "content": message.content}
    parts: list[dict[str, str]] = []
    for place, part in enumerate(message.content):
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
            continue
        where = f"{field}.content.{place}.image_url.url"
        if message.role != "user":
            raise HttpError(422, f"{where}: only a user shows pictures", field=where)
        images.append(_picture(part.image_url.url, where))
        parts.append({"type": "image"})
        if sum(image.width * image.height for image in images) > MAX_PIXELS:
            said = (
                f"the pictures of a request have more than {MAX_PIXELS // 10**6} megapixels together: scale them down"
            )
            raise HttpError(422, f"{where}: {said}", field=where)
    if message.role == "assistant":  # as templates expect it
        return {"role": message.role, "content": "".join(part["text"] for part in parts)}
    return {"role": message.role, "content": parts}


def _picture(url: str, field: str) -> Image:
    head = _DATA_URL.match(url[:200])
    if head is None:
        said = "nothing is fetched, and no file is read: send the picture in a data: URL, data:image/jpeg;base64,..."
        raise HttpError(422, f"{field}: {said}", field=field)
    try:
        return load_image(base64.b64decode(url[head.end() :], validate=True))
    except (binascii.Error, ValueError) as error:
        said = str(error) if isinstance(error, ImageError) else "the picture is not in base64: encode it anew"
        raise HttpError(422, f"{field}: {said}", field=field) from error
