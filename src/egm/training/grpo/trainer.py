"""TRL's GRPOTrainer over EGM's questions, codec, rewards and decoding.

This is the one place that overrides private methods of TRL. What is replaced, and why:

- `_tokenize_prompts`, `_generate_single_turn`: each prompt and picture is processed once, not once a completion, and
  completions are decoded side by side (`egm.models.decode.decoder`), or by vLLM, which alone is shown the pictures.
- `_calculate_rewards`: texts are decoded as evaluation decodes them, and the parts of rewards are kept.
- `_get_per_token_logps_and_entropies`: sequences are packed to the left, so that no attention mask is needed, and the
  tower sees each picture once.
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

from egm.backends.tokens import strip_stop
from egm.images import load_image
from egm.models.decode.decoder import BatchDecoder
from egm.models.fast.rope_index import position_ids
from egm.training.grpo.branching import GroupDrawer
from egm.training.grpo.questions import Ahead, Asker, Prompts
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.rollouts import RolloutWriter
from egm.training.grpo.vllm import hold_to_prompts
from egm.training.rewards.reward import Grades, Reward
from egm.training.shared.processes import is_first
from egm.training.shared.run_folder import written_whole
from egm.types import Sample

TESTED: Final = ("1.16",)
"""Versions of TRL whose private methods are known to be as they are used here."""

_EVAL_PROMPTS = 256


class GroundingGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer over numbered samples; the dataset's only column is `number`.

    Args:
        recipe: What to do.
        ahead: Makes questions of numbers.
        asker: Makes questions of samples.
        reward: What completions are worth.
        rollouts: Keeps some of them.
        **kwargs: GRPOTrainer's own.
    """

    _prompts: Prompts
    _completions: list[list[int]]
    _shared: list[int]
    _grades: Grades
    _texts: list[str]
    _rows: torch.Tensor
    _positions: tuple[torch.Tensor, torch.Tensor, torch.Tensor]

    def __init__(
        self, *, recipe: GRPORecipe, ahead: Ahead, asker: Asker, reward: Reward, rollouts: RolloutWriter, **kwargs: Any
    ) -> None:
        check_version()
        self._recipe, self._ahead, self._asker = recipe, ahead, asker
        self._reward, self._rollouts = reward, rollouts
        self._batched = recipe.rollout.engine == "batched"
        self._scale = 1.0
        super().__init__(reward_funcs=[reward], **kwargs)
        model = self.accelerator.unwrap_model(self.model)
        self.decoder = make_decoder(model, self.processing_class, self.eos_token_ids, recipe, bf16=self.args.bf16)
        self._draw = GroupDrawer(self.decoder, self._tokenizer, self.eos_token_ids, recipe.rollout)
        if self.ref_model is not None:
            from egm.models.fast.enable import enable_fast_path

            enable_fast_path(self.accelerator.unwrap_model(self.ref_model))
        if self.use_vllm:
            # the server is sent pictures apart, and takes prompts as they are
            alone = self.processing_class.image_token_id if self.vllm_mode == "colocate" else None
            self.vllm_generation.generate = hold_to_prompts(self.vllm_generation.generate, alone)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        group = self.num_generations
        several = self._recipe.rollout.candidates
        numbers = [several * example["number"] + turn for example in inputs[::group] for turn in range(several)]
        self._prompts = prompts = self._ahead.get(numbers)
        self._scale = 1.0
        if self._batched:
            self._completions, self._shared = self._draw(prompts)
            if self._recipe.rollout.branch is not None:
                parted = np.array(self._shared)
                self._note({"branch/parted": np.mean(parted > 0), "branch/shared_tokens": parted.mean()})
            if several > 1:
                self._prompts = prompts = self._choose(prompts, len(numbers) // several)
        self._rows = torch.arange(len(prompts.samples)).repeat_interleave(group)
        self._positions = self._prompt_positions(prompts)
        examples = [
            {"prompt": [{"role": "user", "content": sample.phrase}]} for sample in prompts.samples for _ in range(group)
        ]
        output: dict[str, Any] = super()._generate_and_score_completions(examples)
        output["rows"] = self._rows
        if "importance_sampling_ratio" in output:  # TRL leaves out whom vLLM thinks too different, and says nothing
            left_out = (output["importance_sampling_ratio"] == 0).float().mean()
            self._metrics["train"]["sampling/left_out"].append(self.accelerator.gather(left_out).mean().item())
        self._mask_what_teaches_nothing(output)
        # TRL's own is of the whole batch where it scales by that
        self._metrics["train" if self.model.training else "eval"]["frac_reward_zero_std"].pop()
        self._note_grades(self._grades)
        step = self.state.global_step + 1
        self._rollouts.write(step, prompts, self._texts, self._grades, output["advantages"].tolist())
        return output

    def _choose(self, prompts: Prompts, count: int) -> Prompts:
        """Take the questions whose rewards differ most, and their completions."""
        group = self.num_generations
        rows = [row for row in range(len(prompts.samples)) for _ in range(group)]
        grades = grade(self._reward, prompts, rows, self._completions, self._tokenizer, self.eos_token_ids)[1]
        self._note_grades(grades, "candidates/")
        spread = grades.totals.reshape(-1, group).std(axis=1)
        chosen = sorted(np.argsort(-spread, kind="stable")[:count].tolist())
        self._completions = [ids for row in chosen for ids in self._completions[group * row : group * (row + 1)]]
        self._shared = [self._shared[row] for row in chosen]
        return prompts.part(chosen)

    def _mask_what_teaches_nothing(self, output: dict[str, Any]) -> None:
        """Leave groups without spread, and what a group shares, out of the loss and of what it is averaged over."""
        mask, branched = output["completion_mask"], self._recipe.rollout.branch is not None
        kept = torch.ones_like(mask)
        if self._recipe.optim.zero_spread == "mask":
            spread = torch.from_numpy(self._have_spread(self._grades)).repeat_interleave(self.num_generations)
            kept *= spread.to(mask.device)[:, None]
        elif not branched:
            return
        told = kept[:, 0].sum()
        if branched:
            shared = torch.tensor(self._shared)[self._rows].to(mask.device)
            kept *= torch.arange(mask.shape[1], device=mask.device) >= shared[:, None]
        counts = torch.stack([(mask * kept).sum().float(), told.float(), torch.ones_like(kept[:, 0]).sum().float()])
        tokens, rows, all_rows = self.accelerator.gather(counts[None]).sum(0)
        output["tool_mask"] = kept
        output["num_items_in_batch"] = tokens
        # dapo divides by the tokens above, the others by the number of rows
        self._scale = 1.0 if self.loss_type == "dapo" else float(all_rows / rows.clamp(min=1))

    def _have_spread(self, grades: Grades) -> NDArray[np.bool_]:
        """Tell of each group whether its rewards differ, shape (groups,)."""
        return np.ptp(grades.totals.reshape(-1, self.num_generations), axis=1) > 1e-8  # type: ignore[no-any-return]

    def _note_grades(self, grades: Grades, kind: str = "") -> None:
        hits = [score.hit() for score in grades.scores]
        found = [score.failure is None for score in grades.scores]
        ious = [score.iou for score in grades.scores]
        own = {"accuracy": np.mean(hits), "mean_iou": np.mean(ious), "no_box": 1 - np.mean(found)}
        own["frac_reward_zero_std"] = 1 - np.mean(self._have_spread(grades))
        own |= {f"reward/{name}": values.mean() for name, values in grades.parts.items()}
        self._note({kind + name: value for name, value in own.items()})

    def _note(self, means: Mapping[str, Any]) -> None:
        """Note figures for the log, as means over the processes."""
        values = torch.tensor([list(map(float, means.values()))], device=self.accelerator.device)
        for name, value in zip(means, self.accelerator.gather(values).mean(0).tolist(), strict=True):
            self._metrics["train"][name].append(value)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, Any, Any]:
        del prompts
        asked, rows = self._prompts, self._rows.tolist()
        ids = [asked.ids[row] for row in rows]
        if self._batched or self.use_vllm:
            return ids, None, {}
        pictures = [asked.pictures[row] for row in rows]
        token = self.processing_class.image_token_id
        fields = {
            "pixel_values": self._pixels(pictures),
            "image_grid_thw": torch.tensor([asked.grids[picture] for picture in pictures]),
            "mm_token_type_ids": [[int(i == token) for i in row] for row in ids],
        }
        return ids, None, fields

    def _generate_single_turn(self, prompt_ids: Any, images: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if self._batched:
            return self._completions, None
        if self.use_vllm:
            asked = self._prompts
            shown = {
                picture: load_image(sample.image) for picture, sample in zip(asked.pictures, asked.samples, strict=True)
            }
            images = [[shown[asked.pictures[row]]] for row in self._rows.tolist()]
        return super()._generate_single_turn(prompt_ids, images, *args, **kwargs)  # type: ignore[no-any-return]

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids: Any) -> torch.Tensor:
        del inputs, prompts, completions
        self._texts, self._grades = grade(
            self._reward, self._prompts, self._rows.tolist(), completion_ids, self._tokenizer, self.eos_token_ids
        )
        totals = torch.from_numpy(self._grades.totals).to(self.accelerator.device, torch.float32)
        return self.accelerator.gather(totals[:, None])  # type: ignore[no-any-return]

    def _prompt_positions(self, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Positions of each question (3, U, P), its length (U,), and the position that comes after it (U,)."""
        lengths = torch.tensor([len(ids) for ids in prompts.ids])
        table = torch.full((len(prompts.ids), int(lengths.max())), self._tokenizer.pad_token_id)
        for row, ids in enumerate(prompts.ids):
            table[row, : len(ids)] = torch.tensor(ids)
        mask = torch.arange(table.shape[1]) < lengths[:, None]
        grids = [prompts.grids[picture] for picture in prompts.pictures]
        positions = position_ids(table, grids, mask, self.model.config)
        device = self.accelerator.device
        return positions.to(device), lengths.to(device), (positions.amax(dim=(0, 2)) + 1).to(device)

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
            self._pass(
                model, input_ids[i : i + size], attention_mask[i : i + size], self._rows[i : i + size], logits_to_keep,
                aux_loss=compute_aux_loss,
            )
            for i in range(0, len(input_ids), size)
        ]  # fmt: skip
        logps, entropies, aux = zip(*parts, strict=True)
        return (
            torch.cat(logps),
            torch.cat(entropies) if compute_entropy else None,
            torch.stack(aux).mean() if compute_aux_loss else None,
        )

    def _pass(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, keep: int, *, aux_loss: bool
    ) -> tuple[torch.Tensor, Any, Any]:
        device, total = ids.device, ids.shape[1]
        positions, prompt_lengths, starts = (tensor[..., rows.to(device), :] if tensor.ndim == 3 else
                                             tensor[rows.to(device)] for tensor in self._positions)  # fmt: skip
        lengths = mask.sum(1)
        places = torch.arange(total, device=device)
        left = (mask.cumsum(1) == 0).sum(1)
        ids = ids.gather(1, (places + left[:, None]).clamp(max=total - 1))
        inside = places < lengths[:, None]
        ids = ids.where(inside, torch.full_like(ids, self._tokenizer.pad_token_id))
        answer = inside & (places >= prompt_lengths[:, None])
        after = (places + (starts - prompt_lengths)[:, None]).expand(3, -1, -1)
        wide = torch.nn.functional.pad(positions, (0, max(0, total - positions.shape[2])))[..., :total]
        pictures = [self._prompts.pictures[row] for row in rows.tolist()]
        shown = sorted(set(pictures))
        extra = {"output_router_logits": True} if aux_loss else {}
        with self.accelerator.autocast():
            outputs = model(
                input_ids=ids,
                position_ids=torch.where(places < prompt_lengths[:, None], wide, after),
                pixel_values=self._pixels(shown).to(device),
                image_grid_thw=[self._prompts.grids[picture] for picture in shown],
                pictures=[shown.index(picture) for picture in pictures],
                labels=ids.masked_fill(~answer, -100),
                fused_lm_head=True,
                **extra,
            )
        # The value of token t stands at t - 1; back to where TRL has completions, all beginning in one column.
        column = torch.arange(keep, device=device)
        where = (column + prompt_lengths[:, None] - 1).clamp(max=total - 2)
        told = column < (lengths - prompt_lengths)[:, None]
        logps, entropy = (
            value.gather(1, where).where(told, value.new_zeros(())) for value in (outputs.log_probs, _or_zeros(outputs))
        )
        return logps, entropy, outputs.aux_loss

    def _pixels(self, pictures: Sequence[int]) -> torch.Tensor:
        counts = [int(np.prod(grid)) for grid in self._prompts.grids]
        if list(pictures) == list(range(len(counts))):
            return self._prompts.pixels
        pieces = torch.split(self._prompts.pixels, counts)
        return torch.cat([pieces[picture] for picture in pictures])

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._rows = inputs["rows"]
        return super()._compute_loss(model, inputs) * self._scale  # type: ignore[no-any-return]

    def measure(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Answer held-out samples greedily: `eval_accuracy` (Acc@0.5), `eval_mean_iou` and `eval_tokens`, logged."""
        own = list(samples[self.args.process_index :: self.args.world_size])
        sums = np.zeros(4)
        for start in range(0, len(own), _EVAL_PROMPTS):
            prompts = self._asker(own[start : start + _EVAL_PROMPTS])
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


def make_decoder(model: Any, processor: Any, stops: Sequence[int], recipe: GRPORecipe, *, bf16: bool) -> BatchDecoder:
    """Make what decodes in this process."""
    own = next(model.parameters()).dtype
    return BatchDecoder(
        model,
        dtype=torch.bfloat16 if bf16 else own,
        stops=stops,
        pad=processor.tokenizer.pad_token_id,
        banned=[model.config.image_token_id, model.config.video_token_id],
        max_rows=recipe.rollout.rows,
        graphs=recipe.rollout.cuda_graphs,
    )


def grade(
    reward: Reward,
    prompts: Prompts,
    rows: Sequence[int],
    completion_ids: Sequence[Sequence[int]],
    tokenizer: Any,
    stops: Sequence[int],
) -> tuple[list[str], Grades]:
    """Decode completions as evaluation does, and reward them.

    Args:
        reward: What completions are worth.
        prompts: What was asked.
        rows: Which question each completion answers.
        completion_ids: Their tokens.
        tokenizer: What they are tokens of.
        stops: Tokens that end a completion.

    Returns:
        The texts, and what they are worth.
    """
    stripped = [strip_stop(ids, stops) for ids in completion_ids]
    texts = tokenizer.batch_decode([ids for ids, _ in stripped], skip_special_tokens=False)
    samples = [prompts.samples[row] for row in rows]
    grades = reward.grade(
        texts,
        truths=[sample.box for sample in samples if sample.box is not None],
        sizes=[prompts.sizes[prompts.pictures[row]] for row in rows],
        amodal=[sample.amodal for sample in samples],
        tokens=[len(ids) for ids in completion_ids],
        finish_reasons=[finish_reason for _, finish_reason in stripped],
    )
    return texts, grades
