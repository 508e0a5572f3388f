"""Models that the page can ask: in this process each in a thread of its own, behind servers as those take requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from egm.backends.base import CARD_SETTINGS
from egm.backends.remote import RemoteBackend, Rounds
from egm.errors import EgmError
from egm.grounder import Grounder
from egm.questions import LoadedQuestion
from egm.terminal import printable
from egm.voting import GroundedCompletion, run_rounds

MOST_VOTES = 16
"""Most answers to sample to one phrase."""


class OpenModel:
    """A model that is open, and asked by everybody who has the page.

    Args:
        name: What to call it.
        grounder: What asks it.
    """

    def __init__(self, name: str, grounder: Grounder) -> None:
        self.name, self.grounder = name, grounder
        # Models and tokenizers are not made for several threads.
        self._thread = None if self._remote else ThreadPoolExecutor(1, thread_name_prefix="egm-web")

    @property
    def _remote(self) -> bool:
        return isinstance(self.grounder.backend, RemoteBackend)

    def with_votes(self, votes: int, seed: int) -> Grounder:
        """The grounder, for one greedy answer a phrase, or for several that are sampled as the model card does.

        Raises:
            EgmError: If there are too many votes, or the seed is none.
        """
        if not 1 <= votes <= MOST_VOTES:
            raise EgmError(f"{votes} votes are out of range: give 1 to {MOST_VOTES}")
        own = self.grounder
        if votes == 1:
            return own
        card = CARD_SETTINGS
        settings = replace(own.settings, temperature=card.temperature, top_p=card.top_p, votes=votes, seed=seed)
        return Grounder(
            own.backend, own.codec, settings=settings, prompt=own.prompt, batch_size=own.batch_size, gate=own.gate
        )

    def submit(
        self,
        grounder: Grounder,
        questions: Sequence[LoadedQuestion],
        rounds: Callable[[int], Rounds[GroundedCompletion]],
    ) -> list[tuple[list[int], Future[list[GroundedCompletion]]]]:
        """Begin to ask.

        Args:
            grounder: As `with_votes` returns it.
            questions: What to ask.
            rounds: Gives the rounds of the question of a number; called once the model is free.

        Returns:
            Futures of answers, each with the numbers of its questions: those that an engine computes together come
            together.
        """
        numbers = range(len(questions))
        if isinstance(backend := grounder.backend, RemoteBackend):
            return [([n], _listed(backend.submit_rounds(rounds(n), grounder.settings))) for n in numbers]
        assert self._thread is not None
        step = max(1, grounder.batch_size // grounder.settings.votes)

        def answer(batch: Sequence[int]) -> list[GroundedCompletion]:
            asked = [rounds(n) for n in batch]
            return run_rounds(asked, lambda requests: grounder.backend.generate(requests, grounder.settings))

        batches = [list(numbers[start : start + step]) for start in range(0, len(questions), step)]
        return [(batch, self._thread.submit(answer, batch)) for batch in batches]

    def close(self) -> None:
        """Give up what waits, and close the model once it is free."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self.grounder.close()


@contextmanager
def open_models(models: Sequence[str], servers: Sequence[str], **options: Any) -> Iterator[dict[str, OpenModel]]:
    """Open models, and close them at the end.

    Args:
        models: What `Grounder.load` takes.
        servers: Where servers are; one that serves several models as NAME@URL.
        **options: `device` and `dtype` of models in this process, `codec` and `settings` of all, `logprobs` of servers.

    Yields:
        Each by its name, none twice.

    Raises:
        EgmError: As `Grounder.load` and `Grounder.connect` raise.
    """
    shared: dict[str, Any] = {"codec": options.get("codec"), "settings": options.get("settings")}
    placed: dict[str, Any] = {"device": options.get("device", "auto"), "dtype": options.get("dtype", "auto")}
    with ExitStack() as stack:
        opened: dict[str, OpenModel] = {}

        def keep(name: str, grounder: Grounder) -> None:
            model = OpenModel(name, grounder)
            stack.callback(model.close)
            if name in opened:
                raise EgmError(f"{name} is given twice: name each model and server once")
            opened[name] = model

        for model in models:
            keep(printable(model), Grounder.load(model, **shared, **placed))
        connected = {name: value for name, value in shared.items() if value is not None}
        for server in servers:
            name, url = split_server(server)
            grounder = Grounder.connect(url, name, logprobs=bool(options.get("logprobs")), **connected)
            keep(printable(f"{grounder.backend.model} at {url}"), grounder)
        yield opened


def split_server(text: str) -> tuple[str | None, str]:
    """Split NAME@URL into a served model's name, if there is one, and the URL.

    Example:
        >>> split_server("http://127.0.0.1:30000"), split_server("qwen@http://127.0.0.1:30000/v1")
        ((None, 'http://127.0.0.1:30000'), ('qwen', 'http://127.0.0.1:30000/v1'))
    """
    for scheme in ("@http://", "@https://"):
        name, found, rest = text.partition(scheme)
        if found and "://" not in name:
            return name or None, scheme[1:] + rest
    return None, text


def _listed(future: Future[GroundedCompletion]) -> Future[list[GroundedCompletion]]:
    """A future of a list of one; cancelling it cancels the other."""
    listed: Future[list[GroundedCompletion]] = Future()

    def pass_on(done: Future[GroundedCompletion]) -> None:
        if done.cancelled() or listed.cancelled():
            listed.cancel()
        elif (error := done.exception()) is not None:
            listed.set_exception(error)
        else:
            listed.set_result([done.result()])

    listed.add_done_callback(lambda given_up: future.cancel() if given_up.cancelled() else None)
    future.add_done_callback(pass_on)
    return listed


def names_of(models: Iterable[OpenModel]) -> list[str]:
    """The names of models, in their order."""
    return [model.name for model in models]
