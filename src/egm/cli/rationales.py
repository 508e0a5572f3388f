"""`egm rationales`: a teacher explains boxes, filters decide, and training data comes out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egm.cli import options
from egm.cli.group import DefaultGroup
from egm.cli.offline import SYNTHREF, count_samples, draw_samples, is_drawn, open_offline
from egm.cli.printing import console, note, plain_table, say_next
from egm.cli.rationales_merge import merge_rationales_command
from egm.cli.teachers import BLIND_KEY, RunModels
from egm.errors import EgmError
from egm.terminal import printable, shell_command, spaced

if TYPE_CHECKING:
    from egm.backends.base import GenerationSettings
    from egm.evaluate.shards import Shard
    from egm.rationales import BlindCheck, RationaleRun, Spending, Teacher
    from egm.rationales.styles import TeacherStyle

app = typer.Typer(
    cls=DefaultGroup,
    help="Have a teacher explain boxes, and make training data of what passes filters: egm rationales DATASET is short "
    "for egm rationales make DATASET.",
    no_args_is_help=True,
)


@app.command("make")
def make_command(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A file, or a split such as synthref/train with --limit; with true boxes.",
            show_default=False,
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Who explains: the name that --server serves it by; else egm-tiny, a model folder or a hub name; or "
            "synthref, which words SynthRef's own proofs without a model.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of journal, training data and card.", show_default=False)],
    server: options.Server = None,
    serve: options.Serve = None,
    aim: options.Aim = None,
    style: Annotated[str, typer.Option(help="How it explains: official, candidates, amodal, self, or your own.")] = (
        "official"
    ),
    styles: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML of styles, in place of the package's.", show_default=False)
    ] = None,
    codec: options.Codec = None,
    no_mark: Annotated[
        bool, typer.Option("--no-mark", help="Draw no box on the picture, for teachers that read coordinates.")
    ] = False,
    tries: Annotated[int, typer.Option(min=1, help="Most tries a sample; then it is dropped.")] = 3,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of the teacher, 0.7 by default; 0 is greedy, and gives one try.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Another seed than 0 samples other answers.", show_default=False)
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Most calls under way at once, 8 by default.", show_default=False)
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Only share I of N of the pictures, with all samples of each; egm rationales merge joins all.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="What the run may spend: 200000tokens, or 5usd with --prices.", show_default=False),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML of what a million tokens of each model cost.", show_default=False),
    ] = None,
    filters: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML of filters and their options; else the style's.", show_default=False),
    ] = None,
    blind: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Model that must find the box from picture, phrase and rationale, at an IoU of 0.5.",
            show_default=False,
        ),
    ] = None,
    blind_server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"Its server, if another; its key is taken from {BLIND_KEY}.",
            show_default=False,
        ),
    ] = None,
    blind_prefill: Annotated[
        bool,
        typer.Option(
            "--blind-prefill",
            help="Give it the rationale as its own reasoning: for EGM's models, where answers can be gone on with.",
        ),
    ] = False,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Write conversations too: qwen-vl-finetune, llama-factory or ms-swift; repeatable.",
            show_default=False,
        ),
    ] = None,
    images: options.Images = None,
    data_root: options.DataRoot = None,
    allow_partial: options.AllowPartial = False,
    from_codec: options.FromCodec = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first samples.", show_default=False)] = None,
    corrupt: Annotated[
        float | None,
        typer.Option(help="Plant defects in this share of synthref's rationales, to try filters.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print one whole request and what all would take; ask nothing.")
    ] = False,
    go_on: Annotated[
        bool, typer.Option("--go-on", help="Go on also where nine in ten of the first 50 answers were dropped.")
    ] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Have a teacher explain boxes, and make training data of what passes.

    The teacher sees the picture with the true box drawn on it, the phrase and the box. What it says goes through
    filters, and with --blind to a second model that has to find the box. A sample has up to --tries tries, and is then
    dropped; nothing is patched. Each answer goes into OUT/journal.jsonl at once: however a run ended, the same command
    goes on with it and pays for nothing twice. At the end, and where the budget ends, OUT holds train.jsonl and
    train.parquet for egm sft, the files of --format, and a data card. A shard (--shard) is a run of its own, with its
    own budget, until egm rationales merge joins all. Exit code 0 if the run is through or its budget
    spent, 1 if samples are left without an answer or nearly all of 50 answers were dropped, 2 if the input is bad.
    """
    from egm.datasets import open_dataset
    from egm.evaluate.shards import Shard
    from egm.rationales import Spending, load_prices, make_rationales, read_budget
    from egm.rationales.ledger import refuse_another_run
    from egm.rationales.run import RunSettings, run_identity, style_filters
    from egm.rationales.styles import read_strictly
    from egm.rationales.write import check_formats

    check_formats(formats or ())
    if blind_prefill and blind is None and blind_server is None:
        raise EgmError(
            "--blind-prefill is how a blind check is asked, and there is none: give --blind MODEL, or leave it out"
        )
    listed = None if prices is None else load_prices(prices)
    spending = Spending(None if budget is None else read_budget(budget, listed), listed)
    wording = _wording(teacher, style, styles)
    if corrupt is not None and wording is not None:
        raise EgmError("--corrupt plants defects in what synthref says: leave it out for another teacher")
    chosen = None if filters is None else read_strictly(filters, "filters")
    options.refuse_no_folder(images)
    share = None if shard is None else Shard.parse(shard)
    has_check = blind is not None or blind_server is not None
    useless = {
        "--no-mark": no_mark,
        "--server and --serve": server or serve,
        "--temperature": temperature is not None,
        "--seed": seed is not None,
        "--concurrency": concurrency is not None and not has_check,
        "--device and --dtype": (device, dtype) != ("auto", "auto") and not has_check,
    }
    offline = open_offline(style, corrupt, useless) if wording is None else None
    drawn = offline is not None and not dry_run and is_drawn(dataset, limit)
    opened = (
        None
        if drawn
        else open_dataset(
            dataset, images=images, data=data_root, allow_partial=allow_partial, first=limit, codec=from_codec
        )
    )
    concurrency = concurrency or (8 if offline is None or has_check else 1)  # one at a time, sample by sample
    if chosen is None:
        chosen = style_filters(style, wording, data=None if data_root is None else str(data_root))
    settings = RunSettings(style, wording, chosen, tries)
    with RunModels(server, serve, aim, codec, device, dtype, concurrency, dry=dry_run) as models:
        made: Teacher
        if offline is not None:
            made = offline
        elif wording is not None:
            generation = _generation(wording, 0.7 if temperature is None else temperature, seed or 0, tries)
            made = models.teacher(teacher, wording, generation, mark=not no_mark)
        if dry_run:
            assert opened is not None
            _print_estimate(opened, made, wording, spending, tries, blind or blind_server, share)
            return
        check = models.blind(blind, blind_server, prefill=blind_prefill) if has_check else None
        _check_prices(spending, made, check)
        if opened is None:
            assert offline is not None
            identity = run_identity(made, settings, codec=models.codec, blind=check, shard=share)
            refuse_another_run(out, identity, {"name": dataset, "n": count_samples(dataset, limit)})
            opened = draw_samples(offline, dataset, limit, out, style, tries, share)
        try:
            run = make_rationales(
                opened,
                made,
                out,
                settings,
                codec=models.codec,
                formats=tuple(dict.fromkeys(formats or ())),
                blind=check,
                spending=spending,
                concurrency=concurrency,
                go_on=go_on,
                shard=share,
            )
        except KeyboardInterrupt:
            print(f"interrupted: {spaced(out)} keeps the answers, and the same command goes on", file=sys.stderr)
            raise typer.Exit(130) from None
    _print_run(run, out, as_json)
    # Names of pictures that are files stay relative to where they lie.
    root = opened.root if opened.names_files else None
    where = None if root is None or root.resolve() == out.resolve() else root
    place = () if where is None else ("--images", where)
    steps = [shell_command("egm", "rationales", "report", out, *place)]
    if share is not None:
        steps.append("egm rationales merge RUN... --out DIR, of all shards")
    elif run.tally.kept:
        rows = out / "train.jsonl"
        pictures = () if where is None else ("--set", f"data.images={where}")
        steps.append(shell_command("egm", "sft", "RECIPE.yaml", "--set", f"data.train={rows}", *pictures))
    say_next(*steps)


app.command("merge")(merge_rationales_command)


@app.command("report")
def report_rationales(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that egm rationales wrote.", show_default=False)],
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="The page; RUN/report.html by default.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Most tries on the page.")] = 200,
    images: options.Images = None,
    as_json: options.AsJson = False,
) -> None:
    """Count what each filter dropped, and write an HTML page of tries, kept and dropped.

    The page shows pictures with the mark, rationales and verdicts. Pictures are taken from --images, but those of
    SynthRef are drawn again.
    """
    from egm.files import write_text
    from egm.rationales.report import rationale_page, read_report

    options.refuse_no_folder(images)
    found = read_report(run)
    target = page if page is not None else run / "report.html"
    if target.is_dir():
        raise EgmError(f"cannot write the page to {str(target)!r}, which is a folder: name a file in it")
    text = rationale_page(found, images=images, rows=rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
    numbers = found.to_dict()
    if as_json:
        print(json.dumps({**numbers, "page": str(target)}))
        return
    _print_counts(numbers["filters"], numbers["tries"])
    failed = f", {found.failed:,} without an answer: {printable(found.usual_error)}" if found.failed else ""
    print(f"kept {numbers['kept']:,} of {numbers['samples']:,} samples, in {numbers['tries']:,} tries{failed}")
    print(f"page: {spaced(target)}")
    say_next(f"open {target} in a browser")


def _wording(teacher: str, style: str, styles: Path | None) -> TeacherStyle | None:
    from egm.rationales.styles import style_of

    if teacher == SYNTHREF:
        if styles is not None:
            raise EgmError("--styles is for teachers that are asked in words, and synthref is not: leave it out")
        return None
    return style_of(style, styles)


def _generation(wording: TeacherStyle, temperature: float, seed: int, tries: int) -> GenerationSettings:
    from egm.backends.base import GenerationSettings

    if temperature == 0 and tries > 1:
        raise EgmError(f"{tries} tries at temperature 0 are one answer {tries} times: give --tries 1, or sample")
    return GenerationSettings(max_new_tokens=wording.max_tokens, temperature=temperature, seed=seed)


def _check_prices(spending: Spending, teacher: Teacher, blind: BlindCheck | None) -> None:
    """Refuse a price list that lacks a model, before anything is paid for."""
    if spending.prices is not None:
        for name in filter(None, (teacher.name, None if blind is None else blind.name)):
            spending.prices.price_of(name)


def _print_estimate(
    opened: Any,
    teacher: Teacher,
    wording: TeacherStyle | None,
    spending: Spending,
    tries: int,
    blind: str | None,
    share: Shard | None,
) -> None:
    from egm.rationales.estimate import estimate_run
    from egm.rationales.teachers import ModelTeacher

    if not isinstance(teacher, ModelTeacher) or wording is None:
        if share is not None:
            from egm.evaluate.plan import plan_samples

            opened = share.take(plan_samples({opened.name: opened})[0])
        print(f"{len(opened):,} samples, worded without a model: nothing is asked, and nothing paid")
        return
    found = estimate_run(opened, teacher, wording, spending, tries=tries, blind=blind, shard=share)
    print("\n".join(map(spaced, found.request.splitlines())))
    for line in found.lines:
        print(printable(line))


def _print_run(run: RationaleRun, out: Path, as_json: bool) -> None:
    tally = run.tally
    if as_json:
        spending = tally.spending
        numbers = {name: getattr(tally, name) for name in ("total", "kept", "dropped", "failed", "tries")}
        cost = {name: getattr(spending, name) for name in ("calls", "prompt", "completion", "money", "uncounted")}
        filters = {name: tally.by_filter[name] for name in tally.by_filter}
        print(json.dumps({"folder": str(out), **numbers, "stopped": run.stopped, "cost": cost, "filters": filters}))
    else:
        _print_counts(dict(tally.by_filter), tally.tries)
        spent = tally.cost()
        print(
            f"kept {tally.kept:,} of {tally.total:,} samples, dropped {tally.dropped:,}"
            + (f", {tally.failed:,} without an answer" if tally.failed else "")
            + (f"; {spent}" if spent else "")
        )
        print(f"{'training data and card' if tally.kept else 'card'}: {spaced(out)}")
    for line in run.notes:
        note(line)
    if run.is_early:
        print("error:", printable(f"{run.stopped}: mend style or teacher, or --go-on"), file=sys.stderr)
        raise typer.Exit(1)
    if run.stopped is not None:
        note(f"{run.stopped}: {tally.total - tally.done:,} samples are left, and more --budget goes on with them")
    if tally.failed:
        print(
            "error:",
            printable(f"{tally.failed:,} samples are without an answer: {tally.usual_error()}"),
            "(the same command asks them again)",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def _print_counts(filters: dict[str, int], tries: int) -> None:
    from rich.text import Text

    from egm.rationales.report import reasons

    table = plain_table("filter", "drops what", "tries", "share", names=2)
    known = reasons()
    for name, count in filters.items():
        share = f"{100 * count / tries:.1f} %" if tries else "-"
        table.add_row(Text(printable(name)), Text(known.get(name, "")), f"{count:,}", share)
    if table.row_count:
        console().print(table)
