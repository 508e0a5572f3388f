"""Rows as TRL lays them, padded on both sides, and as the model takes them: beginning in column 0, without a mask.

TRL pads prompts on the left and completions on the right, so that all completions begin in one column:

```
TRL's row      . . p p p | c c . .      P columns of the prompt, C of the completion, T = P + C
packed         p p p c c . . . .        under causal attention no token sees what comes after it: no mask is needed
```

B is the number of rows, U that of different prompts: the completions of a group share one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from egm.models.families import Family
from egm.training.grpo.prompts import Prompts


@dataclass(frozen=True, slots=True)
class PromptPositions:
    """Where the tokens of prompts stand, on one axis or on three (time, height, width).

    Attributes:
        ids: Position ids, shape (U, P) or (3, U, P); of no meaning beyond a prompt's end.
        lengths: Tokens of each prompt, shape (U,).
        following: The position after the prompt's last, shape (U,): a picture may take fewer positions than tokens.
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    following: torch.Tensor

    @classmethod
    def of(cls, prompts: Prompts, family: Family, config: Any, *, pad: int, device: torch.device) -> PromptPositions:
        """Compute them once for a generation.

        Args:
            prompts: The prompts.
            family: The model's.
            config: The model's.
            pad: The token of the padding.
            device: Where they go.
        """
        lengths = torch.tensor([len(ids) for ids in prompts.ids])
        table = torch.full((len(prompts.ids), int(lengths.max())), pad)  # (U, P)
        for row, ids in enumerate(prompts.ids):
            table[row, : len(ids)] = torch.tensor(ids)
        mask = torch.arange(table.shape[1]) < lengths[:, None]
        grids = [prompts.grids[picture] for picture in prompts.pictures]
        positions = family.positions(table, grids, mask, config)
        following = positions.reshape(-1, *table.shape).amax(dim=(0, 2)) + 1
        return cls(positions.to(device), lengths.to(device), following.to(device))

    def of_rows(self, rows: torch.Tensor) -> PromptPositions:
        """Repeat those of each prompt for the rows that have it: (B,) numbers of prompts to (..., B, P), (B,), (B,)."""
        rows = rows.to(self.lengths.device)
        return PromptPositions(self.ids[..., rows, :], self.lengths[rows], self.following[rows])

    def extended(self, total: int) -> torch.Tensor:
        """Return position ids of whole packed rows, shape (..., B, T): the prompt's own, then one after the other."""
        columns = torch.arange(total, device=self.lengths.device)
        prompt = torch.nn.functional.pad(self.ids, (0, max(0, total - self.ids.shape[-1])))[..., :total]
        # Text stands at the same position in all axes, and goes on by one a token from `following`.
        completion = columns + (self.following - self.lengths)[:, None]
        return torch.where(columns < self.lengths[:, None], prompt, completion)


def pack(ids: torch.Tensor, mask: torch.Tensor, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Move the padding that stands on the left of rows to their right.

    Args:
        ids: Tokens, shape (B, T).
        mask: 1 on tokens and 0 on padding, shape (B, T); the tokens of a row stand next to each other.
        pad: The token of the padding.

    Returns:
        Tokens, shape (B, T), each row beginning in column 0; and how many are no padding, shape (B,).
    """
    total = ids.shape[1]
    columns = torch.arange(total, device=ids.device)
    lengths = mask.sum(1)
    left = (mask.cumsum(1) == 0).sum(1)  # (B,): columns before the first token
    shifted = ids.gather(1, (columns + left[:, None]).clamp(max=total - 1))
    return shifted.where(columns < lengths[:, None], torch.full_like(ids, pad)), lengths


def completion_values(
    values: torch.Tensor, prompt_lengths: torch.Tensor, lengths: torch.Tensor, columns: int
) -> torch.Tensor:
    """Take the completions' values out of packed rows, back to where TRL has completions.

    Args:
        values: What the model says of each next token, shape (B, T - 1): that of token t stands at t - 1.
        prompt_lengths: Tokens of each prompt, shape (B,).
        lengths: Tokens of each packed row, shape (B,).
        columns: C, the columns that completions take.

    Returns:
        Shape (B, C), 0 after a completion's end.
    """
    column = torch.arange(columns, device=values.device)
    source = (column + prompt_lengths[:, None] - 1).clamp(max=values.shape[1] - 1)
    in_completion = column < (lengths - prompt_lengths)[:, None]
    return values.gather(1, source).where(in_completion, values.new_zeros(()))
