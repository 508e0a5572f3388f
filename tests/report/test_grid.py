"""Tables in Markdown, LaTeX and CSV: what a name holds stays text."""

from __future__ import annotations

import csv
import io

from rich.console import Console

from egm.report.grid import Cell, Grid, Line, csv_text, latex, markdown, terminal

EVIL = r"a|b_c*<i>&`#\x"


def grid(name: str, *remarks: str) -> Grid:
    cells = (Cell("50.00", "40.00", "60.00"), Cell())
    return Grid(
        f"Title {name}", ("model", f"in {name}", "other"), (("part", (Line(name, cells, remarks),)),), ("Note.",)
    )


def test_markdown_escapes_and_keeps_its_columns() -> None:
    text = markdown(grid(EVIL, "remark <b>"))
    assert r"a\|b\_c\*&lt;i&gt;&amp;\`\#\\x<sup>1</sup>" in text
    assert "<i>" not in text
    assert "<b>" not in text
    rows = [row for row in text.splitlines() if row.startswith("|")]
    assert {row.replace(r"\|", "").count("|") for row in rows} == {4}
    assert "50.00 (40.00–60.00)" in text


def test_latex_escapes() -> None:
    text = latex(grid(r"a_b&c%$#{}~^\input", "50 % <of> it"))
    assert r"a\_b\&c\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}input" in text
    assert r"\textsuperscript{1} 50 \% \textless{}of\textgreater{} it." in text
    assert r"{\scriptsize 40.00--60.00}" in text


def test_csv_holds_no_formula_and_reads_back() -> None:
    for name, kept in (("=1+1", "'=1+1"), ("@x", "'@x"), ("-x", "'-x"), ('a,"b"', 'a,"b"'), ("-1.5", "-1.5")):
        [header, row] = csv.reader(io.StringIO(csv_text(grid(name, "r", "s"))))
        assert row == ["part", kept, "50.00", "40.00", "60.00", "", "r; s"]
        assert len(header) == len(row)


def shown(*grids: Grid) -> list[str]:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(terminal(*grids))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_terminal_puts_intervals_beneath_the_figures_or_beside_a_column_that_is_alone_in_having_any() -> None:
    plain, spanned = Cell("7"), Cell("50.00", "40.00", "60.00")
    alone = Grid("Title", ("", "rows", "Acc"), (("", (Line("a", (plain, spanned)), Line("b", (plain, Cell("9"))))),))
    both = Grid("Title", ("model", "Acc", "IoU"), (("part", (Line("a", (spanned, spanned), ("why",)),)),), ("Note.",))
    assert shown(alone, both) == [
        "Title  rows    Acc  95 % interval",
        "a         7  50.00    40.00-60.00",
        "b         7      9",
        "",
        "Title",
        "model            Acc          IoU",
        "part",
        "  a [1]        50.00        50.00",
        "         40.00-60.00  40.00-60.00",
        "[1] why",
        "Note.",
    ]


def test_a_table_may_hold_no_line() -> None:
    empty = Grid("Title", ("", "rows"), (("", ()),), ("Note.",))
    assert shown(empty) == ["Title  rows", "Note."]
    assert "| --- | ---: |" in markdown(empty)
    assert csv_text(empty) == "section,name,rows,remarks\n"
