"""An engine started, waited for until it has grounded a phrase, and ended in every case."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from egm.backends.openai.connection import server_url
from egm.backends.openai.server_info import ask_server
from egm.errors import BackendError, EgmError
from egm.files import write_text
from egm.serve.engines import AUTO
from egm.serve.plan import KEY, Plan, plan_server
from egm.serve.process import EngineProcess
from egm.serve.ready import check_grounding, check_port, free_port, is_healthy

START_SECONDS: Final = 1800.0
"""Longest wait for an engine to be healthy; large models load for minutes."""
_POLL = 0.25

Waiting = Callable[[float, str], None]
"""Told while an engine starts: the seconds so far, and the last line of its log."""


@dataclass(frozen=True)
class RunningServer:
    """An engine that answers.

    Attributes:
        url: Where it is, such as "http://127.0.0.1:30000".
        model: The name that it serves the model by.
        engine: Its name, such as "sglang".
        version: Its version, as it says itself or else as it is installed; None where neither tells.
        codec: How its model is asked and read.
        room: Tokens of answer that its context has room for beside the largest picture.
        folder: The model's folder, as it was found.
        log: The file that it writes its log to.
        answer: What it answered when it was checked.
        notes: What is to be said of how it was started.
        key: Its key, or nothing.
    """

    url: str
    model: str
    engine: str
    version: str | None
    codec: str
    room: int
    folder: Path
    log: Path
    answer: str
    notes: tuple[str, ...]
    key: str = field(repr=False)
    _process: EngineProcess = field(repr=False)

    @property
    def ended(self) -> str | None:
        """Why it has ended, in one line; None while it runs."""
        return None if self._process.code() is None else f"{self.engine} {self._process.why()}"

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, so many seconds at most; whether it has."""
        return self._process.wait(seconds) is not None


@contextmanager
def serve(
    model: str = "egm-tiny",
    engine: str = AUTO,
    *,
    aim: str | None = None,
    host: str | None = None,
    port: int | None = None,
    served_model_name: str | None = None,
    quantization: str | None = None,
    speculation: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    passed_on: Sequence[str] = (),
    log: Path | None = None,
    seconds: float = START_SECONDS,
    planned: Callable[[Plan, Path], None] | None = None,
    waiting: Waiting | None = None,
) -> Iterator[RunningServer]:
    """Serve a model for as long as the `with` block lasts.

    The engine is started with the flags that grounding wants, and is there once it has answered a question of
    grounding. It ends with the block, and with this process, however that ends.

    Args:
        model: See `egm.serve.model.serve_model`.
        engine: "sglang", "vllm", "transformers", "egm", or "auto".
        aim: "latency", "throughput" or "memory"; None changes nothing for either.
        host: Address to listen on; None takes 127.0.0.1. Another takes a key, from EGM_SERVER_KEY.
        port: Port to listen on; None takes a free one.
        served_model_name: Name that clients ask for; None takes the model's own.
        quantization: "fp8", or None.
        speculation: Whether to draft tokens by n-grams.
        device: Where our own engine and transformers run.
        dtype: Type that the engine computes in.
        passed_on: Options of the engine, which count before those made here.
        log: File for its log; None makes one among the system's temporary files, which stays.
        seconds: Longest wait until it is healthy.
        planned: Told how the engine is started, and where its log is, before it is.
        waiting: Told how the start goes on.

    Raises:
        EgmError: If the engine, its version, the model, the address or an option cannot be used.
        BackendError: If the engine ends before it is ready, is not ready in time, or answers without sense.

    Example:
        >>> with serve("egm-tiny", "egm") as server:  # doctest: +SKIP
        ...     Grounder.connect(server.url, server.model)
    """
    with ExitStack() as stack:
        chosen = free_port() if port is None else port
        plan = plan_server(
            model,
            engine,
            aim=aim,
            host=host,
            port=chosen,
            served_model_name=served_model_name,
            quantization=quantization,
            speculation=speculation,
            device=device,
            dtype=dtype,
            passed_on=passed_on,
            stack=stack,
        )
        check_port(plan.host, plan.port)
        log = _log() if log is None else log
        if planned is not None:
            planned(plan, log)
        command, variables = plan.command(), _variables(plan)
        if plan.key and plan.engine.facts.key == "config":
            command += ["--config", str(_key_file(plan.key, stack))]
        process = EngineProcess(command, variables, log, key=plan.key)
        stack.callback(process.stop)
        _wait(plan, process, seconds, waiting)
        yield _ready(plan, process)


def _log() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="egm-serve-", suffix=".log")
    os.close(descriptor)
    return Path(name)


def _variables(plan: Plan) -> dict[str, str]:
    """The engine's environment: this process's, what the plan sets, and the key where the engine reads it there."""
    ours = {name: part.words[0] for name, part in plan.variables.items()}
    without = {name: value for name, value in os.environ.items() if name not in (KEY, "VLLM_API_KEY")}
    key = plan.engine.facts.key
    shown = {key: plan.key} if plan.key and key and key != "config" else {}
    return {**without, "PYTHONUNBUFFERED": "1", **ours, **shown}


def _key_file(key: str, stack: ExitStack) -> Path:
    """A file of options that holds the key, which nobody else may read."""
    import json

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="egm-serve-")))  # its owner's alone
    path = folder / "key.yaml"
    write_text(path, f"api-key: {json.dumps(key)}\n")
    return path


def _wait(plan: Plan, process: EngineProcess, seconds: float, waiting: Waiting | None) -> None:
    begun = time.monotonic()
    while not is_healthy(plan.url):
        gone = time.monotonic() - begun
        if process.wait(_POLL) is not None:
            raise BackendError(f"{plan.engine.name} {process.why()}")
        if gone > seconds:
            raise BackendError(
                f"{plan.engine.name} was not ready after {seconds:.0f} s: {process.last_line()} (log: {process.log})"
            )
        if waiting is not None:
            waiting(gone, process.last_line())
    if process.code() is not None:  # another listens there, and this one found the port taken
        raise BackendError(f"{plan.engine.name} {process.why()}")


def _ready(plan: Plan, process: EngineProcess) -> RunningServer:
    model = plan.model
    try:
        answer = check_grounding(
            plan.url, plan.served_model_name, model.codec, name=model.name, key=plan.key, context=model.context
        )
    except EgmError as error:
        if process.wait(1.0) is not None:
            raise BackendError(f"{plan.engine.name} {process.why()}") from None
        raise BackendError(f"{error} (log: {process.log})") from None
    url, loopback = server_url(plan.url)
    _, said = ask_server(url, api_key=plan.key, loopback=loopback)
    version = said or plan.engine.version
    assert model.source is not None  # it was found to be served
    return RunningServer(
        url=plan.url,
        model=plan.served_model_name,
        engine=plan.engine.name,
        version=version,
        codec=model.codec,
        room=model.room,
        folder=model.source,
        log=process.log,
        answer=answer,
        notes=plan.notes,
        key=plan.key,
        _process=process,
    )
