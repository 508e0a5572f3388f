"""Engines in torch, and a model that knows nothing of the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from egm.backends.checkpoint import find_checkpoint
from egm.backends.transformers import TransformersBackend
from egm.doctor import (
    EngineVerdict,
    Recording,
    built_in_pictures,
    examine_backend,
    examine_server,
    read_recording,
    record,
    write_recording,
)
from egm.doctor.recorder import with_simulations

from ..backends.tiny import save_tiny
from .served import served
from .test_diagnose import names

PICTURES = ["224", "tall", "odd-1", "5:1"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def recording(folder: Path) -> Recording:
    return record(folder, device="cpu", pictures=PICTURES, max_new_tokens=24, simulate=False)


def test_bfloat16_is_rounding() -> None:
    with TransformersBackend.load("egm-tiny", device="cpu", dtype="bfloat16") as engine:
        diagnosis = examine_backend(engine, pictures=PICTURES, rounds=["alone"], max_new_tokens=40).diagnosis
    assert (diagnosis.verdict, diagnosis.findings) == (EngineVerdict.RIGHT, ())


def test_a_model_that_knows_no_shapes_is_right_where_its_weights_are_served(folder: Path, recording: Recording) -> None:
    with TransformersBackend.load(folder, device="cpu", fast=False) as engine, served(engine, name=str(folder)) as url:
        found = examine_server(url, reference=recording, pictures=PICTURES, rounds=["alone", "controls"])
    assert (found.diagnosis.verdict, found.diagnosis.findings) == (EngineVerdict.RIGHT, ())
    assert all(one.expected is None for one in found.diagnosis.comparisons)


def test_other_weights_under_the_same_name_are_wrong(folder: Path, recording: Recording) -> None:
    import torch

    with TransformersBackend.load(folder, device="cpu") as engine:
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in engine.module.parameters():
                if weight.ndim >= 2:
                    weight.copy_(weight.flatten()[torch.randperm(weight.numel())].reshape(weight.shape))
        found = examine_backend(engine, recording, pictures=PICTURES, rounds=["alone", "controls"])
    assert (found.diagnosis.verdict, names(found.diagnosis)) == (EngineVerdict.WRONG, ["other_weights"])


def test_a_recording_holds_where_defects_would_change_the_answers(
    folder: Path, recording: Recording, tmp_path: Path
) -> None:
    drawn = built_in_pictures(PICTURES)
    whole = with_simulations(recording, find_checkpoint(folder), drawn, device="cpu", dtype="auto")
    assert set(whole.simulated) == {"positions", "positions_counted", "align_corners"}
    for partings in whole.simulated.values():
        for name, parting in partings.items():
            expected = next(answer.text for answer in recording.answers if answer.picture == name)
            assert parting.lead >= 0
            assert parting.text != expected[parting.place : parting.place + len(parting.text)]
    assert any(whole.simulated.values())
    write_recording(whole, tmp_path / "whole.json")
    assert read_recording(tmp_path / "whole.json") == whole
