from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from egm.boxes import Box
from egm.codecs import codec_names, get_codec, neutralise
from egm.errors import EgmError
from egm.models import embedded_path
from egm.models.tiny.vocabulary import SPECIAL_TOKENS

CONTROL_TOKENS = [
    "<|im_end|>",
    "<|im_start|>",
    "<|image_pad|>",
    "<|vision_start|>",
    "<|endoftext|>",
    "<|box_start|>",
    "<｜end▁of▁sentence｜>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<image>",
    "<s>",
    "</s>",
    "<unk>",
    "<answer>",
]


def text_of(codec: str, phrase: str, **options: object) -> str:
    (turn,) = get_codec(codec).messages(phrase, **options)  # type: ignore[arg-type]
    assert turn["role"] == "user"
    image, text = turn["content"]
    assert image == {"type": "image"}
    assert text.keys() == {"type", "text"}
    return str(text["text"])


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_control_tokens_become_words(token: str) -> None:
    made = neutralise(f"the sign {token} on the wall")
    assert token not in made
    assert made.replace("< ", "<") == f"the sign {token} on the wall"


@pytest.mark.parametrize(
    "text",
    ["a<b", "x < y", "a<b and c>d", "5 <= 6", "<", "<>", "< think>", "->", "<3", "a\nb\tc", "[INST]", "é"],
)
def test_other_text_stays(text: str) -> None:
    assert neutralise(text) == text


def test_control_characters_become_spaces() -> None:
    assert neutralise("a\x00b\x1bc\x7fd\x85e\rf") == "a b c d e f"
    assert neutralise("a\ud800b") == "a b"
    assert neutralise("<\x00|im_end|>") == "< |im_end|>"


def test_doubled_openers() -> None:
    assert neutralise("<<think>>") == "<< think>>"
    assert neutralise("<<|im_end|>|im_end|>") == "<< |im_end|>|im_end|>"


def test_long_text_is_no_trouble() -> None:
    for unit in ("<", "<|", "<a", "</", "<think>", "<a.b-c:"):
        made = neutralise(unit * (1_000_000 // len(unit)))
        assert "<|" not in made
        assert "<think>" not in made


@given(
    st.lists(st.sampled_from([*CONTROL_TOKENS, "<", ">", "|", "/", "think", " ", "a", "\x00", "\ud800"])).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_put_together_no_token_is_left(text: str) -> None:
    made = neutralise(text)
    assert not any(token in made for token in CONTROL_TOKENS)
    assert neutralise(made) == made
    assert re.sub(r"\s", "", made) == re.sub(r"[\s\x00\ud800]", "", text)


@pytest.mark.parametrize(
    ("codec", "options", "expected"),
    [
        ("qwen3_vl", {}, "Locate the man, output its bbox coordinates using JSON format."),
        ("qwen2_5_vl", {}, "Locate the man, output its bbox coordinates using JSON format."),
        ("qwen3_vl", {"amodal": True}, "Locate the man amodally, output its bbox coordinates using JSON format."),
        (
            "qwen3_vl",
            {"prompt": "grounding"},
            "Please provide the bounding box coordinate of the region this sentence describes: the man.",
        ),
        (
            "qwen3_vl",
            {"prompt": "grounding", "amodal": True},
            "Please provide the amodal bounding box coordinate of the region this sentence describes: the man.",
        ),
        (
            "internvl",
            {},
            "Please provide the bounding box coordinate of the region this sentence describes: <ref>the man</ref>",
        ),
        (
            "internvl",
            {"amodal": True},
            "Please provide the amodal bounding box coordinate of the region this sentence describes: "
            "<ref>the man</ref>",
        ),
        ("internvl", {"prompt": "qwen3"}, "Locate the man, output its bbox coordinates using JSON format."),
        ("paligemma", {}, "detect the man"),
        ("florence2", {}, "<CAPTION_TO_PHRASE_GROUNDING>the man"),
        ("kosmos2", {}, "<grounding><phrase> the man</phrase>"),
        ("deepseek_vl2", {}, "<|ref|>the man<|/ref|>."),
        ("rex_omni", {}, "Detect the man."),
        ("locate_anything", {}, "Locate a single instance that matches the following description: the man."),
        ("glm_v", {}, "Help me to locate the man in the image and give me its bounding boxes."),
        ("qwen_vl", {"amodal": True}, "<ref>the man amodally</ref>"),
        (
            "qwen2_vl",
            {},
            "Please provide the bounding box coordinate of the region this sentence describes: "
            "<|object_ref_start|>the man<|object_ref_end|>",
        ),
    ],
)
@pytest.mark.parametrize("phrase", ["the man", " the man. ", "the man..."])
def test_wordings(codec: str, options: dict[str, object], expected: str, phrase: str) -> None:
    assert text_of(codec, phrase, **options) == expected


def test_the_card_asks_the_same() -> None:
    asked = "Please provide the bounding box coordinate of the region this sentence describes: the person on the left."
    assert text_of("qwen3_vl", "the person on the left", prompt="grounding") == asked


@pytest.mark.parametrize(("phrase", "end"), [("which one?", "which one?"), ("that!", "that!"), ("...", "...")])
def test_no_full_stop_after_other_marks(phrase: str, end: str) -> None:
    assert text_of("qwen3_vl", phrase, prompt="grounding").endswith(f"describes: {end}")


@pytest.mark.parametrize(
    ("name", "prompt"), [(name, style) for name in codec_names() for style in get_codec(name).prompts]
)
@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_a_phrase_brings_no_control_token_into_the_prompt(name: str, prompt: str, token: str) -> None:
    plain = text_of(name, "the sign", prompt=prompt)
    asked = text_of(name, f"the sign {token}", prompt=prompt)
    assert asked.count(token) == plain.count(token)


@pytest.mark.parametrize("name", codec_names())
def test_unknown_style_gives_the_nearest(name: str) -> None:
    with pytest.raises(EgmError, match=r"unknown prompt style 'groundin': .*known: .*" + get_codec(name).prompts[0]):
        get_codec(name).messages("the man", prompt="groundin")
    with pytest.raises(EgmError, match="unknown prompt style ''"):
        get_codec(name).messages("the man", prompt="")


@pytest.mark.parametrize("name", codec_names())
def test_a_phrase_brings_no_control_token_of_a_real_tokenizer(name: str) -> None:
    codec, box = get_codec(name), Box(1, 1, 5, 5)
    tokenizer = Tokenizer.from_file(str(embedded_path() / "tokenizer.json"))

    def control_tokens(phrase: str) -> list[int]:
        asked = codec.messages(phrase)[0]["content"][1]["text"]
        taught = codec.target(phrase, box, size=(10, 10), rationale=phrase)
        return [i for i in tokenizer.encode(asked + taught, add_special_tokens=False).ids if i < len(SPECIAL_TOKENS)]

    for token in (*SPECIAL_TOKENS, "".join(SPECIAL_TOKENS), "<<|im_end|>|im_end|>"):
        assert control_tokens(f"the {token} cup{token}") == control_tokens("the cup")
