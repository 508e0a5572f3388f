from __future__ import annotations

import subprocess
import sys

import pytest

import egm


def run(code: str) -> str:
    """Run code in an interpreter that has imported nothing yet."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    loaded = set(run("import egm, sys; print(*sorted(sys.modules))").split())
    assert "egm" in loaded
    assert not loaded & {"torch", "torchvision", "transformers", "trl", "datasets", "numpy", "PIL", "typer", "rich"}


@pytest.mark.parametrize("name", ["Box", "EgmError", "Grounding", "get_codec", "load_image", "score"])
def test_light_names_load_neither_torch_nor_transformers(name: str) -> None:
    loaded = set(run(f"import egm, sys; egm.{name}; print(*sorted(sys.modules))").split())
    assert not loaded & {"torch", "torchvision", "transformers", "trl", "datasets"}


@pytest.mark.parametrize("command", ["", "eval", "data", "data convert", "bench latency", "sft"])
def test_help_loads_nothing_that_it_does_not_need(command: str) -> None:
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from egm.cli import main; main()"
    asked = [sys.executable, "-c", code, *command.split(), "--help"]
    loaded = set(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split())
    assert "egm.cli.commands" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "PIL", "rich", "pydantic"}


def test_all_is_sorted_and_without_repeats() -> None:
    assert egm.__all__ == sorted(set(egm.__all__))


@pytest.mark.parametrize("name", egm.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(egm, name)
    assert getattr(value, "__name__", name) == name
    assert name in dir(egm)


@pytest.mark.parametrize("package", ["egm", "egm.datasets", "egm.models"])
def test_lazy_packages_list_what_they_load_before_they_have(package: str) -> None:
    listed = run(f"import {package}; print(*[name for name in {package}.__all__ if name not in dir({package})])")
    assert listed == ""


def test_every_error_is_public() -> None:
    import egm.errors

    errors = {name for name, value in vars(egm.errors).items() if isinstance(value, type)}
    assert errors <= set(egm.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="'egm' has no attribute 'Gorunder'"):
        egm.Gorunder  # noqa: B018
    with pytest.raises(ImportError):
        from egm import Gorunder  # noqa: F401


def test_egm_score_is_the_function() -> None:
    assert run("import egm, egm.scoring; print(egm.score is egm.scoring.score)") == "True"
