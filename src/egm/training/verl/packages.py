"""The packages of verl's environment, found by name: none of them is a dependency of this one, or beside its own."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.version import Version

from egm.errors import EgmError

LEAST: Final = {"verl": "0.9.1", "TransferQueue": "0.1.10"}
"""The first versions that the configuration is written for, by distribution."""
INSTALL: Final = 'uv pip install "egm-grounding[torch,data]" "verl[vllm]>=0.9.1" "TransferQueue>=0.1.10"'
"""What installs both side by side; docs/verl.md says more."""
NODE: Final = ("verl", "TransferQueue", "ray", "torch", "transformers", "egm-grounding")
"""Distributions that have to be of one version on all nodes."""


def module(name: str) -> Any:
    """Import a module of verl's environment.

    Raises:
        EgmError: If it is not there, or what it imports is not.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EgmError(
            f"egm verl needs {error.name or name}, which cannot be imported here ({error}): use an environment with "
            f"verl ({INSTALL})"
        ) from error


def installed(distribution: str) -> str | None:
    """Return the version of a distribution; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def check_packages(engine: str) -> list[str]:
    """Refuse an environment in which verl's actor or rollouts would not start.

    Args:
        engine: `vllm` or `sglang`.

    Returns:
        Notes on packages of other versions than verl asks for, which may run all the same.

    Raises:
        EgmError: If a package is missing or too old, or trl is one that verl cannot stand beside.
    """
    for name, least in LEAST.items():
        found = installed(name)
        if found is None:
            raise EgmError(f"egm verl needs {name} >= {least}, which is not installed here: {INSTALL}")
        if Version(found) < Version(least):
            raise EgmError(
                f"{name} {found} is installed, and the configuration is written for {least} and later: {INSTALL}"
            )
    if importlib.util.find_spec(engine) is None:
        other = {"vllm": "sglang", "sglang": "vllm"}[engine]
        hint = f", or --rollouts {other}" if importlib.util.find_spec(other) is not None else ""
        raise EgmError(f'rollouts need {engine}, which is not installed here: pip install "verl[{engine}]"{hint}')
    _check_trl()
    asked = {Requirement(line).name: Requirement(line) for line in requires("verl") or () if ";" not in line}
    return [
        f"verl {installed('verl')} asks for {requirement}, and {found} is installed: look at its first figures"
        for name, requirement in asked.items()
        if (found := installed(name)) is not None and not requirement.specifier.contains(found, prereleases=True)
    ]


def _check_trl() -> None:
    """Verl patches a class of trl wherever it finds trl, and ends where that class is gone."""
    if importlib.util.find_spec("trl") is None:
        return
    for home in ("trl.experimental.ppo", "trl"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that one of them is experimental
                if hasattr(importlib.import_module(home), "AutoModelForCausalLMWithValueHead"):
                    return
        except ImportError:
            continue
    raise EgmError(
        f"trl {installed('trl')} is installed, and has no AutoModelForCausalLMWithValueHead, which verl's actor "
        "patches wherever it finds trl: pip uninstall trl, which egm verl does not need, or use an environment without"
    )
