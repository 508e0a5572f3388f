"""`egm verl`: a recipe of `egm grpo` checked, written down for verl, started, and followed to its end."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from egm.environment import package_versions
from egm.errors import EgmError, RecipeError
from egm.files import write_text
from egm.progress import progress_task
from egm.publish.verl_run import find_exported, last_global_step, world_size
from egm.terminal import shell_command
from egm.training.grpo.recipe import GRPORecipe
from egm.training.recipe import load_recipe
from egm.training.verl.check import check_configuration
from egm.training.verl.cluster import check_nodes, connected, measure_cluster, this_machine
from egm.training.verl.configure import Cluster, Configured, Options, configure
from egm.training.verl.launch import CONFIGURATION, run_trainer, trainer_command
from egm.training.verl.packages import NODE, check_packages, installed
from egm.training.verl.policy import AskedModel
from egm.training.verl.unsaid import rollouts_of
from egm.training.verl.write_data import HELD_OUT, TRAIN, check_verl_rows, write_questions

if TYPE_CHECKING:
    from egm.training.verl.follow import Follower

_LOOKED_AT = 64  # pictures that every node is asked about


@dataclass(frozen=True, slots=True)
class Launch:
    """Where and how a run is started.

    Attributes:
        engine: What draws completions: `vllm` or `sglang`.
        cluster: Ray cluster to use: `auto`, or HOST:PORT; None for one that is started here and ends with the run.
        gpus: GPUs of each node; all by default.
        nodes: Nodes; all that have GPUs by default.
        absolute: Write the names of pictures, which every node has to see, and not the pictures.
        overrides: Settings over verl's configuration, in hydra's words.

    Raises:
        EgmError: If nodes are said, and no cluster.
    """

    engine: str = "vllm"
    cluster: str | None = None
    gpus: int | None = None
    nodes: int | None = None
    absolute: bool = False
    overrides: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse nodes of no cluster."""
        if self.nodes is not None and self.cluster is None:
            raise EgmError("--nodes is for those of a Ray cluster: name it with --cluster, or leave --nodes out")


def print_verl(recipe: GRPORecipe, out: Path, launch: Launch, *, resume: bool = False) -> str:
    """Return the configuration and the command of a run; nothing is started, and nothing written that stays.

    Where verl is installed, its own classes look at the configuration too.

    Args:
        recipe: What to train, on what, and how.
        out: Its run folder.
        launch: Where and how.
        resume: Of a run that goes on from verl's last checkpoint in `out`.

    Raises:
        EgmError: As `run_verl` does before it starts anything, or if it is not said how many GPUs and nodes there are.
    """
    out = out.resolve()
    begun = _begun(recipe, out) if resume else 0
    cluster = _said_cluster(launch)
    if resume:
        check_world(out, begun, cluster)
    asked = AskedModel(recipe)
    check_verl_rows(recipe, if_there=True)  # it may lie where the run will be
    configured = configure(recipe, out, asked.policy, cluster, _options(launch, out, begun=begun))
    _say(configured)
    text = yaml.safe_dump(configured.content, sort_keys=False)
    if installed("verl") is None:
        print("note: verl is not installed here, so its own classes have not looked at this", file=sys.stderr)  # noqa: T201
    else:
        with TemporaryDirectory() as folder:
            path = Path(folder) / CONFIGURATION
            write_text(path, text)
            check_configuration(path, launch.overrides)
    return f"# {out / CONFIGURATION}\n{text}\n# {shell_command(*trainer_command(out, launch.overrides))}\n"


def run_verl(
    recipe: GRPORecipe, out: Path, launch: Launch, *, resume: bool = False, check: bool = True, dry: bool = False
) -> Path | None:
    """Reinforce a model by verl.

    Args:
        recipe: What to train, on what, and how.
        out: Run folder: gets what `egm grpo` writes, and `data/`, `verl.yaml`, `verl.log` and verl's checkpoints.
        launch: Where and how.
        resume: Go on from verl's last checkpoint in `out`.
        check: Score 16 rollouts first, in this process, and refuse a run that could not learn.
        dry: Check all of this, and start nothing.

    Returns:
        The folder of the model in verl's last checkpoint, or with an adapter of the checkpoint; None if this was a dry
        run, or SIGTERM ended the run before its time.

    Raises:
        EgmError: If the recipe, the environment, the data or the cluster do not fit; or verl failed, with what is kept
            and how to go on.
    """
    from egm.training.shared.run_folder import add_facts, start_run

    out = out.resolve()
    begun = _begun(recipe, out) if resume else 0
    if not resume:
        _check_free(out)
    elif begun >= rollouts_of(recipe) and not dry:  # a start of verl takes minutes
        add_facts(out, steps=recipe.optim.steps)
        return _trained(recipe, out)
    for note in check_packages(launch.engine):
        print("note:", note, file=sys.stderr)  # noqa: T201
    asked = AskedModel(recipe)
    if not resume:
        check_verl_rows(recipe)
    with connected(launch.cluster) if launch.cluster else nullcontext() as ray:
        cluster = (
            this_machine(launch.gpus)
            if ray is None
            else measure_cluster(ray, str(launch.cluster), gpus=launch.gpus, nodes=launch.nodes)
        )
        if resume:
            check_world(out, begun, cluster)
        options = _options(launch, out, begun=begun)
        configured = configure(recipe, out, asked.policy, cluster, options)
        _say(configured)
        with TemporaryDirectory() if dry else nullcontext(out) as place:
            folder = Path(place)
            if not dry and not resume:
                start_run(recipe, out, seed=recipe.run.seed)
            path = folder / CONFIGURATION
            write_text(path, yaml.safe_dump(configured.content, sort_keys=False))
            check_configuration(path, launch.overrides)
            if not resume:
                write_questions(recipe, asked, folder / "data", absolute=launch.absolute)
            if ray is not None:
                check_nodes(ray, _files(folder, out, asked, absolute=launch.absolute, dry=dry))
            if check and not resume:
                check_answers(recipe)
    if dry:
        return None
    follower = _follower(recipe, asked, out, options, begun)
    started = time.perf_counter()
    command = trainer_command(out, launch.overrides)
    facts = {"gpus": cluster.gpus, "nodes": cluster.nodes}
    add_facts(out, trainer=command, cluster=facts, verl=package_versions(*NODE, launch.engine))
    with _followed(follower, begun, rollouts_of(recipe)) as look:
        ended = run_trainer(command, out, address=launch.cluster or "local", look=look)
    if not ended:
        return None
    add_facts(out, seconds=round(time.perf_counter() - started, 1), steps=recipe.optim.steps)
    return _trained(recipe, out)


def _trained(recipe: GRPORecipe, out: Path) -> Path | None:
    """Return what verl's last checkpoint holds: the model, or with an adapter the checkpoint itself."""
    step = last_global_step(out)
    return out / "checkpoints" / f"global_step_{step}" if recipe.model.lora else find_exported(out)


def check_answers(recipe: GRPORecipe) -> None:
    """Score 16 rollouts as `egm grpo` does, on the first GPU of this machine or on its CPU.

    Raises:
        EgmError: If a run could not learn by them.
    """
    import torch

    from egm.backends.tokens import stop_tokens
    from egm.models.fast.enable import enable_fast_path
    from egm.training.grpo.decoder import make_decoder
    from egm.training.grpo.preflight import PROMPTS, check_digits, preflight
    from egm.training.grpo.prompts import PromptCollator
    from egm.training.grpo.run import open_table
    from egm.training.rewards.reward import Reward
    from egm.training.shared.model import make_codec, open_model

    model, processor = open_model(recipe.model, seed=recipe.run.seed)
    codec = make_codec(model.config, processor)
    check_digits(processor.tokenizer, recipe.model.name)
    enable_fast_path(model)
    on_gpu = torch.cuda.is_available()
    model = model.to("cuda" if on_gpu else "cpu").eval()
    stops = stop_tokens(model.generation_config.eos_token_id, processor.tokenizer.eos_token_id)
    torch.manual_seed(recipe.run.seed)
    table = open_table(recipe)
    decoder = make_decoder(model, processor, stops, recipe, bf16=recipe.optim.precision == "bf16" and on_gpu)
    preflight(
        recipe,
        [table[number] for number in range(min(PROMPTS, len(table)))],
        collator=PromptCollator(processor, codec, recipe.data.prompt),
        decoder=decoder,
        reward=Reward(recipe.reward, codec),
        stops=stops,
    )
    del model, decoder
    if on_gpu:
        torch.cuda.empty_cache()  # verl's workers are other processes, and want the GPU


def _said_cluster(launch: Launch) -> Cluster:
    """What a run may use, by the command line alone, or else by the GPUs that are visible here."""
    if launch.cluster is not None:
        if launch.gpus is None or launch.nodes is None:
            raise EgmError(f"--print does not ask the cluster at {launch.cluster}: say --gpus and --nodes")
        return Cluster(launch.gpus, launch.nodes)
    if launch.gpus is not None:
        return Cluster(launch.gpus, 1)
    try:
        return this_machine(None)
    except EgmError as error:
        raise EgmError(f"{error}; or say --gpus, with which --print needs none") from None


def _options(launch: Launch, out: Path, *, begun: int) -> Options:
    flash = importlib.util.find_spec("flash_attn") is not None
    return Options(launch.engine, flash, begun > 0, out / "log" / f"from-{begun:06}.jsonl")


def _say(configured: Configured) -> None:
    for note in configured.notes:
        print("note: in verl,", note, file=sys.stderr)  # noqa: T201


def _begun(recipe: GRPORecipe, out: Path) -> int:
    """Return the rollout that a run goes on from.

    Raises:
        RecipeError: If there is none, or the folder is another recipe's.
    """
    from egm.training.shared.run_folder import differences

    step = last_global_step(out)
    if step is None or not (out / "recipe.yaml").is_file():
        raise RecipeError(f"nothing to resume in {out}: it holds no checkpoint of verl's; run without --resume")
    before = load_recipe(GRPORecipe, out / "recipe.yaml")
    if differing := differences(before, recipe):
        raise RecipeError(
            f"{out / 'recipe.yaml'} differs from this recipe in {', '.join(differing)}: resume with the same one, or "
            "choose another --out"
        )
    return step


def _check_free(out: Path) -> None:
    from egm.training.shared.run_folder import check_free

    check_free(out)
    if last_global_step(out) is not None:
        raise RecipeError(f"{out} holds a run already: go on with --resume, or choose another --out")


def check_world(out: Path, begun: int, cluster: Cluster) -> None:
    """Refuse to go on with another number of GPUs, which verl's shards do not allow.

    Args:
        out: The run folder.
        begun: The rollout whose checkpoint is gone on from.
        cluster: What the run may use now.

    Raises:
        EgmError: If another number of GPUs wrote it.
    """
    wrote = world_size(out / "checkpoints" / f"global_step_{begun}" / "actor")
    if wrote is not None and wrote != cluster.world:
        raise EgmError(
            f"checkpoint global_step_{begun} was written by {wrote} GPUs, and there are {cluster.world}: verl goes on "
            f"with as many as before, so say --gpus and --nodes, or begin a run from its model (egm models export "
            f"{out})"
        )


def _files(folder: Path, out: Path, asked: AskedModel, *, absolute: bool, dry: bool) -> list[Path]:
    """List what workers open: model, data, run folder, and some of the pictures where they are named."""
    found = [asked.policy.path / "config.json"]
    if not dry:  # otherwise the data lie in a folder of this node's own
        found += [out, *(path for name in (TRAIN, HELD_OUT) if (path := folder / "data" / name).exists())]
    if absolute:
        from egm.datasets import open_dataset

        samples = open_dataset(folder / "data" / TRAIN, images=Path("/")).annotations()
        found += [Path(str(sample.image)) for sample in samples[:: max(1, len(samples) // _LOOKED_AT)]]
    return found


def _follower(recipe: GRPORecipe, asked: AskedModel, out: Path, options: Options, begun: int) -> Follower:
    from egm.training.verl.follow import Follower

    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.unlink(missing_ok=True)
    return Follower(recipe, asked.codec, out, train=out / "data" / TRAIN, log=options.log, begun=begun)


@contextmanager
def _followed(follower: Follower, begun: int, rollouts: int) -> Iterator[Any]:
    with progress_task("training", rollouts, done=begun) as task:

        def look() -> None:
            follower.look()
            task.update(max(begun, follower.say()))

        try:
            yield look
        finally:
            follower.look(last=True)
            follower.say()
