"""Reports rebuilt from records, without a model: summaries, paired comparisons, tables; other people's predictions."""

from __future__ import annotations

from egm.report.compare import Comparison, compare
from egm.report.predictions import Reading, read_records
from egm.report.summary import METRICS, Summary, interval_summary

__all__ = ["METRICS", "Comparison", "Reading", "Summary", "compare", "interval_summary", "read_records"]
