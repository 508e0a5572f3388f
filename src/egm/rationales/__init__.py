"""Rationales: a teacher explains why a box is the right one, filters decide, and training data comes out."""
