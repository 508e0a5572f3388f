"""Which sample each row of a file of predictions answers.

A row is matched by its id, else by picture and phrase, else by phrase and true box; all else that it says must then be
the sample's too. Names are compared as they are first. Case, spaces and a final full stop of phrases, and folders,
endings and all but the COCO number of pictures' names, are passed over only where one sample is left all the same.
Where a dataset asks the same words of one picture twice, the first row answers the first. Nothing is guessed: a row
that fits no sample or several, two rows for one sample, or a truth that is not the sample's is an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from egm.boxes import Box, iou
from egm.datasets.coco_names import coco_number
from egm.datasets.fields import short
from egm.errors import DataError
from egm.report.prediction_files import Prediction
from egm.types import Sample

Samples = Sequence[tuple[str, Sample]]


def match(predictions: Sequence[Prediction], samples: Samples) -> list[tuple[str, Sample]]:
    """Find the sample of each prediction.

    Args:
        predictions: The rows of a file.
        samples: What was asked, each with the name of its split.

    Returns:
        Split and sample of each row.

    Raises:
        DataError: If a row does not say which sample it answers, or says what no sample is; the message names the row.
    """
    matcher = _Matcher(samples)
    return [samples[matcher.take(prediction)] for prediction in predictions]


def image_of(sample: Sample) -> str:
    """A stable text for the picture of a sample; without a file name, what its id says before the last slash."""
    if isinstance(sample.image, str | Path):
        return Path(sample.image).as_posix() if str(sample.image) else ""
    return sample.id.rpartition("/")[0]


class _Matcher:
    """Samples by what a row may say of them, and which of them are answered."""

    def __init__(self, samples: Samples) -> None:
        self._samples = [sample for _, sample in samples]
        self._splits = [split for split, _ in samples]
        self._images = [image_of(sample) for sample in self._samples]
        self._taken: dict[int, str] = {}
        self._by_id = self._index(lambda sample, _: sample.id)
        self._by_picture = self._index(lambda sample, image: (image, phrase_key(sample.phrase)))
        self._by_truth = self._index(
            lambda sample, _: None if sample.box is None else (phrase_key(sample.phrase), box_key(sample.box))
        )
        self._pictures: defaultdict[str, list[str]] = defaultdict(list)
        for image in dict.fromkeys(self._images):
            for ending in dict.fromkeys(_endings(image)):
                self._pictures[ending].append(image)

    def _index(self, key_of: Callable[[Sample, str], object]) -> dict[object, list[int]]:
        index: dict[object, list[int]] = {}
        for number, (sample, image) in enumerate(zip(self._samples, self._images, strict=True)):
            index.setdefault(key_of(sample, image), []).append(number)
        return index

    def take(self, row: Prediction) -> int:
        """The number of the sample that a row answers, which no other row may answer from here on."""
        found = self._candidates(row)
        fitting = [number for number in found if _same_truth(row.truth, self._samples[number].box)]
        if not fitting:
            raise DataError(
                f"{row.where}: its true box is not that of {self._samples[found[0]].id!r}: is it another dataset?"
            )
        nearest = self._nearest_phrase(row, fitting)
        first = nearest[0]
        if other := next((number for number in nearest if not self._are_equal(row, first, number)), None):
            names = " and ".join(
                f"{self._samples[n].id!r} of {self._splits[n] or 'the dataset'}" for n in (first, other)
            )
            raise DataError(
                f"{row.where} fits several samples, such as {names}: give ids, full names of pictures or the true box "
                "in the row, or score one dataset at a time"
            )
        # Of one referent, words that differ in nothing but case are as good as equal.
        left = (number for number in (*nearest, *fitting) if number not in self._taken)
        free = next((number for number in left if self._are_equal(row, first, number)), None)
        if free is None:
            raise DataError(f"{row.where} answers what {self._taken[first]} answers: keep one row a sample")
        self._taken[free] = row.where
        return free

    def _candidates(self, row: Prediction) -> list[int]:
        if row.id is not None:
            return self._of_id(row, row.id)
        if row.phrase is None:
            raise DataError(f"{row.where} has no id and no phrase: it cannot be matched to a sample")
        key = phrase_key(row.phrase)
        if row.image is not None:
            pictures = self._pictures_of(row, row.image)
            found = [number for image in pictures for number in self._by_picture.get((image, key), ())]
            said: object = (row.image, row.phrase)
            what = "image and phrase"
        elif row.truth is not None:
            found = self._by_truth.get((key, box_key(row.truth)), [])
            said, what = (row.phrase, row.truth.corners), "phrase and true box"
        else:
            raise DataError(f"{row.where} has a phrase but neither image nor true box: it cannot be matched")
        if not found:
            raise DataError(f"{row.where}: the dataset has no sample with {what} {short(said)}")
        return found

    def _of_id(self, row: Prediction, identity: str) -> list[int]:
        named = self._by_id.get(identity, [])
        if not named:
            raise DataError(f"{row.where}: the dataset has no sample with id {short(identity)}")
        found = named
        if row.phrase is not None:
            key = phrase_key(row.phrase)
            found = [number for number in found if phrase_key(self._samples[number].phrase) == key]
            if not found:
                raise DataError(
                    f"{row.where}: its phrase is {short(row.phrase)}, and that of {identity!r} is "
                    f"{short(self._samples[named[0]].phrase)}: is it another dataset?"
                )
        if row.image is not None:
            of_phrase = found
            pictures: set[str] | None = None
            found = []
            for number in of_phrase:
                if names_picture(self._samples[number]) and not was_in_memory(row.image, self._splits[number]):
                    pictures = set(self._pictures_of(row, row.image)) if pictures is None else pictures
                    if self._images[number] not in pictures:
                        continue
                found.append(number)
            if not found:
                raise DataError(
                    f"{row.where}: its image is {short(row.image)}, and that of {identity!r} is "
                    f"{short(self._images[of_phrase[0]])}: is it another dataset?"
                )
        return found

    def _pictures_of(self, row: Prediction, name: str) -> list[str]:
        """The pictures that a name means: those that share most of its end, by which a folder decides."""
        endings = list(_endings(name))
        folded = next((self._pictures[ending] for ending in endings[1::2] if ending in self._pictures), [])
        exact = next((self._pictures[ending] for ending in endings[::2] if ending in self._pictures), folded)
        kept = set(folded)
        both = [image for image in exact if image in kept]
        if folded and not both:  # a folder says one, the file's name another
            raise DataError(
                f"{row.where}: image {short(name)} may be {short(exact[0])} or {short(folded[0])}: give its full name"
            )
        return both

    def _nearest_phrase(self, row: Prediction, numbers: list[int]) -> list[int]:
        if row.phrase is None:
            return numbers
        phrase, tidy = row.phrase, _tidy(row.phrase)
        exact = [number for number in numbers if self._samples[number].phrase == phrase]
        return exact or [number for number in numbers if _tidy(self._samples[number].phrase) == tidy] or numbers

    def _are_equal(self, row: Prediction, first: int, other: int) -> bool:
        """Whether two samples are one question, as far as a row can say which of them it answers."""
        if first == other:
            return True
        one, two = self._samples[first], self._samples[other]
        if self._splits[first] != self._splits[other]:
            return False
        if row.id is None and row.image is None:  # found by its true box, which is then all that is scored
            return one.size == two.size
        return self._images[first] == self._images[other] and (one.phrase == two.phrase or one.box == two.box)


def _endings(image: str) -> Iterator[str]:
    """The ends of a path from the longest, each as it is and with its last part folded."""
    parts = PurePosixPath(image.replace("\\", "/")).parts
    for start in range(len(parts)):
        folder = "/".join(parts[start:-1])
        yield f"{folder}/{parts[-1]}"
        yield f"{folder}/{image_key(parts[-1])}|"


def names_picture(sample: Sample) -> bool:
    """Tell whether a sample says the name of its picture; those in memory have none."""
    return isinstance(sample.image, str | Path) and bool(str(sample.image))


def was_in_memory(image: str, split: str) -> bool:
    """Tell whether a journal's name of a picture is not a file's: one in memory goes by split and first sample."""
    return image.startswith(f"{split}:")


def _same_truth(said: Box | None, truth: Box | None) -> bool:
    return said is None or truth is None or iou(said, truth) > 0.95  # files round differently


def _tidy(phrase: str) -> str:
    return " ".join(phrase.split()).rstrip(" .")


def phrase_key(phrase: str) -> str:
    """What phrases share that differ in nothing but case, spaces and a final full stop."""
    return _tidy(phrase).lower()


def image_key(image: str) -> str:
    """What copies of a picture share: the COCO number if its name holds or is one, else the name without its ending."""
    stem = Path(image).stem
    return coco_number(image) or (stem.zfill(12) if stem.isdecimal() else stem)


def box_key(box: Box) -> str:
    """What a box is called in a key: rounded, as files round differently."""
    return ",".join(f"{value:.2f}" for value in box)
