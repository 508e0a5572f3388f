"""What `egm sft` and `egm grpo` say at their end."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from egm.cli.training import say


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("model", "egm eval DATASET --model runs/a/model, then egm models export runs/a"),
        (
            "adapter",
            "egm models export runs/a, then egm eval DATASET --model runs/a/export",
        ),  # which has no weights alone
    ],
)
def test_a_training_names_the_next_steps(capsys: pytest.CaptureFixture[str], kind: str, steps: str) -> None:
    run = Path("runs/a")
    say(run / kind, run)
    assert capsys.readouterr() == (f"runs/a/{kind}\n", f"next: {steps}\n")


def test_a_model_is_asked_in_the_words_that_it_was_trained_in(capsys: pytest.CaptureFixture[str]) -> None:
    say(Path("runs/a/model"), Path("runs/a"), "grounding")
    assert "egm eval DATASET --model runs/a/model --prompt grounding, then" in capsys.readouterr().err


def test_a_training_that_was_stopped_names_how_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end:
        say(None, Path("runs/a"))
    assert end.value.exit_code == 143
    assert "go on with --resume --out runs/a" in capsys.readouterr().err
