"""`egm models`: the model sizes and where their checkpoints are."""

from __future__ import annotations


def models() -> None:
    """List the model sizes: architecture family, parameters, context and published checkpoints."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from egm.models import PRESETS

    table = Table("Name", "Family", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, header_style="bold")
    table.add_column("Parameters", justify="right")
    table.add_column("Context", justify="right")
    table.add_column("Hub ids", overflow="fold")
    for preset in PRESETS.values():
        hub_ids = "\n".join(preset.hub_ids) or "made from scratch"
        table.add_row(preset.name, preset.family, _short(preset.parameters), f"{preset.context // 1024}K", hub_ids)
    Console().print(table)


def _short(count: int) -> str:
    """Write a count as people say it, such as 8.77B."""
    return f"{count / 1e9:.4g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"
