"""Recipes: read whole, and refused in one line that says what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from egm.errors import RecipeError
from egm.reproduce.recipe import ReproduceRecipe
from egm.training.grpo.recipe import GRPORecipe
from egm.training.recipe import dump_recipe, load_recipe
from egm.training.sft.recipe import SFTRecipe

RECIPES = Path(__file__).parents[2] / "recipes"
GOOD = "model: {name: tiny-s, from_scratch: true}\noptim: {steps: 10}\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "path", sorted(set(RECIPES.glob("egm-*.yaml")) - set(RECIPES.glob("*grpo*"))), ids=lambda path: path.name
)
def test_shipped_recipes_are_right(path: Path) -> None:
    assert load_recipe(SFTRecipe, path).stage == "sft"


def test_a_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    recipe = load_recipe(SFTRecipe, written(tmp_path, GOOD))
    assert load_recipe(SFTRecipe, written(tmp_path, dump_recipe(recipe))) == recipe


def test_one_source_or_several(tmp_path: Path) -> None:
    several = load_recipe(
        SFTRecipe, written(tmp_path, GOOD + "data: {train: [{path: a.jsonl, weight: 3}, {name: synthref/train}]}")
    )
    assert [(source.place, source.weight) for source in several.data.train] == [("a.jsonl", 3), ("synthref/train", 1)]
    assert load_recipe(SFTRecipe, written(tmp_path, dump_recipe(several))) == several
    assert load_recipe(SFTRecipe, written(tmp_path, GOOD + "data: {train: a.jsonl}")).data.train == "a.jsonl"


def test_settings_take_precedence(tmp_path: Path) -> None:
    recipe = load_recipe(SFTRecipe, written(tmp_path, GOOD), ["optim.steps=3", "data.thinking=false", "run.seed=7"])
    assert (recipe.optim.steps, recipe.data.thinking, recipe.run.seed) == (3, False, 7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: {name: x}\noptim: {stepz: 1}", "unknown key 'optim.stepz'; did you mean 'steps'?"),
        ("modle: {name: x}\noptim: {steps: 1}", "unknown key 'modle'; did you mean 'model'?"),
        ("model: {name: x, zzz: 1}\noptim: {steps: 1}", "unknown key 'model.zzz'; known keys: name, from_scratch"),
        ("stage: stf\nmodel: {name: x}\noptim: {steps: 1}", "stage: input should be 'sft', not 'stf'"),
        ("stage: [sft]\nmodel: {name: x}\noptim: {steps: 1}", "stage: input should be 'sft', not ['sft']"),
        ("model: {name: x}\noptim: {}", "optim: key steps is missing: give steps or epochs"),
        ("model: {name: x}\noptim: {steps: 1, epochs: 1}", "optim: two ends: give steps or epochs"),
        ("model: {name: x, freeze: [vision]}\noptim: {steps: 1}", "model.freeze.0: input should be 'vision_tower', "),
        (
            "model: {name: x, freeze: [vision_tower, projector, language_model]}\noptim: {steps: 1}",
            "nothing is left to train",
        ),
        ("model: {name: x, lora: {rnk: 8}}\noptim: {steps: 1}", "unknown key 'model.lora.rnk'; did you mean 'rank'?"),
        ("model: {name: x, lora: {}, freeze: [projector]}\noptim: {steps: 1}", "leave freeze out"),
        ("model: {name: tiny-s, from_scratch: true, lora: {}}\noptim: {steps: 1}", "set from_scratch to false"),
        ("model: {name: x}\noptim: {steps: 1}\nrun: {flatten: true, fast_path: false}", "flatten needs fast_path"),
        ("model: {name: x}\noptim: {steps: 1}\neval: {data: a, evry: 2}", "did you mean 'every'?"),
        ("model: {name: x}\noptim: {steps: many}", "optim.steps: "),
        ("model: {name: x}\noptim: {steps: 0}", "greater than or equal to 1, not 0"),
        ("model: {name: x}\noptim: {steps: 1, schedule: sine}", "optim.schedule: "),
        (f"{GOOD}data: {{train: [{{path: a, wieght: 2}}]}}", "'data.train.0.wieght'; did you mean 'weight'?"),
        (f"{GOOD}data: {{train: [{{path: a, weight: 0}}]}}", "data.train.0.weight: input should be greater than 0"),
        (f"{GOOD}data: {{train: [{{weight: 2}}]}}", "a source needs either a name or a path"),
        (f"{GOOD}data: {{train: []}}", "data.train: "),
        ("model: [\n", "is not YAML at line"),
        ("- a\n- b\n", "must hold keys such as model: and optim:, not a list"),
        ("", "must hold keys"),
    ],
)  # fmt: skip
def test_faults_are_named_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(SFTRecipe, written(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "stage", "kind"),
    [
        ("egm-tiny", "sft", GRPORecipe),
        ("egm-tiny-grpo", "grpo", SFTRecipe),
        ("reproduce", "reproduce", SFTRecipe),
        ("egm-8b", "sft", ReproduceRecipe),
    ],
)
def test_a_recipe_of_another_command_says_of_which(name: str, stage: str, kind: Any) -> None:
    path, own = RECIPES / f"{name}.yaml", kind.model_fields["stage"].default
    with pytest.raises(RecipeError) as caught:
        load_recipe(kind, path, ["data.phrasez=1"])
    assert str(caught.value) == f"recipe {path} is one of egm {stage}, not of egm {own}: run egm {stage} {path}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe at"):
        load_recipe(SFTRecipe, tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(SFTRecipe, tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(SFTRecipe, binary)


def test_a_setting_can_open_a_section(tmp_path: Path) -> None:
    path = written(tmp_path, "model: {name: x, lora: null}\noptim: {steps: 10}\n")
    recipe = load_recipe(SFTRecipe, path, ["model.lora.rank=8", "eval.data=synthref/val"])
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 8
    assert recipe.eval is not None


@pytest.mark.parametrize("setting", ["steps", "model.name.x=1", "optim.steps=["])
def test_wrong_settings(tmp_path: Path, setting: str) -> None:
    with pytest.raises(RecipeError, match="setting"):
        load_recipe(SFTRecipe, written(tmp_path, GOOD), [setting])
