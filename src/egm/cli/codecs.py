"""`egm codecs`: the table of conventions, with an example of each."""

from __future__ import annotations

from egm.cli import options
from egm.cli.printing import console, note, plain_table
from egm.codecs import codec_names, get_codec
from egm.codecs.describe import describe_codec


def codecs_command(as_json: options.AsJson = False) -> None:
    """List the codecs: what the numbers of each family mean, and how it writes that the cup is at 64, 96, 192, 192.

    The picture of the examples has 640 x 480 pixels. --json gives the questions too, and the module that each is from.
    """
    import json

    rows = [describe_codec(get_codec(name)) for name in codec_names()]
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
    for row in rows:
        if not row["module"].startswith("egm."):
            note(f"{row['name']} comes from a plug-in, the module {row['module']}")
