"""TRL's SFTTrainer, with EGM's batches and a loss that never waits for the GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trl import SFTTrainer

from egm.codecs import Codec
from egm.models.families import trained_family
from egm.progress import track
from egm.training.data import Order
from egm.training.data.collate import IGNORED
from egm.training.data.workers import end_workers, end_workers_at_exit, ignore_signals
from egm.training.sft.held_out import HeldOut, answer_greedily
from egm.training.sft.recipe import OptimSection
from egm.training.shared.driver import written_whole
from egm.training.shared.loss_watch import LossWatch, check_weights
from egm.training.shared.model import router_logits_kept_off
from egm.training.shared.optim import RoundedAdamW, muon
from egm.types import Sample

_SMALL_VOCABULARY = 16_384
"""Up to here whole logits are cheaper than TRL's tiled LM head, which saves memory on large vocabularies."""


class GroundingTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer over batches of `egm.training.data.collate.Collator`, laid end to end or not.

    The loss is the mean over all tokens of all answers in a step, however they are spread over passes and processes.

    Args:
        optim: The recipe's `optim:`, for what the arguments do not know.
        codec: The model's convention.
        collate: Makes a batch of samples.
        order: Numbers of rows in the order of training.
        held_out: What to measure while training.
        **kwargs: SFTTrainer's own.
    """

    optimizer: Any
    control: Any
    _run_start: tuple[int, float] | None = None
    _line_start: tuple[int, float] | None = None
    """Steps done and the clock: as this process began, and as the last line of the log was written."""

    def __init__(
        self,
        *,
        optim: OptimSection,
        codec: Codec,
        collate: Callable[[Sequence[Sample]], dict[str, Any]],
        order: Order,
        held_out: HeldOut | None = None,
        **kwargs: Any,
    ) -> None:
        self._optim, self._codec, self._collate, self._held_out = optim, codec, collate, held_out
        self._order, self._family = order, trained_family(kwargs["model"].config)
        self._loader: Any = None
        self._foreseen: list[torch.Tensor] = []  # of each pass since the last line: targets that were, and all
        self.watch = LossWatch()
        with router_logits_kept_off(kwargs["model"]):
            super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = True  # so that the answers' tokens are counted over passes and processes

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:  # noqa: ARG002 - the order knows its rows
        return self._order

    def get_train_dataloader(self) -> Any:
        """Make the loader of the training's batches."""
        loader = super().get_train_dataloader()
        inner = getattr(loader, "base_dataloader", loader)  # what accelerate wraps
        inner.worker_init_fn = partial(ignore_signals, then=inner.worker_init_fn)
        end_workers_at_exit()
        self._loader = inner
        return loader

    def end_loading(self) -> None:
        """End the workers that loaded the training's batches, as `train_from` wants."""
        if self._loader is not None:
            end_workers(self._loader._iterator)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Make the optimiser."""
        rates = {"learning_rate": self._optim.learning_rate, "weight_decay": self._optim.weight_decay}
        if self.optimizer is None and self._optim.optimizer == "muon":
            self.optimizer = muon(self.model, beta2=self._optim.beta2, **rates)
        elif self.optimizer is None and self._optim.rounding == "stochastic":
            decaying = set(self.get_decay_parameter_names(self.model))
            trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
            groups = [
                {"params": [p for name, p in trained if name in decaying], "weight_decay": self._optim.weight_decay},
                {"params": [p for name, p in trained if name not in decaying], "weight_decay": 0.0},
            ]
            self.optimizer = RoundedAdamW(groups, lr=self._optim.learning_rate, betas=(0.9, self._optim.beta2))
        return super().create_optimizer(*args, **kwargs) if self.optimizer is None else self.optimizer

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs = super()._prepare_inputs({key: value for key, value in inputs.items() if key != "samples"})
        inputs["pixel_values"] = self._family.pixel_values(self.processing_class, inputs.pop("pixels"))
        return inputs

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run one pass, and end the run if its loss is no number."""
        if self._run_start is None:
            self._run_start = self._line_start = self.state.global_step, time.perf_counter()
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        self.watch.add(self.state.global_step + 1, inputs["samples"], loss)
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean cross-entropy over the targets' tokens; metrics stay on the device until they are logged.

        To it a mixture of experts adds the balance of its load, as TRL does.
        """
        small = self.model.config.get_text_config().vocab_size <= _SMALL_VOCABULARY
        if not small and "logits_to_keep" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True
        total, right, count, outputs = self._target_loss(model, inputs)
        # `num_items_in_batch` counts the targets of the whole step, over all passes and processes.
        loss = total / torch.as_tensor(count if num_items_in_batch is None else num_items_in_batch).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP takes the mean of the gradients, and this is a sum
        if self.aux_loss_enabled:
            passes = 1 if num_items_in_batch is None else self.current_gradient_accumulation_steps
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / passes
            self._metrics["train"]["aux_loss"].append(outputs.aux_loss.detach())
        self._foreseen.append(torch.stack([right, count]))
        return (loss, outputs) if return_outputs else loss

    def _target_loss(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Any]:
        """Return the summed loss over the targets' tokens, how many were foreseen, and how many there are."""
        # The logits at t are for the token at t + 1, so labels move up by one: (B, T) to (B, T - 1).
        labels = inputs["labels"][:, 1:]
        outputs = model(**{key: value for key, value in inputs.items() if key != "labels"}, use_cache=False)
        if "logits_to_keep" in inputs:  # K positions of one flattened row: logits (1, K, V), labels (1, K)
            logits, labels = outputs.logits, labels[:, inputs["logits_to_keep"]]
        else:  # (B, T - 1, V): nothing follows the last token
            logits = outputs.logits[:, :-1]
        total = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        target_mask = labels != IGNORED
        with torch.no_grad():
            right = ((logits.argmax(-1) == labels) & target_mask).sum()
        return total, right, target_mask.sum(), outputs

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the held-out samples: `eval_loss` by token, and `eval_accuracy` (Acc@0.5) and `eval_mean_iou`."""
        del args, kwargs
        metrics: dict[str, float] = {}
        if self._held_out is None:
            return metrics
        self.model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            if self._held_out.losses:
                total, right, count = self._summed(self._held_out_losses(self._held_out.losses))
                metrics |= {"eval_loss": total / count, "eval_mean_token_accuracy": right / count}
        if self._held_out.greedy:
            hits, iou = self._summed(self._held_out_answers(self._held_out))
            count = len(self._held_out.greedy)
            metrics |= {"eval_accuracy": hits / count, "eval_mean_iou": iou / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self._line_start is not None:  # evaluation does not count as training
            self._line_start = self.state.global_step, time.perf_counter()
        return metrics

    def _held_out_losses(self, samples: Sequence[Sample]) -> list[float]:
        """Sum over this process's share; all make as many passes, since sharded weights are gathered in step."""
        sums = torch.zeros(3, dtype=torch.float64)  # loss, tokens foreseen, tokens
        size = self.args.per_device_eval_batch_size
        for first in track(range(0, len(samples), size * self.args.world_size), "held-out loss"):
            start = first + size * self.args.process_index
            local_samples = samples[start : start + size]
            batch = self._prepare_inputs(
                self._collate(local_samples or samples[:1])
            )  # a process without samples runs along
            figures = self._target_loss(self.model_wrapped, batch)[:3]
            if local_samples:
                sums += torch.stack([value.double().cpu() for value in figures])
        return sums.tolist()

    def _held_out_answers(self, held_out: HeldOut) -> list[float]:
        model = self.accelerator.unwrap_model(self.model)
        local_samples = held_out.greedy[self.args.process_index :: self.args.world_size]
        size = self.args.per_device_eval_batch_size
        hits, iou = answer_greedily(model, self.processing_class, self._codec, held_out, local_samples, batch_size=size)
        return [float(hits), iou]

    def _summed(self, values: Sequence[float]) -> list[float]:
        local_sums = torch.tensor([list(values)], dtype=torch.float64, device=self.args.device)
        return self.accelerator.gather(local_sums).sum(0).tolist()  # type: ignore[no-any-return]

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, unless what it would keep is no number."""
        self.check()
        with written_whole(self):
            super()._save_checkpoint(*args, **kwargs)

    def check(self) -> None:
        """Wait for the losses so far.

        Raises:
            EgmError: If a loss or a trained weight is not finite.
        """
        self.watch.check(wait=True)
        check_weights(list(self.model.parameters()), self.state.global_step)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: TRL's would stand in every checkpoint and speak of TRL."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the metrics that waited on the device, and the speed since the last line but for evaluation.

        The library counts rows, of which each may hold several samples, and takes a run that goes on for a whole one.
        """
        train = self._metrics["train"]
        for values in train.values():
            values[:] = [float(value) for value in values]
        if self._foreseen:  # what this process alone has seen, of passes that are as many on all
            right, count = self._summed(torch.stack(self._foreseen).sum(0).tolist())
            self._foreseen.clear()
            train["mean_token_accuracy"] = [right / max(1.0, count)]
            if balances := train.get("aux_loss"):
                train["aux_loss"] = [self._summed([sum(balances) / len(balances)])[0] / self.accelerator.num_processes]
        if "loss" in logs and self._line_start is not None:
            logs["samples_per_second"] = self._optim.batch_size * self._speed(self._line_start)
            self._line_start = self.state.global_step, time.perf_counter()
        if "train_runtime" in logs and self._run_start is not None:
            speed = self._speed(self._run_start)
            logs |= {"train_steps_per_second": speed, "train_samples_per_second": self._optim.batch_size * speed}
        super().log(logs, start_time)

    def _speed(self, since: tuple[int, float]) -> float:
        """Return steps a second since a step."""
        return float(self.state.global_step - since[0]) / max(time.perf_counter() - since[1], 1e-9)
