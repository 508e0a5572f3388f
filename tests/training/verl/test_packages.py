"""Environments in which verl would not start; the packages that it wants are names and versions here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from egm.errors import EgmError
from egm.training.verl.packages import check_packages

RIGHT = {"verl": "0.9.1", "TransferQueue": "0.1.10"}


def installed(
    place: Path, patch: pytest.MonkeyPatch, *modules: str, asks: str = "numpy", trl: bool = False, **versions: str
) -> None:
    """Make an environment of these distributions and modules, without trl unless it is to be found."""
    for name, version in (RIGHT | versions).items():
        folder = place / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        lines = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(lines + (f"Requires-Dist: {asks}\n" if name == "verl" else ""))
    for name in modules:
        (place / name).mkdir()
        (place / name / "__init__.py").touch()
    patch.syspath_prepend(place)
    importlib.invalidate_caches()
    if not trl:
        patch.setitem(sys.modules, "trl", None)


def test_what_verl_wants_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "vllm")
    assert check_packages("vllm") == []


def test_a_version_that_verl_does_not_ask_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "vllm", asks="packaging<1")
    [note] = check_packages("vllm")
    assert note.startswith("verl 0.9.1 asks for packaging<1, and ")
    assert note.endswith(" is installed: look at its first figures")


def test_an_older_verl_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "vllm", verl="0.8.0")
    with pytest.raises(EgmError, match=r"^verl 0\.8\.0 is installed, and the configuration is written for 0\.9\.1 and"):
        check_packages("vllm")


def test_an_engine_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "sglang")
    with pytest.raises(
        EgmError, match=r'need vllm, which is not installed here: .*"verl\[vllm\]", or --rollouts sglang'
    ):
        check_packages("vllm")


def test_a_trl_that_verls_actor_cannot_patch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trl of this environment is such a one."""
    installed(tmp_path, monkeypatch, "vllm", trl=True)
    with pytest.raises(
        EgmError, match=r"^trl \S+ is installed, and has no AutoModelForCausalLMWithValueHead.*uninstall"
    ):
        check_packages("vllm")
