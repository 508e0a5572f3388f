from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from egm.backends.replay import ReplayBackend
from egm.codecs import get_codec
from egm.datasets import open_dataset
from egm.evaluate import evaluate
from egm.evaluate.plan import seed_index_of
from egm.grounder import Grounder
from egm.types import Completion

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Evaluate given answers to the first samples of a split of SynthRef.

    An answer is a text, or lists of corners on the 0-1000 scale; None stands for the true boxes.
    """

    def make(split: str, answers: Sequence[str | list[list[int]] | None], *, sure: Sequence[float] = ()) -> Path:
        name = f"synthref/{split}"
        data = open_dataset(name, first=len(answers))
        replies = {}
        for number, (sample, answer) in enumerate(zip(data.annotations(), answers, strict=True)):
            if answer is None:
                assert sample.size is not None
                answer = [list(box.to_1000(sample.size)) for box in sample.truths or ()]
            if not isinstance(answer, str):
                listed = ", ".join(f'{{"bbox_2d": {corners}}}' for corners in answer)
                answer = f"It is there.</think>[{listed}]"
            logprob = sure[number] if sure else None
            replies[seed_index_of(name, sample.id)] = [Completion(answer, answer_logprob=logprob)]
        folder = tmp_path / f"run-{split}"
        with Grounder(ReplayBackend(replies, model="replayed"), get_codec("qwen3_vl")) as grounder:
            evaluate({name: data}, grounder, folder, progress=False)
        return folder

    return make
