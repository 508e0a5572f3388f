"""Which engines are installed, in which version, and what a version knows: read from its files, importing nothing."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from egm.environment import sees_gpu
from egm.errors import EgmError
from egm.extras import CHECKPOINTS, need
from egm.serve.table import EngineFacts, Flag, engine_facts

AUTO: Final = "auto"
"""The engine that is taken where none is asked for: SGLang or vLLM where one is installed and a GPU is here, else our
own."""
_PREFERRED: Final = ("sglang", "vllm")
_SERVER = ("fastapi", "uvicorn")


@dataclass(frozen=True)
class Engine:
    """An engine as it is installed here.

    Attributes:
        facts: What the table holds about it.
        version: Its version; None where it is not installed, or does not say.
        folder: Its package; None where it is not installed.
    """

    facts: EngineFacts
    version: str | None
    folder: Path | None

    @property
    def name(self) -> str:
        """What `--engine` calls it."""
        return self.facts.name

    def knows(self, flag: Flag) -> bool:
        """Whether this version has an option or reads an environment variable; True where it is not installed."""
        if flag.holds and flag.holds not in self._text(flag.holds_in):
            return self.folder is None
        if flag.holds and flag.variable:
            return True  # it was found where it is read
        return self.has_option(flag.option) if flag.option else self._reads(flag.variable)

    def has_option(self, option: str) -> bool:
        """Whether this version has an option; True where that cannot be read.

        SGLang makes its options of a dataclass's fields, others write them out.
        """
        field = option.removeprefix("--").removeprefix("no-").replace("-", "_")
        pattern = rf"""["']{re.escape(option)}["']|^\s+{re.escape(field)}\s*:"""
        return not self._options or re.search(pattern, self._options, re.MULTILINE) is not None

    def chat_templates(self) -> set[str]:
        """Names of the chat templates that come with the engine."""
        text = self._text(*self.facts.templates_in)
        return set(re.findall(r"""\bname=["']([\w.-]+)["']""", text))

    def _reads(self, variable: str) -> bool:
        return not self._variables or re.search(rf"\b{variable}\b", self._variables) is not None

    @cached_property
    def _options(self) -> str:
        return self._text(*self.facts.options_in)

    @cached_property
    def _variables(self) -> str:
        return self._text(*self.facts.variables_in)

    def _text(self, *places: str) -> str:
        if self.folder is None:
            return ""
        paths = [self.folder / place for place in places]
        files = [file for path in paths for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
        return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())


def find_engine(name: str) -> Engine:
    """Look for an engine in this interpreter's environment.

    Raises:
        EgmError: If there is no engine of that name.
    """
    facts = engine_facts(name)
    found = importlib.util.find_spec(facts.module)
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    if not folders:
        return Engine(facts, None, None)
    for distribution in (facts.distribution, *facts.also):
        try:
            return Engine(facts, version(distribution), Path(folders[0]))
        except PackageNotFoundError:
            continue
    return Engine(facts, _written_version(Path(folders[0])), Path(folders[0]))


def choose_engine(name: str = AUTO, *, explain: bool = False) -> Engine:
    """Choose the engine to start.

    Args:
        name: One in the table, or "auto".
        explain: Whether it is to be shown only; then it need not be installed.

    Raises:
        EgmError: If there is none of that name, it is not installed, or it needs a GPU and there is none.
        MissingExtraError: If it comes with an extra that is not installed.
    """
    if name == AUTO:
        installed = [engine for engine in map(find_engine, _PREFERRED) if engine.folder] if sees_gpu() else []
        engine = installed[0] if installed else find_engine("egm")
    else:
        engine = find_engine(name)
    if explain:
        return engine
    if engine.name == "transformers":
        need("--engine transformers", *CHECKPOINTS, *_SERVER)
    elif engine.name == "egm":
        need("egm serve", *_SERVER)
    elif engine.folder is None:
        raise EgmError(
            f"{engine.name} is not installed in this environment: pip install {engine.facts.distribution} "
            "egm-grounding in one of its own, or take the engine egm or transformers"
        )
    return engine


def check_gpu(engine: Engine, passed: dict[str, str | None]) -> None:
    """Refuse an engine that runs on GPUs only, where there is none.

    Args:
        engine: The engine.
        passed: What follows `--`: `--device` lets an engine run elsewhere.

    Raises:
        EgmError: If that is so.
    """
    if engine.name in _PREFERRED and not sees_gpu() and "--device" not in passed and not _is_for_cpu(engine):
        raise EgmError(
            f"{engine.name} runs on a GPU, and there is none here: --engine egm serves small models without; a build "
            "for the CPU is started by -- --device cpu"
        )


def _is_for_cpu(engine: Engine) -> bool:
    try:
        return "cpu" in (engine.version or "") or bool(version(f"{engine.facts.distribution}-cpu"))
    except PackageNotFoundError:
        return False


def _written_version(folder: Path) -> str | None:
    """The version that stands in a package's own files, where it was put there without being installed."""
    for name in ("_version.py", "version.py"):
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            if found := re.search(r"""^__version__\b[^'"\n]*["']([\w.+!-]+)["']""", text, re.MULTILINE):
                return found[1]
    return None
