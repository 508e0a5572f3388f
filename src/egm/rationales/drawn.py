"""SynthRef explained at once: a scene is made once, for its samples, the offline teacher's words and its picture."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from egm.datasets.convert import save_picture
from egm.datasets.dataset import Dataset
from egm.datasets.synthetic import SynthRef
from egm.datasets.synthetic.splits import PHRASES_PER_SCENE
from egm.errors import DataError
from egm.processes import end_with_parent
from egm.rationales.synthref import check_style, tell
from egm.types import Sample

_SCENES: Final = 25  # that a process makes at a time


def draw_explained(
    split: str, first: int | None, folder: Path, style: str = "official", *, workers: int = 1
) -> Dataset:
    """Make samples of SynthRef with the offline teacher's words as their rationales, and their pictures as files.

    Args:
        split: Such as `train`.
        first: How many samples; None takes all of a split that has an end.
        folder: Gets the pictures, in `images/`; those that are there already have to be the same.
        style: In which style they are explained.
        workers: Processes that draw; with 1, it is this one.

    Raises:
        DataError: If there is no such split or style, the split has no end, or another picture is there.
    """
    check_style(style)
    source = SynthRef(split)
    if first is None and source.scenes is None:
        raise DataError(f"SynthRef {split} has no end: say how many samples")
    draw = partial(_draw, split, style, folder)
    if workers == 1:
        samples = _collect(source, first, lambda parts: map(draw, parts))
    else:
        context = multiprocessing.get_context("spawn")  # forks would take the locks of this process's threads along
        with ProcessPoolExecutor(workers, context, end_with_parent, (signal.SIGKILL,)) as pool:
            samples = _collect(source, first, lambda parts: pool.map(draw, parts))
    return Dataset(f"synthref/{split}", samples, root=folder, kind="SynthRef")


def _collect(
    source: SynthRef, first: int | None, draw: Callable[[list[range]], Iterable[list[Sample]]]
) -> list[Sample]:
    """Draw so many scenes as samples are missing, until none are: some scenes have fewer than others."""
    samples: list[Sample] = []
    begin, end = 0, source.scenes
    while (first is None or len(samples) < first) and (end is None or begin < end):
        missing = end if first is None else begin + -(-(first - len(samples)) // PHRASES_PER_SCENE)
        assert missing is not None
        stop = missing if end is None else min(missing, end)
        parts = [range(start, min(start + _SCENES, stop)) for start in range(begin, stop, _SCENES)]
        samples += itertools.chain.from_iterable(draw(parts))
        begin = stop
    return samples if first is None else samples[:first]


def _draw(split: str, style: str, folder: Path, scenes: range) -> list[Sample]:
    source, samples = SynthRef(split), list[Sample]()
    for index in scenes:
        questions = source.traced(index)
        for number, traced in enumerate(questions):
            sample = traced.sample
            path = folder / "images" / f"{sample.id.rsplit('/', 1)[0]}.png"
            if number == 0:
                save_picture(path, sample.image)
            samples.append(replace(sample, image=path, rationale=tell(traced, style)))
    return samples
