"""Draw docs/gallery.png: one question of each kind from SynthRef, with its true box.

uv run python docs/make_gallery.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from egm.datasets.synthetic import SynthRef
from egm.draw import draw_boxes

TILE = (400, 430)
COLUMNS = 4
KINDS = (
    "attribute",
    "superlative",
    "ordinal",
    "spatial",
    "nearest or farthest",
    "between",
    "negation",
    "two relations",
    "two relations",
    "three relations",
    "three relations",
    "amodal",
)


def main() -> None:
    chosen, scene = [], 0
    for kind in KINDS:  # each from a scene of its own, with something to choose from
        while True:
            data = SynthRef("test-amodal" if kind == "amodal" else "val")
            found = [
                sample
                for sample in data.samples(scene)
                if ("amodal" if sample.amodal else sample.meta["kind"]) == kind and len(data.scene(scene).objects) > 5
            ]
            scene += 1
            if found:
                chosen.append((kind, found[0]))
                break
    tiles = []
    for name, sample in chosen:
        kind = f"[{name}] {sample.phrase}"
        tile = draw_boxes(sample.image, truth=sample.box, caption=kind)
        tile.thumbnail((TILE[0] - 16, TILE[1] - 16))
        tiles.append(tile)
    rows = -(-len(tiles) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * TILE[0], rows * TILE[1]), "white")
    for index, tile in enumerate(tiles):
        left = index % COLUMNS * TILE[0] + (TILE[0] - tile.width) // 2
        top = index // COLUMNS * TILE[1] + 8
        page.paste(tile, (left, top))
    page.quantize(255, dither=Image.Dither.NONE).save(Path(__file__).with_name("gallery.png"), optimize=True)


if __name__ == "__main__":
    main()
