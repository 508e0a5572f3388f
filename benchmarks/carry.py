"""Carries a reproduction to another machine in few small files: what a later piece of it needs, and nothing else.

    python benchmarks/carry.py pack runs/reproduce parts
    python benchmarks/carry.py unpack parts runs/reproduce

What is done goes as its logs, journals and marks. Models go, with weights of 32 bits as bfloat16, where something that
needs them is still to come: a training that goes on from them, an evaluation, or timing. An unfinished training goes as
its newest checkpoint; an unfinished evaluation begins again, as the weights are others to it. What does not fit is
named, and the exit code is 1 where it will be missed. Unpack under the same path: recipes of trainings hold it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from egm.errors import EgmError
from egm.reproduce.folder import ArmFolder
from egm.reproduce.latency import FILE_NAME, read_timings
from egm.training.shared.checkpoints import checkpoints_in, is_whole


def part_names(content: bytes, count: int) -> list[str]:
    """Names of the parts, with a digest of them together, as tar and xz pass over some damage in silence."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    return [f"part-{number}-of-{count}-{digest}.tar.xz" for number in range(1, count + 1)]


@dataclass(frozen=True)
class Item:
    """Files that go together.

    Attributes:
        name: What to call them.
        files: Their places.
        missed: What cannot be gone on with where they do not fit; empty where it is only done again.
    """

    name: str
    files: tuple[Path, ...]
    missed: str = ""


def items(out: Path) -> Iterator[Item]:
    """What a later piece needs, the most important first.

    Raises:
        EgmError: If the folder holds no reproduction.
    """
    settled = out / "reproduce.yaml"
    if not settled.exists():
        raise EgmError(f"{out} holds no reproduction: name the --out of egm reproduce")
    arms = yaml.safe_load(settled.read_text(encoding="utf-8"))["arms"]
    folders = {name: ArmFolder(out, name) for name in arms}
    timed, _ = read_timings(out)
    done: list[Path] = [path for path in (settled, out / FILE_NAME) if path.exists()]
    models, checkpoints = dict[int, list[Item]](), []
    for name, folder in folders.items():
        if not folder.is_done("train"):
            whole = [path for path in checkpoints_in(folder.train) if is_whole(path)]
            if whole:
                files = [*_plain(folder.path), *_plain(folder.train), *_plain(whole[-1], deep=True)]
                checkpoints.append(Item(f"{name}: {whole[-1].name}", tuple(files)))
            continue
        state = [*_plain(folder.path), *_plain(folder.train)]
        children = [
            other for other, its in arms.items() if its["parent"] == name and not folders[other].is_done("train")
        ]
        model = () if folder.model is None else tuple(_plain(folder.model, deep=True))
        if not folder.is_done("evaluate"):
            if model:  # without it, it is trained again
                models.setdefault(1, []).append(Item(f"{name}: model, not evaluated", (*state, *model)))
            continue
        done += [*state, *_plain(folder.evaluate, deep=True)]
        if children:
            missed = f"{', '.join(children)} cannot go on"
            models.setdefault(0, []).append(Item(f"{name}: model of {', '.join(children)}", model, missed))
        elif name not in timed and model:
            models.setdefault(2, []).append(Item(f"{name}: model, not timed", model, f"{name} cannot be timed"))
    yield Item("what is done", tuple(done), "nothing can go on")
    yield from models.get(0, [])
    yield from models.get(1, [])
    yield from checkpoints
    yield from models.get(2, [])


def _plain(folder: Path, *, deep: bool = False) -> list[Path]:
    found = sorted(folder.rglob("*") if deep else folder.glob("*"))
    return [path for path in found if path.is_file() and path.name != "lock" and path.suffix != ".html"]


def pack(out: Path, parts: Path, *, most_bytes: int, most_files: int, most_altogether: int) -> list[str]:
    """Write the parts; returns what will be missed elsewhere.

    Raises:
        EgmError: If `parts` holds something, or the folder no reproduction.
    """
    if parts.exists() and any(parts.iterdir()):
        raise EgmError(f"{parts} is not empty: name a new folder")
    packed, missed, most = bytearray(), list[str](), min(most_altogether, most_bytes * most_files)
    for item in items(out):
        stream = _compressed(out, item)
        fits = len(packed) + len(stream) <= most and (item.files or not item.missed)
        print(f"{'packed' if fits else 'LEFT BEHIND'}: {item.name}, {len(stream):,} bytes")
        if fits:
            packed += stream
        elif item.missed:
            missed.append(item.missed)
    parts.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(part_names(packed, -(-len(packed) // most_bytes))):
        (parts / name).write_bytes(packed[number * most_bytes : (number + 1) * most_bytes])
    return missed


def _compressed(out: Path, item: Item) -> bytes:
    """A whole tar in a stream of xz of its own, so that such streams can follow each other."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz", preset=3) as tar:
        for path in item.files:
            content = (
                _in_half(path) if path.suffix == ".safetensors" and path.parent.name == "model" else path.read_bytes()
            )
            facts = tarfile.TarInfo(path.relative_to(out).as_posix())
            facts.size = len(content)
            tar.addfile(facts, io.BytesIO(content))
    return stream.getvalue()


def _in_half(path: Path) -> bytes:
    """Weights of 32 bits as bfloat16."""
    import torch
    from safetensors.torch import load_file, save

    weights = {name: each.bfloat16() if each.dtype == torch.float32 else each for name, each in load_file(path).items()}
    return save(weights, metadata={"format": "pt"})


def unpack(parts: Path, out: Path) -> None:
    """Put the parts together as a reproduction's folder.

    Raises:
        EgmError: If `out` holds something, or a part is missing or damaged.
    """
    if out.exists() and any(out.iterdir()):
        raise EgmError(f"{out} is not empty: name a new folder")
    found = sorted(parts.glob("part-*"), key=lambda path: (len(path.name), path.name))
    content = b"".join(path.read_bytes() for path in found)
    if not found or [path.name for path in found] != part_names(content, len(found)):
        held = ", ".join(path.name for path in found) or "none"
        raise EgmError(f"parts in {parts} are missing or damaged; it holds {held}: copy them again, or pack again")
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz", ignore_zeros=True) as tar:  # zeros are between tars
            tar.extractall(out, filter="data")
    except tarfile.TarError as error:
        raise EgmError(f"{parts} holds what was not packed here: {error}") from None


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write the parts")
    packing.add_argument("out", type=Path, help="folder of egm reproduce")
    packing.add_argument("parts", type=Path, help="new folder of the parts")
    packing.add_argument("--most-bytes", type=int, default=16_000_000, help="of a part")
    packing.add_argument("--most-files", type=int, default=8, help="parts")
    packing.add_argument("--most-altogether", type=int, default=64_000_000, help="bytes of all parts")
    unpacking = commands.add_parser("unpack", help="make the folder of the parts")
    unpacking.add_argument("parts", type=Path)
    unpacking.add_argument("out", type=Path)
    options = parser.parse_args()
    try:
        if options.command == "unpack":
            unpack(options.parts, options.out)
            return 0
        limits = {name: getattr(options, name) for name in ("most_bytes", "most_files", "most_altogether")}
        missed = pack(options.out, options.parts, **limits)
    except EgmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for what in missed:
        print(f"error: {what}: what it needs is left behind", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
