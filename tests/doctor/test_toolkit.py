"""What the installed versions can run is read from their metadata, of packages that are here or laid into a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from egm.doctor import toolkit
from egm.doctor.toolkit import Row, examine_toolkit

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lay a package's metadata into a folder that Python looks into first."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def lay(name: str, version: str, *wants: str) -> None:
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = [f"Requires-Dist: {want}" for want in wants]
        head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        (folder / "METADATA").write_text("\n".join([*head, *lines, ""]))

    return lay


def rows() -> dict[str, Row]:
    return {row.name: row for row in examine_toolkit().rows}


def test_what_development_needs_is_here() -> None:
    found = examine_toolkit()
    states = {row.name: row.state for row in found.rows}
    assert {states[name] for name in ("core", "report", "data", "torch", "train", "transformers serve")} == {"yes"}
    assert found.versions["torch"] == found.rows[3].versions["torch"]
    assert found.conflicts == ()


def test_nothing_heavy_is_imported() -> None:
    code = "import sys; from egm.doctor import examine_toolkit as e; e(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "numpy", "trl", "datasets"} & set(loaded)


def test_what_is_missing_is_said_with_what_to_install() -> None:
    row = rows()["verl"]
    if row.state == "missing":
        assert row.problems == ("verl not installed",)
        assert row.advice.startswith("pip install verl, in an environment of its own (0.9.1 wants")


def test_a_package_that_pins_other_versions_is_a_conflict(install: Install) -> None:
    install("sglang", "0.5.23", "transformers==5.19.0", "torch==2.14.1", "not a requirement !", "numpy")
    found = examine_toolkit()
    row = next(row for row in found.rows if row.name == "sglang")
    assert row.state == "no"
    assert row.problems[0].startswith("sglang 0.5.23 wants transformers==5.19.0, here is ")
    assert set(row.problems) <= set(found.conflicts)
    assert "in an environment of its own" in row.advice


def test_what_trl_accepts_of_vllm(install: Install) -> None:
    install("vllm", "0.33.0")
    install("trl", "1.16.0")
    found = rows()
    assert found["vllm"].state == "no"
    assert found["vllm"].problems[0].startswith("trl 1.16.0 takes vllm ")
    assert found["train"].state == "no"


@pytest.mark.parametrize(
    ("driver", "cuda", "state"), [("580.65.06", "13.2", "yes"), ("535.10.01", "13.2", "no"), (None, "13.2", "no")]
)
def test_engines_need_a_gpu_and_a_driver_for_their_cuda(
    install: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: str | None,
    cuda: str,
    state: str,
) -> None:
    gpu = tmp_path / "gpus" / "0000:01:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    version = tmp_path / "version"
    version.write_text(f"NVRM version: NVIDIA UNIX Open Kernel Module  {driver}  Release Build\n" if driver else "")
    monkeypatch.setattr(toolkit, "_GPUS", tmp_path / "gpus")
    monkeypatch.setattr("egm.environment._DRIVER", version)
    install("vllm", "0.30.0")
    install("torch", "2.15.0")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(f"cuda: Optional[str] = '{cuda}'\n")
    found = examine_toolkit()
    row = next(row for row in found.rows if row.name == "vllm")
    assert (found.gpu, found.driver, found.cuda, row.state) == ("NVIDIA H200", driver, cuda, state), row


def test_the_ranges_of_the_extras_are_the_project_s() -> None:
    import tomllib

    project: Any = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    known = {kind.extra for kind in toolkit.KINDS if kind.extra}
    assert known <= set(project["optional-dependencies"])
