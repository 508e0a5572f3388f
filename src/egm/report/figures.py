"""Accuracy against latency, as bubbles, and against tokens: PNG and SVG of the same bytes from the same journals."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from egm.datasets import EVALUATION
from egm.datasets.benchmarks import measure_title
from egm.extras import need
from egm.models.presets import size_text
from egm.report.figure_points import Point
from egm.report.published import published
from egm.report.run_tables import column_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

# Blue and grey stay apart in print and for every common kind of colour blindness; published bubbles are hollow besides.
_OURS: Final = "#0072b2"
_THEIRS: Final = "#6b6b6b"
_AREA_PER_BILLION: Final = 14.0  # square points
_LARGEST: Final = 700.0  # where all models are small, of the largest of them
_SMALLEST: Final = 28.0
_UNKNOWN: Final = 60.0
_CAP: Final = 3.0  # half the width of an interval's ends, points
FIGURE_STYLE: Final = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "svg.hashsalt": "egm",  # else every file has other ids
    "text.parse_math": False,  # names are no formulas
}
"""How figures look."""


def latency_figure(points: Sequence[Point], splits: Sequence[str]) -> dict[str, bytes]:
    """Draw accuracy against mean latency, bubble area by parameters; points without a latency are left out.

    Args:
        points: See `egm.report.figure_points.points_of`.
        splits: What accuracy is averaged over, for the axis.

    Returns:
        The files' content by suffix, `.png` and `.svg`.

    Raises:
        ValueError: If no point has a latency.
    """
    shown = [point for point in points if point.milliseconds is not None]
    scale = _area_per_parameter(shown)
    alike = size_text(round(_SMALLEST / scale))
    notes = [
        f"Bubble area: parameters; up to {alike} all bubbles are alike, and a cross marks a model of unknown size."
    ]
    if any(point.is_published for point in shown):
        notes.append(published().latency_note)
    notes += [f"Latency of {point.name} derived: {point.derived}." for point in shown if point.derived]
    return _draw(
        shown,
        [point.milliseconds or 0.0 for point in shown],
        "mean latency of an answer, ms (log scale)",
        splits,
        partial(_bubble_area, scale=scale),
        notes,
        sized=True,
    )


def tokens_figure(points: Sequence[Point], splits: Sequence[str]) -> dict[str, bytes]:
    """Draw accuracy against mean tokens of an answer; as `latency_figure`, without bubbles."""
    shown = [point for point in points if point.tokens is not None]
    notes = ["Tokens generated: reasoning and answer, by each model's own tokenizer."]
    return _draw(
        shown,
        [point.tokens or 0.0 for point in shown],
        "mean tokens of an answer (log scale)",
        splits,
        lambda _: 60.0,
        notes,
        sized=False,
    )


def _area_per_parameter(points: Sequence[Point]) -> float:
    """Square points a parameter: the same in all figures of published sizes, more where all models are small."""
    largest = max((point.parameters or 0 for point in points), default=0)
    usual = _AREA_PER_BILLION / 1e9
    return usual if largest * usual >= _SMALLEST or not largest else _LARGEST / largest


def _bubble_area(point: Point, *, scale: float) -> float:
    return _UNKNOWN if point.parameters is None else max(_SMALLEST, point.parameters * scale)


def _draw(
    points: Sequence[Point],
    xs: Sequence[float],
    x_title: str,
    splits: Sequence[str],
    area: Callable[[Point], float],
    notes: Sequence[str],
    *,
    sized: bool,
) -> dict[str, bytes]:
    if not points:
        raise ValueError("there is nothing to draw")
    need("drawing figures", "matplotlib")
    import matplotlib
    from matplotlib.figure import Figure

    with (
        matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **FIGURE_STYLE}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in letters that the font lacks
        figure = Figure(figsize=(7.2, 4.9), dpi=200)
        axes = figure.add_axes((0.09, 0.25, 0.88, 0.68))
        _scale(axes, points, xs)
        handles: dict[str, Any] = {}
        for point, x, size in zip(points, xs, map(area, points), strict=True):
            handles.setdefault(*_mark(axes, point, x, size, sized=sized))
        axes.set_xlabel(x_title)
        axes.set_ylabel(f"{measure_title(splits)}, %")
        axes.set_title(_y_title(splits), loc="left", fontsize=9.5, color="#333333")
        radii = [math.sqrt(area(point) / math.pi) for point in points]
        figure.draw_without_rendering()
        taken = _marks(figure, axes, points, xs, radii)
        taken.append(_legend(axes, handles, taken))
        _label(axes, points, xs, radii, taken, sized=sized)
        lines = [line for note in notes for line in textwrap.wrap(note, 118)]
        figure.text(0.09, 0.13, "\n".join(lines), fontsize=7.2, color="#555555", va="top", linespacing=1.35)
        return figure_files(figure)


def figure_files(figure: Figure) -> dict[str, bytes]:
    """Write a figure as files that are the same bytes for the same figure: their content by suffix."""
    files = {}
    for kind in ("png", "svg"):
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
        files[f".{kind}"] = stream.getvalue()
    return files


def _y_title(splits: Sequence[str]) -> str:
    if tuple(splits) == EVALUATION:
        return "Mean of the eight RefCOCO splits; published averages as published"
    if len(splits) == 1:
        return column_title(splits[0])
    titles = ", ".join(column_title(split) for split in splits)
    return textwrap.shorten(f"Mean of {titles}", 100, placeholder=" …")


def _scale(axes: Axes, points: Sequence[Point], xs: Sequence[float]) -> None:
    """A logarithmic x axis with plain numbers, and room for bubbles and names."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    span = max(xs) / min(xs)
    pad = max(span**0.22, 1.6)
    axes.set_xlim(min(xs) / pad, max(xs) * pad)
    decades = math.log10(span * pad * pad)
    subs = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if decades < 1 else (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low = min(point.accuracy if point.low is None else point.low for point in points)
    high = max(point.accuracy if point.high is None else point.high for point in points)
    margin = max(0.18 * (high - low), 0.6)
    axes.set_ylim(max(low - margin, -2.0), min(high + margin, 102.0))


def _mark(axes: Axes, point: Point, x: float, area: float, *, sized: bool) -> tuple[str, Any]:
    """Draw a point, whole at the edge of the axes too; returns its name in the legend and what stands for it there."""
    if point.is_published:
        mark = axes.scatter(
            [x],
            [point.accuracy],
            s=area,
            facecolors="#6b6b6b22",
            edgecolors=_THEIRS,
            linewidths=1.2,
            linestyles="--",
            clip_on=False,
        )
        key = axes.scatter([], [], s=60, facecolors="#6b6b6b22", edgecolors=_THEIRS, linewidths=1.2, linestyles="--")
        return "as published, measured elsewhere", key
    assert point.low is not None
    assert point.high is not None
    ends = [[point.accuracy - point.low], [point.high - point.accuracy]]
    axes.errorbar([x], [point.accuracy], yerr=ends, fmt="none", ecolor=_OURS, elinewidth=1.1, capsize=_CAP, zorder=3)
    unknown = sized and point.parameters is None
    mark = axes.scatter(
        [x], [point.accuracy], s=area, marker="X" if unknown else "o", color=_OURS, alpha=0.75, zorder=4, clip_on=False
    )
    mark.set_edgecolor("white")
    return "measured here, 95 % interval", axes.scatter([], [], s=60, color=_OURS, alpha=0.75)


def _marks(
    figure: Figure, axes: Axes, points: Sequence[Point], xs: Sequence[float], radii: Sequence[float]
) -> list[Bbox]:
    """Where bubbles and intervals lie, in pixels."""
    from matplotlib.transforms import Bbox

    scale = figure.dpi / 72
    boxes = []
    for point, x, r in zip(points, xs, (scale * radius for radius in radii), strict=True):
        across, along = axes.transData.transform((x, point.accuracy))
        boxes.append(Bbox.from_extents(across - r, along - r, across + r, along + r))
        if point.low is not None and point.high is not None:
            low, high = (axes.transData.transform((x, end))[1] for end in (point.low, point.high))
            boxes.append(Bbox.from_extents(across - _CAP * scale, low, across + _CAP * scale, high))
    return boxes


def _legend(axes: Axes, handles: Mapping[str, Any], taken: Sequence[Bbox]) -> Bbox:
    """Put the legend into the corner where it hides least, lower ones first; return where that is."""
    hidden: dict[str, float] = {}
    for corner in ("lower left", "lower right", "upper left", "upper right"):
        place = _legend_in(axes, handles, corner)
        hidden[corner] = sum(_overlap(place, other) for other in taken)
    return _legend_in(axes, handles, min(hidden, key=lambda corner: hidden[corner]))


def _legend_in(axes: Axes, handles: Mapping[str, Any], corner: str) -> Bbox:
    legend = axes.legend(
        handles.values(), handles.keys(), loc=corner, fontsize=8, framealpha=0.9, edgecolor="#cccccc", borderpad=0.8
    )
    return legend.get_window_extent()


def _shown(point: Point, *, sized: bool) -> str:
    """The name, and in the bubble chart what else is to be known of the model."""
    name = point.name if len(point.name) <= 40 else f"{point.name[:39]}…"
    facts = []
    if sized and point.parameters is not None:
        facts.append(size_text(point.parameters))
    if sized and point.concurrency is not None:
        facts.append(f"{point.concurrency} at once")
    if sized and point.derived:
        facts.append("latency derived")
    return f"{name} ({', '.join(facts)})" if facts else name


def _label(
    axes: Axes, points: Sequence[Point], xs: Sequence[float], radii: Sequence[float], taken: list[Bbox], *, sized: bool
) -> None:
    """Name every point where its name covers no other name and nothing of what is `taken`, as far as there is room."""
    frame = axes.get_window_extent()
    for point, x, r in zip(points, xs, radii, strict=True):
        reach = 0.72 * r + 4
        places: list[tuple[float, float, str, str]] = [(r + 4, 0, "left", "center"), (-r - 4, 0, "right", "center")]
        places += [(0, r + 5, "center", "bottom"), (0, -r - 5, "center", "top")]
        corners = [
            (1, "left", 1, "bottom"),
            (1, "left", -1, "top"),
            (-1, "right", 1, "bottom"),
            (-1, "right", -1, "top"),
        ]
        places += [(right * reach, up * reach, across, along) for right, across, up, along in corners]
        best = None
        for dx, dy, across, along in places:
            label = axes.annotate(
                _shown(point, sized=sized),
                (x, point.accuracy),
                (dx, dy),
                textcoords="offset points",
                ha=across,
                va=along,
                fontsize=8.5,
                color="#444444" if point.is_published else "#004c78",
                zorder=5,
            )
            box = label.get_window_extent()
            cost = sum(_overlap(box, other) for other in taken) + 4 * (box.width * box.height - _overlap(box, frame))
            if best is None or cost < best[0] - 1:
                if best is not None:
                    best[1].remove()
                best = cost, label, box
            else:
                label.remove()
        assert best is not None
        taken.append(best[2])


def _overlap(a: Bbox, b: Bbox) -> float:
    across, along = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(across * along) if across > 0 and along > 0 else 0.0
