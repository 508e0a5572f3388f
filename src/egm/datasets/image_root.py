"""Image names that a file gives, as paths that cannot leave one folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from egm.datasets.fields import short
from egm.errors import DataError
from egm.images import is_url

_LONGEST = 2000  # characters of a path; systems take up to 4,096 bytes


class ImageRoot:
    """Turns the image names of a file into paths that cannot leave one folder.

    Args:
        root: The folder. Without one, relative names come back as they are and only names that would leave any folder
            are refused, so that annotations can be read where the pictures are not.
        flat: Whether only the last part of a name counts, for sets whose files prefix the same pictures differently.
        remember: Keep the path of every name, which is faster and takes memory for each; without, none is kept.
    """

    def __init__(self, root: Path | None, *, flat: bool = False, remember: bool = True) -> None:
        self._flat, self._remember = flat, remember
        self.root = None if root is None else root.resolve()
        self._given = root
        self._known: dict[str, Path] = {}

    def without_root(self) -> ImageRoot:
        """The same for names of pictures that lie inside a file, and so in no folder."""
        return ImageRoot(None, flat=self._flat, remember=self._remember)

    def __call__(self, name: Any) -> Path:
        """Return the path of an image; equal names share one object.

        Raises:
            DataError: If it is not a name, or leads out of the folder once links are resolved.
        """
        if isinstance(name, str) and (known := self._known.get(name)) is not None:
            return known
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise DataError(f"image must be a relative path, not {short(name)}")
        if is_url(name):
            raise DataError(f"image {short(name)} is a URL, and nothing is fetched: download it and give its path")
        if len(name) > _LONGEST:
            raise DataError(
                f"image {short(name)} has {len(name):,} characters, too many for a path: if it is the picture itself "
                "(base64), save that to a file and give its name"
            )
        # Written on Windows; only what lies there under the very name is meant with its backslashes.
        slashed = name if "\\" not in name or self._is_there(name) else name.replace("\\", "/")
        path = self._resolve(slashed.rpartition("/")[2] if self._flat else slashed)
        if self._remember:
            self._known[name] = path
        return path

    def _is_there(self, name: str) -> bool:
        try:
            return (Path(name) if self.root is None else self.root / name).is_file()
        except OSError:  # a part of it is too long
            return False

    def _resolve(self, name: str) -> Path:
        if self.root is None:
            path = Path(name)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(
                    f"image {short(name)} lies outside any folder of images: say which it lies in (--images, or "
                    "data.images of a recipe)"
                )
            return path
        plain = self.root / name
        try:
            # What resolving would give, without a look at every folder on the way.
            if plain.parent == self.root and plain.name == name != ".." and not os.path.islink(plain):  # noqa: PTH114
                return plain  # also if it is too long a name, at which the method of a path raises
            path = plain.resolve()
        except (OSError, RuntimeError) as error:  # links in a circle; RuntimeError before Python 3.13
            raise DataError(f"image {short(name)} cannot be followed: {error}") from None
        if not path.is_relative_to(self.root):
            raise DataError(f"image {short(name)} lies outside {self._given}; only files inside it are read")
        return path
