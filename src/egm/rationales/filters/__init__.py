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
from egm.rationales.filters.defaults import default_recipe

__all__ = [
    "Filter",
    "Verdict",
    "build_filters",
    "default_recipe",
    "filter_names",
    "filter_reasons",
    "keep",
    "register_filter",
    "run_filters",
]
