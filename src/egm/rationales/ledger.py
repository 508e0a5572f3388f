"""The journal of a run of rationales: a header, a line for every call that was answered, a line for every decision.

It is an append-only file (`egm.append_only`). A call's line is written as its answer comes, before anything is made of
it, so that nothing is paid for twice. A call that failed is no try: a resumed run asks it again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from egm.append_only import AppendOnly, read_objects, refuse_no_file
from egm.codecs import Codec, get_codec
from egm.errors import DataError
from egm.journal import JOURNAL_NAME
from egm.rationales.styles import TeacherStyle, checked
from egm.records import list_differences

_FORMAT: Final = 1
_MOST = 10**15

_Count: TypeAlias = Annotated[int, Field(ge=0, le=_MOST)]
_Pair: TypeAlias = Annotated[tuple[_Count, _Count], Field(strict=False)]
_Corners: TypeAlias = Annotated[tuple[float, float, float, float], Field(strict=False)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _SampleLine(_Line):
    id: str
    """Id of the sample."""
    attempt: _Count
    """Which of the tries at it, counted from 0."""
    number: _Count | None = None
    """In a shard, the sample's number in the whole dataset, counted from 0."""


class Call(_SampleLine):
    """A call to a model, and what came of it."""

    asked: Literal["teacher", "blind"]
    """Who."""
    text: str = ""
    """All that it wrote."""
    finish_reason: str | None = None
    """"stop", "length" or "repeated"; None after an error."""
    error: str | None = None
    """What failed, where it did."""
    tokens: _Pair = (0, 0)
    """Tokens read and written that are counted against the budget."""
    counted: bool = True
    """Whether the server counted them; else they are the most that the call may have taken."""
    lost: _Pair = (0, 0)
    """Tokens read and written in its tries that brought no answer, as far as the server counted them."""
    seconds: Annotated[float, Field(ge=0, le=_MOST)] = 0.0
    """From sending to the last token."""
    colour: str | None = None
    """Colour of the mark that the teacher saw, if one was drawn."""
    size: _Pair | None = None
    """Width and height of the picture in pixels."""
    image: str = ""
    """Which picture, as `egm.records.Record.image`; like the next two in a teacher's line alone."""
    phrase: str = ""
    """What is to be explained."""
    truth: _Corners | None = None
    """The true box in pixels."""


class Decision(_SampleLine):
    """What became of a try."""

    against: dict[str, str] = Field(default_factory=dict)
    """Why it was dropped, by the filter that says so; it was kept where none does."""
    box: _Corners | None = None
    """The box of the blind check in pixels, if there was one."""
    iou: Annotated[float, Field(ge=0, le=1)] | None = None
    """Its IoU with the true box, where there was a blind check."""


Line: TypeAlias = Call | Decision


class Ledger(AppendOnly):
    """Writer of a run's journal, which resumes one that is there; use it in a `with` statement.

    Args:
        folder: The run folder; made if there is none.
        identity: What the run is about; where the folder holds a journal already, it must be the same.
        about: What else is worth knowing of it, which may differ: versions, the command line, when it began.
        numbers: Of a shard, each sample's number in the whole dataset by its id, which its lines say.

    Attributes:
        lines: What the file held.
        header: Its first line.

    Raises:
        DataError: If the folder holds another run, a damaged journal, one that is being written, or no plain file.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        about: Mapping[str, Any],
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(folder / JOURNAL_NAME)
        self._numbers = numbers
        try:
            self.header, self.lines = self._resume(dict(identity), dict(about))
        except BaseException:
            self.close()
            raise

    def _resume(self, identity: dict[str, Any], about: dict[str, Any]) -> tuple[dict[str, Any], list[Line]]:
        if self.is_new:
            begun = header_row(identity, about)
            self.write_row(begun, sync=True)
            return begun, []
        header, lines = read_ledger(self.path)
        _refuse_another(self.path.parent, identity, header["identity"])
        return header, lines

    def append(self, line: Line) -> None:
        """Append one line; see `AppendOnly.write_row`."""
        if self._numbers is not None:
            line = line.model_copy(update={"number": self._numbers[line.id]})
        self.write_row(line_row(line))


def header_row(identity: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON object of the first line."""
    return {"rationales": _FORMAT, "identity": identity, "about": about}


def line_row(line: Line) -> dict[str, Any]:
    """Return the JSON object of another line."""
    kind = "call" if isinstance(line, Call) else "decision"
    return {kind: line.model_dump(mode="json", exclude_defaults=True)}


def refuse_another_run(folder: Path, identity: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Refuse a folder that holds another run, as far as that can be told before the data are made.

    Args:
        folder: The run folder.
        identity: What the run will be about, but for its data.
        data: What is known of these, whole.

    Raises:
        DataError: If it does.
    """
    file = folder / JOURNAL_NAME
    if not file.exists() or not file.stat().st_size:
        return
    there = dict(read_ledger(folder)[0]["identity"])
    said, shard = there["data"], there.get("shard")
    if shard is not None:
        said, there["shard"] = shard["of"], {name: value for name, value in shard.items() if name != "of"}
    there["data"] = {name: said.get(name) for name in data}
    _refuse_another(folder, {**identity, "data": data}, there)


def _refuse_another(folder: Path, identity: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    if differences := list_differences(identity, there):
        raise DataError(
            f"{str(folder)!r} holds another run: {'; '.join(differences)}: "
            "repeat the same command, or choose another folder (--out)"
        )


def read_ledger(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Line]]:
    """Read the journal of a run of rationales; a torn last line is left out.

    Args:
        path: The journal, or the folder that holds it.

    Returns:
        The header, and the lines in their order.

    Raises:
        DataError: If there is none, or a line is damaged; the message names file and line.
    """
    file = Path(path)
    file = file / JOURNAL_NAME if file.is_dir() else file
    if not file.exists():
        raise DataError(f"there is no journal at {str(file)!r}: give a folder that `egm rationales` wrote")
    refuse_no_file(file)
    header: dict[str, Any] | None = None
    lines: list[Line] = []
    for number, row in read_objects(file):
        try:
            if header is None:
                header = _header(row)
            else:
                lines.append(_line(row))
        except DataError as error:
            raise DataError(f"{str(file)!r} line {number}: {error}: restore the file, or start elsewhere") from None
    if header is None:
        raise DataError(f"{str(file)!r} is empty: the run ended before it began; start it again")
    return header, lines


def _header(row: dict[str, Any]) -> dict[str, Any]:
    fine = row.get("rationales") == _FORMAT and all(isinstance(row.get(name), dict) for name in ("identity", "about"))
    if not fine:
        raise DataError("its first line is not the header of a run of rationales that this version reads")
    return row


def _line(row: dict[str, Any]) -> Line:
    kinds: dict[str, type[Line]] = {"call": Call, "decision": Decision}
    [(kind, values)] = row.items() if len(row) == 1 else [("", None)]
    if kind not in kinds:
        raise DataError("it is neither a call nor a decision")
    try:
        return kinds[kind].model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(f"its {kind} is damaged: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def convention(header: Mapping[str, Any]) -> tuple[TeacherStyle | None, Codec]:
    """How a run asked, None where its teacher was not asked in words, and the family that is trained."""
    said = header["about"].get("style")
    style = None if said is None else checked(TeacherStyle, said, "the journal's style")
    return style, get_codec(header["identity"]["codec"]["name"])
