"""`egm models`: the model sizes and their checkpoints; merging, averaging, exporting and publishing models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from egm.terminal import spaced

app = typer.Typer(help="List the model sizes; merge, average, export and publish models.")

_Source = Annotated[Path, typer.Argument(metavar="DIR", show_default=False)]
_Base = Annotated[
    str | None,
    typer.Option(help="Model of the adapter; by default what it names.", show_default=False),
]
_Dtype = Annotated[str, typer.Option(help="Type of the saved weights: bfloat16, float16 or float32.")]


@app.callback(invoke_without_command=True)
def _models(context: typer.Context) -> None:
    """List the model sizes; merge, average, export and publish models."""
    if context.invoked_subcommand is None:
        models()


def models() -> None:
    """List the model sizes: architecture family, parameters, context and published checkpoints."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from egm.models.presets import PRESETS, size_text

    table = Table("Name", "Family", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, header_style="bold")
    table.add_column("Parameters", justify="right")
    table.add_column("Context", justify="right")
    table.add_column("Hub ids", overflow="fold")
    for preset in PRESETS.values():
        hub_ids = "\n".join(preset.hub_ids) or "made from scratch"
        table.add_row(preset.name, preset.family, size_text(preset.parameters), f"{preset.context // 1024}K", hub_ids)
    Console().print(table)


@app.command("merge")
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.", show_default=False)],
    base: _Base = None,
    dtype: _Dtype = "bfloat16",
) -> None:
    """Fold a LoRA adapter into the weights of its model."""
    from egm.publish.merge import merge_adapter

    print(spaced(merge_adapter(adapter, out, base=base, dtype=dtype)))


@app.command("average")
def average(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.", show_default=False)],
    base: Annotated[str | None, typer.Option(help="The model that they began as.", show_default=False)] = None,
    share: Annotated[float, typer.Option(help="How far to go from the base to the average.")] = 1.0,
    dtype: _Dtype = "bfloat16",
) -> None:
    """Average models that were trained apart from one start."""
    from egm.publish.average import average_models

    print(spaced(average_models(models, out, base=base, share=share, dtype=dtype)))


@app.command("export")
def export(
    source: _Source,
    out: Annotated[Path | None, typer.Option(help="Folder to write; else DIR/export.", show_default=False)] = None,
    scores: Annotated[
        list[Path] | None, typer.Option(help="Journal of egm eval for the card; may be repeated.", show_default=False)
    ] = None,
    base: _Base = None,
    dtype: _Dtype = "bfloat16",
    title: Annotated[str | None, typer.Option(help="Name on the card; by default DIR's.", show_default=False)] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="Licence for the card, such as apache-2.0.", show_default=False)
    ] = None,
) -> None:
    """Write a run, a model or an adapter as a folder that transformers, vLLM and SGLang load, with a model card."""
    from egm.publish.export import export_model

    out = out if out is not None else source / "export"
    made = export_model(source, out, scores=scores or (), base=base, dtype=dtype, title=title, license_id=license_id)
    print(spaced(made))


@app.command("push")
def push_command(
    source: _Source,
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face Hub.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public, not private.")] = False,
) -> None:
    """Publish an exported folder on the Hugging Face Hub."""
    from egm.publish.push import plan_push, push

    plan = plan_push(source, repo, private=not public)
    for path, size in plan.files:
        print(f"{size:>15,}  {spaced(path.name)}")
    print(f"{plan.size:>15,}  bytes in {len(plan.files)} files")
    if dry_run:
        kind = "private" if plan.private else "public"
        repo = f"the {kind} model repository {spaced(plan.repo)}"
        print(f"would create {repo} unless it is there, and send these in one commit")
    else:
        print(spaced(push(plan)))
