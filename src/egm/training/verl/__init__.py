"""Reinforcement by verl, on one GPU or a cluster of them; here is the reward, under the path that configurations name.

verl's workers import this module for `compute_score` alone, so nothing else is loaded; see `egm.training.rewards.verl`.
"""

from __future__ import annotations

from egm.training.rewards.verl import compute_score

__all__ = ["compute_score"]
