"""Packages that add to EGM: installed for real, in a folder on the path with metadata of its own, and asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar

from egm import codec_of_nobody, register_codec
from egm.codecs import Codec, Form, Keyed, Scale
from egm.models.families import Family, register_family
from egm.rationales.filters import Filter, register_filter


@register_codec
@dataclass(frozen=True)
class PercentVL(Codec):
    """`{"box_2d": [y1, x1, y2, x2]}`, in per cent of the picture."""

    name: ClassVar[str] = "percent_vl"
    model_types: ClassVar[tuple[str, ...]] = ("percent_vl",)
    prompts: ClassVar[tuple[str, ...]] = ("gemini",)
    form: ClassVar[Form] = Keyed(("box_2d",))
    units: ClassVar[Scale] = Scale((100, 100), y_first=True)


@register_family
class PercentFamily(Family):
    name = "Percent-VL"
    model_types = ("percent_vl",)

    def grid(self, processor, size):
        return (1,)

    def placeholders(self, processor, grid):
        return ""


@register_filter
@dataclass(frozen=True)
class Shouting(Filter):
    name: ClassVar[str] = "shouting"
    reason: ClassVar[str] = "it shouts"

    def check(self, candidate):
        return "it does" if candidate.text.isupper() else None
'''


def install(folder: Path, module: str, source: str) -> None:
    """Lay a distribution into a folder as an installer does: a module, and metadata that names it."""
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[egm.plugins]\n{module} = {module}\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages: one that adds a codec, a family and a filter, and one that fails to be imported."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "percent_plugin", PLUGIN.replace("codec_of_nobody, ", ""))
    install(folder, "broken_plugin", PLUGIN)
    return folder


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=site.parent)


BROKEN = "plug-in 'broken_plugin' (broken_plugin) of broken_plugin 1.2 is left out: ImportError: cannot import name"


def test_codecs_of_installed_packages_are_listed_and_a_broken_one_is_one_line(site: Path) -> None:
    told = python(site, "-m", "egm.cli", "codecs")
    assert told.returncode == 0
    assert "percent_vl" in told.stdout
    assert "gemini" in told.stdout
    warning, note = told.stderr.splitlines()
    assert warning.startswith(BROKEN)
    assert note == "note: percent_vl comes from a plug-in, the module percent_plugin"


def test_a_codec_of_an_installed_package_is_known_on_the_command_line(site: Path) -> None:
    row = {"image": "a.jpg", "phrase": "the cup", "width": 640, "height": 480, "truth": [64, 96, 192, 192]}
    text = '[{"box_2d": [20, 10, 40, 30]}]'
    (site.parent / "answers.jsonl").write_text(json.dumps({**row, "text": text}) + "\n", encoding="utf-8")
    told = python(site, "-m", "egm.cli", "score", "answers.jsonl", "--codec", "percent_vl", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["scores"][0]["pooled"]["acc@0.75"]["value"] == 1


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from egm.codecs import codec_for; print(codec_for('percent_vl', str).name)", "percent_vl"),
        ("from egm.models.families import family_of; print(family_of('percent_vl').name)", "Percent-VL"),
        ("from egm.rationales.filters import build_filters; print(*build_filters({'shouting': {}}))", "Shouting()"),
        ("from egm.rationales.filters import filter_names; print('shouting' in filter_names())", "True"),
    ],
)
def test_each_registry_finds_them_by_itself(site: Path, code: str, found: str) -> None:
    told = python(site, "-c", code)
    assert told.stdout == f"{found}\n", told.stderr


def test_nothing_is_imported_where_the_names_are_egms_own(site: Path) -> None:
    code = (
        "import sys; from egm import get_codec; get_codec('gemini'); print([m for m in sys.modules if 'plugin' in m])"
    )
    told = python(site, "-c", code)
    assert (told.stdout, told.stderr) == ("['egm.plugins']\n", "")
