"""TRL's GRPOTrainer over EGM's prompts, codec, rewards and decoding.

This is the one place that overrides private methods of TRL. What is replaced, and why:

- `_tokenize_prompts`, `_generate_single_turn`: each prompt and picture is processed once, not once a completion, and
  completions are decoded in this process (`decoder.py`), or by vLLM, which alone is shown the pictures.
- `_calculate_rewards`: texts are decoded as evaluation decodes them, and the parts of rewards are kept.
- `_get_per_token_logps_and_entropies`: rows are packed (`packing.py`), so that no attention mask is needed, and on the
  fast path the tower sees each picture once.
- `_generate_and_score_completions`, `_compute_loss`: of several candidates those groups are taken whose rewards differ
  most; groups without spread are counted and, as what all of a group share, masked; rollouts are kept.
- `_save_checkpoint`: a checkpoint that cannot be finished is taken away.

All else is TRL's: advantages, losses, clipping, KL, weights for vLLM, the loop. `TESTED` says with which versions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from trl import GRPOTrainer

from egm.images import load_image
from egm.models.families import trained_family
from egm.progress import track
from egm.training.data.collate import IGNORED
from egm.training.grpo.branching import GroupSampler
from egm.training.grpo.decoder import make_decoder, takes_fast_path
from egm.training.grpo.grading import FailureNotes, grade
from egm.training.grpo.packing import PromptPositions, completion_values, pack
from egm.training.grpo.prompts import PromptCollator, PromptPrefetcher, Prompts
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.rollouts import RolloutWriter
from egm.training.grpo.vllm import checked_generate, picture_tokens
from egm.training.rewards.reward import Grades, Reward
from egm.training.shared.driver import written_whole
from egm.training.shared.model import router_logits_kept_off
from egm.training.shared.processes import is_first
from egm.types import Sample

TESTED: Final = ("1.16",)
"""Versions of TRL whose private methods are known to be as they are used here."""

_EVAL_PROMPTS = 256


class GroundingGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer over numbered samples; the dataset's only column is `number`.

    Args:
        recipe: What to do.
        prefetcher: Makes prompts of the numbers of samples.
        collator: Makes prompts of held-out samples.
        reward: What completions are worth.
        rollouts: Keeps some of them.
        **kwargs: GRPOTrainer's own.
    """

    # Of the present generation: U prompts with G completions each, B = U * G rows.
    _prompts: Prompts
    _positions: PromptPositions
    _completions: list[list[int]]  # B, where this process decodes
    _shared_tokens: list[int]  # U: how many tokens each group has in common
    _texts: list[str]  # B
    _grades: Grades  # of B completions
    _rows: torch.Tensor  # the number of its prompt for each row; in a pass, for the rows of that pass

    def __init__(
        self,
        *,
        recipe: GRPORecipe,
        prefetcher: PromptPrefetcher,
        collator: PromptCollator,
        reward: Reward,
        rollouts: RolloutWriter,
        **kwargs: Any,
    ) -> None:
        check_version()
        self._recipe, self._prefetcher, self._collator = recipe, prefetcher, collator
        self._reward, self._rollouts = reward, rollouts
        self._family = trained_family(kwargs["model"].config)
        self._fast = takes_fast_path(recipe, kwargs["model"].config)
        self._loss_scale = 1.0
        self.failure_notes = FailureNotes()
        with router_logits_kept_off(kwargs["model"]):
            super().__init__(reward_funcs=[reward], **kwargs)
        model = self.accelerator.unwrap_model(self.model)
        self.decoder = make_decoder(model, self.processing_class, self.eos_token_ids, recipe, bf16=self.args.bf16)
        self._sample_groups = GroupSampler(self.decoder, self._tokenizer, self.eos_token_ids, recipe.rollout)
        if self.ref_model is not None and self._fast:
            from egm.models.fast.enable import enable_fast_path

            enable_fast_path(self.accelerator.unwrap_model(self.ref_model))
        if self.use_vllm:
            # The server is sent pictures apart, and takes prompts as they are.
            picture = None if self.vllm_mode != "colocate" else picture_tokens(self._family, self.processing_class)
            self.vllm_generation.generate = checked_generate(self.vllm_generation.generate, picture)

    def end_loading(self) -> None:
        """End the processes that prefetch prompts, as `train_from` wants."""
        self._prefetcher.close()

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        group, candidates = self.num_generations, self._recipe.rollout.candidates
        # TRL's sampler repeats each number once a completion. Of several candidates each number stands for a run of
        # samples, all of which are asked about, and a share of which is kept.
        numbers = [candidates * example["number"] + turn for example in inputs[::group] for turn in range(candidates)]
        self._prompts = prompts = self._prefetcher.get(numbers)
        self._loss_scale = 1.0
        if not self.use_vllm:
            self._completions, self._shared_tokens = self._sample_groups(prompts)
            if self._recipe.rollout.branch is not None:
                shared = np.array(self._shared_tokens)
                self._note({"branch/parted": np.mean(shared > 0), "branch/shared_tokens": shared.mean()})
            if candidates > 1:
                self._prompts = prompts = self._choose(prompts, len(numbers) // candidates)
        self._rows = torch.arange(len(prompts.samples)).repeat_interleave(group)
        self._positions = PromptPositions.of(
            prompts, self._family, self.model.config, pad=self._tokenizer.pad_token_id, device=self.accelerator.device
        )
        examples = [
            {"prompt": [{"role": "user", "content": sample.phrase}]} for sample in prompts.samples for _ in range(group)
        ]
        output: dict[str, Any] = super()._generate_and_score_completions(examples)
        # TRL shuffles the rows and splits them among passes; by this each pass finds the prompts of its rows.
        output["rows"] = self._rows
        if "importance_sampling_ratio" in output:  # TRL leaves out whom vLLM thinks too different, and says nothing
            left_out = (output["importance_sampling_ratio"] == 0).float().mean()
            self._metrics["train"]["sampling/left_out"].append(self.accelerator.gather(left_out).mean().item())
        self._mask_loss(output)
        # TRL's own is of the whole batch where it scales by that.
        self._metrics["train" if self.model.training else "eval"]["frac_reward_zero_std"].pop()
        self._note_grades(self._grades)
        step = self.state.global_step + 1
        self.failure_notes.look(
            step, [sample.id for sample in prompts.samples for _ in range(group)], self._texts, self._grades
        )
        sizes = [prompts.sizes[picture] for picture in prompts.pictures]
        self._rollouts.write(step, prompts.samples, sizes, self._texts, self._grades, output["advantages"].tolist())
        return output

    def _choose(self, prompts: Prompts, count: int) -> Prompts:
        """Take the prompts whose rewards differ most, and their completions."""
        group = self.num_generations
        rows = [row for row in range(len(prompts.samples)) for _ in range(group)]
        grades = grade(self._reward, prompts, rows, self._completions, self._tokenizer, self.eos_token_ids)[1]
        self._note_grades(grades, "candidates/")
        spread = grades.totals.reshape(-1, group).std(axis=1)
        chosen = sorted(np.argsort(-spread, kind="stable")[:count].tolist())
        self._completions = [ids for row in chosen for ids in self._completions[group * row : group * (row + 1)]]
        self._shared_tokens = [self._shared_tokens[row] for row in chosen]
        return prompts.part(chosen)

    def _mask_loss(self, output: dict[str, Any]) -> None:
        """Mask groups without spread, and the tokens that a group shares, out of the loss and its denominators."""
        completion_mask, branched = output["completion_mask"], self._recipe.rollout.branch is not None  # (B, C)
        target_mask = torch.ones_like(completion_mask)
        if self._recipe.optim.zero_spread == "mask":
            spread = torch.from_numpy(self._have_spread(self._grades)).repeat_interleave(self.num_generations)
            target_mask *= spread.to(completion_mask.device)[:, None]
        elif not branched:
            return
        # Rows are counted before shared tokens go, since those may stand in any row's first column.
        counted_rows = target_mask[:, 0].sum()
        if branched:
            shared = torch.tensor(self._shared_tokens)[self._rows].to(completion_mask.device)
            columns = torch.arange(completion_mask.shape[1], device=completion_mask.device)
            target_mask *= columns >= shared[:, None]
        counts = [(completion_mask * target_mask).sum(), counted_rows, len(target_mask)]
        local_counts = torch.tensor([list(map(float, counts))], device=self.accelerator.device)
        tokens, rows, all_rows = self.accelerator.gather(local_counts).sum(0)
        output["tool_mask"] = target_mask  # what TRL calls a mask over the completion mask
        output["num_items_in_batch"] = tokens
        # dapo divides by the tokens above. The others divide by the number of rows, so that what they give is scaled to
        # the rows that count.
        self._loss_scale = 1.0 if self.loss_type == "dapo" else float(all_rows / rows.clamp(min=1))

    def _have_spread(self, grades: Grades) -> NDArray[np.bool_]:
        """Tell of each group whether its rewards differ, shape (groups,)."""
        return np.ptp(grades.totals.reshape(-1, self.num_generations), axis=1) > 1e-8  # type: ignore[no-any-return]

    def _note_grades(self, grades: Grades, kind: str = "") -> None:
        """Note what completions were worth, under names that begin with `kind`."""
        figures = {
            "accuracy": np.mean([score.hit() for score in grades.scores]),
            "mean_iou": np.mean([score.iou for score in grades.scores]),
            "no_box": np.mean([score.failure is not None for score in grades.scores]),
            "frac_reward_zero_std": 1 - np.mean(self._have_spread(grades)),
        }
        figures |= {f"reward/{name}": values.mean() for name, values in grades.parts.items()}
        self._note({kind + name: value for name, value in figures.items()})

    def _note(self, means: Mapping[str, Any]) -> None:
        """Note figures for the log, as means over the processes."""
        values = torch.tensor([list(map(float, means.values()))], device=self.accelerator.device)
        for name, value in zip(means, self.accelerator.gather(values).mean(0).tolist(), strict=True):
            self._metrics["train"][name].append(value)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, Any, Any]:
        del prompts
        return [self._prompts.ids[row] for row in self._rows.tolist()], None, {}

    def _generate_single_turn(self, prompt_ids: Any, images: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if not self.use_vllm:
            return self._completions, None
        prompts = self._prompts
        by_number = dict(zip(prompts.pictures, (sample.image for sample in prompts.samples), strict=True))
        loaded = {number: load_image(image) for number, image in by_number.items()}
        images = [[loaded[prompts.pictures[row]]] for row in self._rows.tolist()]
        return super()._generate_single_turn(prompt_ids, images, *args, **kwargs)  # type: ignore[no-any-return]

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids: Any) -> torch.Tensor:
        del inputs, prompts, completions
        self._texts, self._grades = grade(
            self._reward, self._prompts, self._rows.tolist(), completion_ids, self._tokenizer, self.eos_token_ids
        )
        totals = torch.from_numpy(self._grades.totals).to(self.accelerator.device, torch.float32)
        return self.accelerator.gather(totals[:, None])  # type: ignore[no-any-return]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        del kwargs
        size = batch_size or len(input_ids)
        parts = [
            self._forward(
                model,
                input_ids[first : first + size],
                attention_mask[first : first + size],
                self._rows[first : first + size],
                logits_to_keep,
                aux_loss=compute_aux_loss,
            )
            for first in range(0, len(input_ids), size)
        ]
        logps, entropies, aux = zip(*parts, strict=True)
        return (
            torch.cat(logps),
            torch.cat(entropies) if compute_entropy else None,
            torch.stack(aux).mean() if compute_aux_loss else None,
        )

    def _forward(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, columns: int, *, aux_loss: bool
    ) -> tuple[torch.Tensor, Any, Any]:
        """Run the model over rows as TRL lays them, see `packing.py`.

        Args:
            model: The policy, or the model at the start.
            ids: Tokens, shape (B, T).
            mask: 1 on tokens and 0 on padding, shape (B, T).
            rows: The number of its prompt for each row, shape (B,).
            columns: C, the columns that completions take: the last ones.
            aux_loss: Whether a mixture of experts gives its load balancing loss.

        Returns:
            Log-probabilities and entropies, each of shape (B, C), 0 after a completion's end; the loss, or None.
        """
        prompts = self._positions.of_rows(rows)
        packed, lengths = pack(ids, mask, self._tokenizer.pad_token_id)
        place = torch.arange(packed.shape[1], device=packed.device)
        # The output layer is computed where a label stands: at the completions.
        is_target = (place >= prompts.lengths[:, None]) & (place < lengths[:, None])
        pictures = [self._prompts.pictures[row] for row in rows.tolist()]
        # On the fast path each picture goes through the tower once, however many of the rows ask about it.
        shown = sorted(set(pictures)) if self._fast else pictures
        fields = self._family.fields([self._prompts.grids[picture] for picture in shown], fast=self._fast)
        fields |= {"pictures": [shown.index(picture) for picture in pictures]} if self._fast else {}
        # The balance of a mixture's load leaves out padding, which only a mask tells.
        extra = {"output_router_logits": True, "attention_mask": place < lengths[:, None]} if aux_loss else {}
        with self.accelerator.autocast():
            outputs = model(
                input_ids=packed,
                position_ids=prompts.extended(packed.shape[1]),
                pixel_values=self._prompts.pixel_values(shown, self._family, self.processing_class, packed.device),
                labels=packed.masked_fill(~is_target, IGNORED),
                fused_lm_head=True,
                **fields,
                **extra,
            )
        logps, entropies = (
            completion_values(values, prompts.lengths, lengths, columns)
            for values in (outputs.log_probs, _or_zeros(outputs))
        )
        return logps, entropies, outputs.aux_loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._rows = inputs["rows"]
        return super()._compute_loss(model, inputs) * self._loss_scale  # type: ignore[no-any-return]

    def measure(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Answer held-out samples greedily: `eval_accuracy` (Acc@0.5), `eval_mean_iou` and `eval_tokens`, logged."""
        local_samples = list(samples[self.args.process_index :: self.args.world_size])
        sums = np.zeros(4)  # hits, IoUs, tokens, answers
        for start in track(range(0, len(local_samples), _EVAL_PROMPTS), "answering held-out samples"):
            prompts = self._collator(local_samples[start : start + _EVAL_PROMPTS])
            limit = self._recipe.rollout.max_new_tokens
            answers = self.decoder(prompts, 1, max_new_tokens=limit, temperature=0.0)
            numbers = range(len(prompts.samples))
            grades = grade(self._reward, prompts, numbers, answers, self._tokenizer, self.eos_token_ids)[1]
            hits, ious = sum(s.hit() for s in grades.scores), sum(s.iou for s in grades.scores)
            sums += [hits, ious, sum(map(len, answers)), len(answers)]
        all_sums = torch.tensor(sums[None], dtype=torch.float32, device=self.accelerator.device)
        hits, ious, tokens, count = self.accelerator.gather(all_sums).sum(0).tolist()
        metrics = {"eval_accuracy": hits / count, "eval_mean_iou": ious / count, "eval_tokens": tokens / count}
        self.model.eval()  # TRL tells the metrics of training and evaluation apart by this
        due = self.control.should_log
        self.log(dict(metrics))
        self.control.should_log = due  # the training's own line of this step is still to come
        self.model.train()
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with written_whole(self):
            super()._save_checkpoint(model, trial)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: TRL's would stand in every checkpoint."""


def _or_zeros(outputs: Any) -> torch.Tensor:
    """Return the entropy, which only the trained model's head computes."""
    zeros: torch.Tensor = outputs.log_probs.new_zeros(outputs.log_probs.shape)
    return zeros if outputs.entropy is None else outputs.entropy


def check_version() -> None:
    """Warn where TRL is another than the tested one, since private methods are overridden."""
    from importlib.metadata import version

    if is_first() and ".".join(version("trl").split(".")[:2]) not in TESTED:
        warnings.warn(
            f"egm grpo was tested with TRL {', '.join(TESTED)}, not {version('trl')}: look at its first losses",
            stacklevel=3,
        )
