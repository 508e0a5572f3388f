"""`egm codecs`: the table of conventions, with an example of each."""

from __future__ import annotations

from typing import Any

from egm.cli import options
from egm.cli.printing import console, plain_table
from egm.codecs import codec_names, get_codec

_PHRASE, _SIZE = "the cup", (640, 480)


def codecs_command(as_json: options.AsJson = False) -> None:
    """List the codecs: what the numbers of each family mean, and how it writes that the cup is at 64, 96, 192, 192.

    The picture of the examples has 640 x 480 pixels. --json gives the questions too.
    """
    import json

    rows = [describe_codec(name) for name in codec_names()]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = plain_table("codec", "numbers", "none", "real answers", "example", names=5)
    for row in rows:
        example = row["example"].replace("\n", " ").replace("\t", " ")
        table.add_row(
            row["name"], row["numbers"], row["none"] or "in words", "yes" if row["proven"] else "few", example
        )
    console().print(table)


def describe_codec(name: str) -> dict[str, Any]:
    """Say what a codec is, JSON-ready."""
    from egm.boxes import Box

    codec = get_codec(name)
    scale = codec.scale(_SIZE, None)
    last = scale.span[0] - 1 if scale.bins else scale.span[0]
    unit = "pixels as the model saw them" if codec.speaks_pixels else f"0-{last}"
    return {
        "name": name,
        "numbers": f"{unit}, {'y' if scale.y_first else 'x'} first",
        "none": codec.none,
        "proven": codec.proven,
        "prompts": {style: codec.messages(_PHRASE, prompt=style)[0]["content"][1]["text"] for style in codec.prompts},
        "example": codec.target(_PHRASE, Box(64, 96, 192, 192), size=_SIZE).removeprefix("</think>").strip(),
        "model_types": list(codec.model_types),
    }
