from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from egm.models import embedded_path

STUB = Path(__file__).with_name("stub_engine.py")
# What a version knows stands in its files, as SGLang and vLLM write it.
SOURCES = {
    "sglang": {
        "srt/server_args.py": "context_length dtype served_model_name sampling_defaults limit_mm_data_per_request "
        "enable_precise_embedding_interpolation max_running_requests schedule_policy chunked_prefill_size "
        "chat_template quantization max_total_tokens cuda_graph_max_bs_decode speculative_algorithm device",
        "srt/environ.py": "SGLANG_VIT_ENABLE_CUDA_GRAPH SGLANG_VLM_CACHE_SIZE_MB",
        "srt/parser/conversation.py": 'name="chatml" name="qwen2-vl"',
        "srt/speculative/ngram_worker.py": "",
    },
    "vllm": {
        "engine/arg_utils.py": "max-model-len dtype generation-config limit-mm-per-prompt quantization "
        "speculative-config compilation-config mm-processor-cache-gb enable-prefix-caching kv-cache-memory-bytes "
        "max-num-seqs",
        "entrypoints/openai/cli_args.py": "chat-template",
        "envs.py": "",
        "config/compilation.py": "",
        "utils/torch_utils.py": "",
    },
}
MODULES = {"sglang": "launch_server.py", "vllm": "entrypoints/cli/main.py"}

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put an engine's stand-in where this interpreter, and those that it starts, import from."""

    def put(engine: str, version: str, **more: str) -> Path:
        site = tmp_path / "site"
        package = site / engine
        for place in (MODULES[engine], *SOURCES[engine]):
            for folder in [*(package / place).relative_to(site).parents][:-1]:
                (site / folder).mkdir(parents=True, exist_ok=True)
                (site / folder / "__init__.py").touch()
        for place, words in SOURCES[engine].items():
            text = f"{words} {more.get(place, '')}"
            if place.endswith("server_args.py"):
                text = "\n".join(f"    {word}: A[" for word in text.split())
            elif "arg" in place:
                text = "\n".join(f'"--{word}"' for word in text.split())
            (package / place).write_text(text)
        shutil.copy(STUB, package / MODULES[engine])
        about = site / f"{engine}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {engine}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
        monkeypatch.setenv("STUB_FOLDER", str(tmp_path))
        return package

    return put


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """egm-tiny as a folder, which is not known for it: nothing is exported, and any box will do."""
    place = tmp_path_factory.mktemp("models") / "model"
    shutil.copytree(embedded_path(), place)
    return place
