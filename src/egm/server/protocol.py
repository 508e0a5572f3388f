"""Requests as the OpenAI protocol has them: what is answered, what may stand there without effect, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from egm.backends.base import GenerationSettings
from egm.errors import EgmError
from egm.server.limits import DEFAULT_MAX_TOKENS

_BANNED = -100.0  # the least logit bias that the protocol knows: such a token is not chosen
_STOPS, _STOP_LENGTH = 16, 256


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _only(*neutral: Any) -> AfterValidator:
    """Let a field stand that changes nothing, as clients send it by default."""

    def check(value: Any) -> Any:
        if value is not None and value not in neutral:
            shown = " or ".join(repr(one) for one in neutral if one is not None) or "nothing"
            raise ValueError(f"this server offers only {shown} here: leave it out")
        return value

    return AfterValidator(check)


_Neutral: TypeAlias = Annotated[Any, BeforeValidator(lambda _: None)]
"""Anything: it is for the operator of a hosted service, and says nothing of the answer."""


def _whole(text: str) -> str:
    """Refuse halves of surrogate pairs, which JSON can write and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair stands in it: send whole characters") from None
    return text


_Text: TypeAlias = Annotated[str, AfterValidator(_whole)]


class TextPart(_Closed):
    """A part of a message that is text."""

    type: Literal["text"]
    text: _Text


class ImageUrl(_Closed):
    """A picture, as a `data:` URL; it is seen in the size that its model asks for, whatever `detail` says."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Closed):
    """A part of a message that is a picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


def _kind_of_part(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "(image)" if kind == "image_url" else "(text)"


def _kind_of_content(value: Any) -> str:
    return "(parts)" if isinstance(value, list) else "(string)"


Part: TypeAlias = Annotated[
    Annotated[TextPart, Tag("(text)")] | Annotated[ImagePart, Tag("(image)")], Discriminator(_kind_of_part)
]
Content: TypeAlias = Annotated[
    Annotated[_Text, Tag("(string)")] | Annotated[list[Part], Tag("(parts)")], Discriminator(_kind_of_content)
]


class ChatMessage(_Closed):
    """A chat turn."""

    role: Literal["system", "user", "assistant"]
    content: Content
    name: _Neutral = None
    refusal: Annotated[Any, _only()] = None
    tool_calls: Annotated[Any, _only([])] = None


class StreamOptions(_Closed):
    """How to stream."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[bool | None, _only(False)] = None


_Stop: TypeAlias = Annotated[str, Field(min_length=1, max_length=_STOP_LENGTH)]
_Tokens: TypeAlias = Annotated[int, Field(ge=1, le=2**31)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ChatRequest(_Closed):
    """A request for a chat completion."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    stop: Annotated[Annotated[list[_Stop], Field(max_length=_STOPS)] | None, BeforeValidator(_as_list)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None

    # What clients send by default.
    n: Annotated[int | None, _only(1)] = None
    frequency_penalty: Annotated[float | None, _only(0)] = None
    presence_penalty: Annotated[float | None, _only(0)] = None
    repetition_penalty: Annotated[float | None, _only(1)] = None
    min_p: Annotated[float | None, _only(0)] = None
    top_logprobs: Annotated[int | None, _only(0)] = None
    response_format: Annotated[Any, _only({"type": "text"})] = None
    modalities: Annotated[Any, _only(["text"])] = None
    tools: Annotated[Any, _only([])] = None
    functions: Annotated[Any, _only([])] = None
    tool_choice: Annotated[Any, _only("none", "auto")] = None
    function_call: Annotated[Any, _only("none", "auto")] = None
    store: Annotated[bool | None, _only(False)] = None
    parallel_tool_calls: _Neutral = None
    user: _Neutral = None
    metadata: _Neutral = None
    safety_identifier: _Neutral = None
    prompt_cache_key: _Neutral = None
    service_tier: _Neutral = None

    @property
    def asked_tokens(self) -> int | None:
        """The limit that was asked for, if any."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def characters(self) -> int:
        """How long all texts are together."""
        contents = [message.content for message in self.messages]
        parts = [[content] if isinstance(content, str) else _texts(content) for content in contents]
        return sum(len(text) for texts in parts for text in texts)

    def settings(self, context: int) -> GenerationSettings:
        """Say how to generate; what leaves no trace in a batch, such as the seed, is the request's.

        Args:
            context: Most tokens of a prompt and its answer together, which a limit is clipped to.

        Raises:
            EgmError: If a number is out of range.
        """
        tokens = min(self.asked_tokens or DEFAULT_MAX_TOKENS, context)
        stop = tuple(self.stop or ())
        temperature = 1.0 if self.temperature is None else self.temperature
        if temperature == 0.0:  # the others say nothing then, and would only part what can be answered together
            return GenerationSettings(max_new_tokens=tokens, stop=stop)
        return GenerationSettings(
            max_new_tokens=tokens,
            temperature=temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            stop=stop,
        )

    def banned_token(self) -> int | None:
        """Return the token that may not be chosen, if any.

        Raises:
            EgmError: If more is asked for than to ban one.
        """
        if not self.logit_bias:
            return None
        [(token, bias), *others] = self.logit_bias.items()
        if others or not bias <= _BANNED or not token.isdecimal() or len(token) > 9:
            raise EgmError("logit_bias: only one token can be biased, by -100, which bans it")
        return int(token)


def _texts(content: Sequence[TextPart | ImagePart]) -> list[str]:
    return [part.text for part in content if isinstance(part, TextPart)]


class TokenizeRequest(_Closed):
    """A request for the tokens of a text, as vLLM has it."""

    model: str | None = None
    prompt: _Text
    add_special_tokens: bool | None = None
    return_token_strs: Annotated[bool | None, _only(False)] = None
