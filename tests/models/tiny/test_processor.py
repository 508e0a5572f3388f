"""The small tokenizer and the tiny sizes' processor: what they promise, saved and loaded again."""

import json
import runpy
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets.synthetic import VERSION, corpus
from egm.datasets.synthetic.scenes import FRAMES
from egm.errors import ModelError
from egm.models.presets import build_model, get_preset
from egm.models.tiny.processor import build_processor
from egm.models.tiny.tokenizer import TOKENIZER_FILES, train_tokenizer
from egm.models.tiny.vocabulary import INTERNVL_TOKENS, SPECIAL_TOKENS, TINY_TOKENS, token_id

TARGET = 'It is here.\n</think>\n\n```json\n[\n\t{"bbox_2d": [12, 34, 567, 890], "label": "the red circle"}\n]\n```'


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def render(processor, messages, **kwargs) -> str:
    return processor.apply_chat_template(messages, tokenize=False, **kwargs)


def user(*parts: str | dict) -> dict:
    return {"role": "user", "content": [p if isinstance(p, dict) else {"type": "text", "text": p} for p in parts]}


def test_special_tokens_have_their_places_and_stay_whole(processor) -> None:
    tokenizer = processor.tokenizer
    for index, token in enumerate(SPECIAL_TOKENS):
        assert tokenizer(token).input_ids == [index] == [token_id(token)]
    with pytest.raises(ModelError, match="not one of the special tokens"):
        token_id("<|nothing|>")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert len(tokenizer) <= get_preset("tiny-s").text.vocabulary


def test_thinking_marks_are_text_and_turn_marks_are_not(processor) -> None:
    ids = processor.tokenizer("<|im_start|>a<think>b</think>c<|im_end|>").input_ids
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == "a<think>b</think>c"


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_decodes_back_to_its_nfc_form(processor, text: str) -> None:
    ids = processor.tokenizer(text).input_ids
    assert processor.tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_every_digit_is_a_token_of_its_own(processor) -> None:
    assert processor.tokenizer.tokenize("(123,456,789,999)") == [*"(123,456,789,999)"]
    assert processor.tokenizer.tokenize("٣42")[-2:] == ["4", "2"]


def test_the_worlds_words_are_single_tokens(processor) -> None:
    words = "red orange yellow green cyan blue purple circle square triangle diamond star cross solid striped dotted"
    words += " small large left right above below nearest farthest between second third leftmost Locate output bbox"
    for word in words.split():
        assert len(processor.tokenizer.tokenize(" " + word if word != "Locate" else word)) == 1, word


def test_a_question_and_its_answer_are_short(processor) -> None:
    longest = max(len(processor.tokenizer(text).input_ids) for text in corpus(5, 7))
    assert longest < 700
    assert len(processor.tokenizer(TARGET + "<|im_end|>").input_ids) < 60


def test_rebuilding_gives_the_shipped_vocabulary(processor, tmp_path: Path) -> None:
    tool = runpy.run_path(str(Path(__file__).parents[3] / "tools" / "build_tokenizer.py"))
    if tool["WORLD_VERSION"] != VERSION:
        pytest.skip("the world has changed since the shipped tokenizer was trained; shipped weights need the old one")
    tool["main"](["--out", str(tmp_path)])
    folders = (tmp_path, TOKENIZER_FILES)
    rebuilt, kept = (json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"] for folder in folders)
    assert rebuilt["vocab"] == kept["vocab"]
    assert rebuilt["merges"] == kept["merges"]


def test_training_keeps_to_its_limit_and_refuses_too_small_a_one() -> None:
    texts = ["the red circle", "the red cross"] * 9
    tokenizer = train_tokenizer(texts, 290)
    assert len(tokenizer) == 290
    assert len(tokenizer("the red circle").input_ids) < len("the red circle")
    with pytest.raises(ModelError, match="no room for 282"):
        train_tokenizer(texts, 281)


def test_turns_are_written_as_qwen3_vl_thinking_writes_them(processor) -> None:
    question = user({"type": "image"}, "Where?")
    asked = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Where?<|im_end|>\n"
    assert render(processor, [question]) == asked
    assert render(processor, [question], add_generation_prompt=True) == asked + "<|im_start|>assistant\n<think>\n"
    system = {"role": "system", "content": "Be brief."}
    assert render(processor, [system, question]) == "<|im_start|>system\nBe brief.<|im_end|>\n" + asked
    video = user({"type": "video", "video": "a.mp4"}, "Where?")
    assert "<|vision_start|><|video_pad|><|vision_end|>Where?" in render(processor, [video])
    assert "Picture 1: <|vision_start|>" in render(processor, [question], add_vision_id=True)
    with pytest.raises(Exception, match="the role tool cannot stand here"):
        render(processor, [question, {"role": "tool", "content": "x"}])


def test_a_training_target_continues_the_generation_prompt(processor) -> None:
    question = user({"type": "image"}, "Where?")
    prompt = render(processor, [question], add_generation_prompt=True)
    whole = render(processor, [question, {"role": "assistant", "content": TARGET}])
    assert whole == prompt + TARGET + "<|im_end|>\n"
    content = TARGET.split("</think>\n\n")[1]
    apart = {"role": "assistant", "reasoning_content": "It is here.", "content": [{"type": "text", "text": content}]}
    assert render(processor, [question, apart]) == whole


def test_thoughts_before_the_last_question_are_dropped(processor) -> None:
    turns = [user("a"), {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"}, user("c")]
    assert render(processor, turns) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
    )


@pytest.mark.parametrize("size", [(160, 160), (320, 320), (384, 288), (288, 384), (160, 384)])
def test_scenes_pass_at_their_own_size(processor, size: tuple[int, int]) -> None:
    batch = processor(text=["<|image_pad|>"], images=[Image.new("RGB", size)], return_tensors="pt")
    assert batch["image_grid_thw"].tolist() == [[1, size[1] // 16, size[0] // 16]]
    assert int((batch["input_ids"] == token_id("<|image_pad|>")).sum()) == size[0] * size[1] // 32**2


def test_saved_model_and_processor_load_through_the_auto_classes(processor, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = build_model("tiny-s", dtype="bfloat16")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) < 25e6
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="float32").eval()
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again).__name__ == "Qwen3VLProcessor"
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert again.image_processor.size["longest_edge"] == 336 * 336

    messages = [user({"type": "image", "image": Image.new("RGB", (96, 64), "red")}, "Locate it.")]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batch = again.apply_chat_template(messages, **options)
    assert batch["input_ids"].tolist() == processor.apply_chat_template(messages, **options)["input_ids"].tolist()
    with torch.no_grad():
        answer = loaded.generate(**batch, max_new_tokens=4, do_sample=False)
        torch.testing.assert_close(loaded(**batch).logits, model.float()(**batch).logits)
    assert answer.shape[1] > batch["input_ids"].shape[1]


@pytest.fixture(scope="module")
def internvl():
    return build_processor("internvl-tiny-s")


def test_internvls_tokens_stand_behind_the_shipped_entries(processor, internvl) -> None:
    tokenizer = internvl.tokenizer
    assert len(processor.tokenizer) == TINY_TOKENS
    assert len(tokenizer) == TINY_TOKENS + len(INTERNVL_TOKENS) <= get_preset("internvl-tiny-s").text.vocabulary
    for token in (*SPECIAL_TOKENS, *INTERNVL_TOKENS):
        assert tokenizer(token).input_ids == [token_id(token)]
    text = "a diamond, 3 of them"
    assert tokenizer(text).input_ids == processor.tokenizer(text).input_ids


def test_internvls_answers_are_read_with_their_tags_and_without(internvl) -> None:
    answer = get_codec("internvl").target("the cup", Box(10, 20, 30, 40), size=(100, 100))
    ids = internvl.tokenizer(answer + "<|im_end|>").input_ids
    kept, stripped = (internvl.tokenizer.decode(ids, skip_special_tokens=skip) for skip in (False, True))
    assert kept == "<ref>the cup</ref><box>[[100, 200, 300, 400]]</box><|im_end|>"
    assert stripped == "the cup[[100, 200, 300, 400]]"
    for text in (answer, stripped):
        [box] = get_codec("internvl").parse(text, size=(100, 100)).boxes
        assert tuple(box.box) == (10, 20, 30, 40)


def test_turns_are_written_as_internvl_writes_them(internvl) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        user({"type": "image"}, "Where?"),
        {"role": "assistant", "content": "Here."},
    ]
    asked = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<IMG_CONTEXT>\nWhere?<|im_end|>\n"
    assert render(internvl, turns) == asked + "<|im_start|>assistant\nHere.<|im_end|>\n"
    assert render(internvl, turns[:2], add_generation_prompt=True) == asked + "<|im_start|>assistant\n"
    assert "<video>\nWhere?" in render(internvl, [user({"type": "video", "video": "a.mp4"}, "Where?")])


@pytest.mark.parametrize(("size", "tiles"), [((160, 160), 1), ((320, 320), 5), ((384, 160), 3), ((384, 288), 5)])
def test_internvl_sees_a_scene_in_tiles_and_as_a_whole(internvl, size: tuple[int, int], tiles: int) -> None:
    batch = internvl(text=["<IMG_CONTEXT>"], images=[Image.new("RGB", size)], return_tensors="pt")
    assert batch["pixel_values"].shape == (tiles, 3, 160, 160)
    tokens = 25 * tiles
    assert batch["input_ids"].tolist() == [
        [token_id("<img>"), *[token_id("<IMG_CONTEXT>")] * tokens, token_id("</img>")]
    ]


def test_a_scene_costs_internvl_little_more_than_qwen3_vl(internvl) -> None:
    tiles = internvl.image_processor.get_number_of_image_patches
    tokens = [internvl.image_seq_length * tiles(height, width, {}) for width, height in FRAMES]
    assert round(sum(tokens) / len(FRAMES)) == 90
    assert round(sum(width * height // 32**2 for width, height in FRAMES) / len(FRAMES)) == 69


def test_a_saved_internvl_loads_through_the_auto_classes(internvl, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = build_model("internvl-tiny-s")
    model.save_pretrained(tmp_path)
    internvl.save_pretrained(tmp_path)
    loaded, again = (kind.from_pretrained(tmp_path) for kind in (AutoModelForImageTextToText, AutoProcessor))
    assert type(loaded).__name__ == "InternVLForConditionalGeneration"
    messages = [user({"type": "image", "image": Image.radial_gradient("L").convert("RGB")}, "Locate it.")]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batch = again.apply_chat_template(messages, **options)
    assert batch["input_ids"].tolist() == internvl.apply_chat_template(messages, **options)["input_ids"].tolist()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


def test_a_published_size_has_no_processor_here() -> None:
    with pytest.raises(ModelError, match="8B cannot be built from scratch: only tiny-s, tiny-m, tiny-l, internvl-tiny"):
        build_processor("8B")
