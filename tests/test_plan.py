"""The plan of a run: planned once for the same datasets, and digests and names that are what they have always been."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.boxes import Box
from egm.datasets import Dataset
from egm.evaluate.plan import dataset_digests, plan_run, plan_samples
from egm.journal import question_line
from egm.types import Sample

BOX = Box(1, 2, 30.5, 40)


def dataset(name: str, *pictures: str, root: Path | None = None) -> Dataset:
    return Dataset(name, [Sample(f"{name}/{n}", Path(each), "it", BOX) for n, each in enumerate(pictures)], root=root)


def test_the_same_datasets_are_planned_once() -> None:
    val, test = dataset("val", "/p/a.jpg", "/p/b.jpg"), dataset("test", "/p/a.jpg")
    plan = plan_run({"val": val, "test": test})
    assert plan_run({"val": val, "test": test}) is plan
    assert plan.digests == dataset_digests(plan_samples({"val": val, "test": test})[0])


def test_a_dataset_that_has_grown_or_is_iterated_otherwise_is_planned_anew() -> None:
    samples = [Sample("1", Path("/p/a.jpg"), "it", BOX)]
    grown = Dataset("val", samples)
    assert len(plan_run({"val": grown}).samples) == 1
    samples.append(Sample("2", Path("/p/a.jpg"), "that", BOX))
    assert len(plan_run({"val": grown}).samples) == len(grown) == 2

    class Turns(Dataset):
        def __iter__(self) -> Iterator[Sample]:
            self.samples = [*self.samples[1:], self.samples[0]]
            return iter(self.samples)

    turning = Turns("val", samples)
    turning.samples = samples
    first, second = ([item.sample.id for item in plan_run({"val": turning}).samples] for _ in range(2))
    assert first == second[::-1]


def test_what_is_asked_otherwise_is_planned_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    val, test = dataset("val", "a.jpg", "sub/b.jpg"), dataset("test", "a.jpg")
    plan = plan_run({"val": val, "test": test})
    assert [item.split for item in plan_run({"val": val}).samples] == ["val", "val"]
    assert [item.split for item in plan_run({"test": test, "val": val}).samples] == ["test", "val", "val"]
    assert [item.split for item in plan_run({"v": val, "t": test}).samples] == ["v", "v", "t"]
    assert {item.sample.expect for item in plan_run({"val": val, "test": test}, "all").samples} == {"all"}
    other = plan_run({"val": val, "test": dataset("test", "a.jpg", "c.jpg")})
    assert [item.image for item in other.samples] == ["a.jpg", "sub/b.jpg", "a.jpg", "c.jpg"]
    monkeypatch.chdir(tmp_path)
    assert plan.images != str(tmp_path) == plan_run({"val": val, "test": test}).images


def test_samples_of_a_list_are_listed_each_time() -> None:
    samples = list(dataset("val", "/p/a.jpg"))
    assert len(plan_run({"val": samples}).samples) == 1
    samples += dataset("more", "/p/b.jpg")
    assert len(plan_run({"val": samples}).samples) == 2


def test_a_plan_goes_with_its_datasets() -> None:
    val = dataset("val", "/p/a.jpg")
    plan = ref(plan_run({"val": val}))
    gc.collect()
    assert plan() is not None
    del val
    gc.collect()
    assert plan() is None


@pytest.mark.parametrize(
    ("pictures", "names", "root"),
    [
        (["/p/q/a.jpg", "/p/b.jpg"], ["q/a.jpg", "b.jpg"], "/p"),
        (["/a.jpg", "/p/b.jpg"], ["a.jpg", "p/b.jpg"], "/"),
        (["/p/q/../a.jpg", "/p/q/b.jpg"], ["../a.jpg", "b.jpg"], "/p/q"),
        (["/p/a..b.jpg", "/p/./q//c.jpg"], ["a..b.jpg", "q/c.jpg"], "/p"),
        (["/p/ab/a.jpg", "/p/abc/a.jpg"], ["ab/a.jpg", "abc/a.jpg"], "/p"),
    ],
)
def test_pictures_are_named_from_the_folder_that_holds_all(pictures: list[str], names: list[str], root: str) -> None:
    for image in (str, Path):
        samples = [Sample(str(n), image(each), "it", BOX) for n, each in enumerate(pictures)]
        planned, images = plan_samples({"val": samples})
        assert images == root
        assert [item.image for item in planned] == names


@given(
    st.text(),
    st.tuples(*[st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9)] * 4),
    st.booleans(),
)
def test_a_question_is_digested_as_json(phrase: str, truth: tuple[float, float, float, float], amodal: bool) -> None:
    written = json.dumps(["id", phrase, "a.jpg", list(truth), amodal]).encode()
    assert question_line("id", phrase, "a.jpg", truth, amodal=amodal) == written


def test_numbers_of_numpy_are_digested_as_pythons() -> None:
    truth = np.float64(1), np.float64(2), np.float64(3.5), np.float64(4)
    assert question_line("id", "it", "a.jpg", truth, amodal=False) == question_line(
        "id", "it", "a.jpg", (1.0, 2.0, 3.5, 4.0), amodal=False
    )
