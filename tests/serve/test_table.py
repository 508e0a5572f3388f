"""What is known of engines: every row of the table is well-formed, and versions are judged by it."""

from __future__ import annotations

import re

import pytest

from egm.errors import EgmError
from egm.serve import engine_names, verdict, version_defects
from egm.serve.table import AIMS, engine_facts, troubles, wanted

PREFILL = "--cuda-graph-backend-prefill"
CUDA_GRAPH = {"SGLANG_VIT_ENABLE_CUDA_GRAPH": "1"}


@pytest.mark.parametrize("engine", engine_names())
def test_every_row_is_whole(engine: str) -> None:
    for flag in engine_facts(engine).flags:
        assert bool(flag.option) != bool(flag.variable)
        assert flag.reason
        assert "\n" not in flag.reason
        assert set(flag.aims) <= set(AIMS)
    for defect in version_defects(engine):
        assert defect.source.startswith("https://")
        assert defect.mend
    for aim in (None, *AIMS):
        names = [flag.name for flag in wanted(engine_facts(engine).flags, aim, speculation=aim == "latency")]
        assert len(set(names)) == len(names), aim


def test_the_last_words_of_engines_are_patterns() -> None:
    for says, advice in troubles():
        re.compile(says)
        assert advice


@pytest.mark.parametrize(
    ("engine", "version", "model_type", "flags", "kind", "names"),
    [
        ("sglang", "0.5.17", "qwen3_vl", {}, "right", []),
        ("sglang", "0.5.17+cu130", "qwen3_vl", {}, "right", []),
        ("sglang", "0.5.5", "qwen3_vl", {}, "wrong", ["double resize", "positions of the picture's patches"]),
        ("sglang", "0.5.5.post2", "qwen2_5_vl", {}, "wrong", ["double resize"]),
        ("sglang", "0.5.5.post3", "qwen2_5_vl", {}, "unknown", []),
        ("sglang", "0.5.8", "qwen3_vl", {}, "wrong", ["positions of the picture's patches"]),
        ("sglang", "0.5.9", "qwen3_vl", {}, "unknown", []),
        ("sglang", "0.5.15", "qwen3_5", {}, "wrong", ["M-RoPE kernel"]),
        ("sglang", "0.5.23", "qwen3_5", {}, "unknown", []),
        ("sglang", "0.5.17", "qwen3_vl", CUDA_GRAPH, "wrong", ["graphs of the vision tower"]),
        ("sglang", "0.5.17", "qwen3_vl", {"SGLANG_VIT_ENABLE_CUDA_GRAPH": "0"}, "right", []),
        (
            *("sglang", "0.5.17", "qwen3_vl"),
            CUDA_GRAPH | {"--enable-precise-embedding-interpolation": None},
            *("wrong", ["graphs of the vision tower"]),
        ),
        ("sglang", "0.5.17", "qwen3_vl", {PREFILL: "breakable"}, "wrong", ["breakable graphs of prompts"]),
        ("sglang", "0.5.17", "qwen3_vl", {PREFILL: "tc_piecewise"}, "right", []),
        ("vllm", "0.11.0", "qwen3_vl", {}, "right", []),
        ("vllm", "0.11.1", "qwen3_vl", {}, "wrong", ["grounding offset"]),
        ("vllm", "0.12.0", "qwen3_vl_moe", {}, "wrong", ["grounding offset"]),
        ("vllm", "0.26.0", "qwen3_vl", {}, "right", []),
        (
            "vllm",
            "0.33.0",
            "qwen3_5",
            {"--speculative-config": '{"method": "mtp"}'},
            "wrong",
            ["prefix cache under MTP"],
        ),
        ("vllm", "0.33.0", "qwen3_5", {"--speculative-config": '{"method": "ngram"}'}, "unknown", []),
        ("vllm", "of its own", "qwen3_vl", {}, "unknown", []),
        ("vllm", None, "qwen3_vl", {}, "unknown", []),
        ("vllm", "0.12.0", None, {}, "unknown", []),
        ("sglang", "0.5.5", None, {}, "wrong", ["double resize"]),
        ("another", "1.0", "qwen3_vl", {}, "unknown", []),
    ],
)
def test_versions_are_judged(
    engine: str, version: str | None, model_type: str | None, flags: dict[str, str | None], kind: str, names: list[str]
) -> None:
    judged = verdict(engine, version, model_type, flags=flags)
    assert (judged.kind, [defect.name for defect in judged.defects]) == (kind, names)
    assert "\n" not in judged.text
    for defect in judged.defects:
        assert defect.source in judged.text


def test_defects_that_flags_bring_on_are_listed_with_them() -> None:
    assert [defect.given for defect in version_defects("sglang", "0.5.17", "qwen3_vl")] == [
        *CUDA_GRAPH,
        PREFILL,
        "--enable-breakable-cuda-graph",
    ]
    assert version_defects("sglang", "0.5.17", "qwen3_vl", flags={}) == []


def test_engines_and_aims_that_there_are_not() -> None:
    with pytest.raises(EgmError, match=r"no engine 'sg_lang': did you mean 'sglang'\? known: auto, egm, sglang"):
        engine_facts("sg_lang")
    with pytest.raises(EgmError, match="no aim 'speed': known: latency, memory, throughput"):
        wanted((), "speed", speculation=False)
