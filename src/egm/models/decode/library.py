"""Completions by the library's own `generate`, for models without a fast path: slower, and the same draws.

Each completion goes through the model with its own copy of prompt and picture, and draws by random numbers of its own,
as `BatchDecoder`'s do: on one model both write the same completions, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from egm.models.decode.base import Decoder
from egm.models.decode.job import DecodedBatch
from egm.models.decode.prompt_batch import PromptBatch
from egm.models.decode.sampling import RowDraws, Sampler
from egm.models.families import Family


class LibraryDecoder(Decoder):
    """Writes completions by a model's own `generate`.

    Args:
        model: The model, unwrapped, or a `PeftModel` around it.
        family: Its family.
        processor: Its processor.
        max_rows: Most completions to decode together.
        **kwargs: See `Decoder`.
    """

    def __init__(self, model: Any, family: Family, processor: Any, *, max_rows: int, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self._family, self._processor, self._max_rows = family, processor, max_rows

    @torch.no_grad()
    def generate(
        self,
        prompts: PromptBatch,
        which: Sequence[int],
        max_new_tokens: int,
        sampler: Sampler,
        uniforms: torch.Tensor | None = None,
        *,
        until: Sequence[int] = (),
    ) -> DecodedBatch:
        """Generate completions, `max_rows` at a time; see `Decoder.generate`. No log-probabilities, nor times."""
        policy, stops = _unwrapped(self._policy()), [*self._stops, *until]
        if policy is not _unwrapped(self._source):
            policy.__dict__.pop("forward", None)  # TRL's, which goes on calling the model that was copied
        training = policy.training
        policy.eval()
        result = DecodedBatch([], [], [])
        for start in range(0, len(which), self._max_rows):
            rows = which[start : start + self._max_rows]
            draws = []
            if uniforms is not None:
                draws = [RowDraws(sampler, uniforms[start : start + self._max_rows].to(self.device))]
            inputs = self._inputs(prompts, rows, policy)
            length = inputs["input_ids"].shape[1]
            written = generate_with(policy, inputs, self._config(max_new_tokens, stops), logits_processor=draws)
            result.ids.extend(_until_stop(ids, stops) for ids in written[:, length:].tolist())
        policy.train(training)
        return result

    def _inputs(self, prompts: PromptBatch, rows: Sequence[int], policy: Any) -> dict[str, Any]:
        """Lay prompts side by side, padded on the left, each with its own picture."""
        asked = [prompts.ids[row] for row in rows]
        length = max(map(len, asked))
        ids = torch.tensor([[self._pad] * (length - len(own)) + own for own in asked], device=self.device)
        mask = torch.tensor([[0] * (length - len(own)) + [1] * len(own) for own in asked], device=self.device)
        pictures = [prompts.pictures[row] for row in rows]
        values = prompts.pixel_values(pictures, self._family, self._processor, self.device)
        fields = self._family.fields([prompts.grids[picture] for picture in pictures])
        fields |= self._family.token_fields(ids, policy.config)
        dtype = policy.get_output_embeddings().weight.dtype
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "pixel_values": values.to(dtype),
            **{name: value.to(self.device) for name, value in fields.items()},
        }

    def _config(self, max_new_tokens: int, stops: Sequence[int]) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,  # what is drawn is drawn by `RowDraws`, which leaves one token to choose
            eos_token_id=sorted(set(stops)),
            pad_token_id=self._pad,
            suppress_tokens=self._banned.tolist() or None,
        )


def generate_with(model: Any, inputs: Any, config: Any, **options: Any) -> Any:
    """Call a model's own `generate` with a configuration that holds all there is to say."""
    before = model.generation_config
    model.generation_config = config  # what a configuration leaves open is taken from here: penalties, top-k, ...
    try:
        return model.generate(**inputs, generation_config=config, **options)
    finally:
        model.generation_config = before


def _unwrapped(model: Any) -> Any:
    """Return the model in a `PeftModel`, adapters and all, whose `generate` takes a configuration as it is."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _until_stop(ids: list[int], stops: Sequence[int]) -> list[int]:
    """Return a row up to its stop token; behind that `generate` writes padding."""
    return next((ids[: place + 1] for place, token in enumerate(ids) if token in stops), ids)
