"""`--serve ENGINE`: a server that a command starts for itself, and ends with itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egm.cli.printing import note
from egm.errors import EgmError
from egm.progress import ProgressTask, progress_task
from egm.terminal import printable, spaced

if TYPE_CHECKING:
    from egm.backends.base import GenerationSettings
    from egm.grounder import Grounder
    from egm.serve import Plan, RunningServer
    from egm.serve.start import Waiting
    from egm.thinking import GateSource


_MOST_LINE = 120  # characters of an engine's log that are shown while it starts


def refuse_two_servers(engine: str | None, aim: str | None, server: object) -> None:
    """Refuse `--serve` beside `--server`, and `--aim` without `--serve`.

    Raises:
        EgmError: If they are given so.
    """
    if engine is not None and server:
        raise EgmError("--serve starts a server, and --server names one that is there: give one of them")
    if engine is None and aim is not None:
        raise EgmError("--aim is for a server that this command starts: give --serve too, or leave it out")


@contextmanager
def started(
    model: str | None,
    engine: str,
    aim: str | None,
    *,
    device: str,
    dtype: str,
    check: Callable[[Plan], None] = lambda _: None,
) -> Iterator[RunningServer]:
    """Serve a model on a free port while a command runs, and say so on standard error.

    Args:
        model: What to serve; None takes egm-tiny.
        engine: By what.
        aim: For what.
        device: Where transformers and our own server compute.
        dtype: Type that is computed in.
        check: Raises before the start if that is not to be.

    Yields:
        The server.
    """
    from egm.serve import serve

    def planned(plan: Plan, log: Path) -> None:
        check(plan)
        announce(plan, log)

    name = model or "egm-tiny"
    with (
        watched() as waiting,
        serve(name, engine, aim=aim, device=device, dtype=dtype, planned=planned, waiting=waiting) as server,
    ):
        waiting(0.0, "")
        yield server


@contextmanager
def served_grounder(
    model: str | None,
    engine: str,
    aim: str | None,
    *,
    device: str,
    dtype: str,
    codec: str | None,
    settings: GenerationSettings | None,
    prompt: str | None = None,
    cut_tail: bool = False,
    gate: GateSource = None,
    **options: Any,
) -> Iterator[tuple[Grounder, RunningServer]]:
    """Serve a model on a free port while a command runs, say so on standard error, and ask it.

    Args:
        model: What to serve; None takes egm-tiny.
        engine: By what.
        aim: For what.
        device: Where transformers and our own server compute.
        dtype: Type that is computed in.
        codec: Name of the codec; None takes what the checkpoint calls for.
        settings: How text is generated; None is greedy. An answer is kept within what the context has room for, since
            engines refuse to be asked for more.
        prompt: The codec's prompt style.
        cut_tail: Whether answers end behind their box; a codec for which they cannot is refused before the start.
        gate: What decides whether to think, where the settings ask for it.
        **options: What else `Grounder.connect` takes.

    Yields:
        What asks it, and the server.
    """
    from egm.backends.base import GenerationSettings
    from egm.backends.checkpoint import EMBEDDED, EMBEDDED_MAX_NEW_TOKENS
    from egm.codecs import get_codec
    from egm.codecs.registry import check_tail
    from egm.grounder import Grounder

    def check(plan: Plan) -> None:
        if cut_tail:
            check_tail(get_codec(codec or plan.model.codec))

    if settings is None:
        usual = GenerationSettings()
        settings = replace(usual, max_new_tokens=EMBEDDED_MAX_NEW_TOKENS) if model in (None, EMBEDDED) else usual
    with started(model, engine, aim, device=device, dtype=dtype, check=check) as server:
        if settings.max_new_tokens > server.room:
            note(f"answers end after {server.room} tokens: the context has no room for {settings.max_new_tokens}")
            settings = replace(settings, max_new_tokens=server.room)
        with Grounder.connect(
            server.url,
            server.model,
            codec=codec or server.codec,
            settings=settings,
            prompt=prompt,
            cut_tail=cut_tail,
            gate=gate,
            api_key=server.key or "none",
            **options,
        ) as grounder:
            yield grounder, server


def announce(plan: Plan, log: Path) -> None:
    """Say how an engine is started, before it is."""
    for line in plan.notes:
        note(line)
    called = f"{plan.engine.name} {plan.engine.version or ''}".strip()
    print(f"starting {called}, log: {spaced(log)}", file=sys.stderr)


@contextmanager
def watched() -> Iterator[Waiting]:
    """Show how long an engine has been starting, and what it wrote last.

    Yields:
        What is told of it; nothing to show takes the line away.
    """
    with ExitStack() as stack:
        shown: list[ProgressTask] = []  # begun when there is something to wait for: a download before has its own

        def waiting(seconds: float, line: str) -> None:
            if not (seconds or line):
                stack.close()
                return
            if not shown:
                shown.append(stack.enter_context(progress_task("starting")))
            shown[0].says = printable(line)[:_MOST_LINE]

        yield waiting
