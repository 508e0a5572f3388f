from __future__ import annotations

import platform
from pathlib import Path

import numpy
import pytest

import egm
from egm import environment


def test_the_driver_is_what_its_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "version"
    monkeypatch.setattr(environment, "_DRIVER", file)
    assert environment.driver_version() is None
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build\nGCC 12.2.0\n")
    assert environment.driver_version() == "570.133.20"
    file.write_text("nothing that is known\n")
    assert environment.driver_version() is None


def test_the_cpu_is_named_where_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(
        "processor\t: 0\nmodel name\t: A Fast One @ 3 GHz\nprocessor\t: 1\nmodel name\t: A Fast One @ 3 GHz\n"
    )
    monkeypatch.setattr(environment, "_CPU_INFO", file)
    assert environment.cpu_name().startswith("CPU (A Fast One @ 3 GHz, ")
    monkeypatch.setattr(environment, "_CPU_INFO", tmp_path / "none")
    assert environment.cpu_name().startswith("CPU (")


def test_versions_are_those_of_what_is_installed() -> None:
    versions = environment.package_versions("numpy", "no-such-package")
    assert versions == {"egm": egm.__version__, "python": platform.python_version(), "numpy": numpy.__version__}
