"""Model cards: what a run folder and journals say, and nothing that they do not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from egm.codecs import Codec
from egm.errors import ModelError
from egm.models import embedded_path
from egm.publish.licences import UNKNOWN, base_license, data_licenses, parse_license, read_license
from egm.publish.scores import ScoredRun, latency_table, score_table, table_cell
from egm.publish.usage import usage
from egm.terminal import printable, without_password

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_TAGS = ["visual-grounding", "referring-expression-comprehension", "egm"]


@dataclass(frozen=True, slots=True)
class Card:
    """A model card that still lacks the facts of the weights.

    Attributes:
        title: Name of the model.
        head: The metadata that the Hugging Face Hub reads.
        rows: What is known of the training, by name.
        sources: Names of the data that it was trained on.
        licenses: What comes under which licence.
        recipe: The resolved recipe as YAML, or "".
        scores: The runs that score it.
    """

    title: str
    head: Mapping[str, Any]
    rows: Mapping[str, str]
    sources: Sequence[str]
    licenses: Mapping[str, str]
    recipe: str
    scores: Sequence[ScoredRun]

    def render(self, facts: Mapping[str, str], codec: Codec | None = None, *, max_tokens: int = 4096) -> str:
        """Write the card as Markdown.

        Args:
            facts: What is known of the weights.
            codec: How the family is asked, where a codec knows it.
            max_tokens: Most tokens of an answer in the lines of use.
        """
        scored, timed = score_table(self.scores), latency_table(self.scores)
        parts = [
            f"---\n{yaml.safe_dump(dict(self.head), sort_keys=False)}---\n\n# {self.title}",
            "A model for visual grounding: an image and a phrase in, a box out.",
            _table({**facts, **self.rows}),
            usage(codec, max_tokens=max_tokens),
            "## Scores",
            *(["\n".join([_SCORES, "", *scored])] if scored else ["None were given to the export."]),
            "## Latency",
            *(["\n".join([_LATENCY, "", *timed])] if timed else ["None was measured."]),
            "## Limits",
            "\n".join(f"- {line}" for line in self._limits(bool(scored))),
            "## Licences",
            _table(self.licenses),
        ]
        if self.recipe:
            parts.append(f"## Recipe\n\n```yaml\n{self.recipe.strip()}\n```")
        return "\n\n".join(parts) + "\n"

    def _limits(self, scored: bool) -> list[str]:
        drawn = bool(self.sources) and all(name.startswith("synthref/") for name in self.sources)
        trained = f"It was trained on {', '.join(map(table_cell, self.sources))}" if self.sources else _UNKNOWN_DATA
        return [
            f"{trained}{_DRAWN if drawn else ''}",
            "Scores are of the splits above alone: other pictures, phrases, languages and prompts may do worse."
            if scored
            else "It was not scored: nothing is known of how often it is right.",
            "A box is what the text says, not a measurement. A phrase that fits nothing, or several things, may get a "
            "box all the same, unless the question allows for none or many, and the model was trained on such.",
            "An answer may lack a box, be cut off or repeat itself; EGM calls that a failure and does not guess.",
            "Engines, versions and number types may move boxes: `egm doctor` compares a server with these weights.",
        ]


_SCORES = (
    "Acc@0.5 is the share of answers with an IoU of at least 0.5; an answer without a box counts as 0. In brackets are "
    "intervals for 95 %, clustered by picture."
)
_LATENCY = "Seconds from sending a question to the last token of its answer, in the runs that are scored above."
_MENDED = "{!r} is not what egm sft wrote there: restore it, or export the model folder alone"
_UNKNOWN_DATA = "What it was trained on is not known to the export"
_DRAWN = ", which is drawn shapes alone: on photographs its boxes mean nothing."
_EMBEDDED_DATA = [f"synthref/{split}" for split in ("train", "train-reworded", "train-complex", "train-any")]
"""All that egm-tiny was trained on, in all its stages."""


def model_card(
    title: str,
    run: Path | None,
    *,
    scores: Sequence[ScoredRun] = (),
    license_id: str | None = None,
    data_license: Sequence[str] = (),
    embedded: bool = False,
) -> Card:
    """Gather what is known of a model.

    Args:
        title: Its name.
        run: Run folder with `recipe.yaml` and `run.json`, if there is one.
        scores: Journals of this model.
        license_id: Identifier of the licence, such as "apache-2.0".
        data_license: Licences of sources of data, each `SOURCE=LICENCE`.
        embedded: Whether it is egm-tiny, of which the package knows what a run folder would say.

    Raises:
        ModelError: If the run folder's files cannot be read, or a licence is of data that the recipe does not name.
    """
    facts = {} if run is None or not (run / "run.json").is_file() else _object(json.loads, run / "run.json")
    resolved = {} if run is None else _object(yaml.safe_load, run / "recipe.yaml")
    sections = _public(resolved)
    try:
        rows, sources, base = _training(sections, facts), _sources(sections), dict(resolved.get("model") or {})
    except (TypeError, ValueError, AttributeError, KeyError, IndexError):  # a value of another sort than it was
        raise ModelError(_MENDED.format(str(run))) from None
    if embedded:
        sources = _EMBEDDED_DATA
        license_id = license_id or read_license(embedded_path())
    license_id = None if license_id is None else printable(license_id)
    licenses = {"model": license_id or UNKNOWN}
    head: dict[str, Any] = {"license": license_id} if license_id else {}
    head |= {"library_name": "transformers", "pipeline_tag": "image-text-to-text", "tags": _TAGS}
    name = str(base.get("name"))
    if base.get("name") and not base.get("from_scratch"):
        licenses[f"base, {_public(name)}"] = base_license(name)
        if _HUB_NAME.fullmatch(name) and not Path(name).exists():
            head["base_model"] = name
    said = dict(map(parse_license, data_license))
    licenses |= {f"data, {source}": what for source, what in data_licenses(sources, said).items()}
    recipe = without_password(yaml.safe_dump(sections, sort_keys=False)) if sections else ""
    return Card(printable(title), head, rows, sources, licenses, recipe, scores)


def _sources(recipe: Mapping[str, Any]) -> list[str]:
    """Names of the data of a recipe."""
    train = (recipe.get("data") or {}).get("train") or []
    listed = train if isinstance(train, list) else [{"name": train}]
    return [str(source.get("name") or source.get("path")) for source in listed]


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {table_cell(key)} | {table_cell(value)} |" for key, value in rows.items())]
    )


def _public(value: Any) -> Any:
    """Leave out what is not set, and of absolute paths all but the last part: they say where files are at home."""
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _training(recipe: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, str]:
    """Say in a few rows what a run was; what its files do not hold is left out."""
    model, data, rows = recipe.get("model") or {}, recipe.get("data") or {}, dict[str, str]()
    if model.get("name"):
        rows["trained from"] = f"{model['name']}, random weights" if model.get("from_scratch") else str(model["name"])
    if train := data.get("train"):
        sources = train if isinstance(train, list) else [{"name": train}]
        rows["data"] = "; ".join(
            str(source.get("name") or source.get("path"))
            + (f" (weight {source['weight']:g})" if len(sources) > 1 else "")
            for source in sources
        )
    checked = run.get("data") or {}
    if checked.get("leaks"):
        rows["evaluation images"] = str(checked["leaks"]).partition(": ")[0]
    for key in ("steps", "loss", "seconds", "seed", "hardware"):
        if run.get(key) is not None:
            rows[key] = f"{run[key]:.4g}" if key == "loss" else str(run[key])
    if run.get("command"):
        # The first word is the path of the program on the machine of the run.
        rows["command"] = f"`{without_password(' '.join(['egm', *map(str, run['command'][1:])]))}`"
    if run.get("versions"):
        rows["versions"] = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error}") from None


def _object(parse: Any, path: Path) -> dict[str, Any]:
    try:
        value = parse(_read(path))
    except (ValueError, yaml.YAMLError):
        value = None
    if not isinstance(value, dict):
        raise ModelError(_MENDED.format(str(path)))
    return value
