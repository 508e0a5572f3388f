"""What the tab that asks shows, as values that gradio puts into the page; it knows nothing of gradio itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from egm.errors import EgmError
from egm.web.answers import PastAnswer, shown_answers, title_of
from egm.web.asking import BROKEN, Asking, LiveAnswers, ask, read_expect, read_phrases
from egm.web.fragments import boxes_of, note_of, panel, picture_view, stem_of
from egm.web.kept import Kept
from egm.web.models import OpenModel
from egm.web.pictures import Uploads, WebPicture, WebSample, samples

log = logging.getLogger(__name__)

NOBODY: Final = "nothing"
"""What is chosen where only one model is asked."""
MOST_PAST: Final = 30
"""Past answers that a session is offered."""
_MOST_KEPT: Final = 200
_GONE: Final = "is no longer kept: choose a sample, or upload it again"


@dataclass(frozen=True, slots=True)
class Shown:
    """What the tab shows.

    Attributes:
        status: One line of words.
        pictures: HTML of the picture, one a model that is asked.
        panels: HTML of its answers, likewise.
        names: By what the answers are kept, once they are whole.
        title: What they are called in the list of past answers.
        models: Who answered, of past answers.
    """

    status: str
    pictures: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    title: str = ""
    models: tuple[str, ...] = ()


@dataclass
class AskDesk:
    """What all who have the page share: models, pictures, answers, and what is under way.

    Attributes:
        models: The models by name.
        uploads: Pictures.
        answers: Answers that are whole.
        samples: The samples by title.
    """

    models: Mapping[str, OpenModel]
    uploads: Uploads = field(default_factory=Uploads)
    answers: Kept[PastAnswer] = field(default_factory=lambda: Kept(_MOST_KEPT))
    samples: Mapping[str, WebSample] = field(default_factory=samples)

    def __post_init__(self) -> None:
        """Begin with nothing under way."""
        self._under_way: dict[str, Sequence[LiveAnswers]] = {}
        self._loaded: dict[str, WebPicture] = {}
        self._lock = threading.Lock()

    def take_sample(self, title: str) -> tuple[str, WebSample, Shown]:
        """Choose a sample.

        Returns:
            The picture's name, the sample, and what to show.

        Raises:
            EgmError: If there is none of that title.
        """
        sample = self.samples.get(str(title))
        if sample is None:
            raise EgmError(f"there is no sample {str(title)[:80]!r}: choose one of {', '.join(self.samples)}")
        if sample.title not in self._loaded:
            self._loaded[sample.title] = sample.load()
        name = self.uploads.keep(self._loaded[sample.title])
        return name, sample, self.show_picture(name)

    def show_picture(self, name: object) -> Shown:
        """Show a picture that nothing was asked about yet.

        Raises:
            EgmError: If it is no longer kept.
        """
        picture = self.uploads.get(name)
        if picture is None:
            raise EgmError(f"the picture {_GONE}")
        assert isinstance(name, str)
        width, height = picture.image.size
        return Shown(f"{picture.name}, {width} x {height}", (picture_view(name, picture),), ("",))

    def ask(self, session: str, picture: object, form: Mapping[str, Any]) -> Iterator[Shown]:
        """Ask, and come back with what to show whenever there is more.

        Args:
            session: Who asks; an asking of theirs that is under way is stopped.
            picture: The picture's name.
            form: What was filled in: `phrases`, `expect`, `amodal`, `model`, `against`, `votes`, `seed`.

        Yields:
            What to show; where nothing can be asked, a status that says why.
        """
        try:
            yield from self._ask(session, picture, form)
        except EgmError as error:
            yield Shown(str(error))
        except Exception:
            log.exception("asking failed")
            yield Shown(BROKEN)

    def stop(self, session: str) -> None:
        """Give up what a session has under way."""
        with self._lock:
            running = self._under_way.get(session, ())
        for each in running:
            each.stop()

    def recall(self, names: Sequence[str]) -> tuple[str, Asking, Shown]:
        """Bring past answers back.

        Returns:
            The name of their picture, what was asked, and what to show.

        Raises:
            EgmError: If they are no longer kept, or their picture is not.
        """
        found = [(name, answer) for name in names if (answer := self.answers.get(name)) is not None]
        if not found or len(found) < len(names):
            raise EgmError(f"that answer {_GONE.partition(':')[0]}: ask again")
        about, asking = found[0][1].picture, found[0][1].asking
        picture = self.uploads.get(about)
        if picture is None:
            raise EgmError(f"the picture of that answer {_GONE}")
        shown = [_whole(picture, answer, name) for name, answer in found]
        title = title_of([answer for _, answer in found])
        pictures, panels = tuple(view for view, _ in shown), tuple(text for _, text in shown)
        return (
            about,
            asking,
            Shown(f"again: {title}", pictures, panels, tuple(names), title, tuple(answer.model for _, answer in found)),
        )

    def _ask(self, session: str, picture: object, form: Mapping[str, Any]) -> Iterator[Shown]:
        found = self.uploads.get(picture)
        if found is None or not isinstance(picture, str):
            raise EgmError(f"the picture {_GONE}")
        asking = Asking(
            read_phrases(form["phrases"]),
            read_expect(form["expect"]),
            bool(form["amodal"]),
            _whole_number(form["votes"], "votes"),
            _whole_number(form["seed"], "the seed"),
        )
        with closing(ask(self._chosen(form["model"], form["against"]), found, asking)) as asked:
            live = next(asked)
            with self._lock:
                before, self._under_way[session] = self._under_way.get(session, ()), live
            for each in before:
                each.stop()
            try:
                while not all(each.done for each in live):
                    yield _so_far(picture, live)
                    next(asked, None)
                yield self._ended(picture, live)
            finally:
                with self._lock:
                    if self._under_way.get(session) is live:
                        del self._under_way[session]

    def _chosen(self, model: object, against: object) -> list[OpenModel]:
        names = [model] if against in (None, "", NOBODY, model) else [model, against]
        if unknown := next((name for name in names if not isinstance(name, str) or name not in self.models), None):
            raise EgmError(f"there is no model {str(unknown)[:80]!r} here: choose one of {', '.join(self.models)}")
        return [self.models[str(name)] for name in names]

    def _ended(self, picture: str, live: Sequence[LiveAnswers]) -> Shown:
        answers = [PastAnswer.of(each, picture) for each in live]
        kept = [self.answers.add(answer) if answer.groundings else "" for answer in answers]
        shown = [_whole(live[0].picture, answer, name) for answer, name in zip(answers, kept, strict=True)]
        status = "; ".join(_summary(answer) for answer in answers)
        names = tuple(name for name in kept if name)
        pictures, panels = tuple(view for view, _ in shown), tuple(text for _, text in shown)
        return Shown(status, pictures, panels, names if len(names) == len(kept) else (), title_of(answers))


def _so_far(name: str, live: Sequence[LiveAnswers]) -> Shown:
    pictures, panels = [], []
    for each in live:
        picture = each.picture
        answers = shown_answers(each.written(), each.asking)
        pictures.append(picture_view(name, picture, boxes_of(answers), model=each.model.name))
        panels.append(panel(each.model.name, answers, note=note_of(each.model.name, picture)))
    who = " and ".join(each.model.name for each in live)
    return Shown(f"asking {who}", tuple(pictures), tuple(panels))


def _whole(picture: WebPicture, answer: PastAnswer, kept: str) -> tuple[str, str]:
    """The picture and the panel of an answer that is whole."""
    shown = answer.shown()
    view = picture_view(answer.picture, picture, boxes_of(shown), model=answer.model)
    note = note_of(answer.model, picture)
    return view, panel(answer.model, shown, name=kept, stem=stem_of(answer), note=note)


def _summary(answer: PastAnswer) -> str:
    wrong = [each.error for each in answer.written if each.error]
    if wrong:
        return f"{answer.model}: {wrong[0]}"
    found = sum(len(grounding.answered) for grounding in answer.groundings)
    slowest = max(grounding.seconds for grounding in answer.groundings)
    boxes = "1 box" if found == 1 else f"{found} boxes" if found else "no box"
    return f"{answer.model}: {boxes}, {slowest:.2f} s"


def _whole_number(value: object, what: str) -> int:
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value or not 0 <= number < 2**63:
        raise EgmError(f"{what} must be a whole number, not {str(value)[:40]!r}")
    return int(number)


def remember(past: Sequence[tuple[str, tuple[str, ...]]], shown: Shown) -> list[tuple[str, tuple[str, ...]]]:
    """Put answers that are whole at the head of a session's past ones; those told twice are numbered.

    Example:
        >>> remember([("a cup", ("x",))], Shown("", names=("y",), title="a cup"))
        [('a cup (2)', ('y',)), ('a cup', ('x',))]
    """
    if not shown.names:
        return list(past)
    titles = {title for title, _ in past}
    title, number = shown.title, 1
    while title in titles:
        number += 1
        title = f"{shown.title} ({number})"
    return [(title, shown.names), *past][:MOST_PAST]
