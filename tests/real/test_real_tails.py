"""Real answers whose tail is cut: the same box, or the same reason why there is none."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from egm.backends import GenerationSettings, Request
from egm.backends.stopping import before_stop
from egm.codecs import Codec, get_codec
from egm.types import Completion, Grounding

SIZE = (1000, 1000)
LOGS = ("baseline", "sft_500", "r1_500")


def both(codec: Codec, text: str, size: tuple[int, int] = SIZE, phrase: str = "") -> tuple[Grounding, Grounding]:
    """The answer as it is read whole, and cut."""
    read = partial(codec.parse, size=size, phrase=phrase)
    request = Request([], ends=partial(codec.ends_before_tail, size=size, phrase=phrase))
    cut = before_stop(Completion(text), request, GenerationSettings(stop=codec.tail_stops))
    return read(text), read(cut.text, finish_reason=cut.finish_reason)


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl_instruct"])
def test_logs(real_data: Callable[[str], Path], log: str, name: str) -> None:
    path = real_data(f"model_outputs/rec_results_refcoco_val_qwen2_5vl_3b_instruct_{log}.json.gz")
    results = json.loads(gzip.decompress(path.read_bytes()))["results"]
    pairs = [both(get_codec(name), result["model_output"], (2000, 2000)) for result in results]
    assert [(whole.box, whole.failure) for whole, _ in pairs] == [(cut.box, cut.failure) for _, cut in pairs]
    # Answers in tags stay whole.
    assert {cut.tail_cut for _, cut in pairs} == {log != "r1_500"}


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl_instruct", "qwen3_vl"])
def test_shapes_and_decoys(real_data: Callable[[str], Path], name: str) -> None:
    other = []
    for file in ("model_outputs/real_shapes.jsonl", "cases/answers_with_decoys.jsonl"):
        for row in map(json.loads, real_data(file).read_text(encoding="utf-8").splitlines()):
            facts = tuple(row.get("size", SIZE)), row.get("phrase") or ""
            whole, cut = both(get_codec(name), row["text"], *facts)
            if (whole.box, whole.failure) != (cut.box, cut.failure):
                other.append(row["text"])
    # What closes its reasoning twice had an answer once before, and nobody can know then that it will think again.
    assert all(text.count("</think>") > 1 for text in other)
    assert len(other) <= 1
