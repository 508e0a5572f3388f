"""The questions of a run as parquet: those that `egm grpo` would ask, in the order in which it would ask them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from egm.datasets import open_dataset
from egm.datasets.rl_rows import write_rl_rows
from egm.errors import DataError
from egm.images import load_image
from egm.progress import track
from egm.training.data.check import check_boxes
from egm.training.data.rows import DatasetRows
from egm.training.data.sources import open_rows
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.run import held_out_samples, open_table
from egm.training.verl.policy import AskedModel
from egm.training.verl.unsaid import rollouts_of
from egm.types import Sample

TRAIN, HELD_OUT = "train.parquet", "val.parquet"
"""Names of the files."""


def check_verl_rows(recipe: GRPORecipe, *, if_there: bool = False) -> None:
    """Refuse files with rows that verl's cannot hold, before anything is started or written.

    Args:
        recipe: What is asked about, and what is measured; SynthRef's splits are told by their names (`AskedModel`).
        if_there: Whether to pass over what is no path here.

    Raises:
        DataError: If rows expect any number of boxes but one, have none or cannot be read: which file, and the first.
    """
    data = recipe.data
    source = AskedModel(recipe).source
    if not if_there or Path(source).exists():
        check_boxes(open_rows(data.train, seed=recipe.run.seed, images=data.images, scenes=data.scenes), one_each=True)
    held_out = recipe.eval
    if held_out is not None and if_there and not Path(held_out.data).exists():
        return
    drawn = held_out is not None and held_out.data.startswith("synthref/") and not Path(held_out.data).exists()
    if held_out is not None and not drawn:
        dataset = open_dataset(held_out.data, images=held_out.images, first=held_out.samples)
        try:
            check_boxes(DatasetRows(dataset), one_each=True)
        except DataError as error:
            raise DataError(f"eval.data {held_out.data}: {error}") from None


def write_questions(recipe: GRPORecipe, asked: AskedModel, folder: Path, *, absolute: bool = False) -> int:
    """Write what a run asks, and what is measured while it trains.

    Args:
        recipe: What is asked.
        asked: The model that is.
        folder: Where to; made if need be.
        absolute: Write the names of pictures that are files, which every node then has to see, and not the pictures.

    Returns:
        How many questions the run asks before they repeat.

    Raises:
        DataError: If there are too few, a prompt is too long, or a picture that should be named is no file.
        ImageError: If a picture cannot be read, or is of another size than its row says.
    """
    train, prompt = asked.source, recipe.data.prompt
    assert prompt is None or isinstance(prompt, str)  # `asked` has refused several
    table, held_out = open_table(recipe), held_out_samples(recipe.eval)
    needed = rollouts_of(recipe) * recipe.optim.prompts * recipe.rollout.candidates
    folder.mkdir(parents=True, exist_ok=True)

    def write(samples: Iterable[Sample], name: str, source: str) -> int:
        return write_rl_rows(
            track(_checked(samples, asked), f"writing {name}", count if name == TRAIN else len(held_out)),
            folder / name,
            source=source,
            codec=asked.codec,
            prompt=prompt,
            embed=not absolute,
            pixels=asked.policy.pixels,
        )

    count = min(len(table), needed)
    if absolute and not isinstance(table[0].image, str | Path):
        raise DataError(f"the pictures of {train} are no files, so they have no names: leave --absolute out")
    write(_told_apart(table[number] for number in range(count)), TRAIN, train)
    if recipe.eval is not None:
        write(held_out, HELD_OUT, recipe.eval.data)
    return count


def _told_apart(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Yield samples under ids of their own: a scene with few phrases is asked one of them again."""
    times: Counter[str] = Counter()
    for sample in samples:
        times[sample.id] += 1
        yield sample if times[sample.id] == 1 else replace(sample, id=f"{sample.id}#{times[sample.id]}")


def _checked(samples: Iterable[Sample], asked: AskedModel) -> Iterator[Sample]:
    """Yield samples whose prompts are short enough."""
    for sample in samples:
        asked.check_length(sample, sample.size or load_image(sample.image).size)
        yield sample
