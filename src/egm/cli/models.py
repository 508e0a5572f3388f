"""`egm models`: the model sizes and their checkpoints; merging, averaging, exporting and publishing models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from egm.cli.group import Group
from egm.cli.printing import console, plain_table, say_next
from egm.terminal import shell_command, spaced

_EVAL = ("egm", "eval", "DATASET", "--model")

app = typer.Typer(cls=Group, help="List the model sizes; merge, average, export and publish models.")

_HERE = {"here": "yes", "partly": "partly", "not here": "-"}
_Source = Annotated[Path, typer.Argument(metavar="DIR", show_default=False)]
_Exported = Annotated[
    Path, typer.Argument(metavar="DIR", help="A run, a model or an adapter; or egm-tiny.", show_default=False)
]
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
    """List the model sizes: architecture family, models that are known by name, which are here, parameters, context.

    What of the Hub is here, its cache tells; the Hub is not asked.
    """
    from egm.backends.checkpoint import EMBEDDED
    from egm.models.presets import EMBEDDED_SIZE, PRESETS, size_text
    from egm.publish.download import state

    table = plain_table("name", "family", "models", "here", "parameters", "context", names=4)
    for preset in PRESETS.values():
        known = {EMBEDDED: "yes"} if preset.name == EMBEDDED_SIZE else {}
        known |= {hub_id: _HERE[state(hub_id)] for hub_id in preset.hub_ids}
        size = size_text(preset.parameters)
        table.add_row(
            preset.name,
            preset.family,
            "\n".join(known) or "made from scratch",
            "\n".join(known.values()) or "-",
            size,
            f"{preset.context // 1024}K",
        )
    console().print(table)
    print("egm download NAME fetches one, such as EGM-8B")


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
    say_next(shell_command(*_EVAL, out), shell_command("egm", "models", "export", out))


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
    say_next(shell_command(*_EVAL, out), shell_command("egm", "models", "export", out))


@app.command("export")
def export(
    source: _Exported,
    out: Annotated[Path | None, typer.Option(help="Folder to write; else DIR/export.", show_default=False)] = None,
    scores: Annotated[
        list[Path] | None, typer.Option(help="Journal of this model, for the card; repeatable.", show_default=False)
    ] = None,
    base: _Base = None,
    dtype: _Dtype = "bfloat16",
    title: Annotated[str | None, typer.Option(help="Name on the card; by default DIR's.", show_default=False)] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="Licence for the card, such as apache-2.0.", show_default=False)
    ] = None,
    data_license: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=LICENCE", help="Licence of a source of the training data; repeatable.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a run, a model or an adapter as a folder that transformers, vLLM and SGLang load, with a model card."""
    from egm.publish.export import export_model

    out = out if out is not None else source / "export"
    licences: dict[str, Any] = {"license_id": license_id, "data_license": data_license or ()}
    made = export_model(source, out, scores=scores or (), base=base, dtype=dtype, title=title, **licences)
    print(spaced(made))
    say_next(shell_command(*_EVAL, made), shell_command("egm", "models", "push", made, "OWNER/NAME"))


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
        say_next(shell_command("egm", "download", plan.repo))
