"""Sizes: names, architecture numbers, parameter counts, and models made from scratch."""

import pytest
import torch

from egm.errors import ModelError
from egm.models.presets import PRESETS, build_config, build_model, get_preset
from egm.models.shapes import InternViT, Vision
from egm.models.tiny.vocabulary import token_id


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_stated_parameter_count_is_the_counted_one(name: str) -> None:
    model = build_model(name, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == get_preset(name).parameters


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        *(("2B", 2.13), ("4B", 4.44), ("8B", 8.77), ("32B", 33.4), ("30B-A3B", 31.1), ("235B-A22B", 235.7)),
        # 938M, and published weights of 3.9, 14.8 and 28.2 GiB in bfloat16
        *(("InternVL3-1B", 0.938), ("InternVL3-2B", 2.09), ("InternVL3-8B", 7.945), ("InternVL3-14B", 15.13)),
    ],
)
def test_published_sizes_hold_about_what_their_checkpoints_hold(name: str, billions: float) -> None:
    assert get_preset(name).parameters / 1e9 == pytest.approx(billions, rel=0.002)


@pytest.mark.parametrize(
    ("size", "vision", "language", "total"),
    [
        ("1B", 0.3, 0.8, 1.1),
        ("2B", 0.3, 2.0, 2.3),
        ("4B", 0.3, 4.4, 4.7),
        ("8B", 0.3, 8.2, 8.5),
        ("14B", 0.3, 14.8, 15.1),
        ("38B", 5.5, 32.8, 38.4),
        ("30B-A3B", 0.3, 30.5, 30.8),
        ("241B-A28B", 5.5, 235.1, 240.7),
    ],
)
def test_internvl3_5_has_the_parts_of_its_published_table(
    size: str, vision: float, language: float, total: float
) -> None:
    model = build_model(f"InternVL3.5-{size}", device="meta")

    def billions(*modules: torch.nn.Module) -> float:
        return round(sum(p.numel() for module in modules for p in module.parameters()) / 1e9, 1)

    assert billions(model.model.vision_tower) == vision
    assert billions(model.model.language_model, model.lm_head) == language
    assert billions(model) == total


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("InternVL3-1B", ("qwen2", 896, 24, 14, 2, 4864, 151_674, 32_768, 151_667)),
        ("InternVL3-8B", ("qwen2", 3584, 28, 28, 4, 18_944, 151_674, 32_768, 151_667)),
        ("InternVL3-38B", ("qwen2", 5120, 64, 40, 8, 27_648, 151_674, 32_768, 151_667)),
        ("InternVL3.5-2B", ("qwen3", 2048, 28, 16, 8, 6144, 151_936, 40_960, 151_671)),
    ],
)
def test_internvl_sizes_are_the_published_configurations(name: str, shape: tuple[object, ...]) -> None:
    config = build_config(get_preset(name))
    text, vision = config.text_config, config.vision_config
    assert shape == (
        text.model_type,
        *(text.hidden_size, text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads),
        *(text.intermediate_size, text.vocab_size, text.max_position_embeddings, config.image_token_id),
    )
    assert text.rope_parameters["rope_theta"] == 1_000_000
    assert (text.bos_token_id, text.eos_token_id) == (151_643, 151_645)
    assert not text.tie_word_embeddings
    assert not config.tie_word_embeddings
    assert config.image_seq_length == 256
    large = name.endswith("38B")
    assert (vision.hidden_size, vision.num_hidden_layers) == ((3200, 45) if large else (1024, 24))
    assert (vision.norm_type, vision.use_qk_norm, vision.attention_bias) == (
        ("rms_norm", True, False) if large else ("layer_norm", False, True)
    )


def test_the_8b_size_is_the_model_cards_architecture_table() -> None:
    config = build_config(get_preset("8B"))
    model = build_model("8B", device="meta")
    table = {
        "Architecture": type(model).__name__,
        "Text Hidden Size": config.text_config.hidden_size,
        "Text Layers": config.text_config.num_hidden_layers,
        "Attention Heads": (config.text_config.num_attention_heads, config.text_config.num_key_value_heads),
        "Text Intermediate Size": config.text_config.intermediate_size,
        "Vision Hidden Size": config.vision_config.hidden_size,
        "Vision Layers": config.vision_config.depth,
        "Patch Size": config.vision_config.patch_size,
        "Max Position Embeddings": config.text_config.max_position_embeddings,
        "Vocabulary Size": config.text_config.vocab_size,
    }
    assert table == {
        "Architecture": "Qwen3VLForConditionalGeneration",
        "Text Hidden Size": 4096,
        "Text Layers": 36,
        "Attention Heads": (32, 8),
        "Text Intermediate Size": 12_288,
        "Vision Hidden Size": 1152,
        "Vision Layers": 27,
        "Patch Size": 16,
        "Max Position Embeddings": 262_144,
        "Vocabulary Size": 151_936,
    }
    assert round(get_preset("8B").parameters / 1e9, 3) == 8.767


@pytest.mark.parametrize(
    ("name", "millions"), [("tiny-s", 11.5), ("tiny-m", 40.4), ("tiny-l", 200), ("internvl-tiny-s", 9.2)]
)
def test_tiny_sizes_are_about_as_large_as_they_say(name: str, millions: float) -> None:
    assert get_preset(name).parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_the_smallest_fits_25_megabytes_in_bfloat16() -> None:
    assert 2 * get_preset("tiny-s").parameters < 25e6


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_shapes_fit_together(preset) -> None:
    text, vision = preset.text, preset.vision
    assert text.heads % text.kv_heads == 0
    assert vision.hidden % vision.heads == 0
    if isinstance(vision, InternViT):
        assert vision.tile % (2 * vision.patch) == 0, "patches are unshuffled 2 x 2"
        return
    assert isinstance(vision, Vision)
    assert sum(text.mrope) == text.head_dim // 2
    assert (vision.hidden // vision.heads) % 4 == 0, "two axes of rotary pairs"
    assert max(vision.deepstack) < vision.depth
    assert len(vision.deepstack) <= text.layers
    assert int(vision.positions**0.5) ** 2 == vision.positions


@pytest.mark.parametrize("name", ["8b", "Qwen/Qwen3-VL-8B-Thinking", "nvidia/EGM-8B", "NVIDIA/egm-8b"])
def test_sizes_are_found_by_name_and_hub_id_in_any_case(name: str) -> None:
    assert get_preset(name) is PRESETS["8B"]


def test_an_unknown_size_names_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean 'tiny-s'"):
        get_preset("tiny_s")


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_seed_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (build_model("tiny-s", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)
    pairs = [(a, b, c) for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True)]
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


def test_weights_have_the_asked_type() -> None:
    model = build_model("tiny-s", dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    with pytest.raises(ModelError, match="no floating-point type 'int8'"):
        build_model("tiny-s", dtype="int8")


@pytest.mark.parametrize(
    ("name", "placeholders"), [("tiny-s", ("<|image_pad|>", "<|video_pad|>")), ("internvl-tiny-s", ("<IMG_CONTEXT>",))]
)
def test_tiny_models_never_sample_a_placeholder(name: str, placeholders: tuple[str, ...]) -> None:
    generation = build_model(name, device="meta").generation_config
    assert generation.eos_token_id == [2, 0]
    assert generation.pad_token_id == 0
    assert generation.suppress_tokens == [token_id(token) for token in placeholders]
