"""Styles: how a teacher is asked to explain, read from one file that users may copy and edit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from egm.codecs.prompts import neutralise
from egm.errors import RecipeError, nearest
from egm.training.recipe import Section, explain
from egm.training.yaml_reader import read_yaml_file, shortened

STYLES_FILE: Final = Path(__file__).with_name("styles.yaml")
"""The styles that come with the package."""
_PLACES: Final = ("phrase", "box", "shown", "whole")
_PLACE = re.compile(r"\{(\w*)\}")
AnySection = TypeVar("AnySection", bound=Section)
_Words = Annotated[int, Field(ge=1, le=5000)]


class TeacherStyle(Section):
    """How a teacher is asked, and what of its reply is the rationale; styles.yaml says what each key means."""

    about: str
    """One line for the data card."""
    takes: Literal["text", "reasoning"] = "text"
    """What of the reply is the rationale."""
    asks: Literal["explanation", "grounding"] = "explanation"
    """By the prompt, or as the family asks for a box."""
    words: tuple[_Words, _Words]
    """Fewest and most words of a rationale."""
    boxes: bool
    """Whether a rationale may give boxes of its own."""
    without: tuple[str, ...] = ()
    """Names of filters that do not fit the style."""
    max_tokens: int = Field(default=800, ge=1)
    """Most tokens of a reply."""
    prompt: str = ""
    """What the teacher is asked, with places in braces."""
    marked: str = ""
    """What is said of a box that is drawn, with {colour}."""
    unmarked: str = ""
    """What is said of a box that is not."""
    whole: str = ""
    """What is said of a box that is that of the whole object."""

    @model_validator(mode="after")
    def _holds_together(self) -> TeacherStyle:
        if self.words[0] > self.words[1]:
            raise ValueError(f"words {list(self.words)} are most before fewest: exchange them")
        if (self.asks == "explanation") != bool(self.prompt.strip()):
            fault = "needs a prompt" if self.asks == "explanation" else "is the family's own question: leave prompt out"
            raise ValueError(f"asks {self.asks} {fault}")
        for name, known in (("prompt", _PLACES), ("marked", ("colour",)), ("unmarked", ()), ("whole", ())):
            for place in _PLACE.findall(getattr(self, name)):
                if place not in known:
                    listed = ", ".join(f"{{{each}}}" for each in known) or "none"
                    raise ValueError(f"{name} has the place {{{place}}}, which is none of its own: {listed}")
        missing = [place for place in ("phrase", "box") if f"{{{place}}}" not in self.prompt]
        if self.prompt and missing:
            raise ValueError(f"prompt has no place {{{missing[0]}}}: the teacher would not know it")
        return self

    def question(self, phrase: str, box: str, *, colour: str | None, amodal: bool = False) -> str:
        """Word what a teacher is asked.

        Args:
            phrase: What was to be found; control tokens in it become words.
            box: Where it is, as the family writes it.
            colour: Name of the colour that the box is drawn in; None where it is not.
            amodal: Whether the box is that of the whole object.
        """
        shown = self.unmarked if colour is None else _fill(self.marked, {"colour": colour})
        values = {"phrase": neutralise(phrase).strip(), "box": box, "shown": _line(shown)}
        return _fill(self.prompt, values | {"whole": f" {_line(self.whole)}".rstrip() if amodal else ""}).strip()

    @property
    def digest(self) -> str:
        """What tells this wording from any other, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def load_styles(path: Path = STYLES_FILE) -> Mapping[str, TeacherStyle]:
    """Read a file of styles.

    Args:
        path: YAML, a style a key.

    Raises:
        RecipeError: If it cannot be read, or a key or value is wrong: it is named, with the nearest right one.
    """
    content = read_strictly(path, "styles")
    if not content:
        raise RecipeError(f"styles {path} hold no style: give one a name and its keys, as styles.yaml does")
    return {str(name): checked(TeacherStyle, style, f"styles {path}: {name}") for name, style in content.items()}


def style_of(name: str, path: Path | None = None) -> TeacherStyle:
    """Return the style of a name.

    Args:
        name: Such as `official`.
        path: Whose styles; by default those that come with the package.

    Raises:
        RecipeError: If the file has none of that name, or is wrong.
    """
    styles = load_styles(path or STYLES_FILE)
    if name not in styles:
        raise RecipeError(f"there is no style {name!r}: {nearest(name, tuple(styles))}")
    return styles[name]


def read_strictly(path: Path, what: str) -> dict[Any, Any]:
    """Read a YAML file that holds keys.

    Args:
        path: The file.
        what: What messages call it.

    Raises:
        RecipeError: If it cannot be read, is not YAML, or holds something else.
    """
    content = read_yaml_file(path, what, missing=f"there is no file of {what} at {path}: check the path")
    if content is not None and not isinstance(content, dict):
        raise RecipeError(f"{what} {path} must hold keys, not a {type(content).__name__}")
    return content or {}


def checked(kind: type[AnySection], content: Any, where: str) -> AnySection:
    """Make a section of what a file holds.

    Raises:
        RecipeError: If a key or value is wrong; the message begins with `where`.
    """
    if not isinstance(content, dict):
        raise RecipeError(f"{where} must hold keys, not {shortened(content)}: {', '.join(kind.model_fields)}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, kind)}") from None


def _line(text: str) -> str:
    return " ".join(text.split())


def _fill(text: str, values: Mapping[str, str]) -> str:
    """Put values into their places in one pass, so that braces in a phrase stay what they are."""
    return _PLACE.sub(lambda place: values[place[1]], text)
