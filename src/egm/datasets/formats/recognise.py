"""Which format rows have: it shows in their keys, and what is not recognised is refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from egm.datasets.formats import (
    egm_rl,
    egm_sft,
    grounding_me,
    jxu124,
    label_studio,
    llama_factory,
    lmms_lab,
    minigpt4,
    ms_swift,
    plain,
    qwen_vl_finetune,
    ref_adv,
    ref_l4,
    refcoco_m,
    screenspot_pro,
    vlm_r1,
)
from egm.datasets.formats.base import Format
from egm.errors import DataError

ROW_FORMATS = (
    minigpt4.FORMAT,
    qwen_vl_finetune.FORMAT,  # which has all keys of the next
    egm_sft.FORMAT,
    llama_factory.FORMAT,
    ms_swift.FORMAT,
    vlm_r1.FORMAT,
    egm_rl.FORMAT,
    lmms_lab.FORMAT,
    jxu124.FORMAT,
    ref_adv.FORMAT,
    ref_l4.FORMAT,
    refcoco_m.FORMAT,
    grounding_me.FORMAT,
    screenspot_pro.FORMAT,
    label_studio.FORMAT,
    plain.FORMAT,
)
"""All of them; the first whose keys are all there counts."""

KNOWN = (
    "; ".join(f"{item.name} ({', '.join(sorted(item.keys))})" for item in ROW_FORMATS)
    + "; COCOA, COCO-Amodal, TAO-Amodal or COCO JSON (images, annotations); UNC (refs(*).p and instances.json); "
    "gRefCOCO (grefs(*).json and instances.json)"
)
"""What messages say is known."""


def recognise(keys: Iterable[str], path: Path) -> Format:
    """Tell the format of a file from the keys of its rows.

    Raises:
        DataError: If it is none of the known ones.
    """
    present = frozenset(keys)
    known = format_of(present)
    if known is None:
        raise DataError(
            f"{path} has rows with {list_keys(present)}, which is no known format: write rows of your own as "
            f'{{"image": "a.jpg", "sent": "the cup", "bbox": [x1, y1, x2, y2]}}, or take one of {KNOWN}'
        )
    return known


def format_of(keys: Iterable[str]) -> Format | None:
    """Return the format that rows with these keys have, if it is known."""
    present = frozenset(keys)
    return next((known for known in ROW_FORMATS if known.keys <= present), None)


def known_columns(keys: Iterable[str]) -> frozenset[str] | None:
    """Return the columns that the format of such rows looks at; None for all, or where it is not known."""
    known = format_of(keys)
    return None if known is None else known.columns


def list_keys(keys: Iterable[str]) -> str:
    """Name keys in a message."""
    names = sorted(str(key)[:40] for key in keys)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "no keys"
