"""Options that several commands share, and the settings that they come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from egm.backends.base import GenerationSettings

Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="An OpenAI-compatible server; its key is taken from OPENAI_API_KEY.", show_default=False
    ),
]
Images = Annotated[Path | None, typer.Option(help="Folder that the images lie in.", show_default=False)]
Annotations = Annotated[
    Path | None, typer.Option(help="Folder with RefCOCO's annotations; EGM_DATA or ./data.", show_default=False)
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Take a split whose size is not the published one.")
]
Sampled = Annotated[
    bool, typer.Option("--sample", help="Sample as the model card does: temperature 0.6, top-p 0.95. Else greedy.")
]
Seed = Annotated[int, typer.Option(help="With --sample, the same seed gives the same text.")]
MaxTokens = Annotated[int | None, typer.Option(help="Most tokens to generate; 4096, or 8192 with --sample.")]
Votes = Annotated[
    int, typer.Option(help="With --sample, answers to sample to each phrase; the box that most agree on counts.")
]
StopConfidence = Annotated[
    float | None,
    typer.Option(help="Stop voting once the leading box stays ahead with this confidence, such as 0.95."),
]
ThinkingBudget = Annotated[
    int | None, typer.Option(help="Most tokens of reasoning; then the answer is begun in the model's place.")
]
Prompt = Annotated[str | None, typer.Option(help="Prompt style: qwen3 or grounding.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]


def settings_of(
    *,
    sample: bool,
    seed: int,
    max_tokens: int | None,
    votes: int,
    stop_confidence: float | None,
    thinking_budget: int | None,
) -> GenerationSettings:
    """Put the options into settings.

    Raises:
        EgmError: If a number is out of range, or they do not fit together.
    """
    from dataclasses import replace

    from egm.backends import CARD_SETTINGS, GenerationSettings

    usual = CARD_SETTINGS if sample else GenerationSettings()
    return replace(
        usual,
        seed=seed,
        max_new_tokens=usual.max_new_tokens if max_tokens is None else max_tokens,
        votes=votes,
        stop_confidence=stop_confidence,
        thinking_budget=thinking_budget,
    )
