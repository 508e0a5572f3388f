"""A rationale on its way into training data: what filters are asked about."""

from __future__ import annotations

from dataclasses import dataclass, field

from egm.boxes import Box
from egm.codecs import DEFAULT_CODEC, Codec, get_codec
from egm.errors import DataError
from egm.types import Completion, Sample


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rationale that a teacher wrote for a sample, before anybody has decided whether to keep it.

    Attributes:
        sample: What it explains; its box and its size are known.
        text: The rationale, stripped: what stands before `</think>` in the training target.
        style: Name of the style that it was asked in.
        attempt: Which try for this sample it is, counted from 0.
        completion: What the teacher returned, where a teacher was asked.
        codec: The convention of the family that will be trained: the scale of coordinates in the text.

    Raises:
        DataError: If the sample has no box or no size.

    Example:
        >>> sample = Sample("1", "a.png", "the left man", box=Box(0, 0, 64, 48), size=(640, 480))
        >>> Candidate(sample, "He stands at the left edge.", style="official").numbers
        (0, 0, 100, 100)
    """

    sample: Sample
    text: str
    style: str
    attempt: int = 0
    completion: Completion | None = None
    codec: Codec = field(default_factory=lambda: get_codec(DEFAULT_CODEC))

    def __post_init__(self) -> None:
        if self.sample.box is None or self.sample.size is None:
            what = "box" if self.sample.box is None else "size"
            raise DataError(
                f"sample {self.sample.id} has no {what}: a rationale explains a box in a picture of known size"
            )

    @property
    def box(self) -> Box:
        """The true box in pixels."""
        assert self.sample.box is not None
        return self.sample.box

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels."""
        assert self.sample.size is not None
        return self.sample.size

    @property
    def span(self) -> tuple[int, int]:
        """The codec's numbers at the right and the bottom edge of the picture."""
        return self.codec.scale(self.size, None).span

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """The true box as `x1, y1, x2, y2` on the codec's scale; prompts say it x first, whatever the codec writes."""
        from egm.codecs.targets import whole_numbers

        return whole_numbers(self.box, self.size, self.codec.scale(self.size, None))
