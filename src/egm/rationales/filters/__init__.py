"""Filters: each a reason to drop a rationale, with a name, and the words that gave it away."""

from egm.rationales.filters.base import (
    Filter,
    Verdict,
    build_filters,
    filter_names,
    filter_reasons,
    keep,
    register_filter,
    run_filters,
)
from egm.rationales.filters.contradiction import Contradiction
from egm.rationales.filters.defaults import default_recipe
from egm.rationales.filters.evaluation_picture import EvaluationPicture
from egm.rationales.filters.failure import TeacherFailure
from egm.rationales.filters.language import Language
from egm.rationales.filters.leak import Leak
from egm.rationales.filters.length import Length
from egm.rationales.filters.near_duplicate import NearDuplicate
from egm.rationales.filters.repetition import Repetition

__all__ = [
    "Contradiction",
    "EvaluationPicture",
    "Filter",
    "Language",
    "Leak",
    "Length",
    "NearDuplicate",
    "Repetition",
    "TeacherFailure",
    "Verdict",
    "build_filters",
    "default_recipe",
    "filter_names",
    "filter_reasons",
    "keep",
    "register_filter",
    "run_filters",
]
