"""Formats of rows: one module each, which says by which keys a row is known and how it becomes samples."""
