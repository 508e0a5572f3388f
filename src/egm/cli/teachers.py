"""The models of a run of rationales: teacher and blind check, behind servers or in this process."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from egm.cli import options
from egm.cli.opened import opened_grounder, served_facts, server_place
from egm.cli.served import refuse_two_servers, served_grounder
from egm.errors import EgmError

if TYPE_CHECKING:
    from egm.backends.base import Backend, GenerationSettings
    from egm.codecs import Codec
    from egm.rationales import BlindCheck, Teacher
    from egm.rationales.styles import TeacherStyle

BLIND_KEY: Final = "EGM_BLIND_API_KEY"
"""The variable that the key of the blind check's server is taken from."""
BLIND_TOKENS: Final = 2048
"""Most tokens of a blind check's answer."""
_NEVER_ASKED: Final = "http://127.0.0.1:9"  # in a dry run, in place of an engine that is not started


class RunModels:
    """The models of a run, which are opened as they are asked for and closed together; use it in a `with` statement.

    Args:
        server: The teacher's server, if it is there already.
        serve: The engine that is started for the teacher, if one is.
        aim: What that is started for.
        codec: Name of the family that will be trained; None takes the default's, or that of a teacher which grounds by
            itself.
        device: Where a model in this process computes, or one that is served.
        dtype: In which type.
        concurrency: Most calls under way at once.
        dry: Whether nothing is to be asked: then no engine is started.

    Attributes:
        codec: The family that will be trained.
    """

    def __init__(
        self,
        server: str | None,
        serve: str | None,
        aim: str | None,
        codec: str | None,
        device: str,
        dtype: str,
        concurrency: int,
        *,
        dry: bool = False,
    ) -> None:
        from egm.codecs import DEFAULT_CODEC, get_codec

        refuse_two_servers(serve, aim, server)
        if server is not None:
            options.refuse_placement(device, dtype)
        self.codec: Codec = get_codec(codec or DEFAULT_CODEC)
        self._server, self._serve, self._aim = server, serve, aim
        self._name, self._device, self._dtype = codec, device, dtype
        self._concurrency, self._dry = concurrency, dry
        self._stack = ExitStack()
        self._local: dict[str, tuple[Backend, Codec, dict[str, Any]]] = {}
        self._served: str | None = None
        self._room: int | None = None

    def teacher(self, model: str, wording: TeacherStyle, settings: GenerationSettings, *, mark: bool) -> Teacher:
        """Open the teacher; its family is the one to train where it grounds by itself and no other is named."""
        from egm.rationales import ModelTeacher

        if self._server is not None or (self._serve is not None and self._dry):
            backend, engine = self._connect(self._server or _NEVER_ASKED, model, None)
        else:
            backend, own, engine = self._load(model) if self._serve is None else self._start(model, settings)
            self.codec = own if self._name is None and wording.asks == "grounding" else self.codec
        return self._stack.enter_context(
            ModelTeacher(
                backend,
                self.codec,
                wording,
                settings=self._within(settings),
                mark=mark,
                batch=self._concurrency,
                engine=engine,
            )
        )

    def blind(self, model: str | None, server: str | None, *, prefill: bool) -> BlindCheck:
        """Open the blind check: on a server of its own, on the teacher's, or in this process."""
        from egm.backends.base import GenerationSettings
        from egm.rationales import BlindCheck

        place, codec = server or self._server, self.codec
        if place is not None:
            # Another server gets no key that was meant for the teacher's.
            key = os.environ.get(BLIND_KEY) or (None if place == self._server else "none")
            backend, engine = self._connect(place, model, key)
        else:
            backend, codec, engine = self._load(str(model))
        settings = GenerationSettings(max_new_tokens=BLIND_TOKENS)
        settings = self._within(settings) if place is None and model == self._served else settings
        return self._stack.enter_context(
            BlindCheck(backend, codec, settings=settings, prefill=prefill, batch=self._concurrency, engine=engine)
        )

    def _connect(self, server: str, model: str | None, key: str | None) -> tuple[Backend, dict[str, Any]]:
        from egm.backends.openai.backend import OpenAIBackend

        backend = OpenAIBackend(server, model, api_key=key, concurrency=self._concurrency)
        self._stack.callback(backend.close)
        return backend, {"server": server_place(server)}

    def _start(self, model: str, settings: GenerationSettings) -> tuple[Backend, Codec, dict[str, Any]]:
        """Start an engine for the teacher; a blind check by the same model asks it too."""
        assert self._serve is not None
        grounder, there = self._stack.enter_context(
            served_grounder(
                model,
                self._serve,
                self._aim,
                device=self._device,
                dtype=self._dtype,
                codec=self._name,
                settings=settings,
                concurrency=self._concurrency,
            )
        )
        self._served, self._room = model, there.room
        self._local[model] = grounder.backend, grounder.codec, served_facts(there, self._aim)
        return self._local[model]

    def _load(self, model: str) -> tuple[Backend, Codec, dict[str, Any]]:
        from egm.backends.base import GenerationSettings

        if model not in self._local:
            if self._serve is not None:
                raise EgmError(f"--serve starts {self._served!r} alone: give --blind-server, or --blind {self._served}")
            placed: dict[str, Any] = {"device": self._device, "dtype": self._dtype, "concurrency": self._concurrency}
            grounder, facts = self._stack.enter_context(
                opened_grounder(model, server=None, codec=self._name, settings=GenerationSettings(), **placed)
            )
            self._local[model] = grounder.backend, grounder.codec, facts()
        return self._local[model]

    def _within(self, settings: GenerationSettings) -> GenerationSettings:
        """Keep an answer within what the context of the engine that was started has room for."""
        room = settings.max_new_tokens if self._room is None else min(self._room, settings.max_new_tokens)
        return replace(settings, max_new_tokens=room)

    def __enter__(self) -> RunModels:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
