"""`egm ground`: ask for boxes in an image, or in a folder of images."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egm.cli import options
from egm.cli.embedded import notice
from egm.cli.opened import opened_grounder
from egm.cli.pictures import check_picture_path, write_picture
from egm.cli.printing import note
from egm.cli.served import refuse_two_servers
from egm.errors import EgmError, ImageError
from egm.progress import track
from egm.terminal import printable
from egm.types import FAILURE_WORDS

if TYPE_CHECKING:
    from egm.types import Grounding

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@options.with_settings
def ground(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image, or a folder of images.", show_default=False)],
    phrases: Annotated[
        list[str], typer.Argument(metavar="PHRASE...", help="What to find, one or more.", show_default=False)
    ],
    model: options.Model = None,
    server: options.Server = None,
    serve: options.Serve = None,
    aim: options.Aim = None,
    codec: options.Codec = None,
    amodal: Annotated[bool, typer.Option("--amodal", help="Ask for whole objects, hidden parts too.")] = False,
    expect: options.Expect = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Draw the boxes; for a folder of images, the folder to draw into."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, one object an answer.")] = False,
    show_reasoning: Annotated[bool, typer.Option("--show-reasoning", help="Print what the model thought.")] = False,
    *,
    settings: options.Settings,
    prompt: options.Prompt = None,
    cut_tail: options.CutTail = False,
    gate: options.GateFile = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Find what phrases describe in an image: boxes in pixels, `x1 y1 x2 y2`.

    Without --model, egm-tiny is asked, or the server's only model.
    Exit code 0 if every answer has a box, or may say that nothing matches (--expect any or all) and does, 1 if one
    has none, 2 if the input is bad. A bad image in a folder is reported, and the others go on.
    """
    from egm.draw import side_by_side
    from egm.grounder import check_phrase
    from egm.images import load_image
    from egm.types import Sample

    refuse_two_servers(serve, aim, server)
    wanted = options.check_expect(expect) or "one"
    asked = [check_phrase(phrase) for phrase in phrases]
    paths = _images(image)
    if os.path.isdir(image):  # noqa: PTH112 - it may be too long for a Path to look at
        if draw is not None and draw.exists() and not draw.is_dir():
            raise ImageError(f"cannot draw into {str(draw)!r}, which is a file: name a folder, one picture an image")
    else:
        load_image(image)  # what is wrong with it can be said before a model is loaded
        if draw is not None:
            check_picture_path(draw)
    asking: dict[str, Any] = {"settings": settings, "prompt": prompt, "cut_tail": cut_tail, "gate": gate}
    code = 0
    with ExitStack() as stack:
        where: dict[str, Any] = {"server": server, "serve": serve, "aim": aim, "device": device, "dtype": dtype}
        grounder, _ = stack.enter_context(opened_grounder(model, codec=codec, **where, **asking))
        grounder.check_expect(wanted)
        if len(asked) > 1 and not any(" " in phrase for phrase in asked):
            note(f"{len(asked)} phrases of one word each are asked: put one of several words in quotes")
        line = notice(paths, asked) if server is None and grounder.backend.model == "egm-tiny" else None
        if line is not None:
            print(line, file=sys.stderr)
        results = grounder.ground_each(
            Sample(id=phrase, image=path, phrase=phrase, amodal=amodal, expect=wanted)
            for path in paths
            for phrase in asked
        )
        # Answers that are printed on a terminal are progress enough.
        shown = None if len(paths) > 1 and not sys.stdout.isatty() else False
        each = _by_image(paths, results, len(asked))
        for path, answers in track(each, "grounding images", len(paths), enabled=shown):
            error = next((answer for answer in answers if isinstance(answer, EgmError)), None)
            if error is not None:
                print("error:", printable(str(error)), file=sys.stderr)
                code = 2
                continue
            groundings = [answer for answer in answers if not isinstance(answer, EgmError)]
            if any(grounding.failure is not None for grounding in groundings):
                code = max(code, 1)
            if as_json:
                for grounding in groundings:
                    print(
                        json.dumps(
                            {"image": path, "amodal": amodal, "model": grounder.backend.model, **grounding.to_dict()}
                        ),
                        flush=True,
                    )
            else:
                _print(path if len(paths) > 1 else None, groundings, show_reasoning)
            if draw is not None:
                target = draw / f"{Path(path).name}.png" if os.path.isdir(image) else draw  # noqa: PTH112
                write_picture(target, side_by_side([grounding.draw() for grounding in groundings]))
    raise typer.Exit(code)


def _images(image: str) -> list[str]:
    """The images of a folder, sorted by name, hidden ones left out; or the image itself."""
    if not os.path.isdir(image):  # noqa: PTH112
        return [image]
    found = sorted(
        path for path in Path(image).iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise ImageError(f"{image!r} holds no images ({', '.join(_SUFFIXES)}): name a folder that does, or an image")
    return [str(path) for path in found]


def _by_image(
    paths: list[str], results: Iterator[Grounding | EgmError], count: int
) -> Iterator[tuple[str, list[Grounding | EgmError]]]:
    for path in paths:
        yield path, [next(results) for _ in range(count)]


def _print(path: str | None, groundings: list[Grounding], show_reasoning: bool) -> None:
    if path is not None:
        print(printable(path))
    for grounding in groundings:
        print(printable(grounding.phrase))
        if show_reasoning:
            print("  reasoning:", printable(grounding.reasoning) or "none")
        written = "" if grounding.tokens is None else f", {grounding.tokens} tokens"
        how = {None: "", True: ", thought first", False: ", asked directly"}[grounding.thought]
        cost = f"({grounding.seconds:.2f} s{written}{how})"
        if grounding.confidence is not None:
            cost = f"{grounding.confidence:.0%} of {grounding.votes} votes  {cost}"
        if grounding.is_none:
            print(f"  nothing matches  {cost}")
        elif grounding.failure is None:
            for box, labelled in zip(grounding.answered, grounding.boxes, strict=False):
                sure = "" if labelled.confidence is None else f"{labelled.confidence:.0%} "
                print("  box", *(f"{value:.1f}" for value in box), "", f"{sure}{cost}")
                cost = ""
        else:
            print(f"  no box: {FAILURE_WORDS[grounding.failure]}  {cost}")
    sys.stdout.flush()
