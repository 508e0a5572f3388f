from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from egm.backends import Request
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef

from .tiny import save_tiny


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and on a busy machine those wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint of its own, to be spoilt."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def requests_() -> list[Request]:
    """Four questions about pictures of different sizes, with prompts of different lengths."""
    codec = get_codec("qwen3_vl")
    data = SynthRef("val")
    samples = [data.samples(number)[number % 3] for number in range(4)]
    assert len({sample.size for sample in samples}) > 1
    return [
        Request(codec.messages(sample.phrase), [sample.image], seed_index=index)  # type: ignore[list-item]
        for index, sample in enumerate(samples)
    ]
