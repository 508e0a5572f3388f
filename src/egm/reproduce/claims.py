"""The paper's claims against the figures: each held, did not hold, or was not decided, by an interval.

A claim is put as a difference that is above 0 if it is true. It held if the whole 95 % interval of the difference is
above 0, did not hold if it is below, and was not decided if the interval holds 0. Differences in accuracy are paired
and clustered by picture, over all rows of the splits; with several seeds an arm has of each question the mean over its
trainings. Such an interval says nothing of another training, so what each gives by itself is said beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from egm.models.presets import size_text
from egm.report.costs import CURRENCIES, UNITS
from egm.report.labels import percent
from egm.report.tables import p_value
from egm.reproduce.results import (
    Result,
    Results,
    amodal_gain,
    by_training,
    compare_hits,
    complexity_gain,
    complexity_gap,
    cost_saved,
    seconds_saved,
)
from egm.stats import Estimate

_WHAT = {
    "tokens": "tokens than the larger one",
    "operations": "floating-point operations than the larger one",
    "bytes": "bytes moved than the larger one, asked one at a time",
}
"""What an answer takes beside time."""
_POINTS = ("points", 100.0, "+.2f")
_MILLISECONDS = ("ms saved", 1000.0, ".1f")


class Verdict(StrEnum):
    """What the figures say of a claim."""

    HELD = "held"
    NOT_HELD = "did not hold"
    UNDECIDED = "not decided"
    UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the paper.

    Attributes:
        key: A short name.
        says: What it says.
        verdict: What became of it here.
        figures: The figures that decide, or what is missing.
        difference: The difference whose interval decides: in seconds, tokens, operations or bytes, else a share.
        trainings: The same of each training by itself, see `egm.reproduce.results.by_training`; empty where each arm
            was trained once.
        arms: The arms that it compares, where it is a difference of their accuracies.
    """

    key: str
    says: str
    verdict: Verdict
    figures: str
    difference: Estimate | None = None
    trainings: tuple[float, ...] = ()
    arms: tuple[str, ...] = ()


def decide(difference: Estimate) -> Verdict:
    """Judge a difference that is above 0 if the claim is true."""
    if difference.low > 0:
        return Verdict.HELD
    return Verdict.NOT_HELD if difference.high < 0 else Verdict.UNDECIDED


def judge(results: Results) -> list[Claim]:
    """Judge all claims."""
    roles = results.plan.recipe.roles
    direct, thinking, reinforced, large = roles.direct, roles.thinking, roles.reinforced, roles.large[-1]
    return [
        _claim(
            results,
            "beats_large",
            "a small model that thinks before it points is right more often than a larger one that answers directly",
            (large, reinforced),
            _accuracy,
        ),
        _claim(
            results,
            "faster",
            "asked one at a time, it answers sooner than the larger one, its thinking included",
            (large, reinforced),
            _alone,
        ),
        _claim(
            results,
            "faster_under_load",
            "under load it answers sooner than the larger one, its thinking included",
            (large, reinforced),
            _load,
        ),
        *(
            _claim(
                results,
                f"fewer_{currency}",
                f"its thinking included, it takes fewer {what}",
                pair,
                partial(_cheaper, currency),
            )
            for currency, what in _WHAT.items()
            for pair in [(large, reinforced)]
        ),
        _claim(
            results,
            "complex_errors",
            "the small model fails above all on complex phrases (in the paper 62.8 % of its errors)",
            (direct,),
            _errors,
        ),
        _claim(
            results,
            "closes_gap",
            "thinking helps most where phrases are complex",
            (direct, reinforced),
            _gap,
        ),
        _claim(
            results, "sft_adds", "fine-tuning on rationales makes the small model better", (direct, thinking), _accuracy
        ),
        _claim(results, "rl_adds", "reinforcement after it makes it better still", (thinking, reinforced), _accuracy),
        *(
            _claim(
                results,
                f"thinking_beats_{other}",
                f"at equal data, before any reinforcement, a small model that thinks is right more often than {other}",
                (other, thinking),
                _accuracy,
            )
            for other in roles.large
        ),
        *(
            _claim(
                results,
                f"thinking_pays_in_{ours}",
                f"thinking makes a larger model better too ({ours})",
                (other, ours),
                _accuracy,
            )
            for other, ours in roles.large_thinking.items()
        ),
        _claim(
            results,
            "amodal",
            "it also wins where the box of the whole object is asked for, its hidden part too",
            (large, reinforced),
            _amodal,
        ),
    ]


def paragraph(claims: Sequence[Claim], results: Results) -> str:
    """One paragraph that says which claims held, from their figures alone."""
    sizes = sorted({result.arm.parameters for result in results.arms.values() if result.arm.parameters})
    models = f"models of {size_text(sizes[0])} to {size_text(sizes[-1])} parameters" if sizes else "small models"
    counts = [(verdict, [claim for claim in claims if claim.verdict is verdict]) for verdict in Verdict]
    counted = ", ".join(f"{len(found)} {verdict}" for verdict, found in counts if found)
    parts = [
        f"Of {len(claims)} claims of the paper, on SynthRef and with {models} trained from one recipe: {counted} "
        "(95 % intervals)."
    ]
    for verdict, found in counts:
        if found:
            title = {
                Verdict.HELD: "Held",
                Verdict.NOT_HELD: "Did not hold",
                Verdict.UNDECIDED: "Not decided, as the interval holds 0",
                Verdict.UNMEASURED: "Not measured",
            }[verdict]
            parts.append(f"{title}: {'; '.join(f'{claim.says}: {claim.figures}' for claim in found)}.")
    return " ".join(parts)


Form = tuple[str, float, str]
"""The unit of a difference, how many of it make 1, and how it is written."""
Measured = tuple[Estimate, str, Form]


def _claim(results: Results, key: str, says: str, names: tuple[str, ...], measure: Callable[..., Measured]) -> Claim:
    if lost := [name for name in names if name not in results.arms]:
        return Claim(key, says, Verdict.UNMEASURED, f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} missing")
    arms = [results.arms[name] for name in names]
    try:
        difference, figures, form = measure(*arms)
        each = tuple(measure(*single)[0].value for single in by_training(*arms))
    except ValueError as error:
        return Claim(key, says, Verdict.UNMEASURED, str(error))
    compared = names if measure is _accuracy else ()
    return Claim(key, says, decide(difference), figures + _spread(each, form), difference, each, compared)


def _spread(each: Sequence[float], form: Form) -> str:
    """What single trainings give, beside the interval."""
    if not each:
        return ""
    unit, factor, how = form
    apart = ", not all of one sign" if min(each) < 0 < max(each) else ""
    return f"; by training {', '.join(f'{factor * value:{how}}' for value in each)} {unit}{apart}"


def _accuracy(first: Result, second: Result) -> Measured:
    accuracy, test = compare_hits(first, second, draws=2)
    chance = "" if test is None else f", McNemar p {p_value(test.p_value)}"
    figures = f"Acc@0.5 {_pooled(second)} against {_pooled(first)}, {_points(accuracy.analytic)}{chance}"
    return accuracy.analytic, figures, _POINTS


def _amodal(first: Result, second: Result) -> Measured:
    gain = amodal_gain(first, second)
    asked = sum(bool(record.amodal) for record in first.questions)
    figures = f"on {asked} such questions {second.title} minus {first.title}: {_points(gain)}"
    return gain, figures, _POINTS


def _alone(first: Result, second: Result) -> Measured:
    return _sooner(first, second, load=False)


def _load(first: Result, second: Result) -> Measured:
    return _sooner(first, second, load=True)


def _sooner(first: Result, second: Result, *, load: bool) -> Measured:
    if not first.timings or not second.timings:
        raise ValueError("not both were timed")
    saved = seconds_saved(first, second, load=load)
    ours, theirs = (
        1000 * each.timed(lambda timing: (timing.load if load else timing.alone)["latency"]["mean"])
        for each in (second, first)
    )
    rates = [each.timed(lambda timing: timing.load["requests_per_second"]) for each in (second, first)]
    tokens = ["uncounted" if each.tokens is None else f"{each.tokens:.0f}" for each in (second, first)]
    how = f"in batches of {next(iter(first.timings.values())).load['concurrency']}" if load else "one at a time"
    answers = f", {rates[0]:.1f} against {rates[1]:.1f} answers a second" if load else ""
    figures = (
        f"{ours:.1f} ms with {tokens[0]} tokens ({second.title}) against {theirs:.1f} ms with "
        f"{tokens[1]} ({first.title}) {how}, {1000 * saved.value:.1f} ms saved "
        f"({1000 * saved.low:.1f} to {1000 * saved.high:.1f}){answers}"
    )
    return saved, figures, _MILLISECONDS


def _cheaper(currency: str, first: Result, second: Result) -> Measured:
    saved = cost_saved(first, second, currency)
    unit = UNITS[currency]
    ours, theirs = (result.costs.mean(currency) or 0.0 for result in (second, first))
    value, low, high = (f"{number / unit:.4g}" for number in (saved.value, saved.low, saved.high))
    figures = (
        f"{ours / unit:.4g} {CURRENCIES[currency]} an answer ({second.title}) against {theirs / unit:.4g} "
        f"({first.title}), {value} saved ({low} to {high})"
    )
    return saved, figures, (f"{CURRENCIES[currency]} saved", 1 / unit, ".4g")


def _errors(small: Result) -> Measured:
    shares, gap = small.summary.complexity, complexity_gap(small)
    if shares.among_misses is None:
        raise ValueError(f"{small.title} made no error")
    figures = (
        f"{percent(shares.among_misses.value)} % of the errors of {small.title} are on complex phrases, which are "
        f"{percent(shares.base_rate.value)} % of all; simple ones are answered better by {_points(gap)}"
    )
    return gap, figures, _POINTS


def _gap(before: Result, after: Result) -> Measured:
    gain = complexity_gain(before, after)
    figures = (
        f"from {before.title} to {after.title} the gain on complex phrases exceeds that on simple ones by "
        f"{_points(gain)}"
    )
    return gain, figures, _POINTS


def _pooled(result: Result) -> str:
    return f"{percent(result.summary.pooled['acc@0.5'].value)} % ({result.title})"


def _points(difference: Estimate) -> str:
    return f"{100 * difference.value:+.2f} points ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"
