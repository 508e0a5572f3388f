"""How an engine is started for grounding: its command line and environment, with a reason for each part."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from egm.backends.openai.key import read_key
from egm.environment import sees_gpu
from egm.errors import EgmError
from egm.serve.engines import AUTO, Engine, check_gpu, choose_engine
from egm.serve.model import ServedModel, serve_model
from egm.serve.passed import Passed, read_passed
from egm.serve.table import Flag, VersionVerdict, verdict, wanted
from egm.terminal import shell_command

HOST: Final = "127.0.0.1"
"""Where an engine listens unless another address is asked for."""
PORT: Final = 30_000
"""The port of `egm serve`, as in the EGM model cards."""
KEY: Final = "EGM_SERVER_KEY"
"""Environment variable that holds the key which clients must show."""
_QUANTIZATIONS = ("fp8",)
_OTHERS, _USUAL = 16, 2048  # requests beside a longest one, and tokens of each, that a small cache has room for
_THREADS = 8  # for one picture, which more do not make ready sooner
_WIDTH = 56  # characters of a part, beyond which its reason stands further to the right


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a command line or an environment, and why it is there."""

    words: tuple[str, ...]
    reason: str

    def text(self) -> str:
        """The words as a shell reads them."""
        return shell_command(*self.words)


@dataclass(frozen=True)
class Plan:
    """An engine about to be started.

    Attributes:
        engine: Which one.
        model: What it serves.
        served_model_name: The name that clients ask for.
        host: Address it listens on.
        port: Its port.
        parts: Its command line after the interpreter.
        variables: Its environment beside this process's, by name, with values and reasons.
        verdict: What is known of its version.
        notes: What is to be said.
        key: The key of the server, or nothing.
    """

    engine: Engine
    model: ServedModel
    served_model_name: str
    host: str
    port: int
    parts: tuple[Part, ...]
    variables: Mapping[str, Part]
    verdict: VersionVerdict
    notes: tuple[str, ...]
    key: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Where clients on this machine find it."""
        host = HOST if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104 - any address: also this one
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, *(word for part in self.parts for word in part.words)]

    def explain(self) -> str:
        """The command line as a shell takes it, and below it each of its parts with the reason for it."""
        rows = [Part((f"{name}={part.words[0]}",), part.reason) for name, part in self.variables.items()]
        rows = [*rows, Part((sys.executable,), "the interpreter that runs this"), *self.parts]
        texts = [row.text() for row in rows]
        width = min(_WIDTH, max(map(len, texts)))
        return "\n".join(
            [" ".join(texts), "", *(f"{text:<{width}}  {row.reason}" for text, row in zip(texts, rows, strict=True))]
        )


def plan_server(
    model: str = "egm-tiny",
    engine: str = AUTO,
    *,
    aim: str | None = None,
    host: str | None = None,
    port: int = PORT,
    served_model_name: str | None = None,
    quantization: str | None = None,
    speculation: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    passed_on: Sequence[str] = (),
    stack: ExitStack | None = None,
) -> Plan:
    """Plan the start of an engine.

    Args:
        model: See `serve_model`.
        engine: One of the table, or "auto": SGLang or vLLM where one is installed and a GPU is here, else our own.
        aim: "latency", "throughput" or "memory"; None changes nothing for either.
        host: Address to listen on; None takes 127.0.0.1.
        port: Port to listen on.
        served_model_name: Name that clients ask for; None takes the model's own.
        quantization: "fp8", or None.
        speculation: Whether to draft tokens by n-grams.
        device: Where our own engine and transformers run: "auto", "cpu", "cuda" or "cuda:N".
        dtype: Type that the engine computes in: "auto", "float32", "bfloat16" or "float16"; of our own also "fp8".
        passed_on: Options of the engine, which count before those made here.
        stack: What keeps temporary files as long as the engine runs; None plans without starting: nothing is fetched,
            and the engine need not be installed.

    Raises:
        EgmError: If the engine, its version, the model, the address or an option cannot be used.
    """
    chosen = choose_engine(engine, explain=stack is None)
    passed = read_passed(passed_on, chosen)
    if stack is not None:
        check_gpu(chosen, passed.options)
    where = passed.host or host or HOST
    key = read_key(os.environ.get(KEY, ""))
    _check_address(where, key, chosen)
    served = _check_name(passed.served_model_name or served_model_name, chosen)
    _check_quantization(quantization, chosen)
    if dtype == "fp8" and chosen.name != "egm":
        raise EgmError(
            f"{chosen.name} computes in no fp8: round its weights by --quantization fp8, or take --engine egm"
        )
    dummy = passed.options.get("--load-format") == "dummy"
    found = serve_model(model, chosen.name, weights=not dummy, stack=stack)
    facts = {
        "folder": found.folder,
        "context": str(found.context),
        "device": device,
        "dtype": _dtype(dtype, device) if chosen.name == "transformers" else dtype,
        "quantization": quantization or "",
        "threads": str(min(_THREADS, os.cpu_count() or 1)),
        "pool": str(found.context + _OTHERS * _USUAL),
        "pool_bytes": str((found.context + _OTHERS * _USUAL) * found.token_bytes) if found.token_bytes else "",
    }
    flags, notes = _choose(chosen, aim, facts, passed, speculation=speculation)
    notes += _of_no_use(chosen, engine, aim, found.name)
    variables = {flag.variable: Part((_value(flag, facts) or "1",), flag.reason) for flag in flags if flag.variable}
    parts = [Part(tuple(word.format(**facts) for word in chosen.facts.command), f"{chosen.name} serves the model")]
    parts.append(Part(("--host", where), "reached from this machine alone" if _is_loopback(where) else "as asked for"))
    parts.append(Part(("--port", str(passed.port or port)), "where it listens"))
    name = served or (found.name if chosen.facts.name_option else found.folder)
    if chosen.facts.name_option:
        parts.append(Part((chosen.facts.name_option, name), "the name that clients ask for, and no other"))
    parts += [Part(_words(flag, facts), flag.reason) for flag in flags if flag.option]
    if key and chosen.facts.key == "config":
        parts.append(Part(("--log-level", "warning"), "at info it logs its options, and with them the key"))
        notes.append(f"the key of {KEY} goes to {chosen.name} in a file that only you may read")
    if passed.words:
        parts.append(Part(tuple(passed.words), "passed on as it is; it counts before what stands above"))
    sent = {flag.name: _value(flag, facts) for flag in flags} | passed.options
    about = verdict(chosen.name, chosen.version, found.model_type, flags={**_environment(), **sent})
    if about.kind == "wrong":
        raise EgmError(about.text)
    notes += [about.text] if about.kind == "unknown" and chosen.folder is not None and found.model_type else []
    if chosen.folder is None:
        notes.append(f"{chosen.name} is not installed here: which of these its version knows is not known")
    return Plan(
        engine=chosen,
        model=found,
        served_model_name=name,
        host=where,
        port=passed.port or port,
        parts=tuple(parts),
        variables=variables,
        verdict=about,
        notes=(*passed.notes, *found.notes, *notes),
        key=key,
    )


def _choose(
    engine: Engine, aim: str | None, facts: Mapping[str, str], passed: Passed, *, speculation: bool
) -> tuple[list[Flag], list[str]]:
    """The flags that are sent, and what is to be said of others."""
    flags, unknown = [], []
    for flag in wanted(engine.facts.flags, aim, speculation=speculation):
        switch = re.sub("^--(no-)?", "--no-", flag.option)
        if {flag.option, switch} & passed.options.keys() or flag.variable in os.environ:
            continue
        if flag.unless is not None and _value(flag, facts) == flag.unless:
            continue
        if engine.knows(flag):
            flags.append(flag)
        elif flag.name not in unknown:
            unknown.append(flag.name)
    called = f"{engine.name} {engine.version or 'here'}"
    notes = [f"left out, as {called} does not have what it takes: {', '.join(unknown)}"] if unknown else []
    return flags, notes + [flag.caution for flag in flags if flag.caution]


def _of_no_use(engine: Engine, asked: str, aim: str | None, model: str) -> list[str]:
    """Say where our own server was taken for want of another, and where an aim changes nothing."""
    notes = []
    if asked == AUTO and engine.name == "egm" and model != "egm-tiny":
        notes.append("neither SGLang nor vLLM with a GPU was found: EGM's own server is taken, which is no fast engine")
    if aim is not None and not any(flag.aims for flag in engine.facts.flags):
        notes.append(f"--aim {aim} is not used: {engine.name} has no options for any aim")
    return notes


def _value(flag: Flag, facts: Mapping[str, str]) -> str | None:
    if flag.value is None or (flag.value.lstrip().startswith("{") and ":" in flag.value):
        return flag.value
    return flag.value.format(**facts)


def _words(flag: Flag, facts: Mapping[str, str]) -> tuple[str, ...]:
    value = _value(flag, facts)
    return (flag.option,) if value is None else (flag.option, value)


def _environment() -> dict[str, str | None]:
    """Environment variables of engines that are set for this process, and so for what it starts."""
    return {name: value for name, value in os.environ.items() if name.startswith(("SGLANG_", "VLLM_"))}


def _dtype(dtype: str, device: str) -> str:
    """What EGM computes in, where transformers would take the type of the weights."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if device.startswith("cuda") or (device == "auto" and sees_gpu()) else "float32"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_address(host: str, key: str, engine: Engine) -> None:
    if _is_loopback(host):
        return
    if not engine.facts.key:
        raise EgmError(f"{engine.name} asks for no key, so that it may serve this machine alone: leave {host} out")
    if not key:
        raise EgmError(f"{host} is reached from elsewhere: set {KEY} to a key that clients must show, or leave it out")


def _check_name(name: str | None, engine: Engine) -> str | None:
    if name is not None and not engine.facts.name_option:
        raise EgmError(
            f"{engine.name} serves a model by its folder alone: take the engine egm, or leave --served-model-name out"
        )
    return name


def _check_quantization(quantization: str | None, engine: Engine) -> None:
    if quantization is None:
        return
    if quantization not in _QUANTIZATIONS:
        raise EgmError(f"there is no quantization {quantization!r}: give fp8")
    if not any(flag.option == "--quantization" for flag in engine.facts.flags):
        raise EgmError(f"{engine.name} quantises no weights: leave --quantization out, or take --engine sglang or vllm")
