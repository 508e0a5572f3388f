"""Datasets of EGM."""
