"""M-RoPE positions against the stock model's `get_rope_index`, on random batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egm.errors import ModelError
from egm.models.fast.rope_index import host_grids, position_ids
from egm.models.presets import build_model
from egm.models.tiny.vocabulary import token_id

IMAGE, VIDEO = token_id("<|image_pad|>"), token_id("<|video_pad|>")
GRIDS = st.tuples(st.just(1), st.integers(1, 5).map(lambda n: 2 * n), st.integers(1, 5).map(lambda n: 2 * n))
PARTS = st.one_of(
    st.integers(1, 7),
    st.tuples(st.just("image"), GRIDS),
    st.tuples(st.just("video"), GRIDS, st.integers(1, 3)),
)


@pytest.fixture(scope="module")
def core():
    return build_model("tiny-s", device="meta").model


def batch(samples, side):
    """Write samples out: text lengths, images and videos, each run of placeholders between text."""
    rows, images, videos = [], [], []
    for parts in samples:
        row = [100]
        for part in parts:
            if isinstance(part, int):
                row += [100] * part
            elif part[0] == "image":
                images.append(part[1])
                row += [IMAGE] * (part[1][1] * part[1][2] // 4) + [100]
            else:
                _, (_, h, w), frames = part
                videos.append((frames, h, w))
                row += ([VIDEO] * (h * w // 4) + [100]) * frames
        rows.append(row)
    width = max(map(len, rows))
    pads = [[0] * (width - len(row)) for row in rows]
    ids = [pad + row if side == "left" else row + pad for row, pad in zip(rows, pads, strict=True)]
    full = [[1] * len(row) for row in rows]
    mask = [pad + row if side == "left" else row + pad for row, pad in zip(full, pads, strict=True)]
    return torch.tensor(ids), torch.tensor(mask), images, videos


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(PARTS, max_size=5), min_size=1, max_size=4), st.sampled_from(["left", "right"]))
def test_positions_are_the_stock_models(core, samples, side) -> None:
    ids, mask, images, videos = batch(samples, side)
    types = torch.where(ids == IMAGE, 1, torch.where(ids == VIDEO, 2, 0)).int()
    expected, _ = core.get_rope_index(
        ids,
        image_grid_thw=torch.tensor(images) if images else None,
        video_grid_thw=torch.tensor(videos) if videos else None,
        attention_mask=mask,
        mm_token_type_ids=types,
    )
    actual = position_ids(ids, images or None, mask, core.config, video_grids=videos or None)
    assert torch.equal(actual, expected)


def test_it_takes_lists_and_no_mask(core) -> None:
    ids = [[100, *[IMAGE] * 4, 100, 100]]
    actual = position_ids(ids, [[1, 4, 4]], config=core.config)
    assert actual.tolist() == [[[0, 1, 1, 1, 1, 3, 4]], [[0, 1, 1, 2, 2, 3, 4]], [[0, 1, 2, 1, 2, 3, 4]]]
    assert actual.dtype == torch.long


@pytest.mark.parametrize("grids", [torch.tensor([[1, 4, 6]]), np.array([[1, 4, 6]]), [[1, 4, 6]], [(1, 4, 6)]])
def test_grids_may_be_tensors_arrays_or_lists(grids) -> None:
    assert host_grids(grids) == ((1, 4, 6),)


@pytest.mark.parametrize(
    ("ids", "grids", "message"),
    [
        ([[100, IMAGE, 100]], None, "1 images and 0 video frames, but 0 and 0 were given"),
        ([[100, 100]], [[1, 2, 2]], "0 images and 0 video frames, but 1 and 0"),
        ([[100, IMAGE, IMAGE, 100]], [[1, 2, 2]], "0 of the batch has 2 placeholders but its grid calls for 1"),
        ([[IMAGE, 100], [100, IMAGE]], [[1, 2, 2], [1, 4, 2]], "1 of the batch has 1 placeholders"),
    ],
)
def test_placeholders_that_do_not_fit_the_grids_are_refused(core, ids, grids, message) -> None:
    with pytest.raises(ModelError, match=message):
        position_ids(ids, grids, None, core.config)
