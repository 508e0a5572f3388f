"""Image names that a file gives, as paths that cannot leave one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from egm.errors import DataError


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

    def __call__(self, name: Any) -> Path:
        """Return the path of an image; equal names share one object.

        Raises:
            DataError: If it is not a name, or leads out of the folder once links are resolved.
        """
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise DataError(f"image must be a relative path, not {name!r}")
        path = self._known.get(name)
        if path is None:
            path = self._resolve(name.rpartition("/")[2] if self._flat else name)
            if self._remember:
                self._known[name] = path
        return path

    def _resolve(self, name: str) -> Path:
        if self.root is None:
            path = Path(name)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"image {name!r} lies outside any folder of images: say where they are (images)")
            return path
        try:
            path = (self.root / name).resolve()
        except (OSError, RuntimeError) as error:  # links in a circle; RuntimeError before Python 3.13
            raise DataError(f"image {name!r} cannot be followed: {error}") from None
        if not path.is_relative_to(self.root):
            raise DataError(f"image {name!r} lies outside {self._given}; only files inside it are read")
        return path
