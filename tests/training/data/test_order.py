"""The order of rows: every row once an epoch, shares by weight, and nothing that depends on who loads."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.boxes import Box
from egm.datasets import Dataset
from egm.errors import RecipeError
from egm.training.data import Blocks, DatasetRows, MixedRows, Order
from egm.training.data.order import permuted
from egm.types import Sample


def rows(count: int, name: str = "s", per_row: int = 1) -> DatasetRows:
    samples = [Sample(f"{name}{i}", f"{name}{i}.jpg", "it", Box(0, 0, 9, 9)) for i in range(count)]
    return DatasetRows(Dataset(name, samples), per_row)


@given(st.integers(1, 300), st.tuples(*[st.integers(0, 2**64 - 1)] * 4))
def test_a_permutation_gives_every_number_once(count: int, key: tuple[int, ...]) -> None:
    assert sorted(permuted(i, count, key) for i in range(count)) == list(range(count))


def test_epochs_hold_every_row_once_in_other_orders() -> None:
    order = Order(rows(100), seed=1)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second != list(range(100))
    assert list(Order(rows(100), seed=1)) == first != list(Order(rows(100), seed=2))
    assert abs(np.corrcoef(first, range(100))[0, 1]) < 0.4


def test_the_order_is_the_same_in_every_version() -> None:
    assert list(Order(rows(12), seed=0)) == [2, 7, 8, 1, 6, 10, 0, 3, 4, 5, 9, 11]
    assert permuted(123, 10**9, (1, 2, 3, 4)) == 741711225


def test_sources_give_their_shares_and_small_ones_begin_again() -> None:
    mixed = MixedRows([rows(1500, "a"), rows(50, "b")], [3.0, 1.0])
    order = Order(mixed, seed=0)
    ids: list[str] = []
    for epoch in range(4):
        order.set_epoch(epoch)
        ids += [mixed[row][0].id for row in order]
    assert len(ids) == 4 * 1550
    of_a = [name for name in ids[:1000] if name[0] == "a"]
    assert len(of_a) == 750
    counts = Counter(ids)
    assert {counts[f"b{i}"] for i in range(50)} <= {30, 31, 32}  # passes over a small source are whole ones
    every_a = [name for name in ids if name[0] == "a"]
    assert len(set(every_a[:1500])) == 1500  # and a large one goes on where the last epoch left it


def test_parts_of_a_file_are_read_a_few_at_a_time() -> None:
    source = rows(60)
    source.blocks = Blocks(np.array([0, 10, 30, 35, 50, 60]), window=2)
    order = list(Order(source, seed=4))
    assert sorted(order) == list(range(60))
    parts = [int(np.searchsorted([10, 30, 35, 50], row, side="right")) for row in order]
    seen: list[set[int]] = []
    for part in parts:  # runs of at most two parts, each met in one run only
        if not seen or (part not in seen[-1] and len(seen[-1]) == 2):
            seen.append({part})
        seen[-1].add(part)
    assert len(seen) == 3
    assert sorted(part for run in seen for part in run) == [0, 1, 2, 3, 4]
    assert len({tuple(parts[i : i + 2]) for i in range(20)}) > 2  # mixed, not one after the other


def test_rows_of_several_samples_stand_beside_scenes() -> None:
    source = rows(10, per_row=4)
    assert [[sample.id for sample in source[i]] for i in range(3)][2] == ["s8", "s9"]
    assert len(source) == 3


def test_a_weight_that_gives_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.train\.1\.weight 0\.0001 is less than one row in 1000"):
        Order(MixedRows([rows(5), rows(5)], [1.0, 0.0001]), seed=0)
    with pytest.raises(RecipeError, match=r"data\.train\.1\.weight 1e\+300 is less than one row in 1000"):
        Order(MixedRows([rows(5), rows(5)], [1e308, 1e300]), seed=0)


def test_weights_past_all_sums_are_shares_all_the_same() -> None:
    drawn = list(Order(MixedRows([rows(500), rows(500)], [1.5e308, 0.5e308]), seed=0))
    assert sum(row < 500 for row in drawn) == 750


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_do_not_depend_on_the_number_of_processes(workers: int) -> None:
    from torch.utils.data import DataLoader

    source = rows(40)
    loader: Any = DataLoader(range(40), batch_size=4, sampler=Order(source, 5), num_workers=workers)  # type: ignore[arg-type]
    assert [int(row) for batch in loader for row in batch] == list(Order(source, 5))


def test_accelerate_skips_to_the_same_rows_in_a_later_epoch() -> None:
    from accelerate import Accelerator, skip_first_batches
    from torch.utils.data import DataLoader

    source, plain = rows(40), Order(rows(40), 5)
    plain.set_epoch(2)
    loader: Any = Accelerator(cpu=True).prepare(DataLoader(range(40), batch_size=4, sampler=Order(source, 5)))  # type: ignore[arg-type]
    resumed = skip_first_batches(loader, 3)
    resumed.set_epoch(2)
    assert [int(row) for batch in resumed for row in batch] == list(islice(plain, 12, None))


def test_two_processes_share_the_batches_of_one_order() -> None:
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    shards = [
        list(
            BatchSamplerShard(
                BatchSampler(Order(rows(40), 5), 4, drop_last=False), num_processes=2, process_index=index
            )
        )
        for index in range(2)
    ]
    assert [row for pair in zip(*shards, strict=True) for batch in pair for row in batch] == list(Order(rows(40), 5))
