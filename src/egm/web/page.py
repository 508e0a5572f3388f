"""The page: both tabs, as one gradio application that asks nobody else for anything."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from egm.web.ask_tab import build_ask_tab
from egm.web.ask_view import AskDesk
from egm.web.files import add_routes
from egm.web.guard import WebGuard
from egm.web.journal_tab import build_journal_tab
from egm.web.runs import RunShelf

if TYPE_CHECKING:
    from fastapi import FastAPI

_HERE = Path(__file__).parent
_QUEUE = 32  # events that wait; one more is told so
_IN_MEMORY = 2  # pictures decoded or drawn on at once: one may take a second, and half a gigabyte


def build_page(desk: AskDesk, shelf: RunShelf) -> gr.Blocks:
    """Put both tabs together.

    Args:
        desk: What is asked.
        shelf: The runs that may be looked at.
    """
    with gr.Blocks(title="EGM", analytics_enabled=False, fill_width=True) as page:
        gr.HTML("<h1>EGM: an image and a phrase in, a box out</h1>", js_on_load=None)
        with gr.Tabs():
            with gr.Tab("Ask"):
                build_ask_tab(page, desk)
            with gr.Tab("Journals"):
                build_journal_tab(page, shelf)
    page.queue(max_size=_QUEUE, api_open=False)
    return page


def build_web_app(desk: AskDesk, shelf: RunShelf, *, host: str = "127.0.0.1", key: str = "") -> FastAPI:
    """Make the application that serves the page.

    Args:
        desk: What is asked; its models stay open for whoever opened them to close.
        shelf: The runs that may be looked at.
        host: The address that is listened at.
        key: The key; empty where none is asked for.
    """
    from fastapi import FastAPI

    app = FastAPI(title="EGM", openapi_url=None, docs_url=None, redoc_url=None)
    add_routes(app, desk.uploads, desk.answers, asyncio.Semaphore(_IN_MEMORY))
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # the reader's own
    gr.mount_gradio_app(
        app,
        build_page(desk, shelf),
        path="/",
        theme=gr.themes.Default(primary_hue="blue", **fonts),
        css=(_HERE / "web.css").read_text("utf-8"),
        js=(_HERE / "web.js").read_text("utf-8"),
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size=1,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
    )
    app.add_middleware(WebGuard, host=host, key=key)
    return app
