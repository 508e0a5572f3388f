"""Cli of EGM."""
