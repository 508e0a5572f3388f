"""How engines are started: flags with reasons, those that a version knows, what somebody passes on, what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from egm.errors import EgmError
from egm.serve import plan_server
from egm.serve.plan import KEY, Plan

from ..families import random_checkpoint
from .conftest import Install

GENERAL = "srt/speculative/ngram_worker.py"


def option(plan: Plan, name: str) -> str | None:
    """The value of an option on the command line."""
    command = plan.command()
    return command[command.index(name) + 1] if name in command else None


def test_the_cards_flags(install: Install, folder: Path) -> None:
    install("sglang", "0.5.17")
    plan = plan_server(str(folder), "sglang", passed_on=["--chat-template=qwen3-vl", "--port", "30001", "--tp", "2"])
    assert "--chat-template=qwen3-vl" not in plan.command()
    assert plan.notes == (
        "--chat-template=qwen3-vl is left out: sglang knows no template of that name, and the checkpoint's own, which "
        "is used without the option, is the right one",
    )
    assert (plan.url, option(plan, "--port")) == ("http://127.0.0.1:30001", "30001")
    assert plan.command()[-2:] == ["--tp", "2"]
    assert plan_server(str(folder), "sglang", passed_on=["--chat-template", "qwen2-vl"]).command()[-1] == "qwen2-vl"
    template = folder / "chat_template.jinja"
    assert (
        plan_server(str(folder), "vllm", passed_on=[f"--chat-template={template}"]).notes[0].startswith("vllm is not")
    )


def test_every_part_has_a_reason_and_the_first_line_is_the_command(install: Install, folder: Path) -> None:
    install("sglang", "0.5.17")
    plan = plan_server(str(folder), "sglang", aim="latency", quantization="fp8", dtype="bfloat16")
    command, blank, *rows = plan.explain().split("\n")
    words = shlex.split(command)
    assert words == plan.command()
    assert blank == ""
    assert len(rows) == len(plan.parts) + 1  # and the interpreter
    assert all(len(row.split("  ")[-1]) > 5 for row in rows)
    assert option(plan, "--context-length") == "4096"  # which is all that the model has
    assert option(plan, "--quantization") == "fp8"
    assert option(plan, "--dtype") == "bfloat16"
    assert json.loads(option(plan, "--limit-mm-data-per-request") or "")["image"] == 1
    assert option(plan, "--served-model-name") == str(folder)


def test_what_a_version_does_not_know_is_not_sent(install: Install, folder: Path) -> None:
    package = install("sglang", "0.5.17")
    plan = plan_server(str(folder), "sglang", aim="latency")
    assert option(plan, "--prefill-decode-interval") is None
    missing = "left out, as sglang 0.5.17 does not have what it takes:"
    assert plan.notes == (f"{missing} --prefill-decode-interval, --cuda-graph-backend-prefill",)
    drafting = plan_server(str(folder), "sglang", speculation=True)
    assert option(drafting, "--speculative-algorithm") is None  # it would draft what stands for pictures
    assert drafting.notes == (f"{missing} --speculative-algorithm, --max-running-requests",)
    (package / GENERAL).write_text("req.origin_input_ids_unpadded[-depth:]")
    assert option(plan_server(str(folder), "sglang", aim="latency"), "--speculative-algorithm") is None
    assert option(plan_server(str(folder), "sglang", speculation=True), "--speculative-algorithm") == "NGRAM"


def test_aims_of_vllm(install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    files = {"engine/arg_utils.py": "performance-mode", "entrypoints/openai/cli_args.py": "api-server-count"}
    package = install("vllm", "0.26.0", **files, **{"utils/torch_utils.py": 'os.environ["OMP_NUM_THREADS"]'})
    latency, throughput, memory = (
        plan_server(str(folder), "vllm", aim=aim) for aim in ("latency", "throughput", "memory")
    )
    assert 1 <= int(latency.variables["OMP_NUM_THREADS"].words[0]) <= 8
    assert "OMP_NUM_THREADS" not in throughput.variables
    assert option(latency, "--speculative-config") is None
    drafting = plan_server(str(folder), "vllm", aim="latency", speculation=True)
    assert json.loads(option(drafting, "--speculative-config") or "")["method"] == "ngram"
    [caution] = drafting.notes
    assert "--speculation" in caution
    assert "moved boxes" in caution
    assert option(throughput, "--performance-mode") == "throughput"
    assert option(throughput, "--api-server-count") == "4"
    assert option(memory, "--kv-cache-memory-bytes") == str((4096 + 16 * 2048) * 4 * 6 * 4 * 32)
    assert option(memory, "--generation-config") == "vllm"
    assert latency.notes == ()
    (package / "utils/torch_utils.py").write_text("")
    assert plan_server(str(folder), "vllm", aim="latency").notes == (
        "left out, as vllm 0.26.0 does not have what it takes: OMP_NUM_THREADS",
    )


def test_our_own_server_and_an_aim_that_it_has_not_are_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egm.serve.engines.sees_gpu", lambda: False)
    slow, unused = plan_server(str(folder), aim="latency").notes
    assert "EGM's own server" in slow
    assert unused == "--aim latency is not used: egm has no options for any aim"
    assert plan_server(str(folder), "egm").notes == ()
    assert plan_server().notes == ()


def test_what_is_passed_on_or_set_counts(install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("sglang", "0.5.17")
    plan = plan_server(str(folder), "sglang", passed_on=["--context_length", "512", "--sampling-defaults=model"])
    assert [word for word in plan.command() if "context" in word] == ["--context_length"]
    assert plan.command().count("--sampling-defaults") == 0
    monkeypatch.setenv("SGLANG_VLM_CACHE_SIZE_MB", "7")
    assert plan_server(str(folder), "sglang", aim="throughput").variables == {}
    named = ["--served-model-name", "it", "--host=127.0.0.2"]
    plan = plan_server(str(folder), "sglang", served_model_name="other", passed_on=named)
    assert (plan.served_model_name, plan.host) == ("it", "127.0.0.2")


def test_versions_that_move_boxes_are_refused(install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("sglang", "0.5.5")
    with pytest.raises(
        EgmError, match=r"sglang 0\.5\.5 is known to move boxes of qwen3_vl models: double resize: .*http"
    ):
        plan_server(str(folder), "sglang")
    install("vllm", "0.12.0")
    with pytest.raises(EgmError, match="grounding offset"):
        plan_server(str(folder), "vllm")


def test_a_variable_that_moves_boxes_is_refused(
    install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("sglang", "0.5.17")
    monkeypatch.setenv("SGLANG_VIT_ENABLE_CUDA_GRAPH", "1")
    for passed_on in ([], ["--enable-precise-embedding-interpolation"]):
        with pytest.raises(EgmError, match=r"graphs of the vision tower: .*leave SGLANG_VIT_ENABLE_CUDA_GRAPH out"):
            plan_server(str(folder), "sglang", passed_on=passed_on)


def test_a_package_that_was_only_put_there_says_its_version_itself(
    install: Install, folder: Path, tmp_path: Path
) -> None:
    package = install("sglang", "0.5.17")
    shutil.rmtree(tmp_path / "site" / "sglang-0.5.17.dist-info")
    assert plan_server(str(folder), "sglang").notes == ("the version of sglang is not known",)
    (package / "_version.py").write_text("__version__: str\n__version__ = version = '0.5.8'\n")
    with pytest.raises(EgmError, match=r"sglang 0\.5\.8 is known to move boxes"):
        plan_server(str(folder), "sglang")


def test_an_unknown_version_is_said(install: Install, folder: Path) -> None:
    install("vllm", "0.33.0")
    assert plan_server(str(folder), "vllm").notes == (
        "whether vllm 0.33.0 moves boxes of qwen3_vl models is not known: egm doctor tells",
    )


def test_without_gpu_and_engine_the_own_server_serves_egm_tiny() -> None:
    plan = plan_server()
    assert (plan.engine.name, plan.model.name, plan.served_model_name) == ("egm", "egm-tiny", "egm-tiny")
    assert plan.command()[1:] == [
        *("-m", "egm.server", "egm-tiny", "--host", "127.0.0.1", "--port", "30000"),
        *("--served-model-name", "egm-tiny"),
    ]


def test_an_engine_that_is_installed_is_taken_where_there_is_a_gpu(
    install: Install, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egm.environment._DRIVER", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06\n")
    install("vllm", "0.26.0")
    assert plan_server(str(folder)).engine.name == "vllm"
    install("sglang", "0.5.17")
    assert plan_server(str(folder)).engine.name == "sglang"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert plan_server(str(folder)).engine.name == "egm"


def test_a_model_that_is_not_here_is_explained_without_fetching_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_server("egm-8b", "sglang")
    assert plan.served_model_name == option(plan, "--model-path") == "nvidia/EGM-8B"
    assert option(plan, "--context-length") == str(16_384 + 512 + 8192)
    assert plan.notes == (
        "nvidia/EGM-8B is not here, and is fetched first: egm download nvidia/EGM-8B",
        "sglang is not installed here: which of these its version knows is not known",
    )


def test_internvl_has_room_for_its_tiles_and_is_asked_by_its_codec() -> None:
    assert plan_server("internvl3_5-8b-hf", "sglang").model.codec == "internvl"
    plan = plan_server(str(random_checkpoint("internvl")), "sglang")
    assert plan.model.codec == "internvl"
    assert option(plan, "--context-length") == "4096"  # all that the model goes to
    assert plan.model.room == 4096 - 5 * 25 - 512


def test_what_cannot_be_started(install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(says: str, model: object = folder, engine: str = "egm", **options: object) -> None:
        with ExitStack() as stack, pytest.raises(EgmError, match=says) as caught:
            plan_server(str(model), engine, stack=stack, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    refused("vllm is not installed in this environment: pip install vllm", engine="vllm")
    install("sglang", "0.5.17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    refused("sglang runs on a GPU, and there is none here", engine="sglang")
    refused("there is no model 'EGM-9B': did you mean 'nvidia/EGM-8B'", model="EGM-9B")
    refused("is a file: give the folder it is in", model=folder / "config.json")
    refused("no quantization 'int3': give fp8", quantization="int3")
    refused("egm quantises no weights", quantization="fp8")
    refused("transformers computes in no fp8: round its weights", engine="transformers", dtype="fp8")
    refused("transformers serves a model by its folder alone", engine="transformers", served_model_name="it")
    refused("leave --model-path out after --: the model is the argument", passed_on=["--model-path", "x"])
    refused("leave --api-key out after --: others", passed_on=["--api-key=secret"])
    refused("'2' is no option: write those of the engine after --", passed_on=["2"])
    refused("'99999' is no port", passed_on=["--port", "99999"])
    refused("--port after -- has no value", passed_on=["--port"])
    refused(f"0.0.0.0 is reached from elsewhere: set {KEY}", host="0.0.0.0")
    refused("transformers asks for no key", engine="transformers", host="0.0.0.0")
    monkeypatch.setenv(KEY, "a-key-of-mine")
    plan = plan_server(str(folder), "sglang", host="0.0.0.0")
    assert (plan.url, plan.key) == ("http://127.0.0.1:30000", "a-key-of-mine")
    assert "a-key-of-mine" not in plan.explain()
    assert option(plan, "--log-level") == "warning"


def test_a_folder_without_weights(tmp_path: Path, folder: Path, install: Install) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in folder.glob("*.js*"):
        (bare / path.name).write_bytes(path.read_bytes())
    (bare / "chat_template.jinja").write_bytes((folder / "chat_template.jinja").read_bytes())
    with pytest.raises(EgmError, match="holds no weights"):
        plan_server(str(bare), "egm")
    install("sglang", "0.5.17")
    assert plan_server(str(bare), "sglang", passed_on=["--load-format", "dummy"]).model.codec == "qwen3_vl"


def test_a_family_that_is_not_known(tmp_path: Path, folder: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_bytes()) | {"model_type": "odd"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EgmError, match="is a 'odd' model, which no codec here knows"):
        plan_server(str(tmp_path), "egm")
