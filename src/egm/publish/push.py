"""Publishing a folder on the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

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
        with progress_task(f"sending {plan.size / 1e9:.2f} GB"):
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
