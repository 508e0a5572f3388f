"""Serve the page: a port that is free, a key where others can reach it, and a folder that is removed at the end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from egm.extras import need
from egm.server.limits import Limits
from egm.server.run import bind, check_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from egm.web.models import OpenModel
    from egm.web.runs import RunShelf

log = logging.getLogger(__name__)
_GRACE_SECONDS: Final = 1
_LIMITS: Final = Limits(connections=128, head_seconds=30.0)
QUIET: Final = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""What keeps gradio from asking others, whatever the environment says."""


def _end(number: int, frame: object) -> None:  # noqa: ARG001
    sys.exit(128 + number)


def run_web(
    open_all: Callable[[], Mapping[str, OpenModel]],
    shelf: RunShelf,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    key: str = "",
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the page until SIGTERM or SIGINT comes; call it in the main thread.

    Args:
        open_all: Opens the models; called once the port is known to be free.
        shelf: The runs that may be looked at.
        host: The address to listen at; one that other machines reach needs a key.
        port: The port; 0 takes one that is free.
        key: The key that who has the page must give; empty where none is asked for.
        ready: Told where the page is, once it is there.

    Raises:
        EgmError: If the address is for other machines and there is no key, or the port is taken.
        MissingExtraError: If gradio is not installed.
    """
    need("egm web", "gradio", "fastapi", "uvicorn")
    check_address(host, key)
    # As Ctrl-C does, so that the folder is removed and models are closed; uvicorn raises anew what ended it.
    signal.signal(signal.SIGTERM, _end)
    hangup = getattr(signal, "SIGHUP", None)  # the terminal was closed; nohup has it passed over
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))  # which uvicorn ends in order by
    with (
        closing(bind(host, port)) as listener,
        tempfile.TemporaryDirectory(prefix="egm-web-", ignore_cleanup_errors=True) as folder,
    ):
        os.environ.update(QUIET, GRADIO_TEMP_DIR=str(Path(folder)))
        models = open_all()  # what is wrong with them is said before gradio is loaded, which takes seconds
        import uvicorn

        from egm.server.connections import bounded_protocol
        from egm.web.ask_view import AskDesk
        from egm.web.page import build_web_app

        app = build_web_app(AskDesk(models), shelf, host=host, key=key)
        settings: dict[str, Any] = {"ws": "none", "loop": "asyncio", "lifespan": "on", "log_config": None}
        config = uvicorn.Config(
            app,
            http=bounded_protocol(_LIMITS),
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            **settings,
        )
        listener.listen()
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}/"

        class Server(uvicorn.Server):
            """A server that does not call it an error that pages are open when it ends: each holds a connection."""

            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets)
                if self.started and self.should_exit:  # uvicorn would leave the app's lifespan open, which then hangs
                    await self.shutdown(sockets)

            async def main_loop(self) -> None:
                ready(url)  # not before: now a signal ends it in order
                await super().main_loop()

            async def shutdown(self, sockets: Any = None) -> None:
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
                await super().shutdown(sockets)

        Server(config).run(sockets=[listener])
