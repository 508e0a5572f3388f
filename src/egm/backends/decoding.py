"""Requests answered by the decoder that training samples with: prompts and pictures that they share are read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from egm.backends.base import GenerationSettings, Request
from egm.backends.sampling import row_uniforms, sampler_of
from egm.backends.streaming import TextWatch

if TYPE_CHECKING:
    from egm.models.decode.decoder import BatchDecoder
    from egm.models.decode.prompt_batch import PromptBatch


@dataclass(frozen=True, slots=True)
class GeneratedTokens:
    """A reply while it is tokens.

    Attributes:
        ids: What was generated, the stop token included.
        logprobs: The log-probability of each token.
        time: When the last one was there, on the clock of `time.perf_counter`.
        prompt_tokens: How many tokens were read.
        seen_size: Width and height of the first picture as the model saw it.
        forced: From where to where the tokens were written in the model's place.
    """

    ids: list[int]
    logprobs: list[float]
    time: float
    prompt_tokens: int
    seen_size: tuple[int, int] | None
    forced: tuple[int, int] = (0, 0)


def can_decode(model: Any, requests: Sequence[Request]) -> bool:
    """Tell whether the decoder takes a model and requests: one picture each, and no token of its own banned."""
    from egm.models.decode.decoder import supports_batch_decoding

    plain = all(len(request.images) == 1 and request.banned_token is None for request in requests)
    return plain and supports_batch_decoding(model)


def backend_decoder(
    model: Any, stops: Sequence[int], banned: Sequence[int], *, fp8: bool, drafts: bool, fast_prompts: bool
) -> BatchDecoder:
    """Make the decoder of a model that takes as many rows as there is memory for."""
    from egm.models.decode.decoder import BatchDecoder

    options: dict[str, Any] = {"dtype": None, "max_rows": None, "graphs": True, "stop_repeats": True, "fp8": fp8}
    options |= {"keep_prefixes": True, "drafts": drafts, "fast_prompts": fast_prompts}
    return BatchDecoder(model, stops=stops, pad=stops[0], banned=banned, **options)


def process_prompts(
    processor: Any, texts: Sequence[str], groups: Sequence[Sequence[Request]], model: Any, *, fast_prompts: bool
) -> PromptBatch:
    """Make the questions of groups of requests that ask the same, each picture processed once.

    Args:
        processor: The model's.
        texts: The prompt of each group, with one placeholder for its picture.
        groups: The requests.
        model: The model: where it is on a GPU, threads process the pictures beside it.
        fast_prompts: Whether that GPU processes them, if it can.
    """
    from egm.models.decode.prompt_batch import make_prompts, threads_for

    distinct = {id(group[0].images[0]): group[0].images[0] for group in groups}
    places = {key: place for place, key in enumerate(distinct)}
    pictures = [places[id(group[0].images[0])] for group in groups]
    images = list(distinct.values())
    beside: dict[str, Any] = {}
    if model.device.type != "cpu":
        beside = {"threads": threads_for(images)}
        beside |= {"device": model.device, "dtype": model.dtype} if fast_prompts else {}
    return make_prompts(processor, texts, pictures, images, **beside)


def decode_groups(
    decoder: BatchDecoder,
    prompts: PromptBatch,
    max_tokens: Sequence[int],
    groups: Sequence[Sequence[Request]],
    settings: GenerationSettings,
    patch: int,
    watches: Sequence[TextWatch],
    encode: Callable[[str], list[int]],
) -> list[GeneratedTokens]:
    """Answer each request of each group.

    Args:
        decoder: What writes.
        prompts: The question of each group.
        max_tokens: Most tokens of an answer, for each group.
        groups: The requests.
        settings: How tokens are drawn.
        patch: Side of a patch in pixels.
        watches: Of each request, in the order of the groups.
        encode: Makes tokens of what an answer may repeat.
    """
    requests = [request for group in groups for request in group]
    group_of_row = [number for number, group in enumerate(groups) for _ in group]
    uniforms = row_uniforms(settings, requests, max(max_tokens))
    ends = [watch.take for watch in watches] if any(watch.acts for watch in watches) else []
    options: dict[str, Any] = {"logprobs": True, "ends": ends}
    if decoder.drafts and len(requests) == 1:
        options["likely"] = [encode(text) for text in requests[0].drafts]
    written = decoder.generate(prompts, group_of_row, max(max_tokens), sampler_of(settings), uniforms, **options)
    sizes = [(columns * patch, rows * patch) for _, rows, columns in prompts.grids]
    return [
        GeneratedTokens(
            written.ids[row][: max_tokens[group]],
            written.logprobs[row][: max_tokens[group]],
            written.times[row],
            len(prompts.ids[group]),
            sizes[prompts.pictures[group]],
        )
        for row, group in enumerate(group_of_row)
    ]
