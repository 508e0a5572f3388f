"""Samples to a journal, resumable at any moment; and what a journal says, in numbers."""

from __future__ import annotations

from egm.evaluate.replay import read_script
from egm.evaluate.run import Evaluation, evaluate
from egm.evaluate.totals import latency_totals, totals
from egm.journal import ERROR

__all__ = ["ERROR", "Evaluation", "evaluate", "latency_totals", "read_script", "totals"]
