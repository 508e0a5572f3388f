"""What a backend is: requests in, replies out, in the same order. `egm.backends.remote` has those behind a server."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

from egm.environment import cpu_name
from egm.errors import EgmError, RequestError, nearest
from egm.types import THINK, Completion, Message, Think

if TYPE_CHECKING:
    from PIL.Image import Image

    from egm.images import ImageSource


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Attributes:
        messages: Chat turns, as a codec writes them.
        images: Upright RGB pictures, one for each `{"type": "image"}` part, in order.
        seed_index: Which random stream this is: with the settings' seed it fixes what is sampled, whatever else is in
            the batch.
        vote: Which of several answers to the same question this is, counted from 0; each has a random stream too.
        cut: Budget forcing: where a thinking budget is set, what to write after a text at which it ran out; nothing if
            the reasoning in it has ended.
        continue_final_message: Whether the last message is how the answer begins, for the model to go on with, and not
            an answer of before.
        prefill: Assistant prefill: how the answer begins, behind all that the chat template begins it with; empty where
            the model begins it itself. It is read, not generated: no part of the completion.
        token_logprobs: Whether the completion is to tell the log-probability of each token (`token_logprobs`).
        banned_token: A token that the model may not choose, if any.
        on_text: Called with each piece of the text as it is written, up to a stop string, also with none where a token
            makes no character yet; the answer ends there once it returns True. A backend that cannot tell its text
            before the end never calls it (`Backend.streams`), and what is written last may be in the completion alone.
            It is called in the backend's thread.
        on_again: Called where all that `on_text` was told counts no more, since the text is written anew: after a try
            that broke off, which only servers have.
        ends: Where stop strings are set: whether a text may end before one. True if its answer is there, False if it
            has broken off before that, None if it shows no sign of having broken off, as one that ended by itself does
            not. It is given all of the answer, the prefill too. Without it, a text ends before the first stop string.
        drafts: Texts that the answer may repeat, such as the frame that its codec gives it: a backend in this process
            may write them in fewer steps where the model agrees. They change no answer.
        on_lost: Called with the tokens read and generated of a failed try that the server counted some for, before the
            request is sent again: whether it may be. It is called in the backend's thread; without it, it may.
    """

    messages: Sequence[Message]
    images: Sequence[Image] = ()
    seed_index: int = 0
    vote: int = 0
    cut: Callable[[str], str] | None = field(default=None, compare=False)
    continue_final_message: bool = False
    prefill: str = ""
    token_logprobs: bool = False
    banned_token: int | None = None
    on_text: Callable[[str], bool] | None = field(default=None, compare=False)
    on_again: Callable[[], None] | None = field(default=None, compare=False)
    ends: Callable[[str], bool | None] | None = field(default=None, compare=False)
    drafts: Sequence[str] = field(default=(), compare=False)
    on_lost: Callable[[tuple[int, int]], bool] | None = field(default=None, compare=False)

    def same_prompt(self, other: Request) -> bool:
        """Tell whether another request shows the same pictures and says the same, so that one prefill serves both."""
        return (
            len(self.images) == len(other.images)
            and self.continue_final_message == other.continue_final_message
            and self.prefill == other.prefill
            and all(mine is theirs for mine, theirs in zip(self.images, other.images, strict=True))
            and self.messages == other.messages
        )

    def may_end(self, text: str) -> bool | None:
        """Tell whether the answer may end before a stop string (`ends`), of which a text stands behind the prefill."""
        return True if self.ends is None else self.ends(self.prefill + text)

    def check(self) -> None:
        """Refuse pictures without a place in the messages, and places without a picture.

        Raises:
            RequestError: If their numbers differ.
        """
        contents = [message["content"] for message in self.messages]
        parts = [part for content in contents if not isinstance(content, str) for part in content]
        places = sum(part.get("type") == "image" for part in parts)
        if places != len(self.images):
            raise RequestError(
                f"the messages have {places} places for pictures, but {len(self.images)} came: give one an image part"
            )


def behind(begun: str, reply: Completion) -> Completion:
    """Put what was begun in the model's place before a reply, each of whose tokens then ends so much later.

    Example:
        >>> behind("[", Completion("12]", token_logprobs=((2, -0.5), (3, 0.0)))).token_logprobs
        ((3, -0.5), (4, 0.0))
    """
    told = tuple((len(begun) + end, value) for end, value in reply.token_logprobs)
    return replace(reply, text=begun + reply.text, token_logprobs=told)


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How text is generated. Nothing else is taken from a checkpoint's own generation settings but the stop tokens.

    Attributes:
        max_new_tokens: Most tokens to generate.
        temperature: 0 takes the likeliest token each time (greedy); above 0 samples.
        top_p: When sampling, the likeliest tokens that together reach this probability.
        top_k: When sampling, the k likeliest tokens; 0 keeps all.
        seed: When sampling, the same seed gives the same text to the same question in the same place of a list.
        votes: Answers to sample to each question; `egm.consensus` picks one by agreement. This and the next are for
            whoever asks, such as `Grounder`: a backend answers each request once.
        stop_confidence: Stop voting before `votes` answers once the leading box stays ahead with this confidence, from
            0.5 to 1, by the rule of `egm.consensus`; 1 stops only where it cannot be overtaken. None never stops.
        thinking_budget: Most tokens of reasoning. Where they run out, the reasoning is closed and the answer begun in
            the model's place. None sets no bound.
        think: Whether to think before answering: "always" leaves that to the model, as it was trained; "never" closes
            the reasoning before it begins, so that the answer comes directly; "auto" answers directly where a gate
            holds that to be sure enough (`egm.thinking`). This too is for whoever asks.
        stop: Stop strings: a text ends before the first of them at which `Request.ends` lets it, and has "stop_string"
            for its finish reason. Its tokens are those up to the whole of the stop string. `Grounder` sets them from
            its codec (`cut_tail`).

    Raises:
        EgmError: If a number is out of range, or the numbers do not fit together.

    Example:
        >>> GenerationSettings(temperature=0.7, seed=3).greedy
        False
    """

    max_new_tokens: int = 4096
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    votes: int = 1
    stop_confidence: float | None = None
    thinking_budget: int | None = None
    stop: tuple[str, ...] = ()
    think: Think = "always"

    def __post_init__(self) -> None:
        """Refuse numbers that no engine takes."""
        given: Any = self.stop
        if not isinstance(given, list | tuple) or not all(isinstance(each, str) and each for each in given):
            raise EgmError(f"stop must be a list of texts, none of them empty, not {given!r}")
        object.__setattr__(self, "stop", tuple(given))
        if self.think not in THINK:
            raise EgmError(f"unknown think {self.think!r}: {nearest(str(self.think), THINK)}")
        for name in (item.name for item in fields(self) if item.name not in ("stop", "think")):
            kind = float if name in ("temperature", "top_p", "stop_confidence") else operator.index
            if name in ("stop_confidence", "thinking_budget") and getattr(self, name) is None:
                continue
            try:
                object.__setattr__(self, name, kind(getattr(self, name)))
            except (TypeError, ValueError):
                sort = "a number" if kind is float else "a whole number"
                raise EgmError(f"{name} must be {sort}, not {getattr(self, name)!r}") from None
        for name, fine, rule in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0.0 <= self.temperature <= 100.0, "0 (greedy) to 100"),
            ("top_p", 0.0 < self.top_p <= 1.0, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("seed", 0 <= self.seed < 2**63, "0 or more, below 2**63"),
            ("votes", self.votes >= 1, "at least 1"),
            ("stop_confidence", self.stop_confidence is None or 0.5 <= self.stop_confidence <= 1.0, "0.5 to 1"),
            ("thinking_budget", self.thinking_budget is None or self.thinking_budget >= 1, "at least 1"),
        ):
            if not fine:
                raise EgmError(f"{name} {getattr(self, name)} is out of range: give {rule}")
        if self.votes > 1 and self.greedy:
            raise EgmError(
                f"{self.votes} votes at temperature 0 are one answer {self.votes} times: sample, as --sample does, "
                "or give a temperature above 0"
            )
        if self.stop_confidence is not None and self.votes == 1:
            raise EgmError("stop_confidence stops a vote, and 1 answer is none: give votes, the most to sample")
        if self.think == "never" and self.thinking_budget is not None:
            raise EgmError("thinking_budget bounds reasoning, and think=never has none: leave one of them out")
        if self.think == "auto" and self.votes > 1:
            raise EgmError(
                "think=auto asks for one direct answer first: leave votes out, or take think=always or never"
            )
        if self.thinking_budget is not None and self.thinking_budget >= self.max_new_tokens:
            raise EgmError(
                f"thinking_budget {self.thinking_budget} leaves no room for the answer within max_new_tokens "
                f"{self.max_new_tokens}: think less, or allow more tokens"
            )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0.0


def no_logprobs(why: str) -> str:
    """Say that a gate cannot do its work, since nothing tells how sure a model is of its answer."""
    return (
        f"thinking only where it pays (think=auto) takes the log-probabilities of the tokens, and {why}: ask a server "
        "that gives them (logprobs), or take think=always or never"
    )


CARD_SETTINGS: Final = GenerationSettings(max_new_tokens=8192, temperature=0.6, top_p=0.95)
"""What the model card of EGM-8B samples with."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a backend says of itself, to stand beside what was measured of it.

    Attributes:
        name: The engine.
        release: Its version, where it is no package of this process.
        packages: Packages of this process whose versions decide its speed.
        versions: What else has a version, such as a driver.
        hardware: What it runs on; None where that is not known.
        weight_bytes: Bytes of a weight of the language model's layers, and of any other number, where they lie on a GPU
            of this machine.
    """

    name: str
    release: str | None = None
    packages: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: str | None = None
    weight_bytes: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """What a model thinks of a place in a text that it is given.

    Attributes:
        end: How many characters of the text are read with the token that stands there; one more than there are for the
            place after the text.
        logprob: Natural log-probability of that token; after the text, of the likeliest.
        lead: By how much the log-probability of the likeliest token exceeds that of the second, at least 0: how sure
            the model is of what to write there.
    """

    end: int
    logprob: float
    lead: float


class Backend(ABC):
    """An engine that answers; `generate` and `model` are all that one must have, the rest has defaults.

    It is a context manager, which closes it on the way out.

    Attributes:
        model: What answers, for messages and records: a name, a folder or a hub id.
        thinking_budgets: Whether it goes on with begun answers: keeps a thinking budget (`Request.cut`),
            and begins with a prefill; one that does not is never given any.
        tells_logprobs: Whether it tells log-probabilities at no cost; one that does not is asked for them only where
            they decide something.
        batches: Whether it computes the requests of a call together. One that answers them one after the other gains
            nothing from being given several, and can be timed with one alone.
        streams: Whether it calls `Request.on_text`. One that does not cannot be told to end an answer either.
        context: Most tokens of a prompt and its answer together; None where that is not known.
    """

    model: str
    thinking_budgets: bool = False
    tells_logprobs: bool = True
    batches: bool = True
    streams: bool = False
    context: int | None = None

    @abstractmethod
    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Answer requests together.

        Args:
            requests: Questions; they may differ in length and in the size of their pictures.
            settings: How to generate, the same for all; `votes` and `stop_confidence` are not for it.

        Returns:
            One reply a request, in the same order.

        Raises:
            BackendError: If the engine fails.
            RequestError: If a request does not fit the model.
        """

    def make_request(
        self,
        messages: Sequence[Message],
        image: Image,
        *,
        source: ImageSource | None = None,  # noqa: ARG002 - for those that override this
        seed_index: int = 0,
        cut: Callable[[str], str] | None = None,
        ends: Callable[[str], bool | None] | None = None,
    ) -> Request:
        """Build a request about one picture; one that sends pictures elsewhere may encode it here.

        Args:
            messages: See `Request`.
            image: The picture, upright and in RGB.
            source: What it was loaded from, if that may serve in its place.
            seed_index: See `Request`.
            cut: See `Request`.
            ends: See `Request`.
        """
        return Request(messages, [image], seed_index, cut=cut, ends=ends)

    def tokenize(self, text: str) -> list[int] | None:  # noqa: ARG002
        """Return the tokens of a text, with none added, or None where they cannot be told, as by default."""
        return None

    def count_tokens(self, text: str) -> int | None:
        """Return how many tokens a part of an answer took, or None where that cannot be told."""
        tokens = self.tokenize(text)
        return None if tokens is None else len(tokens)

    def token_scores(self, request: Request, text: str) -> list[TokenScore] | None:  # noqa: ARG002
        """Read a text as the answer to a request (teacher forcing), and tell how sure the model is of each token.

        Args:
            request: The question.
            text: An answer, without the token that ends it.

        Returns:
            One score a token, and one for what follows the text; None where that cannot be told, as by default.

        Raises:
            RequestError: If the request does not fit the model.
        """
        return None

    def check_settings(self, settings: GenerationSettings) -> None:
        """Refuse settings that it does not keep to.

        Raises:
            EgmError: If there is a thinking budget, or may be a direct answer, and it cannot go on with a begun answer.
        """
        begins = {"thinking_budget": settings.thinking_budget is not None, "think": settings.think != "always"}
        if not self.thinking_budgets and (name := next((name for name, needed in begins.items() if needed), None)):
            what = "a thinking budget" if name == "thinking_budget" else f"think={settings.think}"
            raise EgmError(
                f"{type(self).__name__} cannot go on with an answer that is begun for it, as {what} needs: "
                f"leave {name} out"
            )

    def describe(self) -> EngineInfo:
        """Say what it is and what it runs on: by default its class, on this machine's processor."""
        return EngineInfo(type(self).__name__, hardware=cpu_name())

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of connections and processes; by default there are none. Closing twice is closing once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def closed_on_error(backend: Backend) -> Iterator[None]:
    """Close a backend for which nobody else will, since what was to own it never came to be."""
    try:
        yield
    except BaseException:
        backend.close()
        raise
