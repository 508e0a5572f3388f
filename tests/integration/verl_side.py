"""What verl makes of rows and texts, by its own dataset, processor and reward manager. Runs in verl's environment.

python verl_side.py JOB.json OUT.json
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager
from verl.utils import hf_processor, hf_tokenizer
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.tokenizer import build_multimodal_processor_inputs

from egm.training.verl.check import check_configuration, compose


async def scored(manager: Any, tokenizer: Any, row: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """Give a completion to verl's reward manager, as an agent loop does."""
    responses = torch.tensor([ids])
    batch = TensorDict(
        {"responses": responses, "attention_mask": torch.ones(1, 4 + len(ids), dtype=torch.int64)}, batch_size=1
    )
    fields = {name: np.array([row[name]], dtype=object) for name in ("data_source", "reward_model", "extra_info")}
    result = await manager.run_single(DataProto(batch=batch, non_tensor_batch=fields))
    return {"score": float(result["reward_score"]), **{k: float(v) for k, v in result["reward_extra_info"].items()}}


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Go through the rows of a parquet file."""
    path = Path(job["configuration"])
    check_configuration(path)
    config = compose(path)
    tokenizer, processor = hf_tokenizer(job["model"]), hf_processor(job["model"])
    dataset = RLHFDataset(job["parquet"], tokenizer, config.data, processor)
    manager = load_reward_manager(config, tokenizer)
    asked, scores = [], []

    async def go() -> None:
        for number in range(len(dataset)):
            row = dataset[number]
            messages = row["raw_prompt"]
            images, *_ = await RLHFDataset.process_multi_modal_info(
                messages, image_patch_size=config.data.image_patch_size, config=config.data
            )
            text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            inputs = build_multimodal_processor_inputs(
                processor, text=[text], images=images, videos=None, audio=None, mm_processor_kwargs={}
            )
            pixels = inputs["pixel_values"]
            pixels = torch.tensor(np.asarray(pixels)) if not isinstance(pixels, torch.Tensor) else pixels
            asked.append(
                {
                    "ids": list(map(int, np.asarray(inputs["input_ids"][0]).tolist())),
                    "grid": np.asarray(inputs["image_grid_thw"]).reshape(-1).tolist(),
                    "pixels": pixels.float().flatten()[::97].tolist(),
                }
            )
            scores.append([await scored(manager, tokenizer, row, ids) for ids in job["completions"][number]])

    manager.loop = asyncio.new_event_loop()
    manager.loop.run_until_complete(go())
    return {"asked": asked, "scores": scores}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
