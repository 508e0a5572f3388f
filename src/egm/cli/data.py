"""`egm data`: datasets made or converted for other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from egm.cli.data_benchmarks import benchmarks_command
from egm.cli.data_files import check, convert
from egm.cli.embedded import SIGNATURE
from egm.cli.group import Group
from egm.cli.printing import say_next
from egm.errors import DataError
from egm.progress import track
from egm.terminal import shell_command, spaced

if TYPE_CHECKING:
    from egm.types import Sample

app = typer.Typer(cls=Group, help="Make, check and convert datasets.", no_args_is_help=True)
app.command("check")(check)
app.command("convert")(convert)
app.command("benchmarks")(benchmarks_command)


@app.command("synthetic")
def synthetic(
    split: Annotated[
        str,
        typer.Option(
            help="train, train-complex, train-reworded, train-any, calibration, val, test-simple, test-complex, "
            "test-amodal, test-none or test-all."
        ),
    ] = "val",
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("egm-out/synthref"),
    scenes: Annotated[
        int | None, typer.Option(help="How many scenes; all by default. train has no end.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another draw of the split.")] = 0,
    rationale: Annotated[
        str,
        typer.Option(help="Style of the rationales: candidates, inventory, unboxed or official."),
    ] = "candidates",
) -> None:
    """Write SynthRef: pictures under images/ and SPLIT.jsonl, a line a question.

    A line holds `id`, `image` (relative to the file), `sent`, `bbox` (x1, y1, x2, y2 in pixels; of train-any, test-none
    and test-all `bboxes`, a list, where there is not exactly one, and `expect`), `height`, `width`, `amodal`,
    `rationale` and what kind of question it is. The same arguments give the same lines on every machine.
    """
    from egm.datasets.synthetic import VERSION, SynthRef
    from egm.files import write_text

    data = SynthRef(split, seed=seed, scenes=scenes, rationale=cast(Any, rationale))  # which it checks
    if data.scenes is None:
        raise DataError(f"SynthRef {split} has no end: say how many scenes, such as --scenes 1000")
    target = out / f"{split}.jsonl"
    _refuse_others(target, f"synthref{VERSION}/{split}/{seed}/", data.scenes)
    (out / "images").mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for number in track(range(data.scenes), f"drawing scenes of {split}"):
        lines += _write_scene(data.samples(number), out, f"images/{split}-{seed}-{number:06d}.png")
    write_text(target, "".join(lines))  # last, so that where it is, all its pictures are
    print(spaced(target))
    train = ("sft", "RECIPE.yaml", "--set", f"data.train={target}")
    use = train if split.startswith("train") else ("eval", target)
    say_next(shell_command("egm", "data", "check", target), shell_command("egm", *use))


def _write_scene(samples: list[Sample], out: Path, name: str) -> Iterator[str]:
    """Write the picture of a scene; return its lines."""
    import io

    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

    from egm.datasets import row_of
    from egm.files import write_bytes

    if samples:
        picture = samples[0].image
        assert isinstance(picture, Image)
        mark = PngInfo()
        mark.add_text("Software", SIGNATURE)
        stream = io.BytesIO()
        picture.save(stream, "PNG", pnginfo=mark)
        write_bytes(out / name, stream.getvalue())
    return (json.dumps(row_of(sample, name, always_amodal=True), ensure_ascii=False) + "\n" for sample in samples)


def _refuse_others(target: Path, prefix: str, scenes: int) -> None:
    """Refuse to write over a file unless all that it holds will be written again."""
    if not target.exists():
        return
    try:
        ids = [str(json.loads(line)["id"]) for line in target.read_bytes().splitlines()]
        ours = all(name.startswith(prefix) and int(name.split("/")[3]) < scenes for name in ids)
    except (ValueError, KeyError, TypeError, IndexError):
        ours = False
    if not ours:
        raise DataError(f"{str(target)!r} holds other rows: give another --out, or delete it")
