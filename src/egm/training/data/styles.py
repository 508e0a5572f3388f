"""How a sample is asked where a run asks in several ways: by its id alone, so that a run goes on where it stopped."""

from __future__ import annotations

import hashlib

from egm.training.recipe import Prompts


def share_of(name: str, what: str) -> float:
    """Return a number in [0, 1) that is spread evenly over samples, and told by an id and what is to be chosen."""
    # No checksum: a CRC of two prefixes differs by a constant, and one choice would tell the other.
    digest = hashlib.blake2b(f"{what}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def first_style(prompts: Prompts | None) -> str | None:
    """Return the prompt style in which held-out samples are asked: the first, or None for the codec's own."""
    return prompts if prompts is None or isinstance(prompts, str) else prompts[0]


def choose_prompt(prompts: Prompts | None, name: str) -> str | None:
    """Choose the prompt style in which a sample is asked.

    Args:
        prompts: One style, or several; None for the codec's own.
        name: Id of the sample.
    """
    if prompts is None or isinstance(prompts, str):
        return prompts
    return prompts[int(share_of(name, "prompt") * len(prompts))]
