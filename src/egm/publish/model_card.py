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
from egm.publish.scores import ScoredRun, score_table

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_USE_EGM = """\
```python
import egm

grounder = egm.Grounder.load(PATH_OR_HUB_NAME)
grounder.ground("picture.jpg", "the phrase").box  # x1, y1, x2, y2 in pixels
```"""
_USE_ELSEWHERE = """

Served by any of these, it is asked by EGM or by any OpenAI client:

```console
$ vllm serve PATH_OR_HUB_NAME  # port 8000
$ transformers serve PATH_OR_HUB_NAME  # port 8000
$ python -m sglang.launch_server --model-path PATH_OR_HUB_NAME  # port 30000
$ egm ground picture.jpg "the phrase" --server http://127.0.0.1:8000 --codec CODEC
```

Without EGM, the answer is text, and its box on the scale that the model's family uses:

```python
from transformers import pipeline

ask = "PROMPT"
content = [{"type": "image", "path": "picture.jpg"}, {"type": "text", "text": ask}]
pipe = pipeline("image-text-to-text", model=PATH_OR_HUB_NAME)
print(pipe(text=[{"role": "user", "content": content}], max_new_tokens=4096, return_full_text=False))
```

```python
import base64
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
data = base64.b64encode(open("picture.jpg", "rb").read()).decode()
url = {"url": f"data:image/jpeg;base64,{data}"}
content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": ask}]
reply = client.chat.completions.create(model=PATH_OR_HUB_NAME, messages=[{"role": "user", "content": content}])
```"""
_TAGS = ["visual-grounding", "referring-expression-comprehension", "egm"]


@dataclass(frozen=True, slots=True)
class Card:
    """A model card that still lacks the facts of the weights.

    Attributes:
        title: Name of the model.
        head: The metadata that the Hugging Face Hub reads.
        rows: What is known of the training, by name.
        recipe: The resolved recipe as YAML, or "".
        scores: Lines of the table of scores.
    """

    title: str
    head: Mapping[str, Any]
    rows: Mapping[str, str]
    recipe: str
    scores: Sequence[str]

    def render(self, facts: Mapping[str, str], codec: Codec | None = None) -> str:
        """Write the card as Markdown, with facts of the weights, and how the family is asked where a codec knows it."""
        table = [f"| {_cell(key)} | {_cell(value)} |" for key, value in {**facts, **self.rows}.items()]
        parts = [
            f"---\n{yaml.safe_dump(dict(self.head), sort_keys=False)}---\n\n# {self.title}",
            "A model for visual grounding: an image and a phrase in, a box out.",
            "\n".join(["| | |", "|---|---|", *table]),
            "## Use\n\n" + _USE_EGM + ("" if codec is None else _use_elsewhere(codec)),
        ]
        if self.scores:
            parts.append(
                "## Scores\n\nAcc@0.5 is the share of answers with an IoU of at least 0.5. An answer without a box "
                "counts as 0.\n\n" + "\n".join(self.scores)
            )
        else:
            parts.append("## Scores\n\nNone were given to the export.")
        if self.recipe:
            parts.append(f"## Recipe\n\n```yaml\n{self.recipe.strip()}\n```")
        return "\n\n".join(parts) + "\n"


def model_card(
    title: str, run: Path | None, *, scores: Sequence[ScoredRun] = (), license_id: str | None = None
) -> Card:
    """Gather what is known of a model.

    Args:
        title: Its name.
        run: Run folder with `recipe.yaml` and `run.json`, if there is one.
        scores: Journals of this model.
        license_id: Identifier of the licence, such as "apache-2.0".

    Raises:
        ModelError: If the run folder's files cannot be read.
    """
    facts = {} if run is None or not (run / "run.json").is_file() else _object(json.loads, run / "run.json")
    resolved = {} if run is None else _object(yaml.safe_load, run / "recipe.yaml")
    sections = _public(resolved)
    head: dict[str, Any] = {"license": license_id} if license_id else {}
    head |= {"library_name": "transformers", "pipeline_tag": "image-text-to-text", "tags": _TAGS}
    base = resolved.get("model") or {}
    name = str(base.get("name"))
    if not base.get("from_scratch") and _HUB_NAME.fullmatch(name) and not Path(name).exists():
        head["base_model"] = name
    recipe = yaml.safe_dump(sections, sort_keys=False) if sections else ""
    return Card(title, head, _training(sections, facts), recipe, score_table(scores))


def _use_elsewhere(codec: Codec) -> str:
    prompt = str(codec.messages("the phrase")[0]["content"][-1]["text"])
    return _USE_ELSEWHERE.replace("CODEC", codec.name).replace('"PROMPT"', json.dumps(prompt))


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
        rows["command"] = f"`{' '.join(['egm', *map(str, run['command'][1:])])}`"
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
        raise ModelError(f"{str(path)!r} is not what egm sft wrote there: restore it, or export the model folder alone")
    return value


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
