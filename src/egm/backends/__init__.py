"""Backends of EGM."""
