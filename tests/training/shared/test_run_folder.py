"""Run folders, those of an earlier version among them: `before/` holds two of 955c9f8, a step from their end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from egm.errors import RecipeError
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.rollouts import write_page
from egm.training.recipe import Section, dump_recipe, load_recipe
from egm.training.sft.recipe import SFTRecipe
from egm.training.shared.run_folder import check_free, has_checkpoint, last_checkpoint, start_run, trained

BEFORE = Path(__file__).parent / "before"


@pytest.mark.parametrize(("stage", "kind"), [("sft", SFTRecipe), ("grpo", GRPORecipe)])
def test_a_run_of_an_earlier_version_goes_on(stage: str, kind: type[Section]) -> None:
    folder = BEFORE / stage
    recipe = load_recipe(kind, folder / "recipe.yaml")
    assert dump_recipe(recipe) == (folder / "recipe.yaml").read_text()
    assert last_checkpoint(recipe, folder) == folder / "checkpoints" / "checkpoint-1"
    assert has_checkpoint(folder)
    assert trained(folder) is None
    with pytest.raises(RecipeError, match="holds a run already"):
        check_free(folder)
    other = load_recipe(kind, folder / "recipe.yaml", ["optim.steps=3", "run.workers=7"])  # workers may differ
    with pytest.raises(RecipeError, match=r"differs from this recipe in optim\.steps: resume with the same one"):
        last_checkpoint(other, folder)


def test_rollouts_of_an_earlier_version_are_shown(tmp_path: Path) -> None:
    page = write_page(BEFORE / "grpo" / "rollouts", tmp_path / "page.html").read_text()
    assert "<p>1 of 1 groups." in page
    assert page.count("<img") == 1
    assert page.count("<b>advantage") == 2


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(BEFORE / "sft", folder)
    half = folder / "checkpoints" / "checkpoint-2"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_step": 2,')
    recipe = load_recipe(SFTRecipe, folder / "recipe.yaml")
    assert last_checkpoint(recipe, folder).name == "checkpoint-1"
    start_run(recipe, tmp_path / "new", seed=recipe.run.seed)
    assert dump_recipe(recipe) == (tmp_path / "new" / "recipe.yaml").read_text()
    with pytest.raises(RecipeError, match="nothing to resume"):
        last_checkpoint(recipe, tmp_path / "new")
