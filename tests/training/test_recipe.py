"""Recipes: read whole, and refused in one line that says what to change."""

from __future__ import annotations

from itertools import pairwise
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
NO_BOOLEANS = ("1", "0", "'yes'", '"true"', "1.0", "[true]")
NO_NUMBERS = ("true", "no", "'10'", "'1e1_0'", "99999999999999999999999", "9" * 4000)
BOMB = "".join(f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n" for before, name in pairwise("abcdefghi"))


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
        (f"{GOOD}data: {{train: [{{name: a, path: b}}]}}", "data.train.0: both name and path are given"),
        (f"{GOOD}data: {{train: []}}", "data.train: input should have at least 1 entry, not []"),
        (f"{GOOD}data: {{train: {{name: a}}}}", "data.train: a source with keys should be put in a list, [{…}], not {"),
        (f"{GOOD}data: {{train: 3}}", "data.train: input should be text, or a list, not 3"),
        (f"{GOOD}data: {{train: [a]}}", "data.train.0: input should have keys such as name:, not 'a'"),
        (f"{GOOD}data: {{prompt: {{a: b}}}}", "data.prompt: input should be text, or a list, not {'a': 'b'}"),
        ("model: [\n", "is not YAML at line"),
        ("- a\n- b\n", "must hold keys such as model: and optim:, not a list"),
        ("", "must hold keys"),
        *((f"{GOOD}run: {{compile: {word}}}", "run.compile: input should be true or false") for word in NO_BOOLEANS),
        *((f"model: {{name: x}}\noptim: {{steps: {word}}}", "optim.steps: input should be a") for word in NO_NUMBERS),
        *((f"{GOOD}run: {{seed: {word}}}", "run.seed: input should be ") for word in (*NO_NUMBERS, "-1", "4294967296")),
        ("model: {name: x}\noptim: {steps: 1, learning_rate: yes}", "learning_rate: input should be a number"),
        ("model: {name: x}\noptim: {steps: 1, learning_rate: '0.1'}", "should be a number, not '0.1'"),
        ("model: {name: x}\noptim: {steps: 1, warmup_steps: on}", "warmup_steps: input should be a number, not True"),
        ("model: {name: x}\noptim: {epochs: true}", "optim.epochs: input should be a number, not True"),
        ("model: {name: x}\noptim: {epochs: 1.0e+300}", "optim.epochs: input should be less than or equal to 100000"),
        (f"{GOOD}data: {{train: [{{path: a, weight: true}}]}}", "data.train.0.weight: input should be a number"),
        ("model: {name: x, lora: {rank: true}}\noptim: {steps: 1}", "model.lora.rank: input should be a number"),
        ("model: {name: x, preset: y}\noptim: {steps: 1}", "unknown key 'model.preset'; did you mean 'name'?"),
        ("model: {name: x, seed: 1}\noptim: {steps: 1}", "unknown key 'model.seed'; did you mean 'run.seed'?"),
        ("model: {name: x}\noptim: {steps: 1, steps: 2}", "has the key 'steps' twice, again at line 2"),
        ("model: {name: x}\nmodel: {name: y}\noptim: {steps: 1}", "has the key 'model' twice, again at line 2"),
        (f"{GOOD}data: {'[' * 5000}", "is nested more deeply than any recipe"),
        (f"{GOOD}data: {'{a: ' * 300}{'}' * 300}", "is nested more deeply than any recipe"),
        (f"{GOOD}data: {{train: {'9' * 5000}}}", "is not YAML at line 3: '999999"),
        (f"{GOOD}data: {{train: 2020-99-99}}", "is not YAML at line 3: '2020-99-99' is no timestamp that can be read"),
        (f"{GOOD}run: {{seed: 010}}", "is not YAML at line 3: '010' would be another number by YAML 1.1"),
        (f"{GOOD}run: {{seed: 1:30}}", "is not YAML at line 3: '1:30' would be another number"),
        (f"{GOOD}run: {{seed: 1:30.5}}", "is not YAML at line 3: '1:30.5' would be another number"),
        (f"{GOOD}run: {{seed: -0_7}}", "is not YAML at line 3: '-0_7' would be another number"),
        (f"{GOOD}data: {{train: !!int abc}}", "is not YAML at line 3: 'abc' is no int that can be read"),
        (f"{GOOD}data: {{train: !!float abc}}", "is not YAML at line 3: 'abc' is no float that can be read"),
        (f"{GOOD}data: {{train: !!bool abc}}", "is not YAML at line 3: 'abc' is no bool that can be read"),
        (f"{GOOD}data: {{train: !!timestamp abc}}", "'abc' is no timestamp that can be read"),
        (f"{GOOD}data: {{train: !!python/name:os.system x}}", "could not determine a constructor"),
        (f"{GOOD}data: {{? [a] : b}}", "is not YAML at line 3: found unhashable key"),
        (f"{GOOD}data: &a {{b: *a}}", "has an anchor that holds itself"),
        (f"a: &a [{', '.join('x' * 9)}]\n{BOMB}", "holds more than 100,000 values with its anchors written out"),
        (f"{GOOD}# {'x' * 1_000_000}", "is longer than 1,000,000 characters"),
        (f"{GOOD}data: \x01", "is not YAML: "),
        (f"{GOOD}data: {{train: {'x' * 5000}, max_length: [{'y' * 5000}]}}", "..."),
    ],
)  # fmt: skip
def test_faults_are_named_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(SFTRecipe, written(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "recipe.yaml" in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


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


def test_what_yaml_means_by_a_number_stays_one(tmp_path: Path) -> None:
    text = "model: {name: x}\noptim: {<<: {steps: 9, weight_decay: 1}, steps: 10, learning_rate: 1e-5}\n"
    settings = ["run.seed=4294967295", "optim.epochs=null", "run.compile=on", "optim.beta2=9e-1"]
    recipe = load_recipe(SFTRecipe, written(tmp_path, text), settings)
    assert (recipe.optim.learning_rate, recipe.optim.weight_decay, recipe.optim.beta2) == (1e-5, 1.0, 0.9)
    assert (recipe.run.seed, recipe.run.compile) == (4294967295, True)


@pytest.mark.parametrize(
    "setting",
    [
        *("steps", "model.name.x=1", "optim.steps=[", "optim.steps=!!int abc", f"optim.steps={'9' * 5000}"),
        *(f"data={'[' * 9999}", "data.train=2020-99-99", "data={train: a, train: b}"),
    ],
)
def test_wrong_settings(tmp_path: Path, setting: str) -> None:
    with pytest.raises(RecipeError, match="setting") as caught:
        load_recipe(SFTRecipe, written(tmp_path, GOOD), [setting])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
