from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from PIL import Image

from egm.backends import Backend, GenerationSettings, Request
from egm.codecs import get_codec
from egm.grounder import Grounder
from egm.types import Completion
from egm.web.ask_view import AskDesk
from egm.web.models import OpenModel
from egm.web.pictures import WebPicture

WAIT = 60.0  # seconds after which a test has failed, however slow the machine


def box_text(*corners: int) -> str:
    return f'It is there.\n</think>\n\n```json\n[\n\t{{"bbox_2d": {list(corners)}, "label": "x"}}\n]\n```'


class Typing(Backend):
    """Writes texts by phrase, one of them after the other vote by vote, a piece whenever it is let.

    Args:
        script: For each phrase, its texts, one a vote.
    """

    streams = True

    def __init__(self, script: dict[str, Sequence[str]], *, model: str = "typing", batches: bool = True) -> None:
        self.script, self.model, self.batches = script, model, batches
        self.asked: list[Request] = []
        self.ended = threading.Semaphore(0)
        self._allowed, self._told = threading.Semaphore(0), threading.Semaphore(0)

    def let(self, pieces: int = 100_000) -> None:
        self._allowed.release(pieces)

    def drain(self) -> None:
        """Let it write nothing more until it is let again."""
        while self._allowed.acquire(blocking=False):
            pass

    def written(self) -> None:
        """Wait until a piece has been told."""
        assert self._told.acquire(timeout=WAIT)

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        self.asked += requests
        return [self._write(request) for request in requests]

    def _write(self, request: Request) -> Completion:
        said = request.messages[-1]["content"][-1]["text"]
        phrase = max((phrase for phrase in self.script if phrase in said), key=len)
        texts = self.script[phrase]
        text = texts[request.vote % len(texts)]
        if text == "broken":
            raise ZeroDivisionError
        told = ""
        for piece in text.splitlines(keepends=True):
            while not self._allowed.acquire(timeout=0.01):  # it looks whether it is to end, as between two tokens
                if request.on_text is not None and request.on_text(""):
                    self.ended.release()
                    return Completion(told, "stop", completion_tokens=len(told))
            told += piece
            ended = request.on_text is not None and request.on_text(piece)
            self._told.release()
            if ended:
                return Completion(told, "stop", completion_tokens=len(told))
        return Completion(
            text, prompt_tokens=7, completion_tokens=9, reasoning_tokens=4, seconds=0.5, answer_logprob=-0.1
        )


@pytest.fixture
def picture() -> WebPicture:
    image = Image.new("RGB", (200, 100), (40, 40, 40))
    return WebPicture("grey.png", image, image)


def open_model(backend: Backend, name: str | None = None, **options: int) -> OpenModel:
    return OpenModel(name or backend.model, Grounder(backend, get_codec("qwen3_vl"), **options))  # type: ignore[arg-type]


@pytest.fixture
def typing() -> Iterator[tuple[Typing, OpenModel]]:
    backend = Typing(
        {
            "the cup": [box_text(0, 0, 500, 500)],
            "the jug": [box_text(500, 500, 1000, 1000)],
            "a vote": [box_text(0, 0, 500, 500), box_text(0, 0, 500, 510), box_text(800, 800, 900, 900)],
            "nothing": ["None.\n</think>\n\n[]"],
            "bad": ["broken"],
            "odd": [box_text(1, 1, 900, 900).replace("there", "<script>alert(1)</script> ${1+1} {{value}}")],
        }
    )
    model = open_model(backend)
    yield backend, model
    backend.let()
    model.close()


@pytest.fixture
def desk(typing: tuple[Typing, OpenModel]) -> AskDesk:
    return AskDesk({"typing": typing[1]})


def form(**values: object) -> dict[str, object]:
    usual: dict[str, object] = {"phrases": "the cup", "expect": "one", "amodal": False, "model": "typing"}
    return {**usual, "against": "nothing", "votes": 1, "seed": 0, **values}
