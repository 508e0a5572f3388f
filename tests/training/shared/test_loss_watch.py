"""What is no number: a loss names its batch, and weights are not kept."""

from __future__ import annotations

import pytest
import torch

from egm.errors import EgmError
from egm.training.shared.loss_watch import LossWatch, check_weights


def test_of_a_large_batch_the_first_samples_are_named_and_the_others_counted() -> None:
    with pytest.raises(EgmError, match=r"in the batch of samples 0, 1, 2, 3, 4, 5, 6, 7 and 1016 more: look"):
        LossWatch().add(1, [str(number) for number in range(1024)], torch.tensor(float("inf")))


def test_weights_that_are_no_numbers_are_not_kept() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, float("inf")]))
    with pytest.raises(EgmError, match="weights are no numbers after step 7"):
        check_weights([weight], 7)
