"""TRL's SFTTrainer, with EGM's batches and a loss that never waits for the GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trl import SFTTrainer

from egm.training.collate import IGNORED, expand_pixels
from egm.training.data import Order
from egm.training.optim import muon

_SMALL_VOCABULARY = 16_384
"""Up to here whole logits are cheaper than TRL's tiled LM head, which saves memory on large vocabularies."""


class GroundingTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer over batches of `egm.training.collate.Collator`.

    Args:
        use_muon: Whether to step with `egm.training.optim.muon` rather than with what the arguments name.
        order: Numbers of rows in the order of training; the trainer's own random order if not given.
        **kwargs: SFTTrainer's own.
    """

    optimizer: Any

    def __init__(self, *, use_muon: bool = False, order: Order | None = None, **kwargs: Any) -> None:
        self._use_muon, self._order = use_muon, order
        super().__init__(**kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return super()._get_train_sampler(train_dataset) if self._order is None else self._order

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Make the optimiser."""
        if self._use_muon and self.optimizer is None:
            rates = self.args.learning_rate, self.args.weight_decay, self.args.adam_beta2
            self.optimizer = muon(self.model, learning_rate=rates[0], weight_decay=rates[1], beta2=rates[2])
        return self.optimizer if self._use_muon else super().create_optimizer(*args, **kwargs)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs = super()._prepare_inputs(inputs)
        images = self.processing_class.image_processor
        inputs["pixel_values"] = expand_pixels(
            inputs.pop("pixels"),
            mean=images.image_mean[0],
            std=images.image_std[0],
            temporal=images.temporal_patch_size,
        )
        return inputs

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean cross-entropy over the targets' tokens; metrics stay on the device until they are logged."""
        if model.training is False or self.model.config.get_text_config().vocab_size > _SMALL_VOCABULARY:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        outputs = model(**{key: value for key, value in inputs.items() if key != "labels"}, use_cache=False)
        logits = outputs.logits[:, :-1]
        total = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        told = labels != IGNORED
        count = told.sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(count, device=total.device).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        with torch.no_grad():
            right = ((logits.argmax(-1) == labels) & told).sum() / told.sum().clamp(min=1)
        self._metrics["train"]["mean_token_accuracy"].append(right)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the metrics that waited on the device."""
        for values in self._metrics["train"].values():
            values[:] = [float(value) for value in values]
        super().log(logs, start_time)
