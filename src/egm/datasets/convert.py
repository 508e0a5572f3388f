"""Datasets out: rows of JSON, parquet, COCO JSON, or conversations for other trainers; each can be read back."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from PIL.Image import Image

from egm.codecs import DEFAULT_CODEC, Codec, get_codec
from egm.datasets.check import is_file
from egm.datasets.conversations import TOOLS, conversation_row
from egm.datasets.dataset import Dataset
from egm.datasets.image_root import ImageRoot
from egm.datasets.rl_rows import box_and_size, write_rl_rows
from egm.errors import DataError
from egm.extras import need
from egm.files import write_bytes, write_text
from egm.images import ImageSource, load_image
from egm.progress import track
from egm.types import Sample

ENDINGS = {"jsonl": ".jsonl", "parquet": ".parquet", "coco": ".json", **dict.fromkeys(TOOLS, ".jsonl")}
"""Formats that can be written, with the ending of their files."""
_WRITING = "writing rows"
_WRITERS, _MOST_WAITING = 2, 16  # threads that save pictures, and pictures that wait for them
_COMPRESSION = 3  # of 9: half the time of the usual 6, and files a tenth larger


def write_dataset(
    dataset: Dataset,
    path: str | Path,
    kind: str,
    *,
    codec: Codec | None = None,
    prompt: str | None = None,
    embed: bool = False,
) -> None:
    """Write a dataset to one file, in full or not at all; pictures stay where they are.

    Args:
        dataset: The samples. Image names are written relative to its root if it has one; in parquet they are absolute,
            since verl opens them from wherever its workers run.
        path: The file. Its folder is made if need be.
        kind: `jsonl`, for EGM, Qwen and InternVL; `parquet`, for reinforcement learning with verl or EGM; `coco`; or
            the conversations of `qwen-vl-finetune`, `llama-factory` or `ms-swift`.
        codec: Whose question parquet and conversations hold, and whose answer these; that of `DEFAULT_CODEC` if not
            given.
        prompt: The prompt style of that question; the codec's own if not given.
        embed: Put the pictures into the parquet file.

    Raises:
        DataError: If the format is unknown, the pictures are not files, or a sample lacks the box or the size that the
            format needs; for parquet also if a picture is not there, or EXIF turns it.
        ImageError: For parquet, if a picture is no picture, or of another size than its row says.
    """
    if kind not in ENDINGS:
        raise DataError(f"there is no format {kind!r} to write: choose one of {', '.join(ENDINGS)}")
    samples = dataset.annotations()
    if not (dataset.names_files or embed):
        raise DataError(f"the pictures of {dataset.name} are not files: save them too (--pictures DIR)")
    names = [] if embed else [image_name(sample, dataset.root) for sample in samples]
    named = zip(samples, names, strict=True)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    family = codec or get_codec(DEFAULT_CODEC)
    if kind == "parquet":
        need("writing parquet", "pyarrow")
        rows = track(dataset if embed else _for_training(dataset), _WRITING, len(dataset))
        write_rl_rows(rows, path, source=dataset.name, codec=family, prompt=prompt, embed=embed)
    elif kind in TOOLS:
        for sample in samples:
            box_and_size(sample)
        turns = (
            conversation_row(kind, s, name, family, prompt=prompt) for s, name in track(named, _WRITING, len(names))
        )
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in turns))
    elif kind == "coco":
        write_text(path, json.dumps(_coco(samples, names), ensure_ascii=False) + "\n")
    else:
        lines = (
            json.dumps(row_of(s, name), ensure_ascii=False) + "\n" for s, name in track(named, _WRITING, len(names))
        )
        write_text(path, "".join(lines))


def save_pictures(dataset: Dataset, folder: str | Path) -> Dataset:
    """Write the pictures of a dataset that are no files of their own into a folder: inside a file, drawn, mirrored.

    Args:
        dataset: The samples.
        folder: Where to write; made if need be. Files that are there already have to be the same.

    Returns:
        The samples with the names of the files, and with the size of the picture where they had none.

    Raises:
        DataError: If the pictures are files already, a name leads out of the folder, or another file is there.
        ImageError: If a picture cannot be read.
    """
    if dataset.names_files:
        raise DataError(f"the pictures of {dataset.name} are files already: leave --pictures out")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    place = ImageRoot(folder)
    saved: dict[str, tuple[Path, tuple[int, int]]] = {}
    samples, writing, taken = [], deque[Future[None]](), set[Path]()
    with ThreadPoolExecutor(_WRITERS) as writers:  # which encode and sync while the next picture is drawn
        for number, sample in enumerate(track(dataset.annotations(), "saving pictures")):
            name = image_name(sample, dataset.root)
            if name not in saved:
                source = dataset[number].image
                picture = load_image(source)
                path = place(name)
                if not isinstance(source, bytes):
                    path = path.with_suffix(".png")
                elif not path.suffix:
                    path = path.with_suffix(".jpg" if source[:3] == b"\xff\xd8\xff" else ".png")
                # One file under two names is there before it is held against the other.
                while len(writing) > (0 if path in taken else _MOST_WAITING):
                    writing.popleft().result()
                taken.add(path)
                writing.append(writers.submit(save_picture, path, source if isinstance(source, bytes) else picture))
                saved[name] = path, picture.size
            path, size = saved[name]
            if sample.size is None:  # then a mirrored box is only known with its picture
                sample = replace(dataset[number], size=size)
            samples.append(replace(sample, image=path))
        for each in writing:
            each.result()
    return Dataset(dataset.name, samples, root=folder, kind=dataset.kind, scale=dataset.scale)


def save_picture(path: Path, source: ImageSource) -> None:
    """Write the file of a picture, unless the same is there.

    Args:
        path: Where; its folder is made if need be.
        source: The bytes of a file, which are written as they are; else anything that `load_image` takes, for a PNG.

    Raises:
        DataError: If another file is there.
        ImageError: If the picture cannot be read.
    """
    content = source if isinstance(source, bytes) else _png(load_image(source))
    if path.exists():
        if path.read_bytes() != content:
            raise DataError(f"{str(path)!r} is there already and is another file: give another folder")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)


def _png(picture: Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=_COMPRESSION)
    return stream.getvalue()


def image_name(sample: Sample, root: Path | None) -> str:
    """The image of a sample as files name it: relative to the root, with forward slashes.

    Raises:
        DataError: If the sample holds a picture, not a path.
    """
    if not isinstance(sample.image, str | PurePath):
        raise DataError(f"the picture of {sample.id} is not a file: save it first")
    path = Path(sample.image)
    return (path.relative_to(root) if root is not None and path.is_relative_to(root) else path).as_posix()


def row_of(sample: Sample, name: str, *, always_amodal: bool = False) -> dict[str, Any]:
    """Write a sample as the row of a .jsonl file, which `open_dataset` reads back.

    Args:
        sample: The sample.
        name: Its picture, relative to the file.
        always_amodal: Say `amodal` of samples too that are not.

    Returns:
        `id`, `image`, `sent`, and where known `bbox` (x1, y1, x2, y2 in pixels; `bboxes`, a list, where there is not
        exactly one), `expect` unless it is one, `height`, `width`, `amodal`, `rationale` and the sample's own facts;
        JSON-ready.

    Example:
        >>> from egm.boxes import Box
        >>> row_of(Sample("1", "a.jpg", "the cup", Box(64, 96, 192, 192), (640, 480)), "a.jpg")
        {'id': '1', 'image': 'a.jpg', 'sent': 'the cup', 'bbox': [64, 96, 192, 192], 'height': 480, 'width': 640}
    """
    row: dict[str, Any] = {"id": sample.id, "image": name, "sent": sample.phrase}
    if sample.box is not None:
        row["bbox"] = [_number(value) for value in sample.box]
    if sample.boxes is not None:
        row["bboxes"] = [[_number(value) for value in box] for box in sample.boxes]
    if sample.expect != "one":
        row["expect"] = sample.expect
    if sample.size is not None:
        row |= {"height": sample.size[1], "width": sample.size[0]}
    if sample.amodal or always_amodal:
        row["amodal"] = sample.amodal
    if sample.rationale is not None:
        row["rationale"] = sample.rationale
    return row | {key: value for key, value in sample.meta.items() if key not in row}


def _for_training(dataset: Dataset) -> list[Sample]:
    """The samples with the pictures' absolute names, each of which has to be there.

    Raises:
        DataError: If one is not.
    """
    samples = [replace(sample, image=Path(str(sample.image)).absolute()) for sample in dataset.annotations()]
    if missing := [path for path in dict.fromkeys(sample.image for sample in samples) if not is_file(path)]:
        raise DataError(
            f"{len(missing):,} pictures of {dataset.name} are not there, such as {str(missing[0])!r}: training opens "
            "them by the names in the file, so give the folder that they lie in with --images"
        )
    return samples


def _coco(samples: Sequence[Sample], names: Sequence[str]) -> dict[str, Any]:
    images: dict[str, dict[str, Any]] = {}
    annotations = []
    for number, (sample, name) in enumerate(zip(samples, names, strict=True), 1):
        box, (width, height) = box_and_size(sample)
        image = images.setdefault(name, {"id": len(images) + 1, "file_name": name, "width": width, "height": height})
        if (image["width"], image["height"]) != (width, height):
            raise DataError(f"{sample.id} says that {name} is {width} x {height}, an earlier row says otherwise")
        annotations.append(
            {
                "id": number,
                "image_id": image["id"],
                "category_id": 1,
                "bbox": [_number(box.x1), _number(box.y1), _number(box.width), _number(box.height)],
                "area": _number(box.area),
                "iscrowd": 0,
                "caption": sample.phrase,
                "amodal": sample.amodal,
                "sample_id": sample.id,
            }
        )
    categories = [{"id": 1, "name": "referent"}]
    return {"images": list(images.values()), "annotations": annotations, "categories": categories}


def _number(value: float) -> float:
    """Whole numbers without a point; others without what adding and subtracting left behind the sixth place."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded
