"""The journal of an evaluation: a header line, then one line a sample, from which every report is rebuilt.

A journal is append-only. Each line is handed to the system whole as it is appended, so that killing the process loses
nothing, and is synced to the disk within `SYNC_SECONDS` of appending the next and on closing, so that a power cut loses
no more than that. What stands after the last line feed was torn: it is dropped, and its sample asked again. If a sample
has several lines, because an error was tried again, the last one counts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from egm.errors import DataError
from egm.files import lock
from egm.types import HIT_IOU

JOURNAL_NAME: Final = "journal.jsonl"
"""Name of the journal in a run folder."""
SYNC_SECONDS: Final = 1.0
"""How long a line may wait for the disk while others follow it."""
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One sample as it was asked and answered; a line of a journal.

    Attributes:
        id: The sample's id.
        image: Which picture, as a stable text (a path relative to the image root, or the id of a made one): samples of
            one image share it, and intervals are clustered by it.
        phrase: What was asked.
        truth: The true box in pixels, `x1, y1, x2, y2`.
        size: Width and height of the upright image in pixels, if known.
        amodal: Whether the whole object was asked for.
        split: Name of the dataset's split, such as `refcoco/val`.
        text: All that the model wrote.
        box: The box that answers in pixels, or None.
        failure: Why there is no box (see `egm.types.Failure`), "error" if the engine failed, or None.
        error: What the engine said, where it failed.
        iou: IoU with the truth; 0 without a box.
        finish_reason: "stop", "length" or "repeated"; None after an error.
        prompt_tokens: Tokens read, image tokens included; None where the engine does not count them.
        reasoning_tokens: Tokens before the last `</think>`, where known.
        answer_tokens: Tokens generated beside the reasoning, where that is known; always what the other two leave.
        completion_tokens: Tokens generated, reasoning included, of all votes together; None where not counted.
        seconds: From sending to the last token.
        first_token_seconds: From sending to the first token, where streamed.
        queue_seconds: How long it waited for its turn before it was sent.
        votes: How many answers were sampled.
        confidence: Share of them that agree with the box; None where only one was asked for.
        logprob: Mean log-probability of the text's tokens, where known.
        answer_logprob: The same of what stands after the reasoning.
        cold: Whether it was the first question about its picture in this run.
        meta: The sample's own facts, such as `kind` and `complexity`.
    """

    id: str
    image: str
    phrase: str
    truth: tuple[float, float, float, float]
    size: tuple[int, int] | None = None
    amodal: bool = False
    split: str = ""
    text: str = ""
    box: tuple[float, float, float, float] | None = None
    failure: str | None = None
    error: str | None = None
    iou: float = 0.0
    finish_reason: str | None = "stop"
    prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    answer_tokens: int | None = field(init=False)
    completion_tokens: int | None = None
    seconds: float = 0.0
    first_token_seconds: float | None = None
    queue_seconds: float = 0.0
    votes: int = 1
    confidence: float | None = None
    logprob: float | None = None
    answer_logprob: float | None = None
    cold: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count the answer's tokens."""
        thought, written = self.reasoning_tokens, self.completion_tokens
        object.__setattr__(self, "answer_tokens", None if thought is None or written is None else written - thought)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the line."""
        return {name: getattr(self, name) for name in self.__slots__}  # `asdict` copies everything, which takes longer

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Record:
        """Make a record from the JSON object of a line.

        Raises:
            DataError: If a key is missing or unknown.
        """
        try:
            values = dict(row)
            values.pop("answer_tokens", None)  # follows from the others, and older journals have none
            values["truth"] = tuple(values["truth"])
            for name in ("box", "size"):
                values[name] = None if values.get(name) is None else tuple(values[name])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise DataError(f"not a line of a journal ({error}): it may come from another version") from None

    @property
    def key(self) -> tuple[str, str]:
        """What no other sample of the run shares: split and id."""
        return self.split, self.id

    def hit(self) -> bool:
        """Tell whether the box counts as right, as `egm.types.Score.hit` does."""
        return self.iou >= HIT_IOU


@dataclass(frozen=True, slots=True)
class Header:
    """What a journal is about; its first line.

    Attributes:
        model: What answered: a name, a folder or a hub id.
        codec: Name of the codec, and its options.
        prompt: Prompt style, and an example of its wording.
        settings: How text was generated, with the seed.
        datasets: For each split its number of samples `n` and a `digest` of ids, phrases, pictures and boxes.
        concurrency: Most requests that were answered together.
        engine: What else decides the answers or their latency, such as device, dtype or server.
        images: Folder that the records' `image` is relative to; empty if no picture is a file.
        versions: Versions of Python and of the packages that matter.
        command: The command line that started the run.
        started: When that was, in ISO 8601.
    """

    model: str
    codec: Mapping[str, Any]
    prompt: Mapping[str, str]
    settings: Mapping[str, Any]
    datasets: Mapping[str, Mapping[str, Any]]
    concurrency: int = 1
    engine: Mapping[str, Any] = field(default_factory=dict)
    images: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    started: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the line."""
        return {"journal": _FORMAT, **asdict(self), "command": list(self.command)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Header:
        """Make a header from the JSON object of the line.

        Raises:
            DataError: If it is not one, or of another version.
        """
        values = dict(row)
        if values.pop("journal", None) != _FORMAT:
            raise DataError("its first line is not the header of a journal that this version reads")
        if values.get("codec") == {"name": "qwen3_vl", "thinking_prefilled": False}:  # written before it had a name
            values["codec"] = {"name": "qwen3_vl_instruct"}
        try:
            return cls(**{**values, "command": tuple(values["command"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"its header is not one that this version reads ({error})") from None

    def differences(self, other: Header) -> list[str]:
        """Name what makes another run of this one, as "settings.seed is 1, was 0".

        Versions other than EGM's own, the command, the time and the place of the images may differ.
        """
        mine, theirs = _flat(self._identity()), _flat(other._identity())
        return [
            f"{name} is {_show(mine.get(name))}, was {_show(theirs.get(name))}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]

    def _identity(self) -> dict[str, Any]:
        may_differ = ("images", "versions", "command", "started")
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in may_differ}
        # As JSON gives it back: a tuple among the settings is a list there.
        plain: dict[str, Any] = json.loads(json.dumps({**values, "egm": self.versions.get("egm")}))
        return plain


class Journal:
    """Append-only writer of a run's journal, which resumes one that is there; use it in a `with` statement.

    Args:
        folder: The run folder; made if there is none.
        header: What the run is about. Where the folder holds a journal already, it must be about the same.

    Attributes:
        header: The header in the file.
        records: What was answered before, one record a sample.

    Raises:
        DataError: If the folder holds another run, a damaged journal, or one that is being written.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.path = folder / JOURNAL_NAME
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        try:
            if not lock(self._file.fileno()):
                raise DataError(f"{str(self.path)!r} is being written by another process: wait for it, or end it")
            self.header, self.records = self._resume(header)
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()

    def _resume(self, header: Header) -> tuple[Header, list[Record]]:
        whole = _whole_bytes(self.path)
        if whole < self.path.stat().st_size:
            self._file.truncate(whole)
        if whole == 0:
            self._write(header.to_dict())
            self._sync()
            return header, []
        existing, records = read_journal(self.path)
        if differences := header.differences(existing):
            raise DataError(
                f"{str(self.path.parent)!r} holds another run: {'; '.join(differences)}: "
                "repeat the same command, or choose another folder"
            )
        return existing, records

    def append(self, record: Record) -> None:
        """Append one record as a line; it outlives the process from here on."""
        self._write(record.to_dict())
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row).encode("ascii") + b"\n")
        self._file.flush()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close, whatever happened."""
        self.close()


def read_journal(path: str | os.PathLike[str]) -> tuple[Header, list[Record]]:
    """Read a journal; a torn last line is left out.

    Args:
        path: A journal, or the run folder that holds one.

    Returns:
        The header, and one record a sample in the order in which samples were first answered.

    Raises:
        DataError: If there is none, or a line is damaged; the message names file and line.
    """
    file = Path(path)
    file = file / JOURNAL_NAME if file.is_dir() else file
    if not file.exists():
        raise DataError(f"there is no journal at {str(file)!r}: give a folder that `egm eval` wrote")
    header: Header | None = None
    records: dict[tuple[str, str], Record] = {}
    for number, row in _rows(file):
        try:
            if header is None:
                header = Header.from_dict(row)
            else:
                record = Record.from_dict(row)
                records[record.key] = record
        except DataError as error:
            raise DataError(f"{str(file)!r} line {number}: {error}") from None
    if header is None:
        raise DataError(f"{str(file)!r} is empty: the run ended before it began; start it again")
    return header, list(records.values())


def is_journal(path: Path) -> bool:
    """Tell a journal, or a run folder that holds one, from anything else."""
    if path.is_dir():
        return (path / JOURNAL_NAME).exists()
    with path.open("rb") as file:
        start = file.readline(1_000_000)
    try:
        row = json.loads(start)
    except ValueError:
        return False
    return isinstance(row, dict) and "journal" in row


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise DataError(f"{str(file)!r} line {number} is damaged: restore the file, or start in another folder")
            yield number, row


def _whole_bytes(file: Path) -> int:
    """Length of a file up to its last line feed."""
    with file.open("rb") as content:
        end = content.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            content.seek(start)
            line_feed = content.read(end - start).rfind(b"\n")
            if line_feed >= 0:
                return start + line_feed + 1
            end = start
    return 0


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
