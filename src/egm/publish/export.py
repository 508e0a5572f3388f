"""A run or a model, written as a folder that AutoModelForImageTextToText, vLLM and SGLang load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from egm.backends.base import GenerationSettings
from egm.backends.checkpoint import EMBEDDED, EMBEDDED_MAX_NEW_TOKENS, check_folder
from egm.codecs import Codec
from egm.codecs.registry import codec_for
from egm.datasets.synthetic.example import example_picture
from egm.errors import ModelError
from egm.files import write_bytes, write_text
from egm.models import embedded_path
from egm.publish.merge import ADAPTER, load_merged
from egm.publish.model_card import model_card
from egm.publish.model_folder import check_dtype, load_float32, new_folder, save_model
from egm.publish.scores import check_scores, read_scores
from egm.publish.usage import EXAMPLE
from egm.publish.verl_run import find_exported
from egm.types import Message


def export_model(
    source: Path,
    out: Path,
    *,
    scores: Sequence[Path] = (),
    base: str | None = None,
    dtype: str = "bfloat16",
    title: str | None = None,
    license_id: str | None = None,
    data_license: Sequence[str] = (),
) -> Path:
    """Write a model with all its pieces and a model card.

    Args:
        source: A run folder of `egm sft`, `egm grpo` or `egm verl`, a checkpoint of verl's, a model folder, an adapter,
            which is folded in, or "egm-tiny".
        out: Folder to write: new or empty.
        scores: Journals of `egm eval`, or its folders, for the card: of this model, from before or after its export.
        base: The model that an adapter was trained on; by default the one that it names.
        dtype: Type of the saved weights: "bfloat16", "float16" or "float32".
        title: Name of the model on its card; by default the run's.
        license_id: Identifier of the licence for the card, such as "apache-2.0".
        data_license: Licences of the data that it was trained on, each `SOURCE=LICENCE`, for the card.

    Returns:
        `out`.

    Raises:
        ModelError: If there is no model in `source`, `out` holds something, or a journal is of another model.
        DataError: If a journal cannot be read.
    """
    check_dtype(dtype)
    model_folder, run = _places(source)
    name = title or (source.resolve().name if run is None else run.resolve().name)
    with new_folder(out) as folder:
        # The card first: a journal that cannot be read should not wait for the weights.
        runs = read_scores(scores)
        embedded = model_folder == embedded_path()
        licences: dict[str, Any] = {"license_id": license_id, "data_license": data_license}
        card = model_card(name, run, scores=runs, **licences, embedded=embedded)
        model, processor = _load(model_folder, base)
        save_model(model, processor, folder, dtype=dtype)
        names = (name, *(path.resolve().name for path in (source, out)), *map(str, (source, out)))
        check_scores(runs, (model_folder, folder), names)
        parameters = sum(weight.numel() for weight in model.parameters())
        facts = {"architecture": type(model).__name__, "parameters": f"{parameters:,}", "weights": dtype}
        most = EMBEDDED_MAX_NEW_TOKENS if embedded else GenerationSettings().max_new_tokens
        write_text(folder / "README.md", card.render(facts, _codec(model, processor), max_tokens=most))
        write_bytes(folder / EXAMPLE, example_picture().read_bytes())
    return out


def _codec(model: Any, processor: Any) -> Codec | None:
    """The codec of the family, by which the card says how it is asked; None where there is none."""

    def prompt(messages: list[Message]) -> str:
        return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    try:
        return codec_for(model.config.model_type, prompt)
    except ModelError:
        return None


def _places(source: Path) -> tuple[Path, Path | None]:
    """Find the model, and the run folder that it is from, if that is known."""
    if str(source) == EMBEDDED:
        return embedded_path(), None
    if not source.is_dir():
        raise ModelError(f"there is no folder {str(source)!r}: give a run, a model, an adapter or {EMBEDDED}")
    if (merged := find_exported(source)) is not None:
        run = next((folder for folder in merged.resolve().parents if (folder / "recipe.yaml").is_file()), None)
        return merged, run
    if (source / "recipe.yaml").is_file():
        for name in ("model", "adapter"):
            if (source / name).is_dir():
                return source / name, source
        raise ModelError(f"run {str(source)!r} holds no model yet: go on with egm sft --resume")
    run = source.resolve().parent
    return source, run if (run / "recipe.yaml").is_file() else None


def _load(folder: Path, base: str | None) -> tuple[Any, Any]:
    if (folder / ADAPTER).is_file():
        return load_merged(folder, base=base)
    return load_float32(check_folder(folder, str(folder)))
