"""Recipes of `egm reproduce`: what arms come to, what is refused in one line, and what a dry run says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from egm.cli import app
from egm.errors import EgmError, RecipeError
from egm.reproduce.arms import Arm, resolve
from egm.reproduce.folder import ArmFolder, settle
from egm.reproduce.recipe import ReproduceRecipe
from egm.reproduce.run import make_plan
from egm.training.grpo.recipe import GRPORecipe
from egm.training.recipe import load_recipe
from egm.training.rewards.reward import Term
from egm.training.sft.recipe import SFTRecipe

from .conftest import Write

KINDS = get_args(get_args(Term)[0])
SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("reproduce*.yaml"))


def load(path: Path, settings: list[str] | None = None) -> ReproduceRecipe:
    return load_recipe(ReproduceRecipe, path, settings)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_recipes_resolve_with_all_their_ablations(path: Path) -> None:
    recipe = load(path)
    arms = resolve(recipe, tuple(recipe.ablations))
    assert arms.keys() == recipe.arms.keys() | recipe.ablations.keys()
    tuned = [arm for arm in arms.values() if isinstance(arm.recipe, SFTRecipe)]
    assert len({arm.samples for arm in tuned}) == 1
    assert [arms[name].thinks for name in (recipe.roles.direct, recipe.roles.thinking, recipe.roles.reinforced)] == [
        False,
        True,
        True,
    ]
    assert arms[recipe.roles.large[-1]].parameters > arms[recipe.roles.direct].parameters  # type: ignore[operator]
    assert arms["rl-on-direct"].root.name == "tiny-s-direct"


def test_every_reward_of_one_term_is_an_ablation() -> None:
    recipe = load(next(path for path in SHIPPED if path.name == "reproduce.yaml"))
    arms = resolve(recipe, tuple(recipe.ablations))
    asked = {name: arm.recipe.reward for name, arm in arms.items() if isinstance(arm.recipe, GRPORecipe)}
    own = asked[recipe.roles.reinforced]
    tried = [reward.terms[0].kind for name, reward in asked.items() if name.startswith("reward-")]
    assert sorted([*tried, own.terms[0].kind]) == sorted(kind.model_fields["kind"].default for kind in KINDS)
    for name, reward in asked.items():
        assert len(reward.terms) == 1
        assert (reward.format_gate, reward.overlong) == (own.format_gate, own.overlong), name


def test_arms_get_defaults_settings_and_parents(write: Write) -> None:
    arms = resolve(load(write()), ["unboxed-rl"])
    assert list(arms) == ["direct", "large", "thinking", "reinforced", "unboxed", "unboxed-rl"]
    direct, reinforced = arms["direct"].recipe, arms["reinforced"].recipe
    assert isinstance(direct, SFTRecipe)
    assert isinstance(reinforced, GRPORecipe)
    assert (direct.data.thinking, direct.optim.steps, direct.model.name) == (False, 3, "tiny-s")
    assert reinforced.model.name == "thinking"
    assert arms["unboxed-rl"].root.name == "unboxed"
    assert (arms["direct"].samples, arms["reinforced"].samples) == (12, 4)
    assert arms["reinforced"].parameters == arms["thinking"].parameters
    found = arms["reinforced"].trainings[0].starting_from(Path("x/model"))
    assert found.model.name == "x/model"


def test_updates_share_a_generation() -> None:
    def samples(**optim: int) -> int | None:
        recipe = GRPORecipe.model_validate({"model": {"name": "egm-tiny"}, "optim": {"prompts": 6, **optim}})
        return Arm("a", recipe).samples

    assert samples(steps=10) == 60
    assert samples(steps=10, updates=2) == 30
    assert samples(steps=10, iterations=4) == 18  # the third generation is gone through twice


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arms__direct__stge": "sft"}, "unknown key 'arms.direct.stge'; did you mean 'stage'?"),
        ({"evaluat": {}}, "unknown key 'evaluat'; did you mean 'evaluate'?"),
        ({"evaluate__splits": ["refcoco/val"]}, "evaluate.splits.0: input should be 'synthref/val'"),
        ({"roles": None}, "key 'roles' is missing"),
        ({"roles__large": ["lage"]}, "roles.large: there is no arm 'lage'; did you mean 'large'?"),
        ({"roles__thinking": "direct"}, "an arm plays two parts"),
        ({"arms__reinforced__parent": "thinkin"}, "arms.reinforced.parent: there is no arm 'thinkin'; did you mean"),
        ({"arms__thinking__parent": "reinforced"}, "starts from reinforced starts from thinking"),
        ({"arms__direct__against": "large"}, "only ablations are compared this way"),
        ({"ablations__unboxed__against": None}, "ablations.unboxed.against is missing"),
        ({"ablations__unboxed__against": "unboxed"}, "against is the arm itself"),
        ({"ablations__direct": {"stage": "sft", "against": "large"}}, "both an arm and an ablation"),
        ({"arms": {"../x": {"stage": "sft"}}}, "string should match pattern"),
        ({"latency__batch_size": 400}, "800 requests need as many pictures"),
    ],
)
def test_mistakes_in_the_recipe_are_told_in_one_line(write: Write, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write(**changes))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arms__direct__set": ["optim.stepz=1", "model.name=tiny-s"]}, "arm direct: unknown key 'optim.stepz'; did"),
        ({"arms__direct__set": ["optim.steps"]}, "arm direct: setting 'optim.steps' is not of the form"),
        ({"arms__direct__set": ["model.name=tiny-x"]}, "arm direct: there is no model size 'tiny-x': did you mean"),
        ({"arms__reinforced__set": ["model.name=x"]}, "arm reinforced: it starts from thinking: leave model.name"),
        ({"defaults__grpo__optim__stepz": 1}, "arm reinforced: unknown key 'optim.stepz'; did you mean 'steps'?"),
        (
            {"arms__large__set": ["model.name=tiny-m", "data.thinking=false", "optim.steps=9"]},
            "arms direct and large do not see equal data: optim.steps is 3 and 9: set it in defaults.sft alone",
        ),
        ({"arms__large__set": ["model.name=tiny-m"]}, "roles.large: large must be an sft arm with data.thinking false"),
        ({"roles__reinforced": "large", "roles__large": ["reinforced"]}, "roles.reinforced: large must be a grpo arm"),
        ({"arms__direct__set": ["model={name: egm-tiny, lora: {}}"]}, "arm direct: model.lora leaves an adapter"),
    ],
)
def test_mistakes_in_an_arm_name_it(write: Write, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(load(write(**changes)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_asked_for_must_be_there(write: Write, tmp_path: Path) -> None:
    recipe, out = load(write()), tmp_path / "out"
    for options, says in (
        ({"only": ["direkt"]}, "--only direkt: there is no such arm: did you mean 'direct'?"),
        ({"only": ["reinforced"]}, "reinforced starts from thinking, which is not trained in"),
        ({"ablations": ["unbox"]}, "there is no ablation 'unbox': did you mean 'unboxed'?"),
        ({"until": "tain"}, "there is no stage 'tain': did you mean 'train'?"),
    ):
        with pytest.raises(EgmError) as caught:
            make_plan(recipe, out, **options)  # type: ignore[arg-type]
        assert says in str(caught.value)
    assert make_plan(recipe, out).chosen == ("direct", "large", "thinking", "reinforced")
    assert make_plan(recipe, out, only=["unboxed"]).chosen == ("unboxed",)
    assert make_plan(recipe, out, ablations=["unboxed-rl"]).chosen[-2:] == ("unboxed", "unboxed-rl")


def test_a_folder_belongs_to_one_reproduction(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe = load(write())
    settle(out, recipe, resolve(recipe, ["unboxed"]))
    settle(out, recipe, resolve(recipe))
    again = make_plan(recipe, out)
    assert list(again.arms) == ["direct", "large", "thinking", "reinforced", "unboxed"]  # of the call before
    assert "unboxed" not in again.chosen
    make_plan(load(write(), ["defaults.sft.run.workers=2", "latency.requests=3"]), out)  # nothing that is learnt
    for settings, says in (
        (["defaults.sft.optim.learning_rate=1.0e-4"], "differs in arms.direct.optim.learning_rate, arms.large.optim."),
        (["evaluate.scenes=2"], "differs in evaluate.scenes: go on with the same recipe"),
    ):
        with pytest.raises(RecipeError, match="holds another reproduction") as caught:
            make_plan(load(write(), settings), out)
        assert says in str(caught.value)
    with pytest.raises(RecipeError, match=r"arms\.unboxed, which is gone"):
        make_plan(load(write(ablations={})), out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RecipeError, match="holds something else"):
        make_plan(recipe, tmp_path / "other")


def test_a_dry_run_says_what_would_be_done_and_does_nothing(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["reproduce", str(write()), "--out", str(out), "--dry-run"]
    shown = CliRunner().invoke(app, [*arguments, "--ablation", "unboxed"])
    assert shown.exit_code == 0
    rows = {line.split()[0]: line.split() for line in shown.output.splitlines() if line}
    assert rows["large"] == ["large", "sft", "tiny-m", "directly", "40.4M", "3", "12", "train,", "evaluate"]
    assert rows["reinforced"][1:7] == ["grpo", "thinking", "after", "thinking", "11.5M", "2"]
    assert rows["device:"][1:3] == ["the", "CPU;"]
    assert "unboxed" in rows
    assert rows["ablations"][-1] == "unboxed-rl"
    assert not out.exists()
    recipe = load(write())
    settle(out, recipe, resolve(recipe))
    folder = ArmFolder(out, "large")
    folder.path.mkdir(parents=True)
    folder.finish("train", {}, 1.0)
    again = CliRunner().invoke(app, [*arguments, "--only", "large", "--until", "train"])
    assert [line.split()[-3:] for line in again.output.splitlines() if line.startswith("large")] == [
        ["12", "nothing:", "done"]
    ]


SEEDS = {"arms__direct__seeds": [0, 1], "arms__thinking__seeds": [0, 1], "defaults__grpo__run__seed": 3}


def test_each_seed_is_a_training_of_its_own(write: Write, tmp_path: Path) -> None:
    recipe, out = load(write(**SEEDS)), tmp_path / "out"
    plan = make_plan(recipe, out)
    seeded = [f"{arm}.seed{seed}" for arm in ("direct", "thinking", "reinforced") for seed in (0, 1)]
    assert list(plan.chosen) == [*seeded[:2], "large", *seeded[2:]]
    assert [plan.trainings[name].recipe.run.seed for name in plan.chosen] == [0, 1, 0, 0, 1, 3, 4]
    parent = plan.trainings["reinforced.seed1"].parent
    assert parent is not None
    assert (parent.name, plan.trainings["reinforced.seed1"].recipe.model.name) == ("thinking.seed1", "thinking.seed1")
    assert make_plan(recipe, out, only=["direct", "thinking.seed1"]).chosen == (*seeded[:2], "thinking.seed1")
    for only, says in (
        ("reinforced.seed1", "starts from thinking.seed1, which is not trained"),
        ("direct.seed2", "did you mean 'direct.seed1'?"),
    ):
        with pytest.raises(EgmError, match=re.escape(says)):
            make_plan(recipe, out, only=[only])
    settle(out, recipe, plan.arms)
    more = make_plan(load(write(**SEEDS | {"arms__direct__seeds": [0, 1, 2]})), out)  # a seed is added
    assert "direct.seed2" in more.chosen
    with pytest.raises(RecipeError, match=r"arms\.direct\.seed1, which is gone"):
        make_plan(load(write(**SEEDS | {"arms__direct__seeds": [0]})), out)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arms__direct__seeds": [1, 1]}, "arms.direct.seeds names a seed twice"),
        ({"arms__direct__seeds": [-1]}, "arms.direct.seeds.0: input should be greater than or equal to 0"),
        ({"arms__direct__seeds": [1, 2]}, "direct and large do not see equal data: no run.seed is in both 1, 2 and 0"),
        ({"arms__reinforced__seeds": [0]}, "it starts from thinking, which is not trained with seed 0"),
        ({"roles__large_thinking": {"lage": "thinking"}}, "roles.large_thinking: there is no arm 'lage'"),
        ({"roles__large_thinking": {"large": "direct"}}, "an arm plays two parts"),
        (
            {
                "arms__other": {"stage": "sft", "set": ["model.name=tiny-s"]},
                "roles__large_thinking": {"large": "other"},
            },
            "roles.large_thinking: large is tiny-m and other tiny-s: name the same model",
        ),
    ],
)
def test_mistakes_in_seeds_are_told(write: Write, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(load(write(**changes)))
    assert says in str(caught.value)


def test_a_call_without_time_begins_nothing_and_says_what_is_left(write: Write, tmp_path: Path) -> None:
    arguments = ["reproduce", str(write()), "--out", str(tmp_path / "out"), "--only", "direct", "--seconds", "0"]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 75
    last = ended.output.splitlines()[-1]
    assert last == "left: direct train (not begun), direct evaluate (not begun): the same command goes on"


def test_a_model_that_is_gone_fails_what_starts_from_it_alone(write: Write, tmp_path: Path) -> None:
    recipe, out = load(write()), tmp_path / "out"
    settle(out, recipe, resolve(recipe))
    folder = ArmFolder(out, "thinking")
    folder.path.mkdir(parents=True)
    for stage in ("train", "evaluate"):
        folder.finish(stage, {}, 1.0)  # type: ignore[arg-type]
    only = [word for arm in ("thinking", "reinforced") for word in ("--only", arm)]
    ended = CliRunner().invoke(app, ["reproduce", str(write()), "--out", str(out), "--until", "evaluate", *only])
    assert ended.exit_code == 1
    assert f"error: reinforced train: reinforced starts from thinking, whose model is not in {out}" in ended.output
    assert "error: reinforced evaluate: not begun, as reinforced train failed" in ended.output
