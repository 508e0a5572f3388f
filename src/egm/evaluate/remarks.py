"""How a run was asked, in words, where it was not asked as it usually is: what belongs beside its figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from egm.codecs import codec_names, get_codec
from egm.datasets.benchmarks import benchmark_of
from egm.journal import Header, Record

_THINKS: Final = {
    "never": "asked for direct answers, without reasoning (--think never)",
    "auto": "thinks only where its gate says that it pays (--think auto)",
}
_EXPECTS: Final = {
    "one": "asked for one box (--expect one)",
    "any": "asked for one box or none (--expect any)",
    "all": "asked for all boxes, or none (--expect all)",
}


def asking_remarks(header: Header, records: Iterable[Record]) -> list[str]:
    """Say what of a run's asking is not as usual: its reasoning, sampling, prompt, and how many boxes it asks for.

    Args:
        header: Of the run.
        records: Its answers, or those of some splits.

    Returns:
        A line each; none for a run that is asked greedily, with reasoning as the model likes, in the codec's default
        prompt, for as many boxes as the samples themselves expect.
    """
    settings, remarks = header.settings, []
    if settings.get("stop"):
        remarks.append("answers end behind their box (--cut-tail), which saves tokens and time")
    if (how := _THINKS.get(str(settings.get("think")))) is not None:
        remarks.append(how)
    if settings.get("thinking_budget") is not None:
        remarks.append(f"at most {settings['thinking_budget']:,} tokens of reasoning (--thinking-budget)")
    if settings.get("temperature"):
        remarks.append(f"sampled at temperature {settings['temperature']:g}")
    if (settings.get("votes") or 1) > 1:
        remarks.append(f"{settings['votes']} votes on each question (--votes)")
    style, codec = header.prompt.get("style"), header.codec.get("name")
    if style and codec in codec_names() and style != get_codec(codec).prompts[0]:
        remarks.append(f"asked in the words of another prompt (--prompt {style})")
    by_split: dict[str, list[Record]] = {}
    for record in records:
        by_split.setdefault(record.split, []).append(record)
    others = (expect for split, own in by_split.items() for expect in _others_asked_for(split, own))
    return remarks + [_EXPECTS[expect] for expect in dict.fromkeys(others)]


def _others_asked_for(split: str, records: Sequence[Record]) -> list[str]:
    """What was asked for in place of what the samples of a split expect.

    Only benchmarks are known to expect none or many. Of other data a journal does not say it: where every sample has
    exactly one true box, that is taken for what they expect.
    """
    benchmark = benchmark_of(split)
    if benchmark is None and any(len(record.true_boxes) != 1 for record in records):
        return []
    usual = "one" if benchmark is None else benchmark.expect
    return [expect for expect in dict.fromkeys(record.expect for record in records) if expect != usual]
