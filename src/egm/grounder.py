"""Image and phrase in, box out: a codec asks and reads, a backend answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from egm.backends.base import Backend, GenerationSettings, Request, closed_on_error
from egm.backends.remote import RemoteBackend, Rounds, in_order
from egm.codecs import DEFAULT_CODEC, Codec, get_codec
from egm.codecs.registry import check_family as check_family
from egm.codecs.registry import check_tail
from egm.codecs.registry import codec_for as codec_for
from egm.errors import BackendError, EgmError
from egm.images import ImageSource, load_image
from egm.progress import track
from egm.questions import MAX_PHRASE as MAX_PHRASE
from egm.questions import ImageCache, Item, LoadedQuestion, check_all, item_error, load_question, write_request
from egm.questions import check_phrase as check_phrase
from egm.thinking import GateSource, checked_gate, gate_for, gate_subject, think_or_not
from egm.types import Completion, Expect, Grounding, Sample
from egm.voting import GroundedCompletion as GroundedCompletion
from egm.voting import run_rounds

if TYPE_CHECKING:
    from concurrent.futures import Future

_WINDOW = 4  # batches among which images are sorted by size
_WINDOW_PIXELS = 100_000_000  # about 300 MB of RGB


class Grounder:
    """Grounds phrases in images; a context manager, which on the way out closes what it opened.

    Args:
        backend: What answers.
        codec: How its model family is asked, and how its text is read.
        settings: How text is generated; greedy by default.
        prompt: The codec's prompt style; None takes its default.
        batch_size: Most requests to answer together in `ground_many`; the votes on one question stay together.
        owns_backend: Whether closing the grounder closes the backend. One that was given to it is left open, for
            whoever made it to close; those that `load` and `connect` opened are the grounder's own.
        cut_tail: End each answer behind its box, at the codec's stop strings (`Codec.tail_stops`): the same box for
            fewer tokens. Engines that know no stop strings write the tail all the same.
        gate: With `think="auto"` in the settings, what decides whether to think: a gate that `egm.calibrate` fitted, or
            its file.

    Raises:
        EgmError: If a number is out of range, the prompt style is unknown, the backend keeps no thinking budget, the
            codec has no tail to cut, or the gate was fitted on something else.

    Example:
        >>> from egm.backends import ScriptedBackend
        >>> from PIL import Image
        >>> backend = ScriptedBackend(['</think> [{"bbox_2d": [0, 0, 500, 500]}]'])
        >>> Grounder(backend, get_codec("qwen3_vl")).ground(Image.new("RGB", (64, 32)), "the cup").box
        Box(x1=0.0, y1=0.0, x2=32.0, y2=16.0)
    """

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        *,
        settings: GenerationSettings | None = None,
        prompt: str | None = None,
        batch_size: int = 8,
        owns_backend: bool = False,
        cut_tail: bool = False,
        gate: GateSource = None,
    ) -> None:
        if batch_size < 1:
            raise EgmError(f"batch_size {batch_size} is out of range: give at least 1")
        self.backend, self.codec, self.batch_size, self.owns_backend = backend, codec, batch_size, owns_backend
        self.settings = settings or GenerationSettings()
        self.prompt = prompt
        if cut_tail:
            check_tail(codec)
            self.settings = replace(self.settings, stop=codec.tail_stops)
        backend.check_settings(self.settings)
        codec.messages("anything", prompt=prompt)  # so that an unknown style is refused now
        subject = gate_subject(backend.model, codec, prompt, self.settings)
        self.gate = checked_gate(gate, self.settings, subject)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "egm-tiny",
        *,
        codec: str | Codec | None = None,
        device: str = "auto",
        dtype: str = "auto",
        settings: GenerationSettings | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        fast: bool = True,
        cut_tail: bool = False,
        gate: GateSource = None,
    ) -> Grounder:
        """Load a model, with the codec that its configuration calls for.

        Args:
            model: "egm-tiny", which comes with the package and knows only SynthRef's drawn shapes; a folder; or a hub
                name such as "nvidia/EGM-8B".
            codec: How the model is asked and read, a codec or its name; by default what its configuration and its chat
                template call for.
            device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
            dtype: "auto" (bfloat16 on a GPU, float32 on the CPU), "float32", "bfloat16", "float16" or "fp8"; see
                `TransformersBackend.load`.
            settings: How text is generated; by default greedily, and of egm-tiny at most 640 tokens, which is room
                enough for what it knows.
            prompt: The codec's prompt style; None takes its default.
            batch_size: Most requests to answer together in `ground_many`; by default 8, or 1 where the backend answers
                one after the other anyway.
            fast: Whether to use the fast paths: egm-tiny in NumPy unless another device or type is asked for, without
                importing torch, and EGM's own Qwen3-VL vision tower elsewhere. False runs what transformers has.
            cut_tail: See `Grounder`.
            gate: See `Grounder`.

        Raises:
            ModelError: If there is no such model, it does not load, or no codec knows its family.
        """
        from egm.backends.checkpoint import EMBEDDED, EMBEDDED_MAX_NEW_TOKENS, find_checkpoint
        from egm.backends.load import load_backend

        checkpoint = find_checkpoint(model)
        reader = get_codec(codec) if isinstance(codec, str) else codec
        if reader is None:
            check_family(checkpoint.model_type, checkpoint.name)
        if settings is None and checkpoint.name == EMBEDDED:
            settings = GenerationSettings(max_new_tokens=EMBEDDED_MAX_NEW_TOKENS)
        backend = load_backend(checkpoint, device=device, dtype=dtype, fast=fast)
        if batch_size is None:
            batch_size = 8 if backend.batches else 1
        with closed_on_error(backend):
            reader = codec_for(checkpoint.model_type, backend.prompt) if reader is None else reader
            asked: dict[str, Any] = {"settings": settings, "prompt": prompt, "cut_tail": cut_tail}
            own = gate_for(gate, checkpoint.name, checkpoint.path)
            return cls(backend, reader, batch_size=batch_size, owns_backend=True, gate=own, **asked)

    @classmethod
    def connect(
        cls,
        url: str | Sequence[str],
        model: str | None = None,
        *,
        codec: str | Codec = DEFAULT_CODEC,
        concurrency: int = 8,
        settings: GenerationSettings | None = None,
        prompt: str | None = None,
        cut_tail: bool = False,
        gate: GateSource = None,
        **options: Any,
    ) -> Grounder:
        """Ask a model behind an OpenAI-compatible server, such as SGLang, vLLM or `transformers serve`.

        Args:
            url: Where it is, such as "http://127.0.0.1:30000"; or where several servers of it are, over which pictures
                are spread (`egm.backends.openai.pool.ServerPool`).
            model: The name it serves the model by; None takes the only one.
            codec: How the model is asked and read, which a server does not tell: a codec or its name, such as
                "qwen3_vl_instruct" for a Qwen3-VL that does not think first.
            concurrency: Most requests under way at once, at all servers together.
            settings: How text is generated; greedy by default, with answers that the server's context has room for.
            prompt: The codec's prompt style; None takes its default.
            cut_tail: See `Grounder`.
            gate: See `Grounder`.
            **options: What else `egm.backends.openai.backend.OpenAIBackend` takes, such as `api_key`.

        Raises:
            EgmError: As `OpenAIBackend` and `get_codec` raise.
        """
        from egm.backends.openai.backend import OpenAIBackend
        from egm.backends.openai.pool import ServerPool

        reader = get_codec(codec) if isinstance(codec, str) else codec
        urls = [url] if isinstance(url, str) else [*url]
        asks: dict[str, Any] = {"concurrency": concurrency, **options}
        backend = OpenAIBackend(urls[0], model, **asks) if len(urls) == 1 else ServerPool(urls, model, **asks)
        with closed_on_error(backend):
            settings = backend.usual_settings() if settings is None else settings
            asked: dict[str, Any] = {"settings": settings, "prompt": prompt, "cut_tail": cut_tail, "gate": gate}
            return cls(backend, reader, batch_size=concurrency, owns_backend=True, **asked)

    def close(self) -> None:
        """Close the backend, and with it the connections to a server, if it is this grounder's own."""
        if self.owns_backend:
            self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def check_expect(self, expect: Expect) -> None:
        """Refuse to ask for a number of boxes that cannot be asked for.

        Raises:
            EgmError: If the codec cannot (`Codec.check_expect`), or not without thinking, or the tail behind the first
                box is cut and all boxes are asked for.
        """
        self.codec.check_expect(expect)
        if self.gate is not None:
            self.gate.check_expect(expect)
        if self.settings.think != "always":
            self.codec.direct_prefill("anything", **({} if expect == "one" else {"expect": expect}))
        if expect == "all" and self.settings.stop:
            raise EgmError("an answer whose tail is cut ends behind its first box: leave cut_tail (--cut-tail) out")

    def ground(self, image: ImageSource, phrase: str, *, amodal: bool = False, expect: Expect = "one") -> Grounding:
        """Find what a phrase describes in an image.

        Args:
            image: A path, the bytes of a file, or a PIL image; see `load_image`.
            phrase: What to find, at most `MAX_PHRASE` characters.
            amodal: Ask for the box of the whole object, its hidden part too.
            expect: How many boxes to ask for: "one"; "any" for one, or none if nothing matches (`Grounding.is_none`);
                "all" for as many as there are (`Grounding.boxes`), which may be none.

        Returns:
            The box in pixels of the upright image, or why there is none; with the picture, for `draw`.

        Raises:
            ImageError: If the image cannot be used.
            PhraseError: If the phrase is empty or too long.
            BackendError: If the engine fails.
            EgmError: As `check_expect` raises.
        """
        stripped = check_phrase(phrase)
        self.check_expect(expect)
        return self._answer([LoadedQuestion(0, load_image(image), stripped, amodal, image, expect)])[0].grounding

    def ground_many(self, items: Iterable[Item], *, progress: bool = True) -> list[Grounding]:
        """Ground many phrases, in batches.

        Everything is checked before the model runs, so a bad item costs no work; where that is not wanted, use
        `ground_each`. The pictures are not kept: `draw` works on what `ground` and `ground_each` return.

        Args:
            items: Samples, or pairs of image and phrase.
            progress: Whether to show progress on standard error: a bar on a terminal, else a line every half minute.

        Returns:
            One grounding an item, in the same order.

        Raises:
            EgmError: Of the same kind as `ground` raises, with the number of the item, counted from 0.
        """
        items = list(items)
        check_all(items)
        results: list[Grounding] = []
        for index, result in enumerate(track(self.ground_each(items), "grounding", len(items), enabled=progress)):
            if isinstance(result, EgmError):  # the file was there when it was checked
                raise item_error(result, index)
            results.append(replace(result, image=None))
        return results

    def ground_each(self, items: Iterable[Item]) -> Iterator[Grounding | EgmError]:
        """Ground phrases in batches as they come, and go on after bad ones.

        Items are read a few batches ahead; among those, images of like size are answered together.

        Args:
            items: Samples, or pairs of image and phrase; there may be no end to them.

        Yields:
            For each item, in the same order, its grounding, or the error of its image or phrase; behind a server, that
            of the request too.

        Raises:
            BackendError: If an engine in this process fails.
        """
        for result in self._each(enumerate(items), self._answer):
            yield result.grounding if isinstance(result, GroundedCompletion) else result

    def answer_each(
        self, items: Iterable[tuple[int, Item | EgmError]]
    ) -> Generator[GroundedCompletion | EgmError, None, None]:
        """Ground phrases as `ground_each` does, keep the replies, and go on after failures of the engine too.

        Args:
            items: Samples, or pairs of image and phrase, each with its seed index (see `Request`); in place of one that
                could not be had, the error that says why, which comes back as its answer.

        Yields:
            For each item, in the same order, its answer, or the error of its image, its phrase or the engine. Where a
            batch fails, its questions are asked once more, one by one, so that each fails for itself alone. In this
            process batches are taken as the items come, so that what is answered is yielded as its batch ends, and
            whoever keeps it loses no more than the batch that is under way.
        """
        yield from self._each(items, self._answer_alone, sort_by_size=False)

    def _each(
        self,
        numbered: Iterable[tuple[int, Item | EgmError]],
        answer: Callable[[Sequence[LoadedQuestion]], Sequence[GroundedCompletion | EgmError]],
        *,
        sort_by_size: bool = True,
    ) -> Iterator[GroundedCompletion | EgmError]:
        numbered = iter(numbered)
        if isinstance(self.backend, RemoteBackend):
            yield from self._each_submitted(numbered, self.backend)
            return
        cache, step = ImageCache(), max(1, self.batch_size // self.settings.votes)
        window = _WINDOW * self.batch_size if sort_by_size else step
        while True:
            results: dict[int, GroundedCompletion | EgmError] = {}
            order, questions = list[int](), list[LoadedQuestion]()
            cache = cache.unless_over(_WINDOW_PIXELS // 4)
            for index, item in islice(numbered, window):
                order.append(index)
                try:
                    questions.append(self._load(index, item, cache))
                except EgmError as error:
                    results[index] = error
                if cache.pixels > _WINDOW_PIXELS:
                    break
            if not order:
                return
            if sort_by_size:
                questions.sort(key=lambda question: question.image.width * question.image.height)
            for start in range(0, len(questions), step):
                batch = questions[start : start + step]
                results |= zip((question.index for question in batch), answer(batch), strict=True)
            yield from (results[index] for index in order)

    def _each_submitted(
        self, numbered: Iterator[tuple[int, Item | EgmError]], backend: RemoteBackend
    ) -> Iterator[GroundedCompletion | EgmError]:
        cache, step = ImageCache(), max(1, self.batch_size // self.settings.votes)

        def start(item: tuple[int, Item | EgmError]) -> tuple[LoadedQuestion, Future[GroundedCompletion]] | EgmError:
            nonlocal cache
            cache = cache.unless_over(_WINDOW_PIXELS // 4)
            try:
                question = self._load(*item, cache)
            except EgmError as error:
                return error
            return question, backend.submit_rounds(self.rounds(question), self.settings)

        def may_start(waiting: Sequence[LoadedQuestion]) -> bool:
            pixels = sum(question.image.width * question.image.height for question in waiting)
            return len(waiting) < _WINDOW * step and pixels <= _WINDOW_PIXELS

        for result in in_order(map(start, numbered), may_start):
            yield result if isinstance(result, EgmError) else result[1]

    def _load(self, index: int, item: Item | EgmError, cache: ImageCache) -> LoadedQuestion:
        expect = item.expect if isinstance(item, Sample) else "one"
        if expect != "one" or self.gate is not None:
            self.check_expect(expect)
        return load_question(index, item, cache)

    def _answer_alone(self, questions: Sequence[LoadedQuestion]) -> Sequence[GroundedCompletion | EgmError]:
        try:
            return self._answer(questions)
        except BackendError as error:
            if len(questions) == 1:
                return [error]
        return [result for question in questions for result in self._answer_alone([question])]

    def _answer(self, questions: Sequence[LoadedQuestion]) -> list[GroundedCompletion]:
        rounds = [self.rounds(question) for question in questions]
        return run_rounds(rounds, lambda requests: self.backend.generate(requests, self.settings))

    def rounds(self, question: LoadedQuestion) -> Rounds[GroundedCompletion]:
        """Yield the requests about a question, as `run_rounds` and `RemoteBackend.submit_rounds` take them."""
        asked: dict[str, Any] = {"phrase": question.phrase, **question.expected}
        rest: dict[str, Any] = {"codec": self.codec, "gate": self.gate, "told": self.backend.tells_logprobs}
        return think_or_not(self.request(question), self.settings, partial(self._read, question), asked, **rest)

    def request(self, question: LoadedQuestion) -> Request:
        """Write what the backend is asked about a question."""
        return write_request(question, self.backend, self.codec, self.settings, self.prompt)

    def _read(self, question: LoadedQuestion, reply: Completion) -> GroundedCompletion:
        grounding = question.read(reply, self.codec)
        if reply.reasoning_tokens is None and (count := self.backend.count_tokens(grounding.reasoning)) is not None:
            written = count if reply.completion_tokens is None else reply.completion_tokens
            reply = replace(reply, reasoning_tokens=min(count, written))
        return GroundedCompletion(grounding, reply)
