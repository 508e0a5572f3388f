"""Tables in Markdown, LaTeX and CSV: what a name holds stays text."""

from __future__ import annotations

import csv
import io

from egm.report.grid import Cell, Grid, Line, csv_text, latex, markdown

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
