from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from egm.boxes import Box
from egm.codecs import (
    Codec,
    InternVL,
    Qwen3VL,
    Qwen3VLInstruct,
    Qwen25VL,
    check_family,
    codec_for,
    codec_names,
    get_codec,
    register_codec,
    registry,
)
from egm.codecs.prompts import PROMPTS
from egm.errors import ModelError
from egm.grounder import Grounder
from egm.types import Message


@pytest.fixture
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers ends with it."""
    monkeypatch.setattr(registry, "_CODECS", dict(registry._CODECS))


NAMES = (
    *("deepseek_vl2", "florence2", "gemini", "glm_v", "ground_anything", "internvl", "kosmos2", "locate_anything"),
    *("moondream", "paligemma", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_instruct", "qwen_vl", "rex_omni"),
    "seed_vl",
)


class Bracketed(Codec):
    """A family that answers `[x1, y1, x2, y2]` on 0-1000."""

    def opening(self, phrase: str) -> str:
        return "["

    def answer(self, phrase: str, numbers: tuple[int, int, int, int]) -> str:
        return str(list(numbers))


def test_names() -> None:
    assert codec_names() == NAMES


@pytest.mark.parametrize("name", codec_names())
def test_each_name_makes_its_codec(name: str) -> None:
    codec: Codec = get_codec(name)
    assert codec.name == name
    assert set(codec.prompts) <= set(PROMPTS)


def test_default_prompts() -> None:
    families = ("internvl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_instruct")
    assert [get_codec(name).prompts[0] for name in families] == ["grounding", "qwen3", "qwen3", "qwen3"]


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"unknown codec 'qwen3-vl': did you mean 'qwen3_vl'\? known: deepseek_vl2, "):
        get_codec("qwen3-vl")
    with pytest.raises(ModelError, match="unknown codec '': known: deepseek_vl2, florence2, gemini"):
        get_codec("")


def test_unknown_option_gives_the_nearest() -> None:
    with pytest.raises(ModelError, match="no option 'max_pixel': did you mean 'max_pixels'"):
        get_codec("qwen2_5_vl", max_pixel=1)
    with pytest.raises(ModelError, match="no option 'max_pixels': it takes none"):
        get_codec("internvl", max_pixels=1)


@pytest.mark.parametrize(
    ("model_type", "prompt", "codec"),
    [
        ("qwen3_vl", "<|im_start|>assistant\n<think>\n", Qwen3VL()),
        ("qwen3_vl_moe", "<|im_start|>assistant\n<think>\n", Qwen3VL()),
        ("qwen3_vl", "<|im_start|>assistant\n", Qwen3VLInstruct()),
        ("qwen3_vl_moe", "<think>\n\n</think>\n\n", Qwen3VLInstruct()),
        ("qwen3_5", "<|im_start|>assistant\n<think>\n", Qwen3VL()),
        ("qwen3_5_moe", "<think>\n\n</think>\n\n", Qwen3VLInstruct()),
        ("qwen2_5_vl", None, Qwen25VL()),
        ("internvl", None, InternVL()),
    ],
)
def test_checkpoints_are_known_by_their_type_and_their_template(
    model_type: str, prompt: str | None, codec: Codec
) -> None:
    def render(messages: list[Message]) -> str:
        assert prompt is not None, "where one codec serves a type, no template is asked"
        assert messages[0]["content"][0] == {"type": "image"}
        return prompt

    assert codec_for(model_type, render) == codec


def test_an_unknown_type_is_refused_with_what_can_be_done() -> None:
    says = (
        r"'llava' model, .* add its family \(docs/families.md says how\).* of deepseek_vl2, .*"
        r"seed_vl does, name that one: --codec NAME, which works with --server URL too$"
    )
    for check in (lambda: check_family("llava", "some/model"), lambda: codec_for("llava", lambda _: "")):
        with pytest.raises(ModelError, match=says):
            check()


@pytest.mark.usefixtures("own_table")
def test_a_codec_of_ones_own() -> None:
    @register_codec
    @dataclass(frozen=True)
    class Own(Bracketed):
        name: ClassVar[str] = "own"
        model_types: ClassVar[tuple[str, ...]] = ("own_vl",)
        span: int = 1000

    assert "own" in codec_names()
    check_family("own_vl", "a folder")
    assert codec_for("own_vl", lambda _: "") == Own()
    assert get_codec("own", span=7).to_dict() == {"name": "own", "span": 7}
    with pytest.raises(ModelError, match="no option 'spam': did you mean 'span'"):
        get_codec("own", spam=7)
    codec = get_codec("own")
    assert codec.messages("the man", prompt="grounding")[0]["content"][1]["text"].endswith("describes: the man.")
    assert codec.target("the man", Box(0, 0, 320, 240), size=(640, 480)) == "[0, 0, 500, 500]"
    assert codec.answer_prefill("<think>\nIt", "the man") == "\n</think>\n\n["
    grounder = Grounder.connect("http://127.0.0.1:1", "tiny", codec="own")
    assert grounder.codec == Own()


@pytest.mark.usefixtures("own_table")
def test_one_name_and_one_type_have_one_codec() -> None:
    def register(**facts: Any) -> type[Codec]:
        return register_codec(type(f"Codec{len(registry._CODECS)}", (Bracketed,), facts))

    with pytest.raises(ModelError, match="there is a codec 'internvl' already, InternVL: give yours another name"):
        register(name="internvl")
    with pytest.raises(ModelError, match=r"codec 'internvl' serves 'internvl' models already: .*\(codec='mine'\)"):
        register(name="mine", model_types=("mine", "internvl"))
    assert codec_names() == NAMES
    # One that thinks first may stand beside one that does not.
    thinking = register(name="thinking", model_types=("internvl",), thinking_prefilled=True)
    assert type(codec_for("internvl", lambda _: "<think>")) is thinking
    assert codec_for("internvl", lambda _: "") == InternVL()


@pytest.mark.usefixtures("own_table")
def test_a_class_that_is_defined_again_takes_its_own_place() -> None:
    def define(called: str) -> type[Codec]:
        @register_codec
        class Again(Bracketed):
            name: ClassVar[str] = called
            model_types: ClassVar[tuple[str, ...]] = ("again",)

        return Again

    define("first")
    second = define("second")  # as where a cell of a notebook is mended and run again
    assert "first" not in codec_names()
    assert type(codec_for("again", lambda _: "")) is second


def test_importing_codecs_is_light() -> None:
    heavy = ("torch", "transformers", "numpy", "PIL")
    code = f"import sys, egm.codecs; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
