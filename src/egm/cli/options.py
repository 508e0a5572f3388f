"""Options that several commands share: one name and one help text for the same fact."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, cast

import typer

from egm import types
from egm.codecs import DEFAULT_CODEC
from egm.errors import EgmError, nearest

if TYPE_CHECKING:
    from egm.backends.base import GenerationSettings

    Settings: TypeAlias = GenerationSettings
else:
    Settings = Any  # commands are looked at as the command line is built, before any backend is loaded


def check_expect(expect: str | None) -> types.Expect | None:
    """Refuse what `--expect` does not know.

    Raises:
        EgmError: If it is none of one, any and all.
    """
    if expect is not None and expect not in types.EXPECTS:
        raise EgmError(f"unknown --expect {expect!r}: {nearest(expect, types.EXPECTS)}")
    return expect


_Command = TypeVar("_Command", bound=Callable[..., Any])

Model = Annotated[
    str | None,
    typer.Option(
        help="egm-tiny, a model folder, or a hub name; with --server, the name that it serves the model by.",
        show_default=False,
    ),
]
_SERVER = typer.Option(
    metavar="URL",
    help="An OpenAI-compatible server, of which egm eval and web take several; its key is taken from OPENAI_API_KEY.",
    show_default=False,
)
Server = Annotated[str | None, _SERVER]
Servers = Annotated[list[str] | None, _SERVER]
Engine = Annotated[
    str,
    typer.Option(metavar="NAME", help="sglang, vllm, transformers, egm, or auto: what is installed and fits."),
]
Serve = Annotated[
    str | None,
    typer.Option(
        metavar="ENGINE",
        help="Start a server for this command, and end it: sglang, vllm, transformers, egm or auto.",
        show_default=False,
    ),
]
Aim = Annotated[
    str | None,
    typer.Option(help="What a server is started for: latency, throughput or memory.", show_default=False),
]
Codec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"How a model is asked and read, such as {DEFAULT_CODEC}; egm codecs lists all. By default "
        "what its checkpoint calls for; one that is asked without its checkpoint at hand is taken for "
        f"{DEFAULT_CODEC}.",
        show_default=False,
    ),
]
TextCodec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What the texts of predictions are taken for: answers in this convention, which says what the numbers of "
        f"a box mean and where the answer begins, such as {DEFAULT_CODEC}; egm codecs lists all. It is never guessed: "
        "without it texts are refused, and of a row with text and box the box counts; with it, the text does. Rows of "
        "boxes need none, and journals take none. ask tells which conventions can be meant, and scores nothing.",
        show_default=False,
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DATASET",
        help="What was asked: a split, such as refcoco/val, or a file; repeatable.",
        show_default=False,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Where the annotations of named splits lie; else EGM_DATA, else ./data.", show_default=False
    ),
]
Images = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder that the pictures lie in.", show_default=False)
]
FromCodec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Of conversations whose rows do not say it: the convention of their boxes, such as {DEFAULT_CODEC}.",
        show_default=False,
    ),
]
TaskUrl = Annotated[
    str | None,
    typer.Option(
        metavar="PREFIX",
        help="For label-studio: what to put before pictures' names, such as '/data/local-files/?d='.",
        show_default=False,
    ),
]
AllowPartial = Annotated[
    bool,
    typer.Option(
        "--allow-partial",
        help="Take what is not whole: splits of another size or not all answered, some of the shards.",
    ),
]
Scenes = Annotated[int | None, typer.Option(help="Only the first scenes of SynthRef.", show_default=False)]
Concurrency = Annotated[
    int | None, typer.Option(help="Most questions answered together; 8, or 1 for egm-tiny on a CPU.")
]
RetryErrors = Annotated[bool, typer.Option("--retry-errors", help="Ask again what ended in an error before.")]
Prompt = Annotated[
    str | None,
    typer.Option(help="Prompt style of the codec, such as qwen3; egm codecs --json lists all.", show_default=False),
]
Device = Annotated[
    str, typer.Option(help="For a model in this process, or one that it serves: auto, cpu, cuda or cuda:N.")
]
Dtype = Annotated[
    str,
    typer.Option(
        help="For a model in this process, or one that it serves: auto, float32, bfloat16 or float16; in this process "
        "on a GPU also fp8, of the weights that tokens are decoded with."
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        help="Most tokens to generate; by default 4096, with --sample 8192; of egm-tiny 640, but under a "
        "--thinking-budget.",
        show_default=False,
    ),
]
EXPECT_HELP = (
    "How many boxes to ask for: one; any, one or the answer that nothing matches; or all, of which there may be none."
)
Expect = Annotated[str | None, typer.Option(metavar="ONE|ANY|ALL", help=EXPECT_HELP, show_default=False)]
CutTail = Annotated[
    bool,
    typer.Option("--cut-tail", help="End each answer behind its box, before the label: the same box for fewer tokens."),
]
GateFile = Annotated[
    Path | None,
    typer.Option(
        "--gate",
        metavar="FILE",
        help="With --think auto, what decides: a file that egm calibrate wrote for this model.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]

# The options that make `GenerationSettings`, in the order of the help; `with_settings` gives them to a command.
SETTINGS: dict[str, tuple[Any, Any]] = {
    "sample": (
        Annotated[
            bool,
            typer.Option(
                "--sample",
                help="Sample as the model card does: temperature 0.6, top-p 0.95. Else greedy.",
            ),
        ],
        False,
    ),
    "seed": (Annotated[int, typer.Option(help="With --sample, the same seed gives the same text.")], 0),
    "max_tokens": (MaxTokens, None),
    "votes": (
        Annotated[
            int,
            typer.Option(help="With --sample, answers to sample to each phrase; the box that most agree on counts."),
        ],
        1,
    ),
    "stop_confidence": (
        Annotated[
            float | None,
            typer.Option(help="Stop voting once the leading box stays ahead with this confidence, such as 0.95."),
        ],
        None,
    ),
    "think": (
        Annotated[
            str,
            typer.Option(
                metavar="ALWAYS|AUTO|NEVER",
                help="Whether to think first: as the model was trained to, where its gate says that it pays (--gate), "
                "or not at all.",
            ),
        ],
        "always",
    ),
    "thinking_budget": (
        Annotated[
            int | None,
            typer.Option(help="Most tokens of reasoning; then the answer is begun in the model's place."),
        ],
        None,
    ),
}


def with_settings(command: _Command, *, left_out: Collection[str] = ()) -> _Command:
    """Give a command the options of `GenerationSettings`; together they are its parameter `settings`.

    Args:
        command: The command.
        left_out: Names of settings that it leaves as they are by default.
    """
    shown = {name: facts for name, facts in SETTINGS.items() if name not in left_out}

    def fold(values: dict[str, Any]) -> dict[str, Any]:
        given = {name: values.pop(name) for name in shown}
        elsewhere = bool(values.get("server")) or values.get("script") is not None
        settings = _settings(model=None if elsewhere else values["model"] or "egm-tiny", **given)
        return {**values, "settings": settings}

    options = [_parameter(name, annotation, default) for name, (annotation, default) in shown.items()]
    return _with_options(command, options, fold, place="settings")


def without(*gone: tuple[str, type, str]) -> Callable[[_Command], _Command]:
    """Refuse options that a command had once.

    Args:
        *gone: Each option, the type of its value (`bool` for a flag), and what takes its place.
    """

    def refuse(option: str, instead: str) -> Callable[[Any], None]:
        def callback(value: Any) -> None:
            if value is not None:
                raise EgmError(f"there is no {option} here any more: {instead}")

        return callback

    options = [
        _parameter(
            f"gone_{number}",
            Annotated[kind | None, typer.Option(option, hidden=True, callback=refuse(option, instead))],
            None,
        )
        for number, (option, kind, instead) in enumerate(gone)
    ]

    def fold(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if not name.startswith("gone_")}

    return lambda command: _with_options(command, options, fold)


def refuse_placement(device: str, dtype: str) -> None:
    """Refuse `--device` and `--dtype` where the model is not in this process.

    Raises:
        EgmError: If one is given.
    """
    if (device, dtype) != ("auto", "auto"):
        raise EgmError("--device and --dtype are for a model in this process: leave them out")


def refuse_given(context: typer.Context, but: Collection[str], why: str) -> None:
    """Refuse options that were given and would be passed over.

    Args:
        context: The command's.
        but: Names of the parameters that count all the same.
        why: What the message says of the others.

    Raises:
        EgmError: If one was given; it names the first.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name not in but and source is not None and source.name == "COMMANDLINE":
            raise EgmError(f"{parameter.opts[0]} {why}")


def given_again(context: typer.Context, *names: str) -> list[str]:
    """Repeat options that were given, for a command that is named as the next and takes them too.

    Args:
        context: The command's.
        *names: Of its parameters, in the order in which they are to stand.

    Returns:
        Words for `shell_command`.
    """
    parameters = {str(parameter.name): parameter for parameter in context.command.params}
    words: list[str] = []
    for name in names:
        source, parameter = context.get_parameter_source(name), parameters[name]
        if source is None or source.name != "COMMANDLINE":
            continue
        given = context.params[name]
        if isinstance(given, bool):
            words.append((parameter.opts if given else parameter.secondary_opts)[0])
            continue
        values = given if isinstance(given, list | tuple) else [given]
        words += [word for value in values for word in (parameter.opts[0], str(value))]
    return words


def refuse_no_folder(images: Path | None, option: str = "--images") -> None:
    """Refuse an `--images`, or what another option or argument gives, that is no folder.

    Raises:
        EgmError: If there is none of that name.
    """
    if images is not None and not images.is_dir():
        raise EgmError(f"there is no folder {str(images)!r} of images: check {option}")


def max_tokens_by_default(model: str | None, *, sample: bool, budget: int | None) -> int:
    """Return what `--max-tokens` is where it is left out; a model behind a server is None."""
    from egm.backends import CARD_SETTINGS, GenerationSettings
    from egm.backends.checkpoint import EMBEDDED, EMBEDDED_MAX_NEW_TOKENS

    if model == EMBEDDED and budget is None:  # a budget bounds the reasoning by itself
        return EMBEDDED_MAX_NEW_TOKENS
    return (CARD_SETTINGS if sample else GenerationSettings()).max_new_tokens


def _settings(
    *, model: str | None, sample: bool, max_tokens: int | None, thinking_budget: int | None, **others: Any
) -> GenerationSettings:
    from dataclasses import replace

    from egm.backends import CARD_SETTINGS, GenerationSettings

    usual = CARD_SETTINGS if sample else GenerationSettings()
    if max_tokens is None:
        max_tokens = max_tokens_by_default(model, sample=sample, budget=thinking_budget)
    return replace(usual, max_new_tokens=max_tokens, thinking_budget=thinking_budget, **others)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _with_options(
    command: _Command,
    options: Sequence[inspect.Parameter],
    fold: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    place: str | None = None,
) -> _Command:
    """Put options into a command's signature, which Typer reads, and fold their values before the command is called.

    Args:
        command: The command, or what this returned for one.
        options: To stand at the end, or in place of a parameter.
        fold: Makes the command's own arguments of all values by name.
        place: That parameter.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += options if parameter.name == place else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    parameters += options if place is None else ()

    @functools.wraps(command)
    def folded(**values: Any) -> Any:
        return command(**fold(values))

    folded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return cast(_Command, folded)
