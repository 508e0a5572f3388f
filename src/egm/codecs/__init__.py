"""Codecs: one model family's convention each, for asking, for training targets, and for reading answers."""
