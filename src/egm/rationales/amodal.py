"""The whole of a partly hidden SynthRef object in words: what hides it, and how far it goes on."""

from __future__ import annotations

from egm.boxes import Box
from egm.datasets.synthetic import Traced
from egm.datasets.synthetic.official import name_all, official, place
from egm.datasets.synthetic.rng import Rng
from egm.datasets.synthetic.scenes import IntBox, Scene, SceneObject

_EDGES = ("left", "top", "right", "bottom")


def amodal(traced: Traced, rng: Rng) -> str:
    """Word which object is meant, what hides it, how far it goes on, and the box.

    Args:
        traced: The question with its execution. Where it asks only for what can be seen, that box ends the text.
        rng: Chooses among the wordings.
    """
    scene, i = traced.scene, traced.proof.referent
    item = scene.objects[i]
    seen, whole = _box(scene, item.visible), _box(scene, item.whole)
    parts = [official(traced.proof, scene, rng), f"What is seen of it is {seen}.", *_hiding(scene, i)]
    if traced.sample.amodal:
        parts.append(f"So the whole is {whole}.")
    else:
        parts.append(f"Only what is seen is asked for, so it is {seen}.")
    return " ".join(parts)


def _hiding(scene: Scene, i: int) -> list[str]:
    """Say what stands in front of an object and where it leaves the frame, and how far it goes on at each side."""
    item = scene.objects[i]
    seen = Box(*item.visible).to_1000(scene.size)
    whole = Box(*item.whole).to_1000(scene.size)
    in_front = [other for other in scene.objects[i + 1 :] if _meet(other.whole, item.whole)]
    leaves = [edge for edge, out in zip(_EDGES, _outside(item, scene.size), strict=True) if out]
    causes = [f"the {name_all(other)} {place(scene, other)} is in front of it" for other in in_front]
    causes += [f"the frame cuts it at the {edge}" for edge in leaves]
    if not causes:
        return ["Nothing hides it."]
    grown = [abs(a - b) for a, b in zip(seen, whole, strict=True)]
    further = [f"{distance} to the {edge}" for edge, distance in zip(_EDGES, grown, strict=True) if distance]
    first = " and ".join(causes)
    goes_on = f"It goes on by {' and '.join(further)}." if further else "Its ends are all in sight."
    return [f"{first[:1].upper()}{first[1:]}.", goes_on]


def _meet(a: IntBox, b: IntBox) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _outside(item: SceneObject, size: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    x1, y1, x2, y2 = item.whole
    return x1 < 0, y1 < 0, x2 > size[0], y2 > size[1]


def _box(scene: Scene, box: IntBox) -> str:
    return "({},{},{},{})".format(*Box(*box).to_1000(scene.size))
