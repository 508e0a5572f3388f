"""What is known of serving engines, from `engines.toml`: their flags, the versions that are right, known defects."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from egm.errors import EgmError, nearest

AIMS: Final = ("latency", "throughput", "memory")
"""What an engine can be started for."""
_FILE = Path(__file__).with_name("engines.toml")


@dataclass(frozen=True, slots=True)
class Flag:
    """An option or an environment variable that an engine is started with.

    Attributes:
        option: Such as `--dtype`; empty for a variable.
        variable: Name of an environment variable; empty for an option.
        value: What it is set to, where `{context}` and the like stand for facts of the start; None for a switch.
        reason: Why grounding wants it.
        aims: For which aims it is sent; empty for all.
        speculation: Whether n-gram speculation takes it, and nothing else.
        unless: The value that leaves it out.
        holds: What a version must know besides, which stands in `holds_in` of its package.
        holds_in: That file.
        caution: What to say of it whenever it is sent; empty for nothing.
    """

    reason: str
    option: str = ""
    variable: str = ""
    value: str | None = None
    aims: tuple[str, ...] = ()
    speculation: bool = False
    unless: str | None = None
    holds: str = ""
    holds_in: str = ""
    caution: str = ""

    @property
    def name(self) -> str:
        """Its option, or its variable."""
        return self.option or self.variable


@dataclass(frozen=True, slots=True)
class VersionDefect:
    """Something by which versions of an engine move boxes.

    Attributes:
        name: What to call it.
        engine: The engine.
        versions: Which ones, as pip writes it: `>=0.5.5,<0.5.5.post3`.
        model_types: Which architectures; empty for all.
        effect: What it does.
        mend: What to do.
        source: Where it is described.
        given: Flag that brings it on; empty where the version does so by itself.
        says: What stands in that flag's value; empty for any.
        without: Flag that mends it.
    """

    name: str
    engine: str
    versions: str
    effect: str
    mend: str
    source: str
    model_types: tuple[str, ...] = ()
    given: str = ""
    says: str = ""
    without: str = ""

    def line(self) -> str:
        """Say what it does, what to do, and who says so."""
        return f"{self.name}: {self.effect}; {self.mend} ({self.source})"


@dataclass(frozen=True, slots=True)
class VersionVerdict:
    """What is known of a version of an engine for a model.

    Attributes:
        kind: "right" where it was seen to point right, "wrong" where it is known to move boxes, "unknown" else.
        text: One line of it.
        defects: What is wrong, if anything.
    """

    kind: Literal["right", "wrong", "unknown"]
    text: str
    defects: tuple[VersionDefect, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the table holds about an engine: how it is started, and how to ask its package what it knows.

    Attributes:
        name: What `--engine` calls it.
        distribution: What it is installed as; `also` names other builds.
        module: Its package.
        command: Arguments of the interpreter.
        name_option: Option that names the model to clients; empty where the engine has none.
        key: How it gets a server's key: an environment variable, "config" for a file of options, or empty for none.
        flags: What it may be started with, in the order of the command line.
        options_in: Files of its package that name its options, or folders of such; none where all are known.
        variables_in: Those that name its environment variables.
        templates_in: Those that name its own chat templates.
        also: Other distributions of the same package.
    """

    name: str
    distribution: str
    module: str
    command: tuple[str, ...]
    name_option: str
    key: str
    flags: tuple[Flag, ...]
    options_in: tuple[str, ...] = ()
    variables_in: tuple[str, ...] = ()
    templates_in: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


@cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def engine_names() -> tuple[str, ...]:
    """Names of the engines in the table.

    Example:
        >>> engine_names()
        ('sglang', 'vllm', 'transformers', 'egm')
    """
    return tuple(name for name in _table() if name != "trouble")


def engine_facts(name: str) -> EngineFacts:
    """Look an engine up.

    Raises:
        EgmError: If there is none of that name.
    """
    if name not in engine_names():
        raise EgmError(f"there is no engine {name!r}: {nearest(name, ('auto', *engine_names()))}")
    row = {key: value for key, value in _table()[name].items() if key not in ("flag", "right", "defect")}
    flags = tuple(Flag(**_frozen(flag)) for flag in _table()[name].get("flag", ()))
    return EngineFacts(name=name, flags=flags, **_frozen(row))


def troubles() -> list[tuple[str, str]]:
    """Pairs of what a log may say, as a regular expression, and what to do then; the first that is found counts."""
    return [(row["says"], row["advice"]) for row in _table()["trouble"]]


def version_defects(
    engine: str,
    version: str | None = None,
    model_type: str | None = None,
    *,
    flags: Mapping[str, str | None] | None = None,
) -> list[VersionDefect]:
    """List the defects by which an engine moves boxes.

    Args:
        engine: Its name in the table; another has none.
        version: Only those of this version; None for those of any.
        model_type: Only those of this architecture, such as "qwen3_vl"; None for those of any.
        flags: Only those that come by themselves, or by what it is started with: options and environment variables with
            their values. None lists the others too, which have `given`.

    Returns:
        The defects, in the table's order.

    Example:
        >>> [defect.name for defect in version_defects("sglang", "0.5.17", "qwen3_5")]
        ['M-RoPE kernel']
    """
    found = []
    for row in _table().get(engine, {}).get("defect", ()):
        defect = VersionDefect(engine=engine, **_frozen(row))
        if version is not None and not _within(version, defect.versions):
            continue
        if model_type is not None and defect.model_types and model_type not in defect.model_types:
            continue
        if flags is None or not defect.given or _is_brought_on(defect, flags):
            found.append(defect)
    return found


def verdict(
    engine: str,
    version: str | None,
    model_type: str | None,
    *,
    flags: Mapping[str, str | None] | None = None,
) -> VersionVerdict:
    """Judge a version of an engine for a model.

    Args:
        engine: Its name in the table.
        version: Its version; None where that is not known.
        model_type: The model's architecture; None where that is not known.
        flags: What it is started with, as `version_defects` takes it; None for nothing.

    Example:
        >>> verdict("vllm", "0.12.0", "qwen3_vl").kind
        'wrong'
    """
    called = f"{engine} {version}" if version else engine
    if version is None:
        return VersionVerdict("unknown", f"the version of {engine} is not known")
    defects = version_defects(engine, version, model_type, flags=flags or {})
    if model_type is None:  # then only what moves the boxes of every model counts
        defects = [defect for defect in defects if not defect.model_types]
    if defects:
        text = "; ".join(defect.line() for defect in defects)
        whose = f" of {model_type} models" if model_type else ""
        return VersionVerdict("wrong", f"{called} is known to move boxes{whose}: {text}", tuple(defects))
    for row in _table().get(engine, {}).get("right", ()):
        if _within(version, row["versions"]) and (not row["model_types"] or model_type in row["model_types"]):
            return VersionVerdict("right", f"{called} points right: {row['source']}")
    return VersionVerdict(
        "unknown",
        f"whether {called} moves boxes of {model_type} models is not known: egm doctor tells",
    )


def _is_brought_on(defect: VersionDefect, flags: Mapping[str, str | None]) -> bool:
    if defect.given not in flags or defect.without in flags:
        return False
    value = (flags[defect.given] or "").lower()
    return defect.says in value if defect.says else value not in ("0", "false")


def _within(version: str, versions: str) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        parsed = Version(version)
    except InvalidVersion:
        return False
    # A build's own mark, as in 0.26.0+cu130, is the same code; one of a version to come is taken for that version.
    return SpecifierSet(versions).contains(Version(parsed.public), prereleases=True)


def _frozen(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def wanted(flags: Sequence[Flag], aim: str | None, *, speculation: bool) -> list[Flag]:
    """Choose the flags of an aim, with or without speculation.

    Raises:
        EgmError: If there is no such aim.
    """
    if aim is not None and aim not in AIMS:
        raise EgmError(f"there is no aim {aim!r}: {nearest(aim, AIMS)}")
    chosen = [flag for flag in flags if not flag.aims or aim in flag.aims]
    chosen = [flag for flag in chosen if speculation or not flag.speculation]
    return [flag for flag in chosen if not _is_said_again(flag, chosen)]


def _is_said_again(flag: Flag, chosen: Collection[Flag]) -> bool:
    """Whether a flag of the aim sets the same option: that one counts."""
    return flag.speculation and any(other.name == flag.name and other.aims for other in chosen)
