"""Publishing a folder on the Hugging Face Hub."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egm.errors import ModelError
from egm.progress import progress_task
from egm.publish.model_folder import publishable

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What a push sends.

    Attributes:
        repo: Name of the model repository, `OWNER/NAME`.
        private: Whether it is made private if it has to be made.
        files: The files and their sizes in bytes.
    """

    repo: str
    private: bool
    files: tuple[tuple[Path, int], ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(size for _, size in self.files)


def plan_push(folder: Path, repo: str, *, private: bool = True) -> PushPlan:
    """Look a folder over, and say what a push of it would send; nothing is sent or asked.

    Raises:
        ModelError: If the name is none, or the folder may not be published; see `egm.publish.model_folder.publishable`.
    """
    if not _REPO.fullmatch(repo):
        raise ModelError(f"{repo!r} is no name of a repository: give OWNER/NAME")
    return PushPlan(repo, private, tuple((path, path.stat().st_size) for path in publishable(folder)))


def push(plan: PushPlan) -> str:
    """Make the repository if it is not there, and send the files in one commit.

    Returns:
        The address of the repository.

    Raises:
        ModelError: If the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        made = api.create_repo(plan.repo, repo_type="model", private=plan.private, exist_ok=True)
        with _shown(plan.size):
            api.upload_folder(
                repo_id=plan.repo,
                repo_type="model",
                folder_path=plan.files[0][0].parent,
                allow_patterns=[path.name for path, _ in plan.files],
                commit_message="Upload the model",
            )
    except Exception as error:  # the client raises its own errors, those of its HTTP library, and OSError
        raise ModelError(
            f"pushing to {plan.repo!r} failed ({type(error).__name__}): log in with `hf auth login`, check the name, "
            "your rights and the network"
        ) from error
    return str(made)


@contextmanager
def _shown(size: int) -> Iterator[None]:
    """Leave the Hub's client its bars, which tell bytes, on a terminal; elsewhere say how long it has been going on."""
    from huggingface_hub import utils

    bars: Any = utils  # which does not list these functions for type checkers
    if sys.stderr.isatty() or bars.are_progress_bars_disabled():
        yield
        return
    bars.disable_progress_bars()  # they would be written to files too
    try:
        with progress_task(f"sending {size / 1e9:.2f} GB"):
            yield
    finally:
        bars.enable_progress_bars()
