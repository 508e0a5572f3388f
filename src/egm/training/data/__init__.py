"""What is trained on: numbered rows, the order that they come in, and the checks before the first step."""

from __future__ import annotations

from egm.training.data.check import DataReport, check_boxes, check_rows
from egm.training.data.order import Order
from egm.training.data.rows import Blocks, DatasetRows, MixedRows, Rows, SynthRefRows
from egm.training.data.sources import SYNTHETIC, open_rows

__all__ = [
    "SYNTHETIC",
    "Blocks",
    "DataReport",
    "DatasetRows",
    "MixedRows",
    "Order",
    "Rows",
    "SynthRefRows",
    "check_boxes",
    "check_rows",
    "open_rows",
]
