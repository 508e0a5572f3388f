from __future__ import annotations

import subprocess
import sys

import pytest

from egm.codecs import Codec, codec_names, get_codec
from egm.errors import ModelError


def test_names() -> None:
    assert codec_names() == ("internvl", "qwen2_5_vl", "qwen3_vl")


@pytest.mark.parametrize("name", codec_names())
def test_each_name_makes_its_codec(name: str) -> None:
    codec: Codec = get_codec(name)
    assert codec.name == name
    assert set(codec.prompts) == {"grounding", "qwen3"}


def test_default_prompts() -> None:
    assert [get_codec(name).prompts[0] for name in codec_names()] == ["grounding", "qwen3", "qwen3"]


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"unknown codec 'qwen3-vl': did you mean 'qwen3_vl'\? known: internvl, "):
        get_codec("qwen3-vl")
    with pytest.raises(ModelError, match="unknown codec '': known: internvl, qwen2_5_vl, qwen3_vl"):
        get_codec("")


def test_unknown_option_gives_the_nearest() -> None:
    with pytest.raises(ModelError, match="no option 'prefilled': did you mean 'thinking_prefilled'"):
        get_codec("qwen3_vl", prefilled=True)
    with pytest.raises(ModelError, match="no option 'max_pixels': it takes none"):
        get_codec("internvl", max_pixels=1)


def test_importing_codecs_is_light() -> None:
    code = "import sys, egm.codecs; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
