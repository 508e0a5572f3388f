"""What the page fetches beside gradio's own: pictures, and the files of answers; uploads come in here too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from egm.errors import EgmError
from egm.web.answers import PastAnswer
from egm.web.kept import Kept
from egm.web.pictures import Uploads

if TYPE_CHECKING:
    from fastapi import FastAPI

_GONE: Final = "that is no longer kept here"
_SAME: Final = {"Cache-Control": "private, max-age=31536000, immutable"}  # a name stands for one thing


def add_routes(app: FastAPI, uploads: Uploads, answers: Kept[PastAnswer], in_memory: asyncio.Semaphore) -> None:
    """Serve pictures and answers, and take uploads.

    Args:
        app: The application.
        uploads: Pictures.
        answers: Answers.
        in_memory: Lets those through, a few at a time, who decode, shrink or draw on a picture.
    """
    from fastapi import Request
    from fastapi.responses import JSONResponse, PlainTextResponse, Response

    async def upload(request: Request) -> Response:
        data, name = await request.body(), unquote(request.headers.get("x-file-name", ""))
        try:
            async with in_memory:
                kept, picture = await asyncio.to_thread(uploads.add, data, name)
        except EgmError as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse({"picture": kept, "name": picture.name})

    async def picture(name: str) -> Response:
        found = uploads.get(name)
        if found is None:
            return PlainTextResponse(_GONE, 404)
        async with in_memory:
            preview = await asyncio.to_thread(lambda: found.preview)
        return Response(preview, media_type="image/webp", headers=_SAME)

    async def answer(file: str) -> Response:
        name, _, form = file.rpartition(".")
        found = answers.get(name)
        if found is not None and form == "jsonl":
            return Response(found.lines(), media_type="application/jsonl", headers=_SAME)
        about = None if found is None or form != "png" else uploads.get(found.picture)
        if found is None or about is None:
            return PlainTextResponse(_GONE, 404)
        async with in_memory:
            drawn = await asyncio.to_thread(found.drawn, about)
        return Response(drawn, media_type="image/png", headers=_SAME)

    upload.__annotations__["request"] = Request  # which FastAPI reads, and the module does not import
    app.add_api_route("/egm/pictures", upload, methods=["POST"], response_model=None)
    app.add_api_route("/egm/pictures/{name}", picture, methods=["GET"], response_model=None)
    app.add_api_route("/egm/answers/{file}", answer, methods=["GET"], response_model=None)
