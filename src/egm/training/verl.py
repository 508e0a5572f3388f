"""The reward for verl under the path that clusters name in their configurations; see `egm.training.rewards.verl`."""

from __future__ import annotations

from egm.training.rewards.verl import compute_score

__all__ = ["compute_score"]
