"""Small Qwen3-VL models on the CPU without torch: the first answer from a cold process in about a second."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from egm.backends.base import Backend, EngineInfo, GenerationSettings, Request, TokenScore
from egm.backends.checkpoint import Checkpoint
from egm.backends.numpy.folder import compile_template, image_positions, image_settings, read_safetensors
from egm.backends.numpy.qwen3_vl import Floats, Grid, LanguageModel, VisionTower, take_rows, with_prefix
from egm.backends.prompt import render_prompt
from egm.backends.sampling import ThinkingBudget, group_by_prompt, mean_logprobs, seed_of
from egm.backends.streaming import TextWatch, token_logprobs, watch_rows
from egm.backends.tokens import scores_of_tokens, stop_tokens
from egm.codecs.resize import smart_resize
from egm.environment import cpu_name
from egm.errors import ModelError, RequestError
from egm.models.decode.drafts import DraftCounts, NGramDrafts
from egm.models.decode.repetition import ends_repeated
from egm.types import Completion, Message

if TYPE_CHECKING:
    from PIL.Image import Image


_PICTURES = 8  # that are remembered


class NumpyBackend(Backend):
    """A small dense Qwen3-VL in float32, one question at a time; several answers to it are sampled together.

    It answers as `TransformersBackend` does in float32 on the CPU, up to rounding; what it samples differs, since the
    random numbers are NumPy's.

    Args:
        checkpoint: A checked model folder.
        drafts: Whether one answer is written in fewer passes than tokens, see `egm.models.decode.drafts`.

    Attributes:
        draft_counts: What drafts saved so far.

    Raises:
        ModelError: If it is not a dense Qwen3-VL, or a file is missing or damaged.
    """

    thinking_budgets = True
    batches = False
    streams = True

    def __init__(self, checkpoint: Checkpoint, *, drafts: bool = True) -> None:
        self.model, self.drafts, self.draft_counts = checkpoint.name, drafts, DraftCounts()
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        if checkpoint.model_type != "qwen3_vl":
            raise ModelError(f"{self.model!r} is not a dense Qwen3-VL model: load it through TransformersBackend")
        try:
            self._read(checkpoint)
        except ModelError:
            raise
        except Exception as error:  # the tokenizer's library raises nothing more specific
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(f"{self.model!r} does not load ({reason}): copy it again") from error

    def _read(self, checkpoint: Checkpoint) -> None:
        from tokenizers import Tokenizer

        folder, config = checkpoint.path, checkpoint.config
        weights = read_safetensors(folder)
        text = with_prefix(weights, "model.language_model.")
        head = text["embed_tokens.weight"] if config.get("tie_word_embeddings") else weights["lm_head.weight"]
        self._tower = VisionTower(config["vision_config"], with_prefix(weights, "model.visual."))
        self._decoder = LanguageModel(config["text_config"], text, head)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._template = compile_template((folder / "chat_template.jinja").read_text(encoding="utf-8"))
        self._pixels = image_settings(folder)
        self._image, self._video = config["image_token_id"], config["video_token_id"]
        stops = config["text_config"]["eos_token_id"]
        if (folder / "generation_config.json").is_file():
            stops = json.loads((folder / "generation_config.json").read_bytes()).get("eos_token_id", stops)
        self._stops = stop_tokens(stops)
        self.context: int = config["text_config"]["max_position_embeddings"]

    def prompt(self, messages: Sequence[Message], *, continue_final_message: bool = False) -> str:
        """Render chat turns with the checkpoint's own template; see `render_prompt`."""
        return render_prompt(messages, self._render, continue_final_message=continue_final_message)

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return self._encode(text)

    def describe(self) -> EngineInfo:
        """Say that it is NumPy on the CPU."""
        return EngineInfo(type(self).__name__, packages=("numpy",), hardware=cpu_name())

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Answer requests one after the other, those that ask the same thing together; see `Backend.generate`."""
        from threadpoolctl import threadpool_limits

        # The products are so small that threads cost more than they give, and on a busy machine ten times as much.
        # Where exp overflows to infinity, one over it is 0, as it should be.
        with threadpool_limits(1, user_api="blas"), np.errstate(over="ignore"):
            return [reply for group in group_by_prompt(requests) for reply in self._answer(group, settings)]

    def token_scores(self, request: Request, text: str) -> list[TokenScore]:
        """Read a text as the answer to a request; see `Backend.token_scores`."""
        from threadpoolctl import threadpool_limits

        written = self._encode(text)
        with threadpool_limits(1, user_api="blas"), np.errstate(over="ignore"):  # as in `generate`
            prompt = self._read_prompt(request, written)
            cache = self._decoder.cache(len(prompt.ids))
            hidden = self._decoder.read(prompt.hidden[None], prompt.positions, cache, 0, prompt.levels)[0]
            scores = self._decoder.scores(hidden[len(prompt.ids) - len(written) - 1 :])
        return scores_of_tokens(scores, written, self._decode, len(text))

    def _read_prompt(self, request: Request, written: Sequence[int] = ()) -> _Prompt:
        """Look at the picture, and embed what a request says and what is written of its answer."""
        request.check()
        if len(request.images) > 1:
            raise RequestError(f"{self.model} takes one picture a request, not {len(request.images)}")
        seen = [self._look_at(image) for image in request.images]
        prompt = self.prompt(request.messages, continue_final_message=request.continue_final_message)
        ids = self._encode(prompt + request.prefill)
        if ids.count(self._image) != len(seen) or self._video in ids:
            raise RequestError("the text holds control tokens for pictures: pass phrases through a codec")
        at = ids.index(self._image) if seen else 0
        grid, features, levels = (seen[0].grid, seen[0].features, seen[0].levels) if seen else ((0, 0), None, [])
        if features is not None:
            ids[at : at + 1] = [self._image] * len(features)
        ids += written
        if len(ids) >= self.context:
            said = f"a prompt of {len(ids)} tokens leaves no room in {self.model}'s context of {self.context}"
            raise RequestError(said)
        hidden = self._decoder.embeddings[ids]
        positions: Any = np.broadcast_to(np.arange(len(ids)), (3, len(ids)))
        if features is not None:
            rows = slice(at, at + len(features))
            hidden[rows] = features
            positions = image_positions(len(ids), at, grid)
            return _Prompt(ids, grid, hidden, positions, [(rows, level) for level in levels], seen[0], rows.stop)
        return _Prompt(ids, grid, hidden, positions, [], None, 0)

    def _answer(self, group: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Read once what requests share, and write their answers in step."""
        start = time.perf_counter()
        prompt = self._read_prompt(group[0])
        ids = prompt.ids
        limit = min(settings.max_new_tokens, self.context - len(ids))
        cache = self._decoder.cache(len(ids) + limit)
        scores = self._decoder(prompt.hidden[None], prompt.positions, cache, 0, prompt.levels)
        watches = watch_rows(group, settings, self._decode, self._stops)
        answers = [
            _PartialAnswer(own, settings, self._decode, self._encode, self._stops, watch)
            for own, watch in zip(group, watches, strict=True)
        ]
        if self.drafts and len(answers) == 1:
            self._write_alone(answers[0], prompt, group[0].drafts, cache, scores, limit, start)
            return [self._complete(answers[0], prompt, pictures=len(group[0].images))]
        unfinished, place = answers, int(prompt.positions.max())
        scores = np.repeat(scores, len(group), axis=0)
        cache = take_rows(cache, [0] * len(group), len(ids))
        for count in range(1, limit + 1):
            scores[:, [self._image, self._video]] = -np.inf
            for own, row in zip(unfinished, scores, strict=True):
                own.write(row, start=start)
            running = [number for number, own in enumerate(unfinished) if not own.stopped]
            if not running or count == limit:
                break
            read = len(ids) + count - 1
            if len(running) < len(unfinished):
                cache, unfinished = take_rows(cache, running, read), [unfinished[number] for number in running]
            newest = self._decoder.embeddings[[own.ids[-1] for own in unfinished]][:, None]
            scores = self._decoder(newest, np.full((3, 1), place + count), cache, read, [])
        return [self._complete(own, prompt, pictures=len(group[0].images)) for own in answers]

    def _write_alone(
        self,
        own: _PartialAnswer,
        prompt: _Prompt,
        frames: Sequence[str],
        cache: Floats,
        scores: Floats,
        limit: int,
        start: float,
    ) -> None:
        """Write one answer: a pass reads the newest token and a draft, and as much of it stays as the model writes."""
        asked = prompt.ids[prompt.text :]
        earlier = [] if prompt.seen is None else prompt.seen.said
        end = max(self._stops)  # of a turn: vocabularies have it behind the end of a text
        drafts = NGramDrafts([*([*self._encode(frame), end] for frame in frames), earlier])
        drafts.take(asked)
        counts, read = self.draft_counts, len(prompt.ids)
        draft: list[int] = []
        place = int(prompt.positions.max()) + 1 - read  # from a place in the cache to its position
        while True:
            scores[:, [self._image, self._video]] = -np.inf
            used = 0
            for used, row in enumerate(scores, 1):
                own.write(row, start=start)
                drafts.take(own.ids[-1:])
                if own.stopped or len(own.ids) == limit or used > len(draft) or own.ids[-1] != draft[used - 1]:
                    break
            counts.tokens += used
            counts.drafted += len(draft)
            counts.accepted += used - 1
            if own.stopped or len(own.ids) == limit:
                break
            drafts.learn(len(draft), used - 1)
            if len(own.ids) > 1:  # the first is of the prompt's own pass
                read += used
            draft = drafts.propose(limit - len(own.ids))
            at = np.arange(read, read + 1 + len(draft)) + place
            newest = self._decoder.embeddings[[own.ids[-1], *draft]][None]
            hidden = self._decoder.read(newest, np.broadcast_to(at, (3, len(at))), cache, read, [])
            scores = self._decoder.scores(hidden)[0]
            counts.passes += 1
        if prompt.seen is not None:
            prompt.seen.said = [*asked[-2:], *own.ids]

    def _complete(self, own: _PartialAnswer, prompt: _Prompt, *, pictures: int) -> Completion:
        patch, think_end = self._pixels["patch_size"], self._encode("</think>")
        whole, answer = mean_logprobs(own.ids, own.logprobs, think_end, own.budget.forced)
        return Completion(
            **own.watch.finish(own.ids),
            prompt_tokens=len(prompt.ids),
            completion_tokens=len(own.ids),
            seconds=own.seconds,
            seen_size=(prompt.grid[1] * patch, prompt.grid[0] * patch) if pictures else None,
            logprob=whole,
            answer_logprob=answer,
            token_logprobs=token_logprobs(own.ids, own.logprobs, self._decode) if own.tells else (),
        )

    def _render(self, messages: list[Message], begin: bool) -> str:
        text: str = self._template.render(messages=messages, add_generation_prompt=begin)
        return text

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _look_at(self, image: Image) -> _Seen:
        """Look at a picture, or remember what was seen of it: several questions in a row are often about one."""
        key = hashlib.blake2b(f"{image.mode} {image.size}".encode() + image.tobytes()).digest()
        if key not in self._seen:
            self._seen[key] = _Seen(*self._see(image))
            if len(self._seen) > _PICTURES:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        return self._seen[key]

    def _see(self, image: Image) -> tuple[Grid, Floats, list[Floats]]:
        from PIL.Image import Resampling

        settings = self._pixels
        patch, limits = settings["patch_size"], settings["size"]  # both of them in pixels, in spite of their names
        low, high = limits["shortest_edge"], limits["longest_edge"]
        size = smart_resize(image.size, factor=patch * settings["merge_size"], min_pixels=low, max_pixels=high)
        resized = image if image.size == size else image.resize(size, Resampling(settings["resample"]))
        pixels = np.asarray(resized, dtype=np.float32) * np.float32(settings["rescale_factor"])
        pixels = (pixels - np.float32(settings["image_mean"])) / np.float32(settings["image_std"])
        grid = (size[1] // patch, size[0] // patch)
        patches = pixels.reshape(grid[0], patch, grid[1], patch, 3).transpose(0, 2, 4, 1, 3)
        return grid, *self._tower(patches.reshape(grid[0] * grid[1], -1), (grid[0], grid[1]))


@dataclass(slots=True)
class _Seen:
    """What was seen of a picture, and the tokens of the last answer about it, with those before it."""

    grid: Grid
    features: Floats
    levels: list[Floats]
    said: list[int] = field(default_factory=list)


class _Prompt(NamedTuple):
    """What a request shows and says, embedded.

    Attributes:
        ids: Tokens, a placeholder for each visual one.
        grid: Rows and columns of patches; zeros without a picture.
        hidden: Embeddings, shape (tokens, hidden).
        positions: M-RoPE positions, shape (3, tokens).
        levels: Which tokens the features of each DeepStack level are added to, and the features.
        seen: The picture, if there is one.
        text: Where the text behind it begins.
    """

    ids: list[int]
    grid: Grid
    hidden: Floats
    positions: Any
    levels: list[tuple[slice, Floats]]
    seen: _Seen | None
    text: int


class _PartialAnswer:
    """One answer while it is written."""

    def __init__(
        self,
        request: Request,
        settings: GenerationSettings,
        decode: Callable[[Sequence[int]], str],
        encode: Callable[[str], list[int]],
        stops: Container[int],
        watch: TextWatch,
    ) -> None:
        self.watch, self._stops = watch, stops
        self.settings, self.random = settings, np.random.default_rng(seed_of(settings, request))
        self.budget = ThinkingBudget(settings, request, decode, encode)
        self.tells = request.token_logprobs
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.seconds, self.stopped = 0.0, False

    def write(self, scores: Floats, *, start: float) -> None:
        """Add a token: the one that is forced, else the likeliest, or a draw."""
        forced = self.budget.forced_token(len(self.ids), lambda: self.ids)
        banned = self.budget.banned_tokens(len(self.ids))
        allowed = np.where(np.isin(np.arange(len(scores)), banned), -np.inf, scores) if banned else scores
        token = self._choose(allowed) if forced is None else forced
        top = scores.max()
        self.logprobs.append(float(scores[token] - top - np.log(np.exp(scores - top).sum())))
        self.ids.append(token)
        repeated = len(self.ids) > self.budget.tokens and ends_repeated(self.ids)
        self.stopped = self.watch.take([token]) is not None or token in self._stops or repeated
        self.seconds = time.perf_counter() - start

    def _choose(self, scores: Floats) -> int:
        settings = self.settings
        if settings.greedy:
            return int(scores.argmax())
        order = np.argsort(-scores, kind="stable")[: settings.top_k or None]
        shares = np.exp((scores[order].astype(np.float64) - scores[order[0]]) / settings.temperature)
        shares /= shares.sum()
        kept = np.cumsum(shares) - shares < settings.top_p  # at least the likeliest
        return int(self.random.choice(order[kept], p=shares[kept] / shares[kept].sum()))
