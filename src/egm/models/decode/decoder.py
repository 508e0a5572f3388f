"""Batched decoding with a static KV cache: each prompt read once, all its completions written side by side.

`generate` of transformers waits for the GPU at every token, copies the cache as it grows, and reads each prompt as
often as it has completions. Here prompts are read once (prefill) and their cache is repeated; the cache is allocated
ahead, and each step looks at the part in use; steps run without the host, as CUDA graphs where there are any. Rows that
have ended are left behind: where there are no graphs soon, with graphs when half of the rows have.

In shapes, B is the completions that are decoded together.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch

from egm.models.decode.base import Decoder
from egm.models.decode.cache import grouped_attention
from egm.models.decode.drafts import DraftCounts, NGramDrafts
from egm.models.decode.fused import FusedModel, why_not_fused
from egm.models.decode.job import DecodedBatch, DecodeJob, DraftedRow, End
from egm.models.decode.kernels.operations import Operations
from egm.models.decode.layout import PAD_MULTIPLE
from egm.models.decode.prefill import PromptReader
from egm.models.decode.prompt_batch import PromptBatch
from egm.models.decode.sampling import Sampler
from egm.models.decode.state import MOST_DRAFTED, DecodeState, TokenClock, bucket_size
from egm.models.families import family_of
from egm.models.fast.patching import is_patched
from egm.models.find_core import core_of

MEASURED_ROWS: Final = 64
"""Up to so many rows kernels were measured to be quicker than the library's layers, and are taken unasked."""

_SYNC_EVERY = 8  # steps after which the host waits for a GPU, to see which rows have ended
_INITIAL_TOKENS = 512  # new tokens that a cache is allocated for at first: most completions end before
_LAUNCH_BOUND_ROWS = 128  # rows with which a step waits for its launches, so that fewer would be no quicker
_COMPACT_AT = 0.8  # share of rows still running at which the others are left behind, if no graph is made for so many
_GRAPH_MEMORY_PARTS = 4  # one part in so many of a GPU's memory may hold what is kept for graphs
_PREFIX_PARTS = 32  # likewise, for what is kept of prompts
_CPU_BYTES = 2**31  # for caches, at first


def supports_batch_decoding(model: Any) -> bool:
    """Tell whether a model is one whose family says so (`Family.batch_decoding`), with the fast path on."""
    core, model_type = core_of(model), model.config.model_type
    family = family_of(model_type)
    known = family is not None and model_type in family.batch_decoding
    return known and core is not None and is_patched(core.language_model)


class BatchDecoder(Decoder):
    """Writes completions with a Qwen3-VL model in this process.

    Args:
        model: A model with the fast path on, unwrapped.
        dtype: What to compute in: weights of another type are copied before each generation. None takes them as they
            are.
        stops: Tokens that end a completion.
        pad: The padding token.
        banned: Tokens never to be sampled.
        max_rows: Most completions to decode together; None takes as many as half of the memory that is free can hold.
        graphs: Whether to replay steps as CUDA graphs, on a GPU. They are kept while their caches take less than a
            quarter of its memory.
        stop_repeats: Whether a completion that repeats itself ends there, as `ends_repeated` says; `pad` must then be
            one of `stops`. Rollouts do not: training learns from what the limit cuts off.
        operations: What steps are computed with; None takes the library's layers. These serve, with a warning, where a
            model is built otherwise, and where kernels cannot be had.
        kernels: Whether steps on a GPU are computed by kernels (`kernels/triton_operations.py`), where no `operations`
            are given. None takes them where they were measured: on a GPU of Hopper's kind, in bfloat16, for at most
            `MEASURED_ROWS` rows.
        fp8: Whether kernels read the layers' weights rounded to fp8; prompts are read with the weights as they are.
        keep_prefixes: Whether to keep what was read of pictures that come alone, for further questions about them, in
            up to one part in 32 of a GPU's memory.
        drafts: Whether a greedy completion that is asked for alone is written in fewer passes than tokens; see
            `egm.models.decode.drafts`.
        fast_prompts: Whether few prompts are read as CUDA graphs too, and all of them by the kernels of the steps.

    Attributes:
        reader: What reads prompts.
        drafts: As given.
        draft_counts: What drafts saved so far.
    """

    def __init__(
        self,
        model: Any,
        *,
        dtype: torch.dtype | None,
        stops: Sequence[int],
        pad: int,
        banned: Sequence[int],
        max_rows: int | None,
        graphs: bool,
        stop_repeats: bool = False,
        operations: Operations | None = None,
        kernels: bool | None = None,
        fp8: bool = False,
        keep_prefixes: bool = False,
        drafts: bool = False,
        fast_prompts: bool = False,
    ) -> None:
        super().__init__(model, dtype=dtype, stops=stops, pad=pad, banned=banned)
        self._operations, self._fp8 = operations, fp8
        self._fused: FusedModel | None = None
        self._tried: set[int] = set()  # numbers of rows that kernels are compiled for
        self._reads = None if fast_prompts else False  # whether they read prompts; None before it was tried
        on_gpu = self.device.type == "cuda"
        self._asked = operations is not None or (on_gpu and bool(kernels or fp8))
        measured = kernels is None and on_gpu and torch.cuda.get_device_capability(self.device)[0] == 9
        self._stock = not (self._asked or measured)  # whether the library's layers compute steps
        self._max_rows, self._stop_repeats = max_rows, stop_repeats
        self._graphs = graphs and self.device.type == "cuda"
        self._states: dict[Any, DecodeState] = {}
        self.drafts, self.draft_counts = drafts, DraftCounts()
        kept = self._memory() // _PREFIX_PARTS if keep_prefixes else 0
        self.reader = PromptReader(self.device, pad, graphs=self._graphs and fast_prompts, prefix_bytes=kept)

    @torch.no_grad()
    def generate(
        self,
        prompts: PromptBatch,
        which: Sequence[int],
        max_new_tokens: int,
        sampler: Sampler,
        uniforms: torch.Tensor | None = None,
        *,
        logprobs: bool = False,
        until: Sequence[int] = (),
        ends: Sequence[End] = (),
        likely: Sequence[Sequence[int]] = (),
    ) -> DecodedBatch:
        """Generate completions, `max_rows` at a time; see `Decoder.generate`.

        Args:
            prompts: The prompts.
            which: See there.
            max_new_tokens: See there.
            sampler: See there.
            uniforms: See there.
            logprobs: Whether to return log-probabilities.
            until: See there.
            ends: What ends each completion beside tokens, asked as often as the host looks; what was written beyond
                that is dropped. None of them, or one a completion.
            likely: Tokens of texts that the completion may repeat, for drafts of it.
        """
        policy, stops = self._policy(), (*self._stops, *until)
        training = policy.training
        if training:  # else nothing is to be changed, in a thousand modules
            policy.eval()
        self._take_weights(policy)
        clock, result = TokenClock(), DecodedBatch([], [], [])
        # To look for memory takes its time, and one completion has to fit.
        rows = self._max_rows or (1 if len(which) == 1 else self._rows_that_fit(policy, prompts, max_new_tokens))
        with grouped_attention(policy), self._on_device():
            for start in range(0, len(which), rows):
                chosen = which[start : start + rows]
                row_uniforms = None if uniforms is None else uniforms[start : start + rows].to(self.device)
                # Of the prompts only those that this part answers are read; completions name them by place among these.
                asked = sorted(set(chosen))
                places = {prompt: place for place, prompt in enumerate(asked)}
                answered = [places[prompt] for prompt in chosen]
                drafted = self.drafts and sampler.greedy and len(which) == 1
                options: dict[str, Any] = {"logprobs": logprobs or drafted, "pad": self._pad}
                options["stop_repeats"] = self._stop_repeats and not drafted  # these are looked at by the host
                options["ends"] = ends[start : start + rows]
                job = DecodeJob(policy, answered, max_new_tokens, sampler, row_uniforms, stops, **options)
                own = prompts.part(asked)
                part = self._decode_drafted(job, own, clock, likely) if drafted else self._decode(job, own, clock)
                result.ids.extend(part.ids)
                result.logprobs.extend(part.logprobs if logprobs else [[] for _ in part.ids])
                result.times.extend(part.times)
        if training:
            policy.train()
        return result

    def release_graphs(self) -> None:
        """Give back the memory that is kept for graphs."""
        self._states.clear()
        self.reader.release()

    def _take_weights(self, policy: Any) -> None:
        """Let fused steps read the weights of now."""
        if self._stock:
            return
        if self._fused is None:
            reason = why_not_fused(policy)
            if not self._asked and (reason is not None or policy.dtype != torch.bfloat16):
                self._stock = True  # nothing is missed that was asked for
                return
            if reason is not None:
                self._go_stock(f"of this model {reason}")
                return
            try:
                self._fused = FusedModel(policy, self._operations or _triton_operations(self.device), fp8=self._fp8)
            except ImportError as error:
                self._go_stock(str(error))
        elif self._fused.refresh():
            self.release_graphs()  # they read the weights where they were

    def _fused_for(self, rows: int) -> FusedModel | None:
        """Return what computes steps of so many rows, after trying one; None if the library's layers do."""
        if not self._asked and rows > MEASURED_ROWS:
            return None
        if self._fused is not None and rows not in self._tried:
            try:
                self._fused.try_step(rows)
            except Exception as error:  # a compiler has many ways to fail
                self._go_stock(_said(error))
            self._tried.add(rows)
        return self._fused

    def _fused_reading(self) -> FusedModel | None:
        """Return what computes the layers that read prompts, after trying it; None if the library's do."""
        if self._fused is not None and self._reads is None:
            try:
                self._fused.try_read(1)
                self._reads = True
            except Exception as error:  # a compiler has many ways to fail
                self._reads = False
                warnings.warn(f"prompts are read by the library's layers, slower: {_said(error)}", stacklevel=2)
        return self._fused if self._reads else None

    def _go_stock(self, reason: str) -> None:
        self._fused, self._stock = None, True
        self.release_graphs()
        warnings.warn(f"decoding goes on by the library's layers, slower: {reason}", stacklevel=2)

    def _memory(self) -> int:
        """Return how many bytes the device has."""
        on_gpu = self.device.type == "cuda"
        return torch.cuda.get_device_properties(self.device).total_memory if on_gpu else _CPU_BYTES

    def _on_device(self) -> AbstractContextManager[Any]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _rows_that_fit(self, policy: Any, prompts: PromptBatch, max_new_tokens: int) -> int:
        """Return for how many rows there is memory, with caches as long as they are at first."""
        length = _length(max(map(len, prompts.ids)) + PAD_MULTIPLE + min(max_new_tokens, _INITIAL_TOKENS))
        free = _CPU_BYTES
        if self.device.type == "cuda":
            # What torch's allocator holds without using it is as good as free. Half of all is left: for activations,
            # and for a longer cache while the first is copied into it.
            idle = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            free = (torch.cuda.mem_get_info(self.device)[0] + idle) // 2
        return max(1, free // (length * _token_bytes(policy)))

    def _decode(self, job: DecodeJob, prompts: PromptBatch, clock: TokenClock) -> DecodedBatch:
        """Write completions that fit in memory together."""
        state = self._begin(job, prompts, clock)
        every = _SYNC_EVERY if self.device.type == "cuda" else 1
        clock.marks.clear()
        while True:
            ended = state.finished.tolist()  # here the host waits, once in `every` tokens
            clock.mark(job.written)
            self.reader.keep_prefixes()  # once the first tokens are there, which would wait for it
            # Rows beyond the completions are idle ones, there to fill a number of rows that a graph exists for.
            running = job.ask(state, [row for row in range(len(job.alive)) if not ended[row]])
            if not running or job.written == job.max_new_tokens:
                break
            goal = min(job.written + every, job.max_new_tokens)
            if not state.fits(goal) or _worth_compacting(state, len(job.alive), len(running)):
                state = self._compact(job, state, running, goal)
            # No look at the rows in between: one that ends goes on with padding, which `collect` cuts off.
            while job.written < goal:
                state.step(job.written, clock)
                job.written += 1
        job.save(state)
        return job.collect(clock)

    def _decode_drafted(
        self, job: DecodeJob, prompts: PromptBatch, clock: TokenClock, likely: Sequence[Sequence[int]]
    ) -> DecodedBatch:
        """Write the only completion, each pass reading the newest token and a draft."""
        asked, token = prompts.ids[0], core_of(job.policy).config.image_token_id
        counts, draft = self.draft_counts, list[int]()
        self._fused_for(MOST_DRAFTED + 1)  # tried now, as the layers could not take over on the way
        state, said = self._begin(job, prompts, clock), self.reader.said
        end = max(self._stops, default=self._pad)  # of a turn: vocabularies have it behind that of a text
        drafts = NGramDrafts([*([*text, end] for text in likely), said])
        drafts.take(asked[len(asked) - asked[::-1].index(token) :])  # what stands behind the picture
        new, row = [state.newest()], DraftedRow(job, stop_repeats=self._stop_repeats)
        clock.marks.clear()
        while True:
            clock.mark(len(row.ids) + len(new))
            self.reader.keep_prefixes()
            used = row.take(new)
            drafts.take(row.ids[len(row.ids) - used :])
            counts.tokens, counts.drafted = counts.tokens + used, counts.drafted + len(draft)
            counts.accepted += min(used, len(new) - 1)
            if row.ended:
                said[:] = [*asked[-2:], *row.ids]
                return DecodedBatch([row.ids], [row.logprobs], [clock.marks[-1][1]])
            drafts.learn(len(draft), used - 1)
            job.written = len(row.ids)
            goal = job.written + MOST_DRAFTED + 1
            if not state.fits(goal):
                state = self._compact(job, state, [0], goal)
            draft = drafts.propose(min(MOST_DRAFTED, job.max_new_tokens - job.written - 1))
            counts.passes += 1
            if draft:
                new = state.verify(draft, clock)
            else:
                state.step(job.written, clock)
                new = [state.newest()]

    def _begin(self, job: DecodeJob, prompts: PromptBatch, clock: TokenClock) -> DecodeState:
        """Read the prompts and sample the first tokens."""
        read = self.reader.read(job.policy, prompts, clock, self._fused_reading())
        rows = bucket_size(len(job.which), 1, 4) if self._graphs else len(job.which)  # few numbers of rows, few graphs
        state = self._state(job, rows, _length(read.padded + min(job.max_new_tokens, _INITIAL_TOKENS)))
        state.begin(read, job.which, job.uniforms)
        return state

    def _compact(self, job: DecodeJob, state: DecodeState, running: Sequence[int], goal: int) -> DecodeState:
        """Go on with the running rows alone, in a state whose cache is long enough for the goal."""
        job.save(state)  # rows that have ended are not in the next state
        job.alive = [job.alive[row] for row in running]
        length, rows = state.length, state.rows if state.graphs else len(running)
        if not state.fits(goal):
            # Doubled, so that all copying together costs at most as much again as the last cache.
            length = min(2 * length, _length(state.prompt + max(goal, job.max_new_tokens)))  # drafts reach beyond
        # With graphs rows go down by halves, so that steps are recorded for few numbers of rows; without, `rows` is
        # exact already. Below the launch bound fewer are no quicker, but in a longer cache they take less memory.
        while rows // 2 >= len(running) and (rows > _LAUNCH_BOUND_ROWS or not state.fits(goal)):
            rows //= 2
        after = self._state(job, rows, length)
        uniforms = None if job.uniforms is None else job.uniforms[job.alive]
        # A state with graphs is kept, and its cache with it: the graphs write there.
        after.resume(state, running, job.written, uniforms, release=not state.graphs)
        return after

    def _state(self, job: DecodeJob, rows: int, length: int) -> DecodeState:
        """Return a state for so many rows; one that is kept for its graphs, if there is one."""
        most = (self._memory() if self._graphs else 0) // _GRAPH_MEMORY_PARTS // _token_bytes(job.policy)
        key = (
            rows,
            length,
            job.sampler,
            job.stops,
            job.logprobs,
            job.stop_repeats,
        )  # all that a recorded step depends on
        if (state := self._states.pop(key, None)) is not None:
            self._states[key] = state  # the one used last goes last
            return state
        state = DecodeState(
            rows,
            length,
            core=core_of(job.policy),
            head=job.policy.get_output_embeddings(),
            sampler=job.sampler,
            stops=job.stops,
            banned=self._banned,
            pad=self._pad,
            logprobs=job.logprobs,
            stop_repeats=job.stop_repeats,
            fused=self._fused_for(rows),
            graphs=rows * length <= most,  # recording pays where the graphs can be kept, and what they write to
        )
        if state.graphs:
            while self._states and sum(s.rows * s.length for s in self._states.values()) + rows * length > most:
                del self._states[next(iter(self._states))]  # the one not used for longest
            self._states[key] = state
        return state


def _worth_compacting(state: DecodeState, before: int, running: int) -> bool:
    """Tell whether enough rows have ended to leave them behind: graphs are recorded anew for each number of rows."""
    if state.graphs:
        return state.rows > _LAUNCH_BOUND_ROWS and 2 * running <= state.rows
    return running <= _COMPACT_AT * before


def _triton_operations(device: torch.device) -> Operations:
    """Return the kernels for a GPU."""
    from egm.models.decode.kernels.triton_operations import TritonOperations

    return TritonOperations(pdl=torch.cuda.get_device_capability(device) >= (9, 0))


def _said(error: Exception) -> str:
    """Return the last line of what an error says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[-1]}"


def _length(tokens: int) -> int:
    """Return how long the cache of a state is that is to hold so many tokens."""
    return bucket_size(tokens, 4 * PAD_MULTIPLE, 8)


def _token_bytes(policy: Any) -> int:
    """Return the bytes that the cache of one token takes."""
    config = core_of(policy).language_model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = 2 * config.num_hidden_layers * config.num_key_value_heads  # keys and values
    return int(heads * width * policy.get_output_embeddings().weight.dtype.itemsize)
