"""Merging, exporting and publishing: equal logits, a folder that grounds, and nothing sent that should not be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from egm.backends import GenerationSettings
from egm.cli import app
from egm.datasets.synthetic import SynthRef
from egm.errors import ModelError
from egm.grounder import Grounder
from egm.models import build_processor
from egm.publish.average import average_models
from egm.publish.export import export_model
from egm.publish.merge import merge_adapter
from egm.publish.model_folder import save_weights
from egm.publish.push import plan_push, push

from ..families import random_checkpoint, random_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(random_checkpoint("qwen3_vl"), tmp_path_factory.mktemp("models") / "tiny")


def inputs(model: Any, size: str = "tiny-s") -> Any:
    processor, sample = build_processor(size), SynthRef("val").samples(0)[0]
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": sample.phrase}]}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return processor(text=[text], images=[sample.image], return_tensors="pt")


def random_adapter(base: Path, folder: Path) -> Any:
    """Write an adapter with random weights, and return the model around which it stands."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    wanted = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(model, wanted).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def adapted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """An adapter with random weights, and the logits that it gives."""
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    model = random_adapter(base, folder)
    with torch.no_grad():
        return folder, model(**inputs(model)).logits


@pytest.fixture(scope="module")
def exported(adapted: tuple[Path, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a run folder whose model is an adapter."""
    run = tmp_path_factory.mktemp("runs") / "toy"
    shutil.copytree(adapted[0], run / "adapter")
    (run / "recipe.yaml").write_text(
        "stage: sft\nmodel: {name: some/model}\n"
        "data: {train: [{name: synthref/train, weight: 3.0}, {path: /home/x/a.jsonl, weight: 1.0, images: null}]}\n"
    )
    facts = {"seed": 7, "loss": 0.51234, "command": ["/home/x/egm", "sft", "r.yaml"], "versions": {"torch": "2"}}
    (run / "run.json").write_text(
        json.dumps(facts | {"data": {"samples": 4, "leaks": "not looked for: put them there"}})
    )
    return export_model(run, run / "export", license_id="apache-2.0")


def test_merged_weights_give_the_adapters_logits(
    adapted: tuple[Path, torch.Tensor], base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForImageTextToText

    out = merge_adapter(adapted[0], tmp_path / "merged", base=str(base), dtype="float32")
    merged = AutoModelForImageTextToText.from_pretrained(out)
    plain = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(merged(**inputs(merged)).logits, adapted[1], atol=1e-4, rtol=0)
        assert (plain(**inputs(plain)).logits - adapted[1]).abs().max() > 1e-2  # so the adapter does something
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.fixture(scope="module")
def apart(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of other weights than the base."""
    folders = []
    for seed in (4, 5):
        folders.append(tmp_path_factory.mktemp("apart") / str(seed))
        random_model("qwen3_vl", seed=seed).save_pretrained(folders[-1])
        build_processor().save_pretrained(folders[-1])
    return folders


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return {name: value.detach() for name, value in model.named_parameters()}


def test_an_adapter_of_internvl_is_folded_into_tower_and_text(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    base = random_checkpoint("internvl")
    model = random_adapter(base, tmp_path / "lora")
    assert any("vision_tower" in name for name, _ in model.named_parameters() if "lora_" in name)
    asked = inputs(model, "internvl-tiny-s")
    out = merge_adapter(tmp_path / "lora", tmp_path / "merged", base=str(base), dtype="float32")
    merged = AutoModelForImageTextToText.from_pretrained(out)
    with torch.no_grad():
        torch.testing.assert_close(merged(**asked).logits, model(**asked).logits, rtol=1e-4, atol=1e-4)


def test_an_average_is_that_of_every_weight(base: Path, apart: list[Path], tmp_path: Path) -> None:
    one, other, start = (weights(folder) for folder in (*apart, base))
    models = [str(folder) for folder in apart]
    mean = weights(average_models(models, tmp_path / "mean", dtype="float32"))
    part = weights(average_models(models, tmp_path / "part", base=str(base), share=0.25, dtype="float32"))
    alone = weights(average_models(models[:1], tmp_path / "alone", base=str(base), share=0.5, dtype="float32"))
    for name, value in mean.items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)
        torch.testing.assert_close(part[name], 0.75 * start[name] + 0.25 * value)
        torch.testing.assert_close(alone[name], (start[name] + one[name]) / 2)
    grounder = Grounder.load(tmp_path / "mean", device="cpu", settings=GenerationSettings(max_new_tokens=4))
    assert grounder.codec.name == "qwen3_vl"


def test_what_cannot_be_averaged_is_refused(base: Path, tmp_path: Path) -> None:
    start = {"base": str(base)}
    shutil.copytree(base, tmp_path / "other")
    vocabulary = tmp_path / "other" / "tokenizer.json"
    vocabulary.write_text(
        vocabulary.read_text().replace('"a":', '"?":', 1).replace('"b":', '"a":', 1).replace('"?":', '"b":', 1)
    )
    for models, options, message in (
        ([str(base)], {}, "needs two models"),
        (["egm-tiny"], start, "and a --share"),
        (["egm-tiny"], start | {"share": float("nan")}, "--share nan is no share"),
        ([str(base), str(tmp_path / "other")], {}, "other tokens for the same numbers"),
        ([str(base), "egm-tiny"], {"share": 0.5}, "give that model too"),
        ([str(base), "egm-tiny"], {}, "differ in shape"),
    ):
        with pytest.raises(ModelError, match=message):
            average_models(models, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert {path.name for path in tmp_path.iterdir()} == {"other"}


def test_an_exported_folder_grounds_and_has_all_its_pieces(exported: Path) -> None:
    grounder = Grounder.load(exported, device="cpu", settings=GenerationSettings(max_new_tokens=4))
    sample = SynthRef("val").samples(0)[0]
    assert grounder.ground(sample.image, sample.phrase).tokens <= 4
    names = {path.name for path in exported.iterdir()}
    assert names >= {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
        "video_preprocessor_config.json",
    }  # fmt: skip
    config = json.loads((exported / "config.json").read_text())
    parts = (config, config["text_config"], config["vision_config"])  # SGLang reads the text's, vLLM the first
    assert [part["dtype"] for part in parts] == ["bfloat16"] * 3
    assert json.loads((exported / "generation_config.json").read_text())["eos_token_id"] is not None


def test_the_card_says_what_the_run_folder_says(exported: Path) -> None:
    import yaml

    _, head, text = (exported / "README.md").read_text().split("---\n", 2)
    known = yaml.safe_load(head)
    assert (known["license"], known["base_model"], known["library_name"]) == (
        "apache-2.0",
        "some/model",
        "transformers",
    )
    for words in ("# toy", "synthref/train (weight 3); a.jsonl (weight 1)", "| loss | 0.5123 |", "`egm sft r.yaml`",
                  "| seed | 7 |", "not looked for", "bfloat16", "None were given"):  # fmt: skip
        assert words in text
    assert "path: a.jsonl" in text  # in the recipe
    assert not any(words in text for words in ("/home/x", "put them there", "null"))


def test_large_models_are_saved_in_shards(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egm.publish.model_folder.MAX_SHARD_SIZE", "100KB")
    out = export_model(base, tmp_path / "out", dtype="float16")
    shards = sorted(path.name for path in out.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert len(plan_push(out, "me/it").files) == len(list(out.iterdir()))
    (out / shards[0]).unlink()
    with pytest.raises(ModelError, match=f"lacks {shards[0]}"):
        plan_push(out, "me/it")


def test_weights_gathered_from_shards_are_told_by_their_own_type(tmp_path: Path) -> None:
    """Under FSDP the model itself stays in float32, and the weights come beside it."""
    from transformers import AutoModelForImageTextToText

    model = random_model("qwen3_vl")
    state = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    save_weights(model, tmp_path, dtype="bfloat16", state=state)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto")
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    assert model.dtype == torch.float32


def test_what_cannot_be_merged_or_exported(adapted: tuple[Path, torch.Tensor], base: Path, tmp_path: Path) -> None:
    adapter, free = adapted[0], tmp_path / "out"
    pickled = tmp_path / "pickled"
    shutil.copytree(adapter, pickled)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled weights are not loaded"):
        merge_adapter(pickled, free, base=str(base))
    for change, says in (({"peft_type": "IA3"}, "only LORA"), ({"base_model_name_or_path": None}, "give --base")):
        other = tmp_path / says.split()[-1].strip("-")
        shutil.copytree(adapter, other)
        config = json.loads((other / "adapter_config.json").read_text())
        (other / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=says):
            merge_adapter(other, free)
    with pytest.raises(ModelError, match="model that it was trained on"):
        merge_adapter(adapter, free, base="egm-tiny")
    with pytest.raises(ModelError, match="no adapter_config"):
        merge_adapter(base, free)
    with pytest.raises(ModelError, match="is there already"):
        merge_adapter(adapter, tmp_path, base=str(base))
    with pytest.raises(ModelError, match="there is no folder"):
        export_model(tmp_path / "none", free)
    with pytest.raises(ModelError, match="no dtype"):
        export_model(base, free, dtype="int4")
    assert not free.exists()


def test_a_dry_run_lists_and_sends_nothing(exported: Path) -> None:
    from typer.testing import CliRunner

    outcome = CliRunner().invoke(app, ["models", "push", str(exported), "me/it", "--dry-run"])
    assert outcome.exit_code == 0
    size = (exported / "model.safetensors").stat().st_size
    assert f"{size:,}  model.safetensors" in outcome.output
    assert "would create the private model repository me/it" in outcome.output


class Hub:
    """Stands in for the Hub's client, which cannot be had without a network: keeps what it is asked, or refuses it."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.asked.append(("create", {"repo_id": repo_id} | options))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, **options: Any) -> None:
        self.asked.append(("upload", options))
        if self.refusal is not None:
            raise self.refusal


@pytest.mark.parametrize("private", [True, False])
def test_a_push_sends_what_was_listed_and_nothing_else(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    from huggingface_hub.utils import filter_repo_objects
    from typer.testing import CliRunner

    folder, hub = tmp_path / "folder", Hub()
    shutil.copytree(exported, folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "config.json").touch()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    outcome = CliRunner().invoke(app, ["models", "push", str(folder), "me/it", *([] if private else ["--public"])])
    assert (outcome.exit_code, outcome.stdout.splitlines()[-1]) == (0, "https://huggingface.co/me/it")
    (first, made), (second, sent) = hub.asked
    assert (first, made) == ("create", {"repo_id": "me/it", "repo_type": "model", "private": private, "exist_ok": True})
    assert (second, sent["repo_id"], sent["repo_type"], sent["folder_path"]) == ("upload", "me/it", "model", folder)
    there = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    taken = filter_repo_objects(there, allow_patterns=sent["allow_patterns"])
    assert sorted(taken) == sorted(path.name for path in exported.iterdir())


def test_a_hub_that_refuses_is_told_in_one_line(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: Hub(PermissionError("403 Forbidden:\n secret-token")))
    with pytest.raises(ModelError) as caught:
        push(plan_push(exported, "me/it"))
    assert str(caught.value) == (
        "pushing to 'me/it' failed (PermissionError): log in with `hf auth login`, check the name, your rights and the "
        "network"
    )


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("pytorch_model.bin", b"x", "pytorch_model.bin"),
        ("modeling.py", b"x", "modeling.py"),
        ("optimizer.pt", b"x", "must be safetensors"),
        ("README.md", None, "lacks its model card"),
        ("processor_config.json", None, "lacks its processor"),
        ("generation_config.json", None, "lacks its generation config"),
        ("config.json", None, "holds no config.json"),
        ("model.safetensors", None, "holds no weights"),
        ("model.safetensors", b"cut", "cut off"),
    ],
)
def test_folders_that_are_not_published(
    exported: Path, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(exported, folder)
    if name == "processor_config.json":
        (folder / "preprocessor_config.json").unlink()
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=says):
        plan_push(folder, "me/it")


@pytest.mark.parametrize("repo", ["it", "a/b/c", "../x", "me/"])
def test_names_of_repositories(exported: Path, repo: str) -> None:
    with pytest.raises(ModelError, match="give OWNER/NAME"):
        plan_push(exported, repo)
