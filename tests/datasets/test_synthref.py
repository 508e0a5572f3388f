"""SynthRef: the same bytes everywhere, true boxes, proved referents, rationales that lead to them."""

from __future__ import annotations

import hashlib
import itertools
import json
import re

import numpy as np
import pytest

from egm.boxes import Box, iou
from egm.datasets.synthetic import SPLITS, TRAINING, SynthRef, corpus, raster
from egm.datasets.synthetic.phrasing import noun, word
from egm.datasets.synthetic.programs import (
    Ambiguous,
    Between,
    Distance,
    Extreme,
    Ordinal,
    Program,
    Side,
    Step,
    Without,
    execute,
    select,
)
from egm.datasets.synthetic.rng import Rng
from egm.datasets.synthetic.scenes import HELD_OUT, Scene, SceneObject, make_scene
from egm.errors import DataError
from egm.types import Sample

# Digests of the first scenes of each split. Once published, they change only together with VERSION.
DIGESTS = {
    "train": "e3ad7e7e56d19ba4",
    "train-complex": "959ff650082ea709",
    "train-reworded": "6a64c472e4b9dce4",
    "train-any": "c5b029b39496103f",
    "calibration": "49bb64094a05b710",
    "val": "3bcea19586a4ec2f",
    "test-simple": "2b9538edefea50e1",
    "test-complex": "d43a349a2ea07b34",
    "test-amodal": "17baec14d55eb0cb",
    "test-none": "0e863f40dd74f7c8",
    "test-all": "894fd49751cec358",
}

KNOWN = {*raster.SHAPES, *raster.COLORS, *raster.FILLS, "small", "large"}


def samples(split: str, scenes: int) -> list[Sample]:
    return list(SynthRef(split, scenes=scenes))


def digest(split: str) -> str:
    state = hashlib.sha256()
    for sample in samples(split, 300 if split == "train-reworded" else 6):  # it has the most wordings
        state.update(np.asarray(sample.image).tobytes())
        row = [sample.id, sample.phrase, list(sample.box or ()), sample.size, sample.amodal, sample.rationale]
        row += [] if sample.expect == "one" else [sample.expect, *(list(box) for box in sample.boxes or ())]
        state.update(json.dumps([*row, dict(sample.meta)]).encode())
    return state.hexdigest()[:16]


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_gives_the_same_bytes_everywhere(split: str) -> None:
    assert digest(split) == DIGESTS[split]


def test_fewer_phrases_a_scene_are_the_first_of_the_four() -> None:
    for index in range(5):
        four, two = SynthRef("train").samples(index), SynthRef("train", phrases=2).samples(index)
        assert 1 <= len(two) <= 2
        assert [s.id for s in two] == [s.id for s in four[: len(two)]]
        assert [s.phrase for s in two] == [s.phrase for s in four[: len(two)]]
    for phrases in (0, 5):
        with pytest.raises(DataError, match=f"cannot ask {phrases} phrases a scene"):
            SynthRef("train", phrases=phrases)


def test_another_seed_gives_other_scenes_and_any_scene_can_be_made_alone() -> None:
    assert next(iter(SynthRef("val", seed=1))).phrase != next(iter(SynthRef("val"))).phrase
    alone, among = SynthRef("train").samples(5), list(itertools.islice(SynthRef("train"), 40))
    assert [sample.phrase for sample in alone] == [s.phrase for s in among if s.id.split("/")[3] == "5"]


@pytest.mark.parametrize("split", ["val", "test-amodal"])
def test_visible_and_whole_boxes_are_those_of_the_pixels(split: str) -> None:
    for index in range(40):
        scene = SynthRef(split).scene(index)
        width, height = scene.size
        assert 3 <= len(scene.objects) <= 10
        # Paint the owners again, object by object, on a canvas with room outside the frame.
        room = 200
        owner = np.full((height + 2 * room, width + 2 * room), -1)
        for k, item in enumerate(scene.objects):
            solid = raster.coverage(item.shape, item.side) >= 128
            x, y = item.corner[0] + room, item.corner[1] + room
            alone = np.zeros_like(owner, dtype=bool)
            alone[y : y + item.side, x : x + item.side] = solid
            assert tuple(np.array(raster.tight_box(alone)) - room) == item.whole
            owner[alone] = k
        inside = owner[room : room + height, room : room + width]
        for k, item in enumerate(scene.objects):
            assert raster.tight_box(inside == k) == item.visible
            full = int((raster.coverage(item.shape, item.side) >= 128).sum())
            assert item.seen == int((inside == k).sum()) * 100 // full >= 45


def test_objects_hide_each_other_and_leave_the_frame() -> None:
    items = [(item, scene) for scene in (SynthRef("train").scene(i) for i in range(100)) for item in scene.objects]
    leaving = [i for i, scene in items if Box(*i.whole) != Box(*i.whole).clip(scene.size)]
    hidden = [i for i, scene in items if i.seen < 90 and Box(*i.whole) == Box(*i.whole).clip(scene.size)]
    assert len(leaving) > len(items) * 0.05
    assert len(hidden) > len(items) * 0.05


def test_frames_vary_and_need_no_resizing() -> None:
    sizes = {SynthRef("train").scene(i).size for i in range(100)}
    assert len(sizes) > 15
    assert all(width % 32 == 0 and height % 32 == 0 for width, height in sizes)
    assert any(w > 1.5 * h for w, h in sizes) and any(h > 1.5 * w for w, h in sizes)  # noqa: PT018


ONE = [name for name, spec in SPLITS.items() if spec.many is None]
MANY = [name for name in SPLITS if name not in ONE]


@pytest.mark.parametrize("split", ONE)
def test_samples_are_whole_and_as_the_split_says(split: str) -> None:
    found = samples(split, 60)
    assert len(found) > 100
    assert len({sample.id for sample in found}) == len(found)
    weights = SPLITS[split].complexity
    for sample in found:
        assert sample.box is not None and sample.size is not None and sample.rationale  # noqa: PT018
        assert sample.expect == "one"
        assert weights[sample.meta["complexity"]] > 0
        if not sample.amodal:
            assert sample.box == sample.box.clip(sample.size)
    if split in ("val", "calibration") or split in TRAINING:
        assert not any(sample.meta["new_look"] for sample in found)
        share = sum(sample.meta["new_words"] for sample in found) / len(found)
        assert 0.45 < share < 0.75 if split == "train-reworded" else share == 0
    else:
        assert any(sample.meta["new_words"] for sample in found)
        assert any(sample.meta["new_look"] for sample in found)
    if split == "test-amodal":
        assert all(sample.amodal and sample.meta["seen"] < 92 for sample in found)


@pytest.mark.parametrize("split", TRAINING)
def test_training_scenes_hold_no_held_out_combination(split: str) -> None:
    for index in range(150):
        assert not {(o.color, o.shape) for o in SynthRef(split).scene(index).objects} & HELD_OUT


def test_the_words_of_held_out_wordings_all_occur_in_training() -> None:
    def words(texts: list[str]) -> set[str]:
        return set(re.findall(r"[a-z']+", " ".join(texts).lower()))

    known = words(list(corpus(900)))
    asked = [s.phrase for split in ("test-simple", "test-complex", "test-amodal") for s in samples(split, 100)]
    assert words(asked) <= known
    known |= words([s.phrase for s in samples("train-any", 200)])
    assert words([s.phrase for split in ("test-none", "test-all") for s in samples(split, 100)]) <= known


def test_the_rationale_ends_with_the_box() -> None:
    for sample in samples("val", 60):
        assert sample.rationale is not None and sample.box is not None and sample.size is not None  # noqa: PT018
        last = re.findall(r"\((-?\d+),(-?\d+),(-?\d+),(-?\d+)\)", sample.rationale)[-1]
        assert tuple(map(int, last)) == sample.box.to_1000(sample.size)
        assert ("In full" in sample.rationale) == sample.amodal


def test_an_inventory_tells_the_whole_scene_once_and_then_speaks_of_numbers() -> None:
    data = SynthRef("val", scenes=40, rationale="inventory")
    for index in range(40):
        scene = data.scene(index)
        for sample, usual in zip(data.samples(index), SynthRef("val").samples(index), strict=True):
            assert (sample.phrase, sample.box) == (usual.phrase, usual.box)
            assert sample.rationale is not None
            inventory, _, steps = sample.rationale.partition(". ")
            entries = [re.fullmatch(r"(\d+) \((.*)\) (.*)", entry) for entry in inventory.split("; ")]
            assert [entry and int(entry[1]) for entry in entries] == list(range(1, len(scene.objects) + 1))
            told = {entry[2]: entry[3] for entry in entries if entry}
            for item in scene.objects:
                box = ",".join(map(str, Box(*item.visible).to_1000(scene.size)))
                assert told[box].endswith(f"{item.fill} {item.color} {item.shape}")
            assert steps.count("(") == (2 if sample.amodal else 1)


def test_without_boxes_a_rationale_says_the_same_of_the_same_objects() -> None:
    places = re.compile(r" \(-?\d+,-?\d+,-?\d+,-?\d+\)")
    for sample, boxed in zip(
        SynthRef("val", scenes=40, rationale="unboxed"), SynthRef("val", scenes=40, rationale="inventory"), strict=True
    ):
        assert boxed.rationale is not None
        told = places.sub("", boxed.rationale).removesuffix(" In full.")
        assert (sample.id, sample.phrase, sample.box, sample.rationale) == (boxed.id, boxed.phrase, boxed.box, told)


@pytest.mark.parametrize("split", MANY)
def test_questions_of_none_and_many_are_as_the_split_says(split: str) -> None:
    found = samples(split, 120)
    spec = SPLITS[split]
    assert spec.many is not None
    assert len({sample.id for sample in found}) == len(found) > 400
    counts = [0, 0, 0]
    for sample in found:
        truths = sample.truths
        assert truths is not None and sample.size is not None and sample.rationale  # noqa: PT018
        counts[min(len(truths), 2)] += 1
        assert len(set(truths)) == len(truths) == sample.meta["matches"]
        assert all(box == box.clip(sample.size) for box in truths)
        assert sample.expect == "all" if len(truths) > 1 else sample.expect in spec.expects
        told = re.findall(r"\((\d+),(\d+),(\d+),(\d+)\)", sample.rationale.rpartition("So ")[2])
        assert [tuple(map(int, numbers)) for numbers in told] == [box.to_1000(sample.size) for box in truths]
        assert ("wrong" in sample.meta) == sample.rationale.endswith("So there is none.") == (not truths)
    for count, weight in zip(counts, spec.many, strict=True):
        assert abs(count / len(found) - weight) < 0.08
    assert any(sample.meta["new_words"] for sample in found) == (split not in TRAINING)
    assert {sample.meta["wrong"] for sample in found if not sample.truths} == {"attribute", "relation"}


@pytest.mark.parametrize("split", MANY)
def test_what_a_phrase_of_attributes_names_is_what_it_fits(split: str) -> None:
    """By the words of the phrase alone, whatever program they came from."""
    source, looked_at = SynthRef(split), 0
    for index in range(150):
        scene = source.scene(index)
        for sample in source.samples(index):
            if sample.meta["complexity"] == 0:
                words = sample.phrase.replace("crosses", "cross").split()
                said = [one for word in words for one in (word, word.removesuffix("s")) if one in KNOWN]
                fits = [o for o in scene.objects if set(said) <= {o.shape, o.color, o.size, o.fill}]
                assert said
                assert {Box(*item.visible) for item in fits} == set(sample.truths or ())
                looked_at += 1
    assert looked_at > 50


def test_how_a_phrase_asks_does_not_tell_how_many_there_are() -> None:
    starts: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
    for sample in samples("test-all", 300):
        words = sample.phrase.split()
        starts[min(len(sample.truths or ()), 2)].add(" ".join(words[:2] if words[0] == "all" else words[:1]))
    assert {"the", "every", "all of", "all the"} <= starts[0] & starts[1] & starts[2]


def test_training_names_no_held_out_combination_that_is_never_there() -> None:
    for sample in samples("train-any", 300):
        words = sample.phrase.replace("crosses", "cross").split()
        for color, shape in HELD_OUT:
            assert (color, shape) not in itertools.pairwise(word.removesuffix("s") for word in words)
            assert (color, shape) not in itertools.pairwise(words)


def test_a_selection_is_what_a_person_would_point_at() -> None:
    def found(*steps: Step, attributes: tuple[tuple[str, str], ...] = CIRCLE) -> tuple[int, ...]:
        return select(Program(attributes, steps), BY_HAND).found

    assert found() == (0, 1, 2)
    assert found(attributes=(("shape", "cross"),)) == ()
    assert found(Side("left", STAR)) == (0, 1)
    assert found(Side("right", STAR)) == (2,)
    assert found(Side("left", STAR), Without("color", "red")) == (1,)
    assert found(Without("color", "green")) == (0, 1, 2)
    assert found(Without("color", "green"), attributes=SQUARE) == ()
    assert found(Ordinal(3, "left"), attributes=SQUARE) == ()  # there are two
    assert found(Extreme("largest"), attributes=(("shape", "cross"),)) == ()
    for steps in ((Side("above", STAR),), (Side("left", Program(CIRCLE)),), (Extreme("lowest"), Extreme("largest"))):
        with pytest.raises(Ambiguous):  # level with the star; which circle; one of one
            found(*steps)


def test_unknown_splits_and_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="choose one of candidates, inventory, unboxed"):
        SynthRef("val", rationale="short")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="choose one of train, train-complex, train-reworded, train-any, calib"):
        SynthRef("testA")
    with pytest.raises(DataError, match="1 to 500"):
        SynthRef("val", scenes=501)


# A scene by hand: what a program means is checked against what a person would say.


def thing(shape: str, color: str, center: tuple[int, int], side: int = 20, fill: str = "solid") -> SceneObject:
    x, y = center
    box = (x - side // 2, y - side // 2, x + side // 2, y + side // 2)
    size = "small" if side < 16 else "large" if side > 30 else "medium"
    return SceneObject(shape, color, size, fill, (box[0], box[1]), side, whole=box, visible=box)


BY_HAND = Scene(
    size=(320, 320),
    objects=(
        thing("circle", "red", (40, 160)),  # 0
        thing("circle", "blue", (100, 60), side=40),  # 1
        thing("circle", "blue", (280, 160), side=12),  # 2
        thing("star", "red", (160, 160)),  # 3
        thing("square", "green", (160, 300), fill="striped"),  # 4
        thing("square", "green", (220, 160)),  # 5
    ),
    pixels=np.zeros((320, 320, 3), dtype=np.uint8),
)
CIRCLE, SQUARE = (("shape", "circle"),), (("shape", "square"),)
STAR = Program((("shape", "star"),))
LOWEST_SQUARE = Program(SQUARE, (Extreme("lowest"),))


@pytest.mark.parametrize(
    ("program", "referent", "complexity", "kind"),
    [
        (Program((("color", "red"), ("shape", "circle"))), 0, 0, "attribute"),
        (Program(CIRCLE, (Side("right", STAR),)), 2, 1, "spatial"),
        (Program(CIRCLE, (Side("above", STAR),)), None, 1, "spatial"),  # two circles are level with the star
        (Program(CIRCLE, (Extreme("leftmost"),)), 0, 1, "superlative"),
        (Program(CIRCLE, (Extreme("largest"),)), 1, 1, "superlative"),
        (Program(CIRCLE, (Extreme("smallest"),)), 2, 1, "superlative"),
        (Program(CIRCLE, (Ordinal(2, "left"),)), 1, 1, "ordinal"),
        (Program(CIRCLE, (Ordinal(2, "right"),)), 1, 1, "ordinal"),
        (Program(CIRCLE, (Ordinal(2, "above"),)), None, 1, "ordinal"),  # two are level
        (Program(SQUARE, (Distance(True, STAR),)), 5, 1, "nearest or farthest"),
        (Program(SQUARE, (Distance(False, STAR),)), 4, 1, "nearest or farthest"),
        (Program(CIRCLE, (Distance(True, STAR),)), None, 1, "nearest or farthest"),  # 117 and 120 pixels away
        (Program(SQUARE, (Between(STAR, Program((("size", "small"), *CIRCLE))),)), 5, 1, "between"),
        (Program(SQUARE, (Without("fill", "striped"),)), 5, 1, "negation"),
        (Program(CIRCLE, (Side("left", STAR), Without("color", "red"))), 1, 2, "two relations"),
        (Program(CIRCLE, (Side("left", Program(SQUARE, (Side("above", STAR),))),)), None, 2, "two relations"),
        (Program(CIRCLE, (Side("left", LOWEST_SQUARE), Extreme("largest"))), 1, 3, "three relations"),
        (Program(CIRCLE), None, 0, "attribute"),  # three
        (Program((("shape", "cross"),)), None, 0, "attribute"),  # none
        (Program((("color", "red"), *CIRCLE), (Extreme("leftmost"),)), None, 1, "superlative"),  # one of one
    ],
)  # fmt: skip
def test_programs_mean_what_a_person_would_say(
    program: Program, referent: int | None, complexity: int, kind: str
) -> None:
    assert program.complexity == complexity
    assert program.kind == kind
    if referent is None:
        with pytest.raises(Ambiguous):
            execute(program, BY_HAND)
    else:
        assert execute(program, BY_HAND).referent == referent


def test_wordings_differ_and_held_out_ones_never_occur_in_training() -> None:
    program = Program(CIRCLE, (Side("left", STAR),))
    usual = {word(program, Rng(str(i))) for i in range(200)}
    held = {word(program, Rng(str(i)), "held_out") for i in range(200)}
    other = {word(program, Rng(str(i)), "other") for i in range(200)}
    assert len(usual) >= 5
    assert min(len(held), len(other)) >= 3
    assert not (usual & held)
    assert not (other & (usual | held))
    assert "the circle to the left of the star" in usual


def test_reworded_questions_are_worded_as_neither_training_nor_the_tests_are() -> None:
    steps = (Extreme("leftmost"), Ordinal(2, "right"), Distance(nearest=True, anchor=LOWEST_SQUARE))
    filters = (Side("above", STAR), Between(STAR, LOWEST_SQUARE), Without("color", "red"))
    for program in (
        Program(CIRCLE, (filter_, *after)) for filter_ in filters for after in ((), *((s,) for s in steps))
    ):
        usual, held, other = (
            {word(program, Rng(str(i)), wording) for i in range(300)} for wording in ("usual", "held_out", "other")
        )
        assert len(other) >= 3
        assert not (other & (usual | held))
    for step in (*steps, Extreme("largest"), Distance(nearest=False, anchor=STAR)):
        program = Program(CIRCLE, (Side("above", Program(SQUARE, (step,))),))
        for phrase in (word(program, Rng(str(i)), "other") for i in range(300)):
            assert "," not in phrase  # amid a clause it would leave open what belongs to the square
            assert " other " not in phrase


def test_nouns() -> None:
    assert noun((("size", "small"), ("color", "red"), ("shape", "cross")), plural=True) == "small red crosses"
    assert noun((("color", "red"),)) == "red object"


def test_scenes_come_out_of_the_generator_as_asked() -> None:
    scene = make_scene(Rng("one"), held_out=True)
    assert {(o.color, o.shape) for o in scene.objects} & HELD_OUT
    assert scene.pixels.shape == (scene.size[1], scene.size[0], 3)
    assert scene.pixels.dtype == np.uint8


def test_hiding_moves_the_visible_box_only() -> None:
    for scene in (SynthRef("test-amodal").scene(i) for i in range(30)):
        for item in scene.objects:
            whole, visible = Box(*item.whole), Box(*item.visible)
            assert iou(whole, visible) <= 1.0
            inside = whole.clip(scene.size)
            assert inside is not None and visible.x1 >= inside.x1 and visible.y2 <= inside.y2  # noqa: PT018
