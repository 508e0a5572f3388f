"""The command line: each command reads its arguments, calls what Python users can call too, and prints.

Importing this imports neither torch nor transformers, nor numpy nor Pillow: commands import what they need as they run.
"""

from __future__ import annotations

from egm.cli.commands import app, main

__all__ = ["app", "main"]
