"""What thinking buys: accuracy against tokens for every threshold, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from egm.calibrate.fit import Calibration, Threshold
from egm.extras import need
from egm.report.figures import FIGURE_STYLE, figure_files
from egm.report.grid import Cell, Grid, Line
from egm.stats import Estimate

_LINES: Final = 10  # of thresholds in the table, beside the chosen one
_BLUE: Final = "#0072b2"
_ORANGE: Final = "#d55e00"
_GREY: Final = "#6b6b6b"


def frontier_grid(found: Calibration) -> Grid:
    """Table of thresholds: what is thought about, tokens, accuracy, and what that costs against always thinking."""
    titles = ("", "threshold", "thought about, %", "tokens", "saved, %", f"{found.counted}, %", "lost, points", "p")
    whole = found.always[1]

    def line(name: str, each: Threshold) -> Line:
        figures = (f"{each.threshold:.4g}", f"{100 * (1 - each.taken):.1f}", f"{each.tokens:.1f}")
        cells = [Cell(text) for text in (*figures, f"{100 * (1 - each.tokens / whole):+.1f}")]
        loss = Cell(*(f"{100 * value:+.2f}" for value in (each.loss.value, each.loss.low, each.loss.high)))
        return Line(name, (*cells, Cell.percent(each.accuracy), loss, Cell(f"{each.p_value:.2g}")))

    def end(name: str, share: str, accuracy: Estimate, tokens: float) -> Line:
        saved = Cell(f"{100 * (1 - tokens / whole):+.1f}")
        return Line(name, (Cell(), Cell(share), Cell(f"{tokens:.1f}"), saved, Cell.percent(accuracy), Cell(), Cell()))

    shown = [each for each in _spread(found.curve) if each is not found.chosen]
    shown += [] if found.chosen is None else [found.chosen]
    lines = [end("always", "100.0", *found.always)]
    lines += [line(_name(found, each), each) for each in sorted(shown, key=lambda each: -each.threshold)]
    lines.append(end("never", "0.0", *found.never))
    return Grid(
        f"accuracy against tokens, by the measure {found.measure!r}",
        titles,
        (("", tuple(lines)),),
        (
            f"On {found.questions:,} questions about {found.pictures:,} pictures that neither measure nor thresholds "
            "were chosen on; 95 % intervals, clustered by picture. Tokens are those of both answers where both were "
            "asked for.",
            f"Certified: with {100 * found.confidence:g} % confidence at most {found.points:g} points below always "
            "thinking, on such pictures.",
        ),
    )


def frontier_figure(found: Calibration) -> dict[str, bytes]:
    """Draw accuracy against tokens for every threshold, with intervals, and the gate among them.

    Returns:
        The files' content by suffix, `.png` and `.svg`.

    Raises:
        MissingExtraError: Without matplotlib.
    """
    need("drawing figures", "matplotlib")
    import matplotlib
    from matplotlib.figure import Figure

    curve = sorted(found.curve, key=lambda each: each.tokens)
    ends = (("always", *found.always), ("never", *found.never))
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **FIGURE_STYLE}):
        figure = Figure(figsize=(7.2, 4.6), dpi=200)
        axes = figure.add_axes((0.09, 0.13, 0.88, 0.8))
        tokens, rates = [each.tokens for each in curve], [each.accuracy for each in curve]
        low, high = [100 * rate.low for rate in rates], [100 * rate.high for rate in rates]
        axes.fill_between(tokens, low, high, color=_BLUE, alpha=0.15, linewidth=0, label="95 % interval")
        axes.plot(tokens, [100 * rate.value for rate in rates], color=_BLUE, marker=".", label="thresholds")
        axes.axhline(
            100 * found.always[0].value - found.points,
            color=_GREY,
            linestyle=":",
            label=f"{found.points:g} points below always thinking",
        )
        for name, accuracy, cost in ends:
            axes.errorbar([cost], [100 * accuracy.value], yerr=_reach(accuracy), fmt="s", color=_GREY, capsize=3)
            axes.annotate(name, (cost, 100 * accuracy.value), (6, 5), textcoords="offset points", color=_GREY)
        if (chosen := found.chosen) is not None:
            at = [100 * chosen.accuracy.value]
            axes.errorbar(
                [chosen.tokens], at, yerr=_reach(chosen.accuracy), fmt="D", color=_ORANGE, capsize=3, label="the gate"
            )
        axes.set_xlabel("tokens a question")
        axes.set_ylabel(f"{found.counted}, %")
        axes.legend(loc="lower right", fontsize=8)
        return figure_files(figure)


def _reach(rate: Estimate) -> list[list[float]]:
    return [[100 * (rate.value - rate.low)], [100 * (rate.high - rate.value)]]


def _name(found: Calibration, each: Threshold) -> str:
    return "the gate" if each is found.chosen else "certified" if each.certified else "not certified"


def _spread(curve: Sequence[Threshold]) -> list[Threshold]:
    """Some of the thresholds, evenly by how much is taken."""
    places = {round(step * (len(curve) - 1) / (_LINES - 1)) for step in range(_LINES)}
    return [curve[place] for place in sorted(places)]
