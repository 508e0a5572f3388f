"""Rebuild the small tokenizer that is shipped in `src/egm/models/tiny/tokenizer_files/`.

    python tools/build_tokenizer.py --out FOLDER

writes `tokenizer.json` and `tokenizer_config.json` to a folder, with the same vocabulary on every machine; a test holds
it to the shipped one. The chat template beside the shipped files is written by hand.

To ship another tokenizer: raise `WORLD_VERSION` to the version of SynthRef that it is trained on, copy the files over
the shipped ones, and train egm-tiny anew, since the rows of its embeddings are numbered by this vocabulary. Special
tokens keep their numbers (see `egm.models.tiny.vocabulary`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from egm.datasets.synthetic import corpus
from egm.models import train_tokenizer

WORLD_SCENES = 300
WORLD_SEED = 20_260_131
WORLD_VERSION = 1
"""The version of SynthRef that the shipped tokenizer was trained on."""

_FRAMES = (
    "<|im_start|>user\nLocate {}, output its bbox coordinates using JSON format.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nLocate {} amodally, output its bbox coordinates using JSON format.<|im_end|>\n",
    '\n\n```json\n[\n\t{{"bbox_2d": [12, 34, 567, 890], "label": "{}"}}\n]\n```',
)
_RARE_FRAMES = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
    "Please provide the bounding box coordinate of the region this sentence describes: {}",
    "Please provide the amodal bounding box coordinate of the region this sentence describes: {}",
)


def world_texts(scenes: int, seed: int) -> Iterator[str]:
    """Yield the texts to train on: the world's own, and phrases framed as they are asked."""
    for index, text in enumerate(corpus(scenes, seed)):
        yield text
        if not text.endswith("."):  # a phrase: rationales are sentences
            yield from (frame.format(text) for frame in _FRAMES)
            if index % 20 == 0:
                yield from (frame.format(text) for frame in _RARE_FRAMES)


def main(arguments: list[str] | None = None) -> None:
    """Train the tokenizer on the synthetic world and write its files."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json and tokenizer_config.json")
    parser.add_argument("--scenes", type=int, default=WORLD_SCENES)
    parser.add_argument("--seed", type=int, default=WORLD_SEED)
    options = parser.parse_args(arguments)
    train_tokenizer(world_texts(options.scenes, options.seed)).save_pretrained(options.out)


if __name__ == "__main__":
    main()
