"""Latency of all models in one run: one after the other, the same requests, one at a time and in batches.

If a model is missing in `latency.json`, has other weights now, or was timed on another machine, driver or version than
the rest, all that are here are timed again. Of a model that is no longer here the figures stay, and stand beside the
others' only if machine, driver and versions are the same; how far two runs differ on what was timed in both is kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from egm.errors import BackendError
from egm.files import write_text
from egm.reproduce.jobs import Job
from egm.reproduce.recipe import LatencySection, ReproduceRecipe

FILE_NAME = "latency.json"
JOB_NAME = "latency"
_DONE = "latency.part.jsonl"


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a model answered.

    Attributes:
        about: What `egm.bench.describe` says: engine, versions, hardware.
        weights: Digest of its weights.
        alone: One request at a time, see `egm.bench.measure`.
        load: In batches.
        started: When its run began; empty where that was not kept.
        earlier: Mean seconds of an answer alone in earlier runs, on the same kind of machine and with the same weights.
    """

    about: Mapping[str, Any]
    weights: str
    alone: Mapping[str, Any]
    load: Mapping[str, Any]
    started: str = ""
    earlier: Sequence[float] = ()

    @property
    def machine(self) -> tuple[Any, ...]:
        """What has to be the same for two timings to be comparable."""
        return self.about["hardware"], self.about["engine"], tuple(sorted(self.about["versions"].items()))


def read_timings(out: Path) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Read what was timed: by training, and the whole content; both empty if nothing was."""
    try:
        content = json.loads((out / FILE_NAME).read_text(encoding="utf-8"))
        return {name: Timing(**facts) for name, facts in content["arms"].items()}, content
    except (OSError, ValueError, KeyError, TypeError):
        return {}, {}


def why_again(out: Path, models: Mapping[str, Path], recipe: ReproduceRecipe) -> str | None:
    """Say why models are to be timed, or None if `latency.json` holds all of them, timed on one kind of machine.

    Args:
        out: The folder of the reproduction.
        models: The model of each training that is evaluated, where it is here.
        recipe: The recipe.
    """
    from egm.backends.checkpoint import weights_digest

    timings, content = read_timings(out)
    if not timings:
        return "nothing is timed yet"
    if content.get("settings") != recipe.latency.model_dump() | {"device": recipe.device}:
        return "the settings of latency or the device are others"
    if missing := [name for name in models if name not in timings]:
        return f"{', '.join(missing)} not timed yet"
    if changed := [name for name, path in models.items() if timings[name].weights != weights_digest(path)]:
        return f"{', '.join(changed)} trained anew"
    return apart({name: timings[name] for name in models})


def apart(timings: Mapping[str, Timing]) -> str | None:
    """Say which models were timed on another machine, driver or version than the first, if any."""
    first = next(iter(timings.values()), None)
    if first is None or not (strange := [name for name, each in timings.items() if each.machine != first.machine]):
        return None
    return f"{', '.join(strange)} timed on another machine, driver or version than {next(iter(timings))}"


def latency_job(recipe: ReproduceRecipe, models: Mapping[str, Path], out: Path) -> Job:
    """Time models, in one process."""
    asked = out / "latency.in.json"

    def command() -> list[str]:
        content = {
            "arms": {name: str(path) for name, path in models.items()},
            "device": recipe.device,
            "max_new_tokens": recipe.evaluate.max_new_tokens,
            "settings": recipe.latency.model_dump(),
        }
        (out / _DONE).unlink(missing_ok=True)
        write_text(asked, json.dumps(content, indent=2) + "\n")
        return ["egm.reproduce.latency", str(asked)]

    def finish(_: float) -> None:
        asked.unlink(missing_ok=True)
        (out / _DONE).unlink(missing_ok=True)

    return Job(
        name=JOB_NAME,
        command=command,
        log=out / "latency.log",
        finish=finish,
        count=partial(_timed, out / _DONE, len(models)),
    )


def _timed(path: Path, total: int) -> tuple[int, int]:
    return (path.read_bytes().count(b"\n") if path.exists() else 0), total


def time_arms(asked: Path) -> None:
    """Time the models that a file names, and write `latency.json` beside it.

    Raises:
        BackendError: If a model does not answer.
    """
    content = json.loads(asked.read_text(encoding="utf-8"))
    settings, out = LatencySection.model_validate(content["settings"]), asked.parent
    all_settings = settings.model_dump() | {"device": content["device"]}
    before, known = read_timings(out)
    if known.get("settings") != all_settings:
        before = {}
    timings: dict[str, Timing] = {name: each for name, each in before.items() if name not in content["arms"]}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    for name, model in content["arms"].items():
        timing = Timing(**_time(Path(model), content["device"], content["max_new_tokens"], settings), started=started)
        last = before.get(name)
        if last is not None and (last.machine, last.weights) == (timing.machine, timing.weights):
            timing = replace(timing, earlier=[*last.earlier, last.alone["latency"]["mean"]])
        timings[name] = timing
        with (out / _DONE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(name) + "\n")
    arms = {name: asdict(each) for name, each in timings.items()}
    result = {"started": started, "settings": all_settings, "arms": arms}
    write_text(out / FILE_NAME, json.dumps(result, indent=2) + "\n")


def _time(model: Path, device: str, max_tokens: int, settings: LatencySection) -> dict[str, Any]:
    from egm import bench
    from egm.backends.checkpoint import weights_digest

    grounder = bench.load(str(model), device=device, max_tokens=max_tokens)
    size = settings.batch_size
    (alone,) = bench.measure(grounder, requests=settings.requests, rounds=1, warmup=settings.warmup, seed=settings.seed)
    (load,) = bench.measure(
        grounder, requests=1, rounds=settings.batches, concurrency=[size], warmup=size, seed=settings.seed
    )
    for row in (alone, load):
        if row["errors"]:
            raise BackendError(f"{model}: {row['errors']} of {row['requests']} requests failed: {row['first_error']}")
    return {"about": bench.describe(grounder), "weights": weights_digest(model), "alone": alone, "load": load}


if __name__ == "__main__":
    from egm.errors import EgmError

    try:
        time_arms(Path(sys.argv[1]))
    except EgmError as fault:
        sys.exit(f"error: {fault}")
