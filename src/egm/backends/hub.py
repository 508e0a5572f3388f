"""The Hugging Face Hub as a source of checkpoints: what is fetched of one, what is here already, errors in one line."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any, Final

from egm.errors import ModelError
from egm.progress import ProgressTask, progress_task

HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""What a name on the Hub looks like: OWNER/NAME."""
SMALL_FILES: Final = ("*.json", "*.jinja", "*.txt", "*.model", "README.md")
"""What is fetched of a checkpoint before its weights: configurations, tokenizer, chat template, model card."""
WEIGHTS: Final = "*.safetensors"
"""Its weights; none in another form are fetched."""


def fetch(name: str, patterns: tuple[str, ...], *, to: Path | None = None) -> Path:
    """Fetch files of a checkpoint, or take them from the cache; one that broke off goes on where it was.

    Args:
        name: OWNER/NAME.
        patterns: Which files.
        to: Folder to put them into; None takes the Hub's cache, which the libraries share.

    Returns:
        The folder that they lie in.

    Raises:
        ModelError: If there is no such model, it is behind a licence, or the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        with progress_task(f"fetching {name}", unit="bytes") as task:
            found = snapshot_download(name, allow_patterns=list(patterns), local_dir=to, tqdm_class=_bar_of(task))
        return Path(found)
    except GatedRepoError as error:
        reason = "is behind a licence on the Hugging Face Hub: accept it there and run `hf auth login`"
        raise ModelError(f"{name!r} {reason}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{name!r} is no folder here and no model on the Hugging Face Hub: check the name, or run `hf auth login` "
            "if it is private"
        ) from error
    except Exception as error:  # the client raises its own errors, those of its HTTP library, and OSError
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ModelError(f"no space is left for {name!r}: make room, or name another disk's folder") from error
        raise ModelError(
            f"{name!r} is no folder here, and fetching it from the Hugging Face Hub failed "
            f"({type(error).__name__}): check the network, or give a local folder"
        ) from error


def _bar_of(task: ProgressTask) -> type[Any]:
    """Make what the Hub's client takes for a bar, which shows nothing and tells a task of the bytes."""
    from huggingface_hub import utils

    hub: Any = utils  # which does not list what it has for type checkers

    class HubBar(hub.tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})
            # Of its two bars of bytes one shows what the network carries, of which nobody knows how much there will be.
            self._is_told = options.get("unit") == "B" and options.get("desc") != "Downloading bytes"

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self._is_told:
                task.update(self.n, self.total or None)

    return HubBar


def cached_folder(name: str) -> Path | None:
    """Return the folder of a checkpoint in the Hub's cache, with all that its index lists; None without asking the Hub.

    Args:
        name: OWNER/NAME.
    """
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None
