"""SynthRef's splits: four unbounded training sets and seven frozen ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from egm.boxes import Box
from egm.datasets.synthetic.paraphrases import Wording
from egm.datasets.synthetic.phrasing import word, word_all
from egm.datasets.synthetic.program_sampling import sample_program
from egm.datasets.synthetic.programs import Selection, Trace
from egm.datasets.synthetic.rationale import STYLES, Style, write_rationale
from egm.datasets.synthetic.rng import Rng
from egm.datasets.synthetic.scenes import HELD_OUT, Scene, make_scene
from egm.datasets.synthetic.selection_sampling import is_wrong_attribute, sample_nothing, sample_selection
from egm.errors import DataError
from egm.types import Expect, Sample

VERSION = 1
"""Raised whenever the same seed gives other bytes. It is part of every seed and every id."""

PHRASES_PER_SCENE = 4


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """How a split is made.

    Attributes:
        scenes: How many scenes it has; None if unbounded.
        samples: How many questions about them, with seed 0.
        complexity: Weights of 0, 1, 2 and 3 relations.
        amodal: Share of questions that ask for the whole object.
        held_out: Share of scenes and of wordings that training never sees.
        other_words: Share of wordings that neither `train` nor the tests have.
        occluded: Whether only objects that are partly hidden are asked for.
        many: Weights of questions that nothing, one object and several objects match; None asks for one object.
        expects: What is expected by those of nothing and of one, drawn evenly; several are all asked for.
    """

    scenes: int | None
    complexity: tuple[float, float, float, float]
    amodal: float
    held_out: float = 0.0
    other_words: float = 0.0
    occluded: bool = False
    samples: int | None = None
    many: tuple[float, float, float] | None = None
    expects: tuple[Expect, ...] = ("one",)


_MIXED = (0.15, 0.4, 0.3, 0.15)
SPLITS: dict[str, SplitSpec] = {
    "train": SplitSpec(scenes=None, complexity=_MIXED, amodal=0.25),
    "train-complex": SplitSpec(scenes=None, complexity=(0.05, 0.25, 0.4, 0.3), amodal=0.3),
    "train-reworded": SplitSpec(scenes=None, complexity=(0.1, 0.35, 0.35, 0.2), amodal=0.3, other_words=0.6),
    "train-any": SplitSpec(scenes=None, complexity=_MIXED, amodal=0.0, many=(0.3, 0.35, 0.35), expects=("any", "all")),
    "calibration": SplitSpec(scenes=6_000, samples=23_826, complexity=_MIXED, amodal=0.25),
    "val": SplitSpec(scenes=500, samples=1_983, complexity=_MIXED, amodal=0.25),
    "test-simple": SplitSpec(scenes=750, samples=2_960, complexity=(0.4, 0.6, 0.0, 0.0), amodal=0.0, held_out=0.5),
    "test-complex": SplitSpec(scenes=750, samples=2_797, complexity=(0.0, 0.0, 0.6, 0.4), amodal=0.0, held_out=0.5),
    "test-amodal": SplitSpec(scenes=750, samples=2_176, complexity=_MIXED, amodal=1.0, held_out=0.5, occluded=True),
    "test-none": SplitSpec(
        scenes=750,
        samples=2_980,
        complexity=(0.25, 0.4, 0.25, 0.1),
        amodal=0.0,
        held_out=0.5,
        many=(0.5, 0.5, 0.0),
        expects=("any",),
    ),
    "test-all": SplitSpec(
        scenes=750,
        samples=2_976,
        complexity=(0.35, 0.45, 0.2, 0.0),
        amodal=0.0,
        held_out=0.5,
        many=(0.15, 0.25, 0.6),
        expects=("all",),
    ),
}
TRAINING = tuple(name for name, split in SPLITS.items() if split.scenes is None)
_HIDDEN = 92  # percent seen below which an object counts as partly hidden


@dataclass(frozen=True, slots=True)
class Traced:
    """A question with its proof.

    Attributes:
        sample: The question.
        trace: How its phrase is executed.
        scene: What it is executed on.
    """

    sample: Sample
    trace: Trace | Selection
    scene: Scene

    @property
    def proof(self) -> Trace:
        """The execution of a question with one answer.

        Raises:
            DataError: If it asks for all that there are, or nothing matches.
        """
        if isinstance(self.trace, Selection):
            raise DataError(
                f"sample {self.sample.id} may have no box or several, of which only SynthRef's own rationales speak: "
                "explain a split of one box, such as train"
            )
        return self.trace


class SynthRef:
    """Questions about synthetic scenes, up to four a scene; the same arguments give the same bytes everywhere.

    Args:
        split: "train", "train-complex", "train-reworded", "train-any", "calibration", "val", "test-simple",
            "test-complex", "test-amodal", "test-none" or "test-all". Of "train-any", "test-none" and "test-all" some
            phrases fit nothing, and of the first and the last some fit several (`Sample.expect`, `Sample.boxes`).
        seed: Another seed gives another draw of the split. The frozen splits are those of seed 0.
        scenes: How many scenes, for a training split or a part of another. Default: all; training splits have no end.
        rationale: Style of the rationales: "candidates" tells their boxes step by step, "inventory" lists the whole
            scene first and then refers to objects by number; "unboxed" is the same without any box; "official" says in
            one or two sentences what decides.
        phrases: Questions a scene, at most. Fewer are the first of the four, and so see more scenes for their number.

    Raises:
        DataError: If there is no such split or style, the split has fewer scenes, or a scene fewer phrases.

    Example:
        >>> sample = SynthRef("val").samples(0)[0]
        >>> sample.box.area > 0
        True
    """

    def __init__(
        self,
        split: str = "train",
        *,
        seed: int = 0,
        scenes: int | None = None,
        rationale: Style = "candidates",
        phrases: int = PHRASES_PER_SCENE,
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"SynthRef has no split {split!r}: choose one of {', '.join(SPLITS)}")
        if rationale not in STYLES:
            raise DataError(f"there is no rationale style {rationale!r}: choose one of {', '.join(STYLES)}")
        self.split, self.seed, self.spec, self.style = split, seed, SPLITS[split], rationale
        if scenes is not None and (scenes < 1 or (self.spec.scenes is not None and scenes > self.spec.scenes)):
            raise DataError(f"SynthRef {split} cannot give {scenes} scenes: ask for 1 to {self.spec.scenes or 'any'}")
        if not 1 <= phrases <= PHRASES_PER_SCENE:
            raise DataError(f"SynthRef cannot ask {phrases} phrases a scene: ask for 1 to {PHRASES_PER_SCENE}")
        self.scenes = self.spec.scenes if scenes is None else scenes
        self.phrases = phrases

    def scene(self, index: int) -> Scene:
        """Make scene number `index`."""
        return self._scene(index)[0]

    def samples(self, index: int) -> list[Sample]:
        """Make the questions about scene number `index`: up to `phrases`, all about one picture."""
        return [traced.sample for traced in self.traced(index)]

    def traced(self, index: int) -> list[Traced]:
        """Make the same questions with their executions, for other words than a rationale style's own."""
        from PIL import Image

        scene, rng = self._scene(index)
        image = Image.fromarray(scene.pixels)
        questions: dict[str, Traced] = {}
        for k in range(self.phrases):
            traced = self._question(rng, scene, f"synthref{VERSION}/{self.split}/{self.seed}/{index}/{k}", image)
            if traced is not None:
                questions.setdefault(traced.sample.phrase, traced)
        return list(questions.values())

    def __iter__(self) -> Iterator[Sample]:
        """Yield the questions, scene by scene; a training split never ends unless `scenes` was given."""
        for index in itertools.count() if self.scenes is None else range(self.scenes):
            yield from self.samples(index)

    def _scene(self, index: int) -> tuple[Scene, Rng]:
        rng = Rng(f"synthref{VERSION}/{self.split}/{self.seed}/{index}")
        return make_scene(rng, held_out=rng.chance(self.spec.held_out)), rng

    def _question(self, rng: Rng, scene: Scene, name: str, image: Any) -> Traced | None:
        spec = self.spec
        if spec.many is not None:
            return self._question_of_many(rng, scene, name, image, spec.many)
        amodal = rng.chance(spec.amodal)
        hidden = [i for i, item in enumerate(scene.objects) if item.seen < _HIDDEN]
        rare = [i for i, item in enumerate(scene.objects) if (item.color, item.shape) in HELD_OUT]
        if spec.occluded and not hidden:
            return None
        for _ in range(6):
            pool = list(range(len(scene.objects)))
            if spec.occluded or (amodal and hidden and rng.chance(0.6)):
                pool = hidden
            elif rare and rng.chance(0.5):
                pool = rare
            complexity = rng.weighted(tuple(enumerate(spec.complexity)))
            trace = sample_program(rng, scene, rng.choice(pool), complexity)
            if trace is not None:
                return Traced(self._sample(rng, scene, trace, name, image, amodal=amodal), trace, scene)
        return None

    def _question_of_many(
        self, rng: Rng, scene: Scene, name: str, image: Any, many: tuple[float, float, float]
    ) -> Traced | None:
        spec = self.spec
        wanted = rng.weighted(tuple(enumerate(many)))
        expect: Expect = "all" if wanted > 1 else rng.choice(spec.expects)
        held_out = spec.held_out > 0
        trace: Trace | Selection | None
        for _ in range(6):
            complexity = rng.weighted(tuple(enumerate(spec.complexity)))
            if expect == "all":
                trace = sample_selection(rng, scene, min(complexity, 2), wanted, held_out=held_out)
            elif wanted:
                trace = sample_program(rng, scene, rng.below(len(scene.objects)), complexity)
            else:
                target = rng.below(len(scene.objects))
                trace = sample_nothing(rng, scene, target, complexity, held_out=held_out)
            if trace is not None:
                return Traced(self._sample_of_many(rng, scene, trace, name, image, expect), trace, scene)
        return None

    def _sample_of_many(
        self, rng: Rng, scene: Scene, trace: Trace | Selection, name: str, image: Any, expect: Expect
    ) -> Sample:
        if isinstance(trace, Trace):
            sample = self._sample(rng, scene, trace, name, image, amodal=False)
            return replace(sample, expect=expect, meta={**sample.meta, "matches": 1})
        wording = self._wording(rng)
        phrase = (word_all if expect == "all" else word)(trace.program, rng, wording)
        items = [scene.objects[i] for i in trace.found]
        boxes = tuple(Box(*item.visible) for item in items)
        return Sample(
            id=name,
            image=image,
            phrase=phrase,
            box=boxes[0] if len(boxes) == 1 else None,
            boxes=None if len(boxes) == 1 else boxes,
            size=scene.size,
            expect=expect,
            rationale=write_rationale(trace, scene, style=self.style, name=name),
            meta={
                "kind": trace.program.kind,
                "complexity": trace.program.complexity,
                "matches": len(boxes),
                **({} if boxes else {"wrong": "attribute" if is_wrong_attribute(trace) else "relation"}),
                "new_words": wording != "usual",
                "new_look": any((item.color, item.shape) in HELD_OUT for item in items),
            },
        )

    def _wording(self, rng: Rng) -> Wording:
        wording: Wording = "held_out" if rng.chance(self.spec.held_out) else "usual"
        return "other" if self.spec.other_words and rng.chance(self.spec.other_words) else wording

    def _sample(self, rng: Rng, scene: Scene, trace: Trace, name: str, image: Any, *, amodal: bool) -> Sample:
        wording = self._wording(rng)
        item = scene.objects[trace.referent]
        return Sample(
            id=name,
            image=image,
            phrase=word(trace.program, rng, wording),
            box=Box(*(item.whole if amodal else item.visible)),
            size=scene.size,
            amodal=amodal,
            rationale=write_rationale(trace, scene, amodal=amodal, style=self.style, name=name),
            meta={
                "kind": trace.program.kind,
                "complexity": trace.program.complexity,
                "seen": item.seen,
                "new_words": wording != "usual",
                "new_look": (item.color, item.shape) in HELD_OUT,
            },
        )


def corpus(n_scenes: int, seed: int = 0) -> Iterator[str]:
    """Yield the phrases and rationales of `n_scenes` training scenes, to make a tokenizer from."""
    for sample in SynthRef("train", seed=seed, scenes=n_scenes):
        yield sample.phrase
        yield sample.rationale or ""
