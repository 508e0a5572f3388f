"""Which rows of the toolkit the installed versions can run, read from package metadata: nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from egm.environment import driver_version, package_versions

_PROJECT: Final = "egm-grounding"
_GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the toolkit: what it is for, and what it takes.

    Attributes:
        name: Its name.
        use: What can be done with it.
        extra: The extra of `egm-grounding` that installs it; "" is the core.
        packages: Packages beside those of the extra, the first of which has the say about the versions of others.
        install: What to type where it is missing.
        gpu: Whether it needs an NVIDIA GPU.
    """

    name: str
    use: str
    extra: str | None = None
    packages: tuple[str, ...] = ()
    install: str = ""
    gpu: bool = False


KINDS: Final = (
    Kind("core", "egm-tiny, servers, evaluation, scoring, tables", extra=""),
    Kind("report", "figures", extra="report"),
    Kind("data", "parquet", extra="data"),
    Kind("torch", "any checkpoint in this process", extra="torch"),
    Kind("train", "egm sft, egm grpo", extra="train"),
    Kind("server", "a server of small models", packages=("fastapi", "uvicorn"), install="pip install fastapi uvicorn"),
    Kind("transformers serve", "a server of any checkpoint", extra="serve"),
    Kind("vllm", "a server", packages=("vllm",), install="pip install vllm", gpu=True),
    Kind("sglang", "a server", packages=("sglang",), install="pip install sglang", gpu=True),
    Kind("verl", "GRPO on several machines", packages=("verl",), install="pip install verl", gpu=True),
)
"""The rows of the toolkit."""

APART: Final = {
    "sglang": "in an environment of its own (0.5.23 pins transformers 5.19.0 and torch 2.14.1)",
    "verl": "in an environment of its own (0.9.1 wants transformers below 5.11, and with its vLLM torch 2.11.0)",
    "vllm": "in an environment of its own, or, for GRPO by TRL 1.16, a version from 0.22.0 to 0.31.0",
}
"""What to know before one is installed: no one environment holds them all."""

RANGES: Final = (("trl", SpecifierSet(">=1.16,<1.17"), "vllm", SpecifierSet(">=0.22.0,<=0.31.0")),)
"""What versions of a package accept of another without saying so in their metadata: `trl/import_utils.py`."""

DRIVERS: Final = {13: 580, 12: 525, 11: 450}
"""The oldest driver that runs each major version of CUDA, by NVIDIA's table of minor version compatibility."""


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of a row of the toolkit.

    Attributes:
        name: Its name.
        use: What can be done with it.
        state: "yes"; "missing", where a package is not installed; or "no", where what is installed does not run.
        versions: Versions of its packages.
        problems: What is missing or does not fit, each in a few words.
        advice: What to do, "" where it runs.
    """

    name: str
    use: str
    state: str
    versions: Mapping[str, str]
    problems: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Toolkit:
    """What the installed versions can run.

    Attributes:
        rows: One a row of the toolkit.
        versions: Versions of EGM, Python, and what else the rows name.
        gpu: Name of the first GPU; None where the driver names none.
        driver: Version of the NVIDIA driver.
        cuda: The CUDA that torch was built for.
        conflicts: What of the installed packages excludes each other.
    """

    rows: tuple[Row, ...]
    versions: Mapping[str, str]
    gpu: str | None
    driver: str | None
    cuda: str | None
    conflicts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)


def examine_toolkit() -> Toolkit:
    """Find out which rows of the toolkit the installed versions can run.

    Example:
        >>> examine_toolkit().rows[0].name
        'core'
    """
    gpu, driver, cuda = _gpu(), driver_version(), _cuda()
    machine = _machine_problems(gpu, driver, cuda)
    rows = tuple(_row(kind, machine) for kind in KINDS)
    named = {name: version for row in rows for name, version in row.versions.items()}
    unfit = (problem for row in rows if row.state == "no" for problem in row.problems if problem not in machine)
    conflicts = tuple(dict.fromkeys(unfit))
    return Toolkit(rows, package_versions() | named, gpu, driver, cuda, conflicts)


def _row(kind: Kind, machine: Sequence[str]) -> Row:
    wanted = [Requirement(name) for name in kind.packages]
    if kind.extra is not None:
        if _distribution(_PROJECT) is None:
            problem = f"{_PROJECT} is not installed, only its sources are here: its metadata name what it takes"
            return Row(kind.name, kind.use, "missing", {}, (problem,), f"pip install {_PROJECT}")
        wanted += _requirements(_PROJECT, {kind.extra})
    found = {str(canonicalize_name(one.name)): version for one in wanted if (version := _version(one.name))}
    missing = [one.name for one in wanted if canonicalize_name(one.name) not in found]
    install = kind.install or f'pip install "{_PROJECT}{f"[{kind.extra}]" if kind.extra else ""}"'
    if missing:
        advice = f"{install}, {APART[kind.name]}" if kind.name in APART else install
        return Row(kind.name, kind.use, "missing", found, (f"{', '.join(missing)} not installed",), advice)
    problems = _misfits(_PROJECT, wanted) if kind.extra is not None else []
    if kind.extra is None:
        for name in kind.packages:
            problems += _misfits(name, _requirements(name, set()))
    problems += [
        f"{owner} {_version(owner)} takes {other} {accepted}, here is {found_here}"
        for owner, versions, other, accepted in RANGES
        if (kind.name == other or (kind.name == "train" and owner in found))
        and (own := _version(owner)) is not None
        and _inside(own, versions)
        and (found_here := _version(other)) is not None
        and not _inside(found_here, accepted)
    ]
    if problems:
        where = APART.get(kind.name, "in an environment of its own")
        return Row(kind.name, kind.use, "no", found, tuple(problems), f"{install}, {where}")
    if kind.gpu and machine:
        return Row(kind.name, kind.use, "no", found, tuple(machine), "run it on a machine with an NVIDIA GPU")
    return Row(kind.name, kind.use, "yes", found)


def _requirements(name: str, extras: set[str]) -> list[Requirement]:
    """What a package wants by its metadata, those of the extras that its own extras name included."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:  # EGM as a folder of sources
        return []
    wanted = []
    for line in lines:
        try:
            one = Requirement(line)
        except InvalidRequirement:
            continue
        marked = one.marker is not None and "extra" in str(one.marker)
        if one.marker is not None and not any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            continue
        if extras and "" not in extras and not marked:
            continue  # of the core: a row of its own
        if canonicalize_name(one.name) == name:
            wanted += _requirements(name, set(one.extras))
            continue
        wanted.append(one)
        if one.extras and name == _PROJECT:
            wanted += _requirements(one.name, set(one.extras))
    return wanted


def _misfits(owner: str, wanted: Sequence[Requirement]) -> list[str]:
    return [
        f"{owner} {_version(owner) or ''} wants {one.name}{one.specifier}, here is {here}".replace("  ", " ")
        for one in wanted
        if (here := _version(one.name)) is not None and not _inside(here, one.specifier)
    ]


def _inside(version: str, versions: SpecifierSet) -> bool:
    try:
        return versions.contains(Version(version), prereleases=True)
    except InvalidVersion:  # a build of one's own: nothing is known against it
        return True


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except (PackageNotFoundError, ValueError):
        return None


def _version(name: str) -> str | None:
    found = _distribution(name)
    return None if found is None else found.version


def _machine_problems(gpu: str | None, driver: str | None, cuda: str | None) -> list[str]:
    if driver is None or gpu is None:
        return ["no NVIDIA GPU here"]
    oldest = DRIVERS.get(int(cuda.partition(".")[0])) if cuda else None
    if oldest is not None and int(driver.partition(".")[0]) < oldest:
        return [f"torch was built for CUDA {cuda}, which wants driver {oldest} or newer, here is {driver}"]
    return []


def _gpu() -> str | None:
    """The first GPU's name, as the driver says it."""
    for path in sorted(_GPUS.glob("*/information")):
        try:
            found = re.search(r"^Model:\s*(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        except OSError:
            continue
        if found:
            return found[1].strip()
    return None


def _cuda() -> str | None:
    """The CUDA that torch was built for, by the text of its `version.py`."""
    torch = _distribution("torch")
    if torch is None:
        return None
    try:
        text = Path(str(torch.locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^cuda\b.*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None
