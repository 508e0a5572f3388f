"""The tab that looks through journals: runs, filters, tables, and answers a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import gradio as gr

from egm.web.journal_view import NO_RUN, JournalForm, JournalView, journal_view, opened_view, tables_view
from egm.web.runs import PAIRS, RunShelf

_PHRASES: Final = (("simple and complex", ""), ("simple", "simple"), ("complex", "complex"))


def build_journal_tab(page: gr.Blocks, shelf: RunShelf) -> None:
    """Put the tab together, within the page.

    Args:
        page: The page.
        shelf: The runs that it may open.
    """
    names = shelf.names()

    def looked() -> list[Any]:
        found = shelf.names()
        return [gr.update(choices=["", *found]), gr.update(choices=[NO_RUN, *found])]

    number = gr.State(1)
    if not names:
        gr.HTML("<p>No run was named: start with <code>egm web --run RUN</code> to look through its journal.</p>")
        return
    with gr.Row():
        run = gr.Dropdown(["", *names], value="", label="Run", min_width=280)
        against = gr.Dropdown([NO_RUN, *names], value=NO_RUN, label="Compare with the run", min_width=280)
    status = gr.HTML("", elem_id="egm-journal-status", js_on_load=None)
    with gr.Accordion("Tables", open=True, visible=False) as tables_of:
        tables = gr.HTML("", elem_id="egm-tables", js_on_load=None)
    with gr.Group():
        outcomes = gr.CheckboxGroup([], label="Outcome", elem_id="egm-outcomes", visible=False)
        with gr.Row():
            phrase = gr.Dropdown(list(_PHRASES), value="", label="Phrase", min_width=220)
            split = gr.Dropdown([("all", "")], value="", label="Split", min_width=160)
            pair = gr.Dropdown(
                [(title, key) for key, title in PAIRS.items()], value="", label="Which run is right", visible=False
            )
            words = gr.Textbox(label="Words in phrase, text or id", min_width=200)
    with gr.Row(visible=False) as turning:
        back = gr.Button("Previous page", size="sm", min_width=120)
        forth = gr.Button("Next page", size="sm", min_width=120)
    cards = gr.HTML("", elem_id="egm-cards", js_on_load=None)
    filled = [run, against, outcomes, phrase, split, pair, words]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def opened(name: str, other: str, sought: str) -> Iterator[list[Any]]:
        if not name:
            yield [gr.skip() for _ in range(8)]
            return
        yield ["<p>reading the journal …</p>", *(gr.skip() for _ in range(7))]
        view, choices = opened_view(shelf, name, other, sought)
        is_there = bool(choices.outcomes)
        yield [
            *_shown(view),
            gr.update(visible=is_there),
            gr.update(visible=is_there),
            gr.update(choices=choices.outcomes, value=[key for _, key in choices.outcomes], visible=is_there),
            gr.update(choices=[("all", ""), *((each, each) for each in choices.splits)], value=""),
            gr.update(visible=choices.is_pair, value=""),
        ]

    def tabled(name: str, other: str) -> Iterator[Any]:
        if name:
            yield "<p>making the tables …</p>"
            yield tables_view(shelf, name, other)

    def filtered(*values: Any) -> list[Any]:
        if not values[0]:  # no run is open, and a field that appears tells of itself
            return [gr.skip() for _ in range(3)]
        return _shown(journal_view(shelf, JournalForm(*values), 1))

    def turned(step: int) -> Any:
        def turn(*values: Any) -> list[Any]:
            *fields, current = values
            return _shown(journal_view(shelf, JournalForm(*fields), int(current) + step))

        return turn

    outputs = [status, cards, number]
    page.load(looked, None, [run, against], **private)  # there may be new ones
    everything = [*outputs, turning, tables_of, outcomes, split, pair]
    one: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "journals", **private}
    chosen = [run.input, against.input]
    opening = gr.on(chosen, opened, [run, against, words], everything, trigger_mode="always_last", **one)
    opening.then(tabled, [run, against], tables, concurrency_limit=1, **private)
    for changing in (outcomes.input, phrase.input, split.input, pair.input, words.change):
        changing(filtered, filled, outputs, trigger_mode="always_last", **one)
    back.click(turned(-1), [*filled, number], outputs, **one)
    forth.click(turned(1), [*filled, number], outputs, **one)


def _shown(view: JournalView) -> list[Any]:
    return [view.status, view.cards, view.number]
