"""A table as data, and the four forms that it is written in: terminal, Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from egm.stats import Estimate

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

_MARKDOWN = {char: f"\\{char}" for char in "\\`*_[]|#~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_LATEX = {char: f"\\{char}" for char in "#$%&_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure.

    Attributes:
        text: As it is shown; empty where there is none.
        low: Lower end of its interval, if it has one.
        high: Upper end.
    """

    text: str = ""
    low: str = ""
    high: str = ""

    @classmethod
    def percent(cls, estimate: Estimate) -> Cell:
        """A share in percent with its interval, one more digit than published tables give."""
        return cls(*(f"{100 * value:.2f}" for value in (estimate.value, estimate.low, estimate.high)))


@dataclass(frozen=True, slots=True)
class Line:
    """One row.

    Attributes:
        name: What it is about.
        cells: One a column.
        remarks: What is to be known of it: footnotes, or the last column of a CSV file.
    """

    name: str
    cells: tuple[Cell, ...]
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, *texts: str) -> Line:
        """A row of figures without intervals."""
        return cls(name, tuple(map(Cell, texts)))


@dataclass(frozen=True, slots=True)
class Grid:
    """A table.

    Attributes:
        title: What it shows.
        columns: Titles, that of the rows' names first.
        sections: Lines under a heading each.
        notes: What is to be known of all of it.
    """

    title: str
    columns: tuple[str, ...]
    sections: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...] = ()

    @property
    def remarks(self) -> dict[str, int]:
        """Every remark once, with its number from 1."""
        numbers: dict[str, int] = {}
        for _, lines in self.sections:
            for line in lines:
                for remark in line.remarks:
                    numbers.setdefault(remark, len(numbers) + 1)
        return numbers

    @property
    def has_intervals(self) -> list[bool]:
        """Of each column of figures, whether any of them has an interval."""
        columns = zip(*(line.cells for _, lines in self.sections for line in lines), strict=True)
        return [any(cell.low for cell in column) for column in columns] or [False] * (len(self.columns) - 1)

    def marks(self, line: Line) -> str:
        """Numbers of a line's remarks, such as `1,3`."""
        numbers = self.remarks
        return ",".join(str(number) for number in sorted(numbers[remark] for remark in line.remarks))


def terminal(*grids: Grid) -> Group:
    """Tables for rich: intervals beneath the figures, or in a column of their own where one column alone has any.

    Where the column of names has no title, that of the table stands there.
    """
    from rich.console import Group

    parts: list[RenderableType] = [part for grid in grids for part in ("", _terminal(grid))]
    return Group(*parts[1:])


def _terminal(grid: Grid) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", title_style="bold", title_justify="left")
    first, *rest = grid.columns
    if first:
        table.title = Text(grid.title)
    alone = sum(grid.has_intervals) == 1
    table.add_column(Text(first or grid.title))
    for column, spanned in zip(rest, grid.has_intervals, strict=True):
        table.add_column(Text(column), justify="right", no_wrap=True)
        if spanned and alone:
            table.add_column("95 % interval", justify="right", no_wrap=True)
    for heading, lines in grid.sections:
        if heading:
            table.add_row(Text(heading, style="italic"))
        for line in lines:
            name = Text(f"  {line.name}" if heading else line.name)
            if line.remarks:
                name.append(f" [{grid.marks(line)}]", style="dim")
            cells = []
            for cell, spanned in zip(line.cells, grid.has_intervals, strict=True):
                interval = Text(f"{cell.low}-{cell.high}" if cell.low else "", style="dim")
                if spanned and alone:
                    cells += [Text(cell.text), interval]
                else:
                    cells.append(Text(cell.text).append("\n").append(interval) if cell.low else Text(cell.text))
            table.add_row(name, *cells)
    remarks = [Text(f"[{number}] {remark}", style="dim") for remark, number in grid.remarks.items()]
    return Group(table, *remarks, *(Text(note, style="dim") for note in grid.notes))


def markdown(grid: Grid) -> str:
    """The table in GitHub's Markdown, intervals in brackets behind the figures."""
    escape = str.maketrans(_MARKDOWN)

    def figure(cell: Cell) -> str:
        text = cell.text.translate(escape)
        return f"{text} ({cell.low}–{cell.high})" if cell.low else text

    def row(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = [row(column.translate(escape) for column in grid.columns)]
    rows.append(row(["---", *["---:"] * (len(grid.columns) - 1)]))
    for heading, lines in grid.sections:
        if heading:
            rows.append(row([f"*{heading.translate(escape)}*", *[""] * (len(grid.columns) - 1)]))
        for line in lines:
            marks = f"<sup>{grid.marks(line)}</sup>" if line.remarks else ""
            rows.append(row([line.name.translate(escape) + marks, *map(figure, line.cells)]))
    notes = [f"<sup>{number}</sup> {remark.translate(escape)}" for remark, number in grid.remarks.items()]
    parts = [f"**{grid.title.translate(escape)}**", "\n".join(rows), *notes, *(n.translate(escape) for n in grid.notes)]
    return "\n\n".join(parts) + "\n"


def latex(grid: Grid) -> str:
    """The table as a LaTeX `table` (needs the package booktabs), intervals in small type beneath the figures."""
    escape = str.maketrans(_LATEX)
    rows = [r"\begin{table}", r"\centering", rf"\caption{{{grid.title.translate(escape)}}}"]
    rows += [rf"\begin{{tabular}}{{l{'r' * (len(grid.columns) - 1)}}}", r"\toprule"]
    rows.append(" & ".join(column.translate(escape) for column in grid.columns) + r" \\")
    for heading, lines in grid.sections:
        rows.append(r"\midrule")
        if heading:
            rows.append(rf"\multicolumn{{{len(grid.columns)}}}{{l}}{{\emph{{{heading.translate(escape)}}}}} \\")
        for line in lines:
            marks = rf"\textsuperscript{{{grid.marks(line)}}}" if line.remarks else ""
            cells = [cell.text.translate(escape) for cell in line.cells]
            rows.append(" & ".join([line.name.translate(escape) + marks, *cells]) + r" \\")
            if any(cell.low for cell in line.cells):
                ends = [rf"{{\scriptsize {cell.low}--{cell.high}}}" if cell.low else "" for cell in line.cells]
                rows.append(" & ".join(["", *ends]) + r" \\")
    rows += [r"\bottomrule", r"\end{tabular}"]
    notes = [rf"\textsuperscript{{{number}}} {remark.translate(escape)}." for remark, number in grid.remarks.items()]
    notes += [note.translate(escape) for note in grid.notes]
    rows += [r"\par\smallskip\raggedright\footnotesize", *(rf"{note}\par" for note in notes)] if notes else []
    return "\n".join([*rows, r"\end{table}"]) + "\n"


def csv_text(grid: Grid) -> str:
    """The table as CSV: heading and name first, each interval in two columns of its own, remarks last."""
    spans = grid.has_intervals
    header = ["section", grid.columns[0] or "name"]
    for column, spanned in zip(grid.columns[1:], spans, strict=True):
        header += [column, f"{column} low", f"{column} high"] if spanned else [column]
    rows: list[list[str]] = [header]
    for heading, lines in grid.sections:
        for line in lines:
            row = [heading, line.name]
            for cell, spanned in zip(line.cells, spans, strict=True):
                row += [cell.text, cell.low, cell.high] if spanned else [cell.text]
            rows.append([*row, "; ".join(line.remarks)])
    header.append("remarks")
    return csv_rows(rows)


def csv_rows(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV. A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[_no_formula(text) for text in row] for row in rows])
    return stream.getvalue()


def _no_formula(text: str) -> str:
    if text[:1] in ("=", "@", "\t", "\r") or (text[:1] in ("+", "-") and not _is_number(text)):
        return f"'{text}"
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
