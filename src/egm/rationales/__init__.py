"""Rationales: a teacher explains why a box is the right one, filters decide, and training data comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egm.lazy import lazy_names

if TYPE_CHECKING:
    from egm.rationales.blind import BlindCheck
    from egm.rationales.candidate import Candidate
    from egm.rationales.corrupt import Corruption
    from egm.rationales.drawn import draw_explained
    from egm.rationales.make import make_rationales
    from egm.rationales.prices import Spending, load_prices, read_budget
    from egm.rationales.report import rationale_page, read_report
    from egm.rationales.run import RationaleRun, RunSettings
    from egm.rationales.styles import load_styles, style_of
    from egm.rationales.teachers import ModelTeacher, SynthRefTeacher, Teacher

__all__ = [
    "BlindCheck",
    "Candidate",
    "Corruption",
    "ModelTeacher",
    "RationaleRun",
    "RunSettings",
    "Spending",
    "SynthRefTeacher",
    "Teacher",
    "draw_explained",
    "load_prices",
    "load_styles",
    "make_rationales",
    "rationale_page",
    "read_budget",
    "read_report",
    "style_of",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "blind": ("BlindCheck",),
        "candidate": ("Candidate",),
        "corrupt": ("Corruption",),
        "drawn": ("draw_explained",),
        "make": ("make_rationales",),
        "prices": ("Spending", "load_prices", "read_budget"),
        "report": ("rationale_page", "read_report"),
        "run": ("RationaleRun", "RunSettings"),
        "styles": ("load_styles", "style_of"),
        "teachers": ("ModelTeacher", "SynthRefTeacher", "Teacher"),
    },
)
