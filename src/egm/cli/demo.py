"""`egm demo`: the embedded model at work on one made-up scene."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egm.cli.pictures import write_picture
from egm.terminal import printable, spaced

if TYPE_CHECKING:
    from egm.types import Grounding, Sample, Score

_RELATIONS = ("no relation", "one relation", "two relations", "three relations")
_MOST_REASONING = 1000


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("egm-out"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed takes another scene.")] = 0,
) -> None:
    """Make a scene, ask egm-tiny three phrases of rising complexity, and draw what it answers."""
    start = time.perf_counter()
    from rich.console import Console

    from egm.datasets.synthetic.example import example_picture
    from egm.draw import side_by_side
    from egm.files import write_bytes
    from egm.grounder import Grounder
    from egm.scoring import score

    example = example_picture()
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / example.name, example.read_bytes())  # first, so that a folder that takes no files costs no work
    grounder = Grounder.load("egm-tiny")
    number, samples = questions(seed)
    console = Console(highlight=False)
    console.print(
        f"Scene {number} of SynthRef val, which egm-tiny has not seen in training. "
        "Each phrase needs more reasoning than the one before.\n"
    )
    right, panels = 0, []
    for sample in samples:
        grounding = grounder.ground(sample.image, sample.phrase)
        assert sample.box is not None
        result = score(grounding, sample.box)
        right += result.hit()
        _show(console, sample, grounding, result)
        panels.append(grounding.draw(truth=sample.box))
    path = out / f"demo-{seed}.png"
    write_picture(path, side_by_side(panels))
    console.print(f"{right} of {len(samples)} right (IoU of 0.5 or more), {time.perf_counter() - start:.1f} s in all.")
    console.print(f"Drawn in {spaced(path)}: the answer's box, and the true one dashed.", soft_wrap=True, markup=False)
    console.print(f"A picture to ask about yourself: {spaced(out / example.name)}", soft_wrap=True, markup=False)


def questions(seed: int) -> tuple[int, list[Sample]]:
    """Find the first scene from number `seed` on that has three phrases of strictly rising complexity.

    Returns:
        The scene's number, and the questions, simplest first; none of them amodal.
    """
    from egm.datasets.synthetic import SynthRef

    data = SynthRef("val")
    assert data.scenes is not None
    for number in itertools.count(seed):
        rising: dict[int, Sample] = {}
        for sample in data.samples(number % data.scenes):
            if not sample.amodal:
                rising.setdefault(sample.meta["complexity"], sample)
        if len(rising) >= 3:
            return number % data.scenes, [rising[complexity] for complexity in sorted(rising)][-3:]
    raise AssertionError("unreachable: val has such scenes")


def _show(console: object, sample: Sample, grounding: Grounding, score: Score) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    assert isinstance(console, Console)
    verdict = "no box" if grounding.box is None else f"IoU {score.iou:.2f}, {'right' if score.hit() else 'wrong'}"
    where = str(grounding.failure) if grounding.box is None else " ".join(f"{value:.0f}" for value in grounding.box)
    body = Text.assemble(
        ("asked   ", "bold"),
        sample.phrase,
        ("\nthinks  ", "bold"),
        printable(grounding.reasoning)[:_MOST_REASONING] or "nothing",
        ("\npoints  ", "bold"),
        where,
        (f"   {verdict}", "green" if score.hit() else "red"),
        (f"   {grounding.seconds:.2f} s, {grounding.tokens} tokens", "dim"),
    )
    console.print(Panel(body, title=_RELATIONS[sample.meta["complexity"]], title_align="left"))
