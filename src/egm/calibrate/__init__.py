"""Calibration: from answers with and without thinking to a gate that keeps accuracy within a bound, and what it saves.

`paired` reads both runs, `bound` certifies thresholds, `fit` chooses among them and writes the gate, `frontier` shows
accuracy against tokens.
"""

from egm.calibrate.fit import Calibration, calibrate, check_enough, fit_gate
from egm.calibrate.paired import PairedAnswers, read_pairs

__all__ = ["Calibration", "PairedAnswers", "calibrate", "check_enough", "fit_gate", "read_pairs"]
