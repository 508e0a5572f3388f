"""A configuration held against verl: its own classes, and the keys that it takes without using them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from egm.errors import EgmError, closest
from egm.training.verl.packages import installed, module

READ_ALL_THE_SAME: Final = frozenset(
    {
        "data.cache_dir",
        "data.chat_template_func",
        "data.need_tools_kwargs",
        "data.filter_prompts",
        "reward.custom_reward_function.reward_kwargs",
        "trainer.remove_previous_ckpt_in_save",
    }
)
"""Keys that verl reads and neither ships nor declares; what stands below them is another's."""
UNUSED: Final = {
    "custom_reward_function": "reward.custom_reward_function",
    "reward_model": "reward.reward_model or reward.reward_manager",
    "sandbox_fusion": "reward.sandbox_fusion",
}
"""Old places of settings: they are shipped still, and the trainer never looks at them."""
IGNORED: Final = {
    "actor_rollout_ref.actor.freeze_vision_tower": "no engine reads it, and every weight is trained",
    "actor_rollout_ref.actor.grad_clip": "actor.optim.clip_grad is what clips",
    "algorithm.filter_groups.max_num_gen_batches": "max_inflight_gen_batches is what bounds",
}
"""Keys that verl declares and never uses, with what there is instead."""
_FREE: Final = (
    "override_config",
    "engine_kwargs",
    "reward_kwargs",
    "apply_chat_template_kwargs",
    "mm_processor_kwargs",
    "ray_init",
)
"""Sections whose keys are for others: the model's configuration, the engine, a reward, a processor, Ray."""
_CHOICES: Final = {
    "actor_rollout_ref.actor.kl_loss_type": tuple(
        name + plus for name in ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3") for plus in ("", "+")
    ),
    "actor_rollout_ref.rollout.name": ("vllm", "sglang"),
}
_BUILT: Final = ("algorithm", *(f"actor_rollout_ref.{name}" for name in ("actor", "rollout", "model")))
"""Sections that verl makes into classes of its own when its workers start."""


def check_configuration(path: Path, overrides: Sequence[str] = ()) -> Mapping[str, Any]:
    """Compose a configuration as verl does, and refuse what it would refuse, or take without using.

    Args:
        path: The file.
        overrides: Settings over it, in hydra's words, such as `trainer.test_freq=5`.

    Returns:
        The composed configuration, with all of verl's own.

    Raises:
        EgmError: If a key is unknown, unused, or of a value that verl does not know; or verl refuses it.
    """
    content = compose(path, overrides)
    plain = module("omegaconf").OmegaConf.to_container(content, resolve=False)
    shipped = _shipped()
    for key in _leaves(plain):
        _check_key(key, _at(plain, key), shipped=shipped)
    _check_choices(content)
    with _quiet(), _explained("configuration"):
        utils = module("verl.trainer.ppo.utils")
        module("verl.utils.config").validate_config(
            config=content,
            use_reference_policy=utils.need_reference_policy(content),
            use_critic=utils.need_critic(content),
        )
        for section in _BUILT:
            module("verl.utils.config").omega_conf_to_dataclass(_at(content, section))
    return dict(plain)


def compose(path: Path, overrides: Sequence[str] = ()) -> Any:
    """Compose a configuration as verl's command does.

    Raises:
        EgmError: If hydra cannot: a setting over a key that is not there, or no setting.
    """
    hydra = module("hydra")
    module("verl.trainer.config")
    with _explained("setting"), hydra.initialize_config_dir(str(path.parent.resolve()), version_base=None):
        return hydra.compose(path.stem, list(overrides))


def _shipped() -> Mapping[str, Any]:
    """What verl's trainer ships, with every default."""
    folder = Path(module("verl.trainer.config").__file__).parent
    plain: dict[str, Any] = module("omegaconf").OmegaConf.to_container(
        compose(folder / "ppo_trainer.yaml"), resolve=False
    )
    return plain


def _check_key(key: str, value: Any, *, shipped: Mapping[str, Any]) -> None:
    if any(f".{free}." in f".{key}." for free in _FREE) or any(
        key == read or key.startswith(f"{read}.") for read in READ_ALL_THE_SAME
    ):
        return
    known = _at(shipped, key, missing := object())
    if known is missing:
        section, _, name = key.rpartition(".")
        declared = _declared(shipped, section)
        if name not in declared:
            near = closest(name, sorted(declared), cutoff=0.6)
            hint = f"did you mean {section}.{near}?" if near else "leave it out"
            raise EgmError(f"verl {installed('verl')} has no key {key}, and would take it without using it: {hint}")
    elif known != value:
        if (old := key.partition(".")[0]) in UNUSED:
            raise EgmError(f"verl {installed('verl')} takes {key} without using it: set {UNUSED[old]}")
        if key in IGNORED:
            raise EgmError(f"verl {installed('verl')} takes {key} without using it: {IGNORED[key]}; leave it out")


def _declared(shipped: Mapping[str, Any], section: str) -> set[str]:
    """Keys of a section: those that verl ships, and the fields of the class that it becomes."""
    found = _at(shipped, section, {}) if section else shipped
    if not isinstance(found, Mapping):
        return set()
    names, target = set(map(str, found)), found.get("_target_")
    if isinstance(target, str):
        home, _, name = target.rpartition(".")
        kind = getattr(module(home), name)
        if dataclasses.is_dataclass(kind):
            names |= {field.name for field in dataclasses.fields(kind)}
    return names


def _check_choices(content: Any) -> None:
    algorithms = module("verl.trainer.ppo.core_algos")
    managers = module("verl.experimental.reward_loop.reward_manager.registry").REWARD_MANAGER
    choices = {
        **_CHOICES,
        "actor_rollout_ref.actor.policy_loss.loss_mode": tuple(algorithms.POLICY_LOSS_REGISTRY),
        "algorithm.adv_estimator": tuple(map(_value, algorithms.ADV_ESTIMATOR_REGISTRY)),
        "reward.reward_manager.name": tuple(managers),
    }
    for key, known in choices.items():
        value = _at(content, key, None)
        if value not in known:
            near = closest(str(value), known, cutoff=0.5)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(known))}"
            raise EgmError(f"verl {installed('verl')} knows no {key} {value!r}: {hint}")


def _value(name: Any) -> str:
    return str(getattr(name, "value", name))


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the places of all values; an empty section is one."""
    for name, value in content.items():
        place = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{place}.")
        else:
            yield place


def _at(content: Any, key: str, missing: Any = None) -> Any:
    for part in key.split("."):
        if not isinstance(content, Mapping) and not hasattr(content, "keys"):
            return missing
        if part not in content:
            return missing
        content = content[part]
    return content


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Put what hydra and verl say of a fault into one line."""
    try:
        yield
    except EgmError:
        raise
    except Exception as error:  # asserts, and whatever the libraries raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise EgmError(f"verl {installed('verl')} refuses the {what}: {reason}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what verl prints off standard output, which is for the command's own, and what it warns of by the way."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
