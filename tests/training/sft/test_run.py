"""`egm sft`, for real and at toy size: a model comes out that transformers loads, and mistakes are told in one line."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from egm.cli import app
from egm.datasets.jsonl import JsonlDataset
from egm.datasets.synthetic import SynthRef
from egm.errors import DataError, EgmError, ImageError, RecipeError
from egm.grounder import Grounder
from egm.models import build_model
from egm.models.families import Qwen3VLFamily
from egm.publish.merge import merge_adapter
from egm.training.recipe import load_recipe
from egm.training.sft.recipe import SFTRecipe
from egm.training.sft.run import run_sft
from egm.training.sft.trainer import GroundingTrainer

from ...families import random_checkpoint

TOY: dict[str, Any] = {
    "data": {"scenes": 8},
    "optim": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "optimizer": "muon"},
    "run": {"log_every": 1, "save_every": 1},
}


def toy(**changes: Any) -> SFTRecipe:
    return SFTRecipe.model_validate(TOY | {"model": {"name": str(random_checkpoint("qwen3_vl"))}} | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "toy"
    run_sft(toy(), out)
    return out


def test_the_run_folder_says_what_was_done(trained: Path) -> None:
    assert load_recipe(SFTRecipe, trained / "recipe.yaml") == toy()
    run = json.loads((trained / "run.json").read_text())
    assert run["seed"] == 0
    assert run["steps"] == 2
    assert {"torch", "transformers", "trl", "egm"} <= run["versions"].keys()
    assert run["hardware"]
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert all(line["samples_per_second"] > 0 for line in lines[:-1])
    assert lines[-1]["train_samples_per_second"] == pytest.approx(4 * lines[-1]["train_steps_per_second"])


def test_the_model_loads_and_answers(trained: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(trained / "model")
    assert type(model).__name__ == "Qwen3VLForConditionalGeneration"
    assert model.dtype == torch.bfloat16
    assert type(AutoProcessor.from_pretrained(trained / "model")).__name__ == "Qwen3VLProcessor"
    from egm.backends import GenerationSettings

    grounder = Grounder.load(trained / "model", device="cpu", settings=GenerationSettings(max_new_tokens=4))
    sample = SynthRef("val").samples(0)[0]
    assert grounder.ground(sample.image, sample.phrase).tokens <= 4


def test_without_the_fast_path_the_loss_is_the_same(trained: Path, tmp_path: Path) -> None:
    recipe = toy(optim=TOY["optim"] | {"steps": 1}, run=TOY["run"] | {"fast_path": False})
    run_sft(recipe, tmp_path / "run")
    stock, fast = (json.loads((out / "log.jsonl").open().readline()) for out in (tmp_path / "run", trained))
    for figure in ("loss", "grad_norm"):
        assert stock[figure] == pytest.approx(fast[figure], rel=1e-5)


def test_a_run_goes_on_only_where_it_is_told_to(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds a run already: go on with --resume"):
        run_sft(toy(), trained)
    with pytest.raises(RecipeError, match=r"differs from this recipe in run\.compile, run.seed: resume"):
        run_sft(toy(run={"seed": 1, "compile": True}), trained, resume=True)
    with pytest.raises(RecipeError, match="nothing to resume"):
        run_sft(toy(), tmp_path / "none", resume=True)


def test_a_run_that_ended_before_its_model_was_saved_takes_no_step_more(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    shutil.rmtree(out / "model")
    run_sft(toy(), out, resume=True)
    assert json.loads((out / "run.json").read_text())["steps"] == 2
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (out, trained))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert (out / "log.jsonl").read_bytes() == (trained / "log.jsonl").read_bytes()


def test_sigterm_finishes_the_step_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, out = GroundingTrainer.log, tmp_path / "run"

    def told(self: Any, logs: dict[str, float], *rest: Any) -> None:
        log(self, logs, *rest)
        if self.state.global_step == 1:
            for process in [*(child.pid for child in multiprocessing.active_children()), os.getpid()]:
                os.kill(process, signal.SIGTERM)  # to the workers as well, as `timeout` and terminals do

    recipe = toy(optim=TOY["optim"] | {"steps": 3}, run={"log_every": 1, "save_every": 9, "workers": 1})
    with monkeypatch.context() as patch:
        patch.setattr(GroundingTrainer, "log", told)
        assert run_sft(recipe, out) is None
    assert not (out / "model").exists()
    [checkpoint] = (out / "checkpoints").iterdir()
    assert run_sft(recipe, out, resume=True) == out / "model"
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines() if '"loss"' in line]
    assert steps == [1, 2, 3]
    assert checkpoint.name in ("checkpoint-1", "checkpoint-2")


def test_a_short_run_shows_its_loss_and_that_its_warmup_outlasts_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    optim = {"steps": 1, "batch_size": 4, "learning_rate": 1e-3}  # and the warm-up and log_every that are the default
    run_sft(toy(optim=optim, run={}), tmp_path / "run")
    assert "step 1/1: loss " in capfd.readouterr().err
    assert [line["step"] for line in map(json.loads, (tmp_path / "run" / "log.jsonl").open()) if "loss" in line] == [1]
    assert caplog.messages == [
        "the warm-up of 100 steps outlasts the run of 1, so the learning rate gets to 0 at most, and not to "
        "optim.learning_rate 0.001: set optim.warmup_steps"
    ]


def test_a_jsonl_file_fine_tunes_the_embedded_model(tmp_path: Path) -> None:
    runner = CliRunner()
    made = ["data", "synthetic", "--scenes", "1", "--rationale", "inventory", "--out", str(tmp_path)]
    assert runner.invoke(app, made).exit_code == 0
    assert len(JsonlDataset(tmp_path / "val.jsonl")) == len(SynthRef("val").samples(0))
    recipe = toy(
        model={"name": "egm-tiny"},
        data={"train": str(tmp_path / "val.jsonl"), "thinking": True},
        optim={"steps": 1, "batch_size": 2, "learning_rate": 1e-6},
    )
    run_sft(recipe, tmp_path / "run")
    loss = json.loads((tmp_path / "run" / "run.json").read_text())["loss"]
    assert loss < 1.0  # it starts from what egm-tiny knows


def test_after_a_resume_the_rows_follow_that_would_have_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across epochs, with several sources and with processes that load."""
    runner = CliRunner()
    assert runner.invoke(app, ["data", "synthetic", "--scenes", "3", "--out", str(tmp_path)]).exit_code == 0
    sources = [{"name": "synthref/train"}, {"path": str(tmp_path / "val.jsonl"), "weight": 2}]
    whole: dict[str, Any] = {
        "data": {"train": sources, "scenes": 2},
        "optim": {"steps": 6, "batch_size": 4, "learning_rate": 1e-3},
    }
    losses = []
    for workers, stop in ((0, None), (2, 4)):
        recipe = toy(**whole, run={"log_every": 1, "save_every": 2, "workers": workers})
        out = tmp_path / f"run{workers}"
        if stop is not None:
            with monkeypatch.context() as patch:
                patch.setattr(GroundingTrainer, "log", _stopping(stop))
                with pytest.raises(EgmError, match="stopped"):
                    run_sft(recipe, out)
        run_sft(recipe, out, resume=stop is not None)
        state = json.loads((out / "checkpoints" / "checkpoint-6" / "trainer_state.json").read_text())
        losses.append([entry["loss"] for entry in state["log_history"] if "loss" in entry])
    assert not multiprocessing.active_children()
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def _stopping(step: int) -> Any:
    log = GroundingTrainer.log

    def stopping(self: Any, logs: dict[str, float], *rest: Any) -> None:
        log(self, logs, *rest)
        if self.state.global_step > step:
            raise EgmError("stopped")

    return stopping


def test_leaks_are_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egm.training.data.check.evaluation_images", lambda: {"a.png": ["refcoco/val"]})
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    row = {"image": "a.png", "sent": "it", "bbox": [1, 2, 30, 40], "height": 64, "width": 64, "rationale": "It is."}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{name: {random_checkpoint('qwen3_vl')}}}\n"
        f"data: {{train: {tmp_path / 'rows.jsonl'}}}\noptim: {{steps: 1, batch_size: 1}}\n"
        "run: {log_every: 1}\n"
    )
    arguments = ["sft", str(recipe), "--out", str(tmp_path / "run")]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, DataError)
    assert "2 samples show 1 images of evaluation splits: a.png is in refcoco/val" in str(refused.exception)
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "run.leaks.txt").read_text() == "a.png\trefcoco/val\n"
    dry = CliRunner().invoke(app, [*arguments, "--allow-leak", "--dry-run"])
    assert dry.stdout == "nothing wrong was found in 2 samples; without --dry-run it is trained\n"
    assert not (tmp_path / "run").exists()
    done = CliRunner().invoke(app, [*arguments, "--allow-leak"])
    assert done.stdout == f"{tmp_path / 'run' / 'model'}\n"  # the rest is for people
    assert "step 1/1: loss " in done.stderr
    assert "%|" not in done.stderr  # no bars for files that are written at once
    assert "a.png is in refcoco/val" in json.loads((tmp_path / "run" / "run.json").read_text())["data"]["leaks"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_row_is_named_in_one_line_wherever_it_is_read(tmp_path: Path, workers: int) -> None:
    row = {"image": "a.png", "sent": "it", "bbox": [1, 2, 30, 40], "height": 64, "width": 64, "rationale": "It is."}
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    rows = [row | {"id": "good"}] + [row | {"id": f"bad{i}", "image": "cut.png"} for i in range(5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = toy(
        data={"train": str(tmp_path / "rows.jsonl")},
        optim={"steps": 3, "batch_size": 2},
        run={"workers": workers, "save_every": 1},
    )
    with pytest.raises(ImageError, match=r"^sample bad\d: ") as caught:
        run_sft(recipe, tmp_path / "run")
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match=r"^sample bad\d: "):  # nothing was saved, so the folder is free
        run_sft(recipe, tmp_path / "run")


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_batch(tmp_path: Path) -> None:
    recipe = toy(
        optim={"steps": 9, "batch_size": 4, "learning_rate": 1e30, "warmup_steps": 1},
        run={"save_every": 1, "log_every": 1},
    )
    with pytest.raises(EgmError, match=r"the loss is nan at step 3, in the batch of samples \S+.*optim\.learning_rate"):
        run_sft(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    # The first step's rate is 0; the second's weights are still numbers, if absurd.
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-1").exists()
    assert not (tmp_path / "run" / "checkpoints" / "checkpoint-3").exists()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, out, log = resource.getrlimit(resource.RLIMIT_FSIZE), tmp_path / "run", GroundingTrainer.log

    def refusal(figure: str, **options: Any) -> str:
        """Fill the disk once step 2 logs this figure."""

        def fill(self: Any, logs: dict[str, float], *rest: Any) -> None:
            log(self, logs, *rest)
            if self.state.global_step == 2 and figure in logs:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))

        try:
            with monkeypatch.context() as patch:
                patch.setattr(GroundingTrainer, "log", fill)
                with pytest.raises(EgmError) as caught:
                    run_sft(toy(), out, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    says = refusal("loss")
    assert says.startswith("the checkpoint of step 2 could not be written (")
    assert says.endswith("and go on with --resume from the checkpoint before")
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["checkpoint-1"]
    says = refusal("train_runtime", resume=True)  # after the last checkpoint, before the model
    assert says.startswith(f"the trained model in {out / 'model'} could not be written (")
    assert says.endswith(f"make room on the disk of {out}, and end the run with --resume from its last checkpoint")
    assert not (out / "model").exists()
    assert run_sft(toy(), out, resume=True).is_dir()


@pytest.mark.parametrize(
    ("place", "error", "says"),
    [
        (
            "egm.models.families.qwen_vl.expand_pixels",
            torch.OutOfMemoryError("CUDA out of memory."),
            r"out of GPU memory at step 1 with 4 samples in a pass: raise optim\.accumulation.*optim\.recompute towards"
            r".*with another optim\.accumulation or optim\.recompute alone, --resume",
        ),
        (
            "egm.models.families.qwen_vl.expand_pixels",
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
            "out of GPU memory at step 1",
        ),
        (
            "egm.training.sft.trainer.GroundingTrainer.__init__",
            torch.OutOfMemoryError("CUDA out of memory."),
            r"out of GPU memory while the model is moved there: set model\.dtype to bfloat16; share it among",
        ),
    ],
)  # fmt: skip
def test_running_out_of_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception, says: str
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(place, full)  # there is no GPU here to fill
    with pytest.raises(EgmError, match=says):
        run_sft(toy(), tmp_path / "run")


def test_an_adapter_is_saved_and_goes_on(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    start_folder = random_checkpoint("qwen3_vl")
    settings: dict[str, Any] = {
        "model": {"name": str(start_folder), "lora": {"rank": 4, "dropout": 0.1, "full": ["projector"]}},
        "optim": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 0, "recompute": 0.5},
        "run": {"log_every": 1, "save_every": 1, "flatten": True, "report_to": "tensorboard"},
    }
    folder = run_sft(toy(**settings), tmp_path / "run")
    assert folder == tmp_path / "run" / "adapter"
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    base = AutoModelForImageTextToText.from_pretrained(start_folder, dtype="float32")
    adapted = PeftModel.from_pretrained(base, folder)
    assert any(p.abs().sum() > 0 for name, p in adapted.named_parameters() if "lora_B" in name)
    merged = load_file(merge_adapter(folder, tmp_path / "merged", dtype="float32") / "model.safetensors")
    full = {name: weight for name, weight in adapted.state_dict().items() if "modules_to_save.default" in name}
    for name, weight in full.items():
        plain = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
        assert torch.equal(merged[plain], weight), plain
    start, trained_whole = load_file(start_folder / "model.safetensors"), "model.visual.merger.linear_fc1.weight"
    assert not torch.equal(merged[trained_whole], start[trained_whole].float())
    whole = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-2")
    run_sft(toy(**settings), tmp_path / "run", resume=True)
    again = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in again[:2]] == [json.loads(line)["loss"] for line in whole[:2]]


def test_bfloat16_weights_are_trained_with_a_frozen_tower(tmp_path: Path) -> None:
    recipe = toy(
        model={"name": "tiny-s", "from_scratch": True, "dtype": "bfloat16", "freeze": ["vision_tower"]},
        optim={"steps": 1, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 0, "rounding": "stochastic"},
    )
    weights = load_file(run_sft(recipe, tmp_path / "run") / "model.safetensors")
    loss = json.loads((tmp_path / "run" / "run.json").read_text())["loss"]
    assert 4.0 < loss < 8.0  # about the logarithm of the vocabulary: nothing has been learnt yet
    before = dict(build_model("tiny-s", dtype="bfloat16").named_parameters())
    for name, weight in weights.items():
        same = torch.equal(weight, before[name].detach())
        assert same == Qwen3VLFamily().has(name, "vision_tower"), name
