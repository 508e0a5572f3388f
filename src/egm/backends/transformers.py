"""Models in this process, through transformers: on the CPU or on one GPU, unequal images in one batch."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

from egm.backends.base import Backend, EngineInfo, GenerationSettings, Request, TokenScore
from egm.backends.checkpoint import Checkpoint, find_checkpoint
from egm.backends.decoding import GeneratedTokens, backend_decoder, can_decode, decode_groups, process_prompts
from egm.backends.library_noise import quiet
from egm.backends.open_checkpoint import (
    choose_device,
    choose_dtype,
    open_checkpoint,
    render_turns,
    stop_at,
)
from egm.backends.prompt import render_prompt
from egm.backends.sampling import (
    LogitsProcessors,
    RepetitionStop,
    ThinkingBudget,
    TokenTimer,
    group_by_prompt,
    mean_logprobs,
    row_draws,
)
from egm.backends.streaming import TextWatch, WatchStop, token_logprobs, watch_rows
from egm.backends.tokens import end_of, scores_of_tokens, stop_tokens
from egm.environment import cpu_name, driver_version, gpu_name
from egm.errors import BackendError, ModelError, RequestError, first_line
from egm.extras import CHECKPOINTS, need
from egm.models.families import family_of, image_tokens
from egm.progress import progress_task
from egm.types import Completion, Message


class TransformersBackend(Backend):
    """A vision-language model and its processor.

    Args:
        model: An `AutoModelForImageTextToText`, on its device, in evaluation mode.
        processor: Its processor.
        name: What to call it in messages and records.
        fp8, drafts, fast_prompts: How batched decoding computes; see `BatchDecoder`. With the last a GPU processes the
            pictures as well, which are a level of 255 off the processor's at most.
    """

    thinking_budgets = True
    streams = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str = "",
        fp8: bool = False,
        drafts: bool = False,
        fast_prompts: bool = True,
    ) -> None:
        self._decoding = {"fp8": fp8, "drafts": drafts, "fast_prompts": fast_prompts}
        self.model = name or type(model).__name__
        self.module, self.processor = model, processor
        processor.tokenizer.padding_side = "left"
        # Not every family's configuration bounds its context.
        self.context = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | Checkpoint,
        *,
        device: str = "auto",
        dtype: str = "auto",
        fast: bool = True,
    ) -> TransformersBackend:
        """Load a model: the embedded one, a folder, or a hub name.

        Args:
            model: What `find_checkpoint` takes or returns.
            device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
            dtype: "auto" (bfloat16 on a GPU, float32 on the CPU), "float32", "bfloat16", "float16", or "fp8": bfloat16,
                with the language model's layers rounded to fp8 for each token that is decoded, on a GPU. Where the
                library's `generate` answers (several pictures, thinking budgets) it is bfloat16.
            fast: Whether to enable EGM's fast path on a model whose family has one.

        Raises:
            ModelError: If there is no such model, device or type, or the checkpoint does not load whole.
            MissingExtraError: Without torch and transformers.
        """
        checkpoint = model if isinstance(model, Checkpoint) else find_checkpoint(model)
        need(f"running {checkpoint.name} in this process", *CHECKPOINTS)
        target = choose_device(device)
        with quiet(), progress_task(f"loading {checkpoint.name}"):
            module, processor = open_checkpoint(checkpoint, target, choose_dtype(dtype, target))
        family = family_of(checkpoint.model_type)
        if family is not None and processor.tokenizer.eos_token is not None:
            stop_at(module, processor, family.end(processor))
        if fast and family is not None and family.fast_path:
            from egm.models.fast.enable import enable_fast_path

            enable_fast_path(module)
        backend = cls(module, processor, name=checkpoint.name, fp8=dtype == "fp8")
        if backend._decoding["fp8"] and not can_decode(module, []):
            raise ModelError(f"{checkpoint.name} is not decoded in fp8: only dense Qwen3-VL is; use bfloat16")
        return backend

    def prompt(self, messages: Sequence[Message], *, continue_final_message: bool = False) -> str:
        """Render chat turns with the checkpoint's own template; see `render_prompt`."""
        render = partial(render_turns, self.processor)
        return render_prompt(messages, render, continue_final_message=continue_final_message)

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return self._encode(text)

    def describe(self) -> EngineInfo:
        """Name the GPU and its driver where the model is on one, else the processor."""
        hardware, versions, widths = cpu_name(), {}, None
        if self.module.device.type == "cuda":
            hardware = gpu_name() or hardware
            versions = {"driver": driver} if (driver := driver_version()) else {}
            widths = (1 if self._decoding["fp8"] else self.module.dtype.itemsize, self.module.dtype.itemsize)
        about: dict[str, Any] = {"versions": versions, "hardware": hardware, "weight_bytes": widths}
        return EngineInfo(type(self).__name__, packages=("torch", "transformers"), **about)

    def _encode(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _decode(self, ids: Sequence[int]) -> str:
        # Special tokens stay: the boxes of some families stand between them.
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=False))

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Answer requests in one batch; see `Backend.generate`.

        A Qwen3-VL model with the fast path on decodes requests about one picture each by `egm.models.decode`; other
        models, other requests and thinking budgets go through the model's own `generate`. The text is the same, up to
        rounding.

        A reply's time is that from the call to its own last token, so it includes its neighbours' share of the work. On
        a GPU `egm.models.decode` looks at the clock once in 8 tokens and interpolates, and leaves out recording CUDA
        graphs, which it does once for each number of requests and length; ask once beforehand to have that done.
        """
        if not requests:
            return []
        import torch

        start = time.perf_counter()
        try:
            with quiet(), torch.inference_mode():
                for request in requests:
                    request.check()
                decoded = settings.thinking_budget is None and can_decode(self.module, requests)
                watches = watch_rows(requests, settings, self._decode, self._stops())
                replies = (self._decoded if decoded else self._generated)(requests, settings, watches)
        except torch.OutOfMemoryError as error:
            if "_decoder" in self.__dict__:
                self._decoder.release_graphs()
            raise BackendError(
                f"out of GPU memory with {len(requests)} requests at once: use a smaller batch_size"
            ) from error
        except BackendError:
            raise
        except RuntimeError as error:
            raise BackendError(f"{self.model} failed to answer ({first_line(error)}): check the request") from error
        except (ValueError, TypeError, IndexError) as error:  # such as a processor's, which counts places for pictures
            raise RequestError(f"{self.model} failed to answer ({first_line(error)}): check the request") from error
        return [self._reply(*each, start) for each in zip(requests, replies, watches, strict=True)]

    @cached_property
    def _decoder(self) -> Any:
        return backend_decoder(self.module, self._stops(), image_tokens(self.module.config), **self._decoding)

    def _decoded(
        self, requests: Sequence[Request], settings: GenerationSettings, watches: Sequence[TextWatch]
    ) -> list[GeneratedTokens]:
        groups = group_by_prompt(requests)
        texts = [self._prompt_of(group[0]) for group in groups]
        fast = self._decoding["fast_prompts"]
        prompts = process_prompts(self.processor, texts, groups, self.module, fast_prompts=fast)
        max_tokens = [min(settings.max_new_tokens, self._context_left(len(ids))) for ids in prompts.ids]
        patch = self.processor.image_processor.patch_size
        return decode_groups(self._decoder, prompts, max_tokens, groups, settings, patch, watches, self._encode)

    def _prompt_of(self, request: Request) -> str:
        return self.prompt(request.messages, continue_final_message=request.continue_final_message) + request.prefill

    def _generated(
        self, requests: Sequence[Request], settings: GenerationSettings, watches: Sequence[TextWatch]
    ) -> list[GeneratedTokens]:
        from egm.models.decode.library import generate_with

        inputs = self._inputs(requests)
        length = inputs["input_ids"].shape[1]
        count = min(settings.max_new_tokens, self._context_left(length))
        timer = TokenTimer()
        processors = LogitsProcessors([ThinkingBudget(settings, own, self._decode, self._encode) for own in requests])
        sampler = [] if settings.greedy else [row_draws(settings, requests, count, self.module.device)]
        watch = WatchStop(watches)
        output = generate_with(
            self.module,
            inputs,
            self._config(count),
            logits_processor=[processors.record, processors.ban, *sampler, processors.force],
            stopping_criteria=[timer, RepetitionStop(processors.budgets, length, self.module.device), watch],
        )
        stops = self._stops()
        rows, logprobs = output[:, length:].tolist(), processors.logprobs(output)
        ends = [own.end or end_of(row, stops) for row, own in zip(rows, watches, strict=True)]
        read, sizes = inputs["attention_mask"].sum(dim=1).tolist(), self._seen_sizes(inputs)
        return [
            GeneratedTokens(row[:end], own[:end], timer.times[end - 1], tokens, size, budget.forced)
            for row, own, end, tokens, size, budget in zip(
                rows, logprobs, ends, read, sizes, processors.budgets, strict=True
            )
        ]

    def token_scores(self, request: Request, text: str) -> list[TokenScore]:
        """Read a text as the answer to a request; see `Backend.token_scores`."""
        import torch

        request.check()
        prompt, written = self.prompt(request.messages), self._encode(text)
        with quiet(), torch.inference_mode():
            inputs = self.processor(text=[prompt + text], images=list(request.images) or None, return_tensors="pt")
            ids = inputs["input_ids"][0].tolist()
            written = ids[len(ids) - len(written) :]
            self._context_left(len(ids))
            logits = self.module(**inputs.to(self.module.device), logits_to_keep=len(written) + 1).logits[0]
            return scores_of_tokens(logits.float().cpu().numpy(), written, self._decode, len(text))

    def _inputs(self, requests: Sequence[Request]) -> Any:
        texts = [self._prompt_of(request) for request in requests]
        images = [image for request in requests for image in request.images]
        inputs = self.processor(text=texts, images=images or None, padding=True, return_tensors="pt")
        return inputs.to(self.module.device)

    def _context_left(self, length: int) -> int:
        if self.context is None:
            return 2**31
        if length >= self.context:
            said = f"a prompt of {length} tokens leaves no room in {self.model}'s context of {self.context}"
            raise RequestError(said)
        return self.context - length

    def _config(self, max_new_tokens: int) -> Any:
        """Greedy search with the checkpoint's stop tokens, but without its other wishes, such as penalties."""
        from transformers import GenerationConfig

        stops = self._stops()
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=stops[0],
            # A placeholder in the answer would be taken for a picture in the next step.
            suppress_tokens=image_tokens(self.module.config) or None,
        )

    def _stops(self) -> list[int]:
        return stop_tokens(self.module.generation_config.eos_token_id, self.processor.tokenizer.eos_token_id)

    def _reply(self, request: Request, generated: GeneratedTokens, watch: TextWatch, start: float) -> Completion:
        ids, logprobs = generated.ids, generated.logprobs
        whole, answer = mean_logprobs(ids, logprobs, self._think_end, generated.forced)
        return Completion(
            **watch.finish(generated.ids),
            prompt_tokens=generated.prompt_tokens,
            completion_tokens=len(generated.ids),
            seconds=generated.time - start,
            seen_size=generated.seen_size,
            logprob=whole,
            answer_logprob=answer,
            token_logprobs=token_logprobs(ids, logprobs, self._decode) if request.token_logprobs else (),
        )

    @cached_property
    def _think_end(self) -> list[int]:
        return self._encode("</think>")

    def _seen_sizes(self, inputs: Any) -> list[tuple[int, int] | None]:
        """Width and height of each row's first image, from the grid of patches."""
        count = inputs["input_ids"].shape[0]
        if "image_grid_thw" not in inputs:
            return [None] * count
        patch, merge = self.processor.image_processor.patch_size, self.processor.image_processor.merge_size
        grids = iter(inputs["image_grid_thw"].tolist())
        sizes: list[tuple[int, int] | None] = []
        for left in (inputs["input_ids"] == self.module.config.image_token_id).sum(dim=1).tolist():
            first = None
            while left > 0:  # a row may show several images; its placeholders say where it ends
                frames, rows, columns = next(grids)
                first = first or (columns * patch, rows * patch)
                left -= frames * rows * columns // merge**2
            sizes.append(first)
        return sizes
