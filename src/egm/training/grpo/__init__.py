"""Reinforcement on boxes: GRPO and its kin through TRL."""
