"""Bins of confidence, and the calibration error over them, by hand."""

from __future__ import annotations

import pytest

from egm.reliability import Bin, calibration_error, reliability


def test_calibration_error_by_hand() -> None:
    confidences, right = [0.25, 0.25, 0.95, 1.0, 1.0], [1, 0, 1, 1, 0]
    assert reliability(confidences, right, bins=2) == [
        Bin(0.25, 0.5, 2),
        Bin(pytest.approx(2.95 / 3), pytest.approx(2 / 3), 3),
    ]
    expected = 2 / 5 * 0.25 + 3 / 5 * (2.95 / 3 - 2 / 3)
    assert calibration_error(confidences, right, bins=2) == pytest.approx(expected)
    assert calibration_error([0.0, 1.0], [0, 1]) == 0.0
    assert [item.rows for item in reliability([0.1, 0.2, 0.0], [0, 0, 0], bins=10)] == [2, 1]  # edges below
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        calibration_error([1.5], [1])
