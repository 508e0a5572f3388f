"""Rewards of completions, for TRL and for verl."""
