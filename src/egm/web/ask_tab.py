"""The tab that asks: fields, buttons, and where answers appear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gradio as gr

from egm.errors import EgmError
from egm.types import EXPECTS
from egm.web.ask_view import NOBODY, AskDesk, Shown, remember
from egm.web.models import MOST_VOTES, names_of

_EXPECT_TITLES: Final = (("one box", "one"), ("one or none", "any"), ("all there are", "all"))
_ASKED_AT_ONCE: Final = 4
_PICKER: Final = (
    '<label class="egm-upload"><span>Upload a picture</span>'
    '<input type="file" accept="image/jpeg,image/png,image/webp,image/gif,image/bmp,image/tiff"></label>'
    '<p class="said" role="status"></p>'
)


def build_ask_tab(page: gr.Blocks, desk: AskDesk) -> None:
    """Put the tab together, within the page.

    Args:
        page: The page.
        desk: What it asks.
    """
    models, titles = names_of(desk.models.values()), list(desk.samples)
    picture, past = gr.State(""), gr.State([])
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            sample = gr.Radio(titles, value=titles[0], label="Sample picture")
            upload = gr.HTML(_PICKER, js_on_load=(Path(__file__).parent / "upload.js").read_text("utf-8"))
            phrases = gr.Textbox(label="Phrases, one a line", lines=3, max_lines=12)
            expect = gr.Radio(list(_EXPECT_TITLES), value=EXPECTS[0], label="Expect")
            amodal = gr.Checkbox(label="Whole objects, hidden parts too (amodal)")
            model = gr.Dropdown(models, value=models[0], label="Model")
            against = gr.Dropdown([NOBODY, *models], value=NOBODY, label="Compare with", visible=len(models) > 1)
            with gr.Accordion("Votes", open=False):
                votes = gr.Slider(1, MOST_VOTES, value=1, step=1, label="Answers a phrase")
                seed = gr.Number(0, precision=0, label="Seed")
            with gr.Row():
                start = gr.Button("Ask", variant="primary", elem_id="egm-ask", min_width=120)
                stop = gr.Button("Stop", elem_id="egm-stop", min_width=80)
        with gr.Column(scale=5, min_width=320):
            status = gr.HTML("", elem_id="egm-status", js_on_load=None)
            with gr.Row(equal_height=False):
                columns = [_column(number) for number in (1, 2)]
            remembered = gr.Radio([], label="Past answers", elem_id="egm-past", visible=False)
    shown = [status, *(part for column in columns for part in column)]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def choose(title: str) -> list[Any]:
        try:
            name, chosen, view = desk.take_sample(title)
        except EgmError as error:
            return [gr.skip(), gr.skip(), gr.skip(), *_updates(Shown(str(error)))]
        return [name, "\n".join(chosen.phrases), chosen.expect, *_updates(view)]

    def uploaded(event: gr.EventData) -> list[Any]:
        try:
            name = event._data["picture"]
            view = desk.show_picture(name)
        except (EgmError, KeyError, TypeError) as error:
            return [gr.skip(), gr.skip(), *_updates(Shown(str(error)))]
        return [name, None, *_updates(view)]

    def asked(request: gr.Request, *given: Any) -> Iterator[list[Any]]:
        *values, before, so_far = given
        names = ("phrases", "expect", "amodal", "model", "against", "votes", "seed")
        view = None
        for view in desk.ask(str(request.session_hash), before, dict(zip(names, values, strict=True))):
            if not view.names:
                yield [*_updates(view), gr.skip(), gr.skip()]
        if view is not None and view.names:
            now = remember(so_far, view)
            yield [*_updates(view), now, _past_choices(now)]

    def recalled(title: str, so_far: list[tuple[str, tuple[str, ...]]]) -> list[Any]:
        try:
            kept, asking, view = desk.recall(dict(so_far).get(title, ()))
        except EgmError as error:
            return [*(gr.skip() for _ in range(9)), *_updates(Shown(str(error)))]
        asked_of = [name if name in models else models[0] for name in view.models]
        who = [asked_of[0], asked_of[1] if len(asked_of) > 1 else NOBODY]
        fields = ["\n".join(asking.phrases), asking.expect, asking.amodal, *who, asking.votes, asking.seed]
        return [kept, None, *fields, *_updates(view)]

    def stopped(request: gr.Request) -> None:
        desk.stop(str(request.session_hash))

    fields = [phrases, expect, amodal, model, against, votes, seed]
    gr.on([page.load, sample.input], choose, [sample], [picture, phrases, expect, *shown], **private)
    upload.upload(uploaded, None, [picture, sample, *shown], **private)
    gr.on(
        [start.click, phrases.submit],  # which Shift and Enter do
        asked,
        [*fields, picture, past],
        [*shown, past, remembered],
        concurrency_limit=_ASKED_AT_ONCE,
        trigger_mode="once",
        **private,
    )
    stop.click(stopped, None, None, concurrency_limit=None, **private)
    remembered.input(recalled, [remembered, past], [picture, sample, *fields, *shown], **private)
    page.unload(stopped)


def _column(number: int) -> tuple[Any, Any, Any]:
    with gr.Column(min_width=300, visible=number == 1) as column:
        picture = gr.HTML("", elem_id=f"egm-picture-{number}", js_on_load=None)
        answers = gr.HTML("", elem_id=f"egm-answers-{number}", js_on_load=None)
    return column, picture, answers


def _updates(view: Shown) -> list[Any]:
    """What a view changes: the status, and of each column whether it is there, its picture and its answers."""
    from egm.web.fragments import fragment

    values: list[Any] = [fragment("status.html.j2", said=view.status)]
    if not view.pictures:  # nothing but words
        return [*values, *(gr.skip() for _ in range(6))]
    for place in range(2):
        if place < len(view.pictures):
            values += [gr.update(visible=True), view.pictures[place], view.panels[place]]
        else:
            values += [gr.update(visible=False), "", ""]
    return values


def _past_choices(past: list[tuple[str, tuple[str, ...]]]) -> Any:
    return gr.update(choices=[title for title, _ in past], value=past[0][0], visible=True)
