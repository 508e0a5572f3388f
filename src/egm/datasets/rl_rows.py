"""Rows for reinforcement learning as verl reads them: the codec's question, the true box in pixels, the picture."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from egm.boxes import Box
from egm.codecs import Codec
from egm.datasets.conversations import question_text
from egm.errors import DataError, ImageError
from egm.extras import need
from egm.images import ImageSource, check_picture_size, load_image, read_picture_header
from egm.types import Sample

_ROWS = 512
"""Rows of a row group: with their pictures inside some ten megabytes."""
_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\x00\x00"


def write_rl_rows(
    samples: Iterable[Sample],
    path: Path,
    *,
    source: str,
    codec: Codec,
    prompt: str | None = None,
    embed: bool = False,
    pixels: tuple[int, int] | None = None,
) -> int:
    """Write samples to a parquet file, in full or not at all, a few hundred at a time.

    Args:
        samples: They need a box, and a size or, with `embed`, a picture that tells it.
        path: The file.
        source: What they are from; it becomes `data_source` after `egm/`.
        codec: Whose question is asked, and whose answers will be read.
        prompt: Prompt style of the codec; None takes its own.
        embed: Put pictures into the file; otherwise their names are written, absolute.
        pixels: Least and most pixels that the model's processor makes of a picture: verl resizes before it, by bounds
            of its own where a row says none.

    Returns:
        How many rows there are.

    Raises:
        DataError: If a sample lacks what the format needs, or EXIF turns a picture that is named.
        ImageError: If a picture cannot be read, or is of another size than its row says.
    """
    need("writing parquet", "pyarrow")
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    codec.messages("anything", prompt=prompt)  # so that an unknown style is refused now
    schema, count = _schema(embed=embed, bounds=pixels is not None), 0
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, schema) as writer:
                for rows in _groups(
                    _row(sample, number, source, codec, prompt, _picture(sample, embed=embed), pixels)
                    for number, sample in enumerate(samples)
                ):
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                    count += len(rows)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if not isinstance(error, ImageError):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return count


def box_and_size(sample: Sample) -> tuple[Box, tuple[int, int]]:
    """Return the true box and the size of a sample's picture.

    Raises:
        DataError: If it lacks one of them, or does not expect exactly one box, which the format cannot say.
    """
    refuse_many(sample)
    if sample.box is None or sample.size is None:
        raise DataError(f"{sample.id} has no {'box' if sample.box is None else 'size'}, which this format needs")
    return sample.box, sample.size


def refuse_many(sample: Sample) -> None:
    """Refuse a sample that does not expect exactly one box.

    Raises:
        DataError: If it does not.
    """
    if sample.expect != "one":
        raise DataError(f"{sample.id} expects {sample.expect}, and a row of this format one box: write jsonl")


def _picture(sample: Sample, *, embed: bool) -> tuple[dict[str, Any], tuple[int, int]]:
    """The picture of a row, by its bytes or its name, and the size that it has."""
    if embed:
        content, size = _upright(sample.image)
        return {"bytes": content}, size
    if not isinstance(sample.image, str | PurePath):
        raise DataError(f"the picture of {sample.id} is no file: it has no name that could be written")
    path = Path(sample.image).absolute()
    size, is_turned = read_picture_header(path)
    if is_turned:
        raise DataError(
            f"{sample.id}: {str(path)!r} is turned by EXIF: verl shows it as it is stored, where the box does not lie, "
            "so save it upright"
        )
    return {"image": str(path)}, size


def _upright(source: ImageSource) -> tuple[bytes, tuple[int, int]]:
    """Return a picture's file and size; a JPEG as it is unless its EXIF might turn it, any other as PNG."""
    content: Any = Path(source).read_bytes() if isinstance(source, str | os.PathLike) else source
    picture = load_image(source)
    if not (isinstance(content, bytes) and content.startswith(_JPEG) and _EXIF not in content):
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        content = stream.getvalue()
    return content, picture.size


def _row(
    sample: Sample,
    number: int,
    source: str,
    codec: Codec,
    prompt: str | None,
    picture: tuple[dict[str, Any], tuple[int, int]],
    pixels: tuple[int, int] | None,
) -> dict[str, Any]:
    shown, found = picture
    try:
        check_picture_size(sample.size, found)
    except ImageError as error:
        raise ImageError(f"{sample.id}: {error}") from None
    refuse_many(sample)
    if sample.box is None:
        raise DataError(f"{sample.id} has no box, which this format needs")
    box, (width, height) = [float(value) for value in sample.box], found
    bounds = {} if pixels is None else {"min_pixels": pixels[0], "max_pixels": pixels[1]}
    return {
        # Never "grounding", by which the official files say that their ground_truth is on the 0-1000 scale.
        "data_source": f"egm/{source}",
        "prompt": [{"role": "user", "content": question_text(sample, codec, prompt)}],
        "images": [shown | bounds],
        "ability": "grounding",
        "reward_model": {"style": "rule", "ground_truth": box},
        "extra_info": {
            "split": str(sample.meta.get("split", "train")),
            "index": number,
            "id": sample.id,
            "sent": sample.phrase,
            "amodal": sample.amodal,
            "rationale": sample.rationale,
            "bbox": box,
            "width": width,
            "height": height,
            # How answers are to be read: a reward that is not told takes them for another family's.
            "codec": codec.name,
            "seen_size": list(codec.scale((width, height), None).span) if codec.speaks_pixels else None,
        },
    }


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    waiting: list[dict[str, Any]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == _ROWS:
            yield waiting
            waiting = []
    yield waiting


def _schema(*, embed: bool, bounds: bool) -> Any:
    """The types of all columns: verl asks which of a picture's are there, and row groups have to be alike."""
    import pyarrow as pa

    text, whole, numbers = pa.string(), pa.int64(), pa.list_(pa.float64())
    shown = [("bytes", pa.binary())] if embed else [("image", text)]
    extra = [
        *(("split", text), ("index", whole), ("id", text), ("sent", text), ("amodal", pa.bool_()), ("rationale", text)),
        *(("bbox", numbers), ("width", whole), ("height", whole), ("codec", text), ("seen_size", pa.list_(whole))),
    ]
    return pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("images", pa.list_(pa.struct(shown + ([("min_pixels", whole), ("max_pixels", whole)] if bounds else [])))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", numbers)])),
            ("extra_info", pa.struct(extra)),
        ]
    )
