"""Requests as OpenAI-compatible servers take them: pictures as `data:` URLs, and nothing for a server to fetch."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import JpegImagePlugin
from PIL.Image import Image

from egm.backends.base import GenerationSettings, Request
from egm.backends.openai.jpeg import bare_jpeg
from egm.backends.sampling import seed_of
from egm.errors import BackendError
from egm.images import ImageSource

_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class RemoteRequest(Request):
    """A request with the files of its pictures, where those may be sent as they are.

    Attributes:
        files: For each picture what `plain_jpeg` returns, or nothing at all.
    """

    files: tuple[bytes | None, ...] = ()


def plain_jpeg(source: ImageSource, image: Image) -> bytes | None:
    """Return a source's bytes if they are a JPEG that any server decodes to upright RGB of the picture's size.

    Such a file is a tenth of the PNG, and costs no time to encode. What in it is not the picture, such as the place
    that a camera noted, is left out.

    Args:
        source: Where the picture came from.
        image: What `load_image` made of it.

    Returns:
        The file, or None where the picture must be encoded anew: no JPEG, turned by EXIF, grey, CMYK, several pictures
        in one, or larger than its pixels.
    """
    if isinstance(source, str | os.PathLike):
        try:
            source = Path(os.fsdecode(source)).read_bytes()
        except (OSError, ValueError):
            return None
    if not isinstance(source, bytes) or source[:3] != b"\xff\xd8\xff" or len(source) > 3 * image.width * image.height:
        return None
    try:
        picture = JpegImagePlugin.jpeg_factory(io.BytesIO(source))
        upright = picture.getexif().get(_ORIENTATION, 1) == 1
    except Exception:  # damaged metadata makes anything of itself
        return None
    fits = (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", image.size)
    return bare_jpeg(source) if fits and upright else None


def data_url(image: Image, file: bytes | None = None) -> str:
    """Write a picture as a `data:` URL: its JPEG or PNG file if there is one, else PNG, which loses nothing.

    Raises:
        BackendError: If it is no RGB picture.
    """
    if not isinstance(image, Image) or image.mode != "RGB":
        raise BackendError("a picture to send is not RGB: load it with load_image")
    kind, data = "png" if file is not None and file.startswith(b"\x89PNG") else "jpeg", file
    if data is None:
        bare = image.copy()
        bare.info = {}  # or its metadata would be written too
        stream = io.BytesIO()
        bare.save(stream, "PNG", compress_level=1)
        kind, data = "png", stream.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def body(request: Request, settings: GenerationSettings, *, model: str) -> dict[str, Any]:
    """Write what to post, with no more parameters than the settings need: servers refuse those that they do not know.

    Raises:
        BackendError: If a message holds anything but text and places for pictures, or those do not fit the pictures.
    """
    request.check()
    files = request.files if isinstance(request, RemoteRequest) and request.files else (None,) * len(request.images)
    urls = (data_url(image, file) for image, file in zip(request.images, files, strict=True))
    messages = []
    for message in request.messages:
        content = message["content"]
        parts = content if isinstance(content, str) else [_part(part, urls) for part in content]
        messages.append({"role": message["role"], "content": parts})
    if request.prefill:
        messages.append({"role": "assistant", "content": request.prefill})
    fields: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
    }
    if not settings.greedy:
        fields["seed"] = seed_of(settings, request) % 2**31
        if settings.top_p < 1.0:
            fields["top_p"] = settings.top_p
    if settings.stop:
        fields["stop"] = list(settings.stop)
    if request.banned_token is not None:
        fields["logit_bias"] = {str(request.banned_token): -100}  # the least that the protocol allows
    goes_on = request.prefill or request.continue_final_message
    extra: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": False} if goes_on else {}
    if settings.top_k and not settings.greedy:
        extra["top_k"] = settings.top_k
    if extra:
        fields["extra_body"] = extra
    return fields


def _part(part: dict[str, Any], urls: Iterator[str]) -> dict[str, Any]:
    if part.get("type") == "image":
        return {"type": "image_url", "image_url": {"url": next(urls)}}
    if part.get("type") == "text":
        return {"type": "text", "text": part["text"]}
    raise BackendError(f"a message has a part of type {part.get('type')!r}: only text and pictures are sent")
