"""Samples to a journal, resumable at any moment; and what a journal says, in numbers."""

from __future__ import annotations

from egm.evaluate.merge import MergedRun, merge_runs
from egm.evaluate.replay import read_script
from egm.evaluate.run import Evaluation, evaluate
from egm.evaluate.shards import Shard, assign_shards
from egm.evaluate.totals import latency_totals, totals
from egm.journal import ERROR

__all__ = [
    "ERROR",
    "Evaluation",
    "MergedRun",
    "Shard",
    "assign_shards",
    "evaluate",
    "latency_totals",
    "merge_runs",
    "read_script",
    "totals",
]
