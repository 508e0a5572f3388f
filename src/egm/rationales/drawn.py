"""SynthRef explained at once: a scene is made once, for its samples, the offline teacher's words and its picture."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from PIL import Image

from egm.datasets.convert import save_picture
from egm.datasets.dataset import Dataset
from egm.datasets.synthetic import SynthRef
from egm.datasets.synthetic.splits import PHRASES_PER_SCENE
from egm.errors import DataError
from egm.evaluate.plan import plan_samples
from egm.evaluate.shards import Shard
from egm.processes import end_with_parent
from egm.progress import progress_task
from egm.rationales.synthref import check_style, tell
from egm.types import Sample

_Explained: TypeAlias = tuple[Sample, tuple[str, ...]]
_SCENES: Final = 25  # that a process makes at a time


class Explained(NamedTuple):
    """Samples of SynthRef, and what the offline teacher says of them.

    Attributes:
        dataset: The samples, with files for pictures.
        told: Of each sample, by its id, what is said at each try.
    """

    dataset: Dataset
    told: dict[str, tuple[str, ...]]


def draw_explained(
    split: str,
    first: int | None,
    folder: Path,
    style: str = "official",
    *,
    tries: int = 1,
    workers: int = 1,
    shard: Shard | None = None,
) -> Explained:
    """Make samples of SynthRef, what the offline teacher says of them, and the files of their pictures.

    Args:
        split: Such as `train`.
        first: How many samples; None takes all of a split that has an end.
        folder: Gets the pictures, in `images/`; those that are there already have to be the same.
        style: In which style they are explained.
        tries: How often each.
        workers: Processes that draw; with 1, it is this one.
        shard: Write only the pictures of this shard.

    Raises:
        DataError: If there is no such split or style, the split has no end, or another picture is there.
    """
    check_style(style)
    source = SynthRef(split)
    if first is None and source.scenes is None:
        raise DataError(f"SynthRef {split} has no end: say how many samples")
    draw = partial(_draw, split, style, tries, folder.resolve(), shard is None)
    if workers == 1:
        found = _collect(source, first, lambda parts: map(draw, parts))
    else:
        context = multiprocessing.get_context("spawn")  # forks would take the locks of this process's threads along
        with ProcessPoolExecutor(workers, context, end_with_parent, (signal.SIGKILL,)) as pool:
            found = _collect(source, first, lambda parts: pool.map(draw, parts))
    if shard is not None:
        _save_own(source, [sample for sample, _ in found], shard)
    dataset = Dataset(f"synthref/{split}", [sample for sample, _ in found], root=folder, kind="SynthRef")
    return Explained(dataset, {sample.id: told for sample, told in found})


def _collect(
    source: SynthRef, first: int | None, draw: Callable[[list[range]], Iterable[list[_Explained]]]
) -> list[_Explained]:
    """Draw so many scenes as samples are missing, until none are: some scenes have fewer than others."""
    samples: list[_Explained] = []
    begin, end = 0, source.scenes
    while (first is None or len(samples) < first) and (end is None or begin < end):
        missing = end if first is None else begin + -(-(first - len(samples)) // PHRASES_PER_SCENE)
        assert missing is not None
        stop = missing if end is None else min(missing, end)
        parts = [range(start, min(start + _SCENES, stop)) for start in range(begin, stop, _SCENES)]
        with progress_task(f"drawing scenes of {source.split}", stop - begin) as task:
            for part, drawn in zip(parts, draw(parts), strict=True):
                samples += drawn
                task.advance(len(part))
        begin = stop
    return samples if first is None else samples[:first]


def _save_own(source: SynthRef, samples: Sequence[Sample], shard: Shard) -> None:
    """Draw the pictures of a shard again, which is known only once all samples are."""
    planned, _ = plan_samples({source.split: samples})
    own = {Path(str(item.sample.image)): item.sample.id for item in shard.take(planned).values()}
    for path, name in own.items():
        save_picture(path, Image.fromarray(source.scene(int(name.split("/")[-2])).pixels))


def _draw(split: str, style: str, tries: int, folder: Path, save: bool, scenes: range) -> list[_Explained]:
    source, found = SynthRef(split), list[_Explained]()
    for index in scenes:
        for number, traced in enumerate(source.traced(index)):
            sample = traced.sample
            path = folder / "images" / f"{sample.id.rsplit('/', 1)[0]}.png"
            if number == 0 and save:
                save_picture(path, sample.image)
            told = tuple(tell(traced, style, attempt) for attempt in range(tries))
            found.append((replace(sample, image=path), told))
    return found
