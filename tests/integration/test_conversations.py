"""Files of conversations, read by the loaders of the tools that they are for, each in an environment of its own.

torch, transformers and datasets are taken from this environment; what else a tool's loader imports is installed.
Qwen-VL-finetune is no package: it is read where EGM_QWEN_VL_FINETUNE names a checkout of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from egm.codecs import get_codec
from egm.datasets import open_dataset
from egm.rationales import RunSettings, SynthRefTeacher, make_rationales

from .test_wheel import uv

pytestmark = pytest.mark.integration

FORMATS = ("qwen-vl-finetune", "llama-factory", "ms-swift")
LLAMA_FACTORY = (
    ["llamafactory==0.9.5", "torchaudio", "tyro", "omegaconf", "av", "einops", "docstring-parser", "typeguard"],
    ["antlr4-python3-runtime", "sentencepiece"],
)
MS_SWIFT = (
    ["ms-swift==4.6.0", "einops", "addict", "json_repair", "sentencepiece"],
    ["modelscope", "aiohttp"],
)
LOAD_LLAMA_FACTORY = """
import json, sys
from types import SimpleNamespace
from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import DataArguments
folder = sys.argv[1]
[name] = json.load(open(folder + "/dataset_info.json"))
[attributes] = get_dataset_list([name], folder)
options = DataArguments(dataset_dir=folder, dataset=name, template="qwen3_vl", media_dir=folder)
model = SimpleNamespace(cache_dir=folder + "/cache", hf_hub_token=None)
training = SimpleNamespace(dataloader_num_workers=0, local_process_index=0, should_log=True)
for row in _load_single_dataset(attributes, model, options, training):
    [asked], [answered], [image] = row["_prompt"], row["_response"], row["_images"]
    print("ROW" + json.dumps([asked["role"], asked["content"], answered["role"], answered["content"], image]))
"""
LOAD_MS_SWIFT = """
import json, sys
from swift.dataset import load_dataset
for row in load_dataset([sys.argv[1] + "/ms_swift.jsonl"], num_proc=1)[0]:
    asked, answered = row["messages"]
    [image] = row["images"]
    image = sys.argv[1] + "/" + image["path"]
    print("ROW" + json.dumps([asked["role"], asked["content"], answered["role"], answered["content"], image]))
"""
LOAD_QWEN = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[2])
from qwenvl.data.data_processor import _build_messages, read_jsonl
for row in read_jsonl(sys.argv[1] + "/qwen_vl_finetune.jsonl"):
    asked, answered = _build_messages(row, pathlib.Path(sys.argv[1]))
    image, text = asked["content"]
    [answer] = answered["content"]
    question = "<image>" + text["text"]
    print("ROW" + json.dumps([asked["role"], question, answered["role"], answer["text"], image["image"]]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    dataset = open_dataset("synthref/train", first=12)
    make_rationales(
        dataset, SynthRefTeacher("official"), folder, RunSettings("official"), formats=FORMATS, progress=False
    )
    return folder


def environment(folder: Path, packages: tuple[list[str], list[str]]) -> Path:
    """An environment with packages, of which the first come without what they ask for."""
    uv("venv", "--quiet", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    (Path(site.strip()) / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    alone, whole = packages
    uv("pip", "install", "--quiet", "--python", python, "--no-deps", *alone)
    uv("pip", "install", "--quiet", "--python", python, *whole)
    return python


def rows(python: Path | str, code: str, *arguments: object) -> list[list[str]]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    bare |= {"HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1"}
    command = [str(python), "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=bare)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [json.loads(line.removeprefix("ROW")) for line in ended.stdout.splitlines() if line.startswith("ROW")]


def expected(folder: Path) -> list[list[Any]]:
    """What each row has to say: the codec's question and answer, and the picture."""
    codec, found = get_codec("qwen3_vl"), []
    for sample in open_dataset(folder / "train.jsonl"):
        assert sample.box is not None
        assert sample.size is not None
        answer = codec.turn(sample.phrase, sample.box, size=sample.size, rationale=sample.rationale)
        question = codec.messages(sample.phrase, amodal=sample.amodal)[0]["content"][1]["text"]
        found.append(["user", f"<image>{question}", "assistant", answer, str(sample.image)])
    assert len(found) == 12
    return found


def test_llama_factory_loads_its_file(folder: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", LLAMA_FACTORY)
    assert rows(python, LOAD_LLAMA_FACTORY, folder) == expected(folder)


def test_ms_swift_loads_its_file(folder: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", MS_SWIFT)
    assert rows(python, LOAD_MS_SWIFT, folder) == expected(folder)


def test_qwen_vl_finetune_loads_its_file(folder: Path) -> None:
    checkout = os.environ.get("EGM_QWEN_VL_FINETUNE")
    if not checkout:
        pytest.skip("needs EGM_QWEN_VL_FINETUNE, the folder qwen-vl-finetune of a checkout of QwenLM/Qwen3-VL")
    assert rows(sys.executable, LOAD_QWEN, folder, checkout) == expected(folder)
