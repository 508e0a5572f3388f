"""What a run of rationales does at each step: which call comes next, what becomes of an answer, when to end.

What a try comes to depends on the journal alone, so that `take_up` is the same steps again without the calls. Tries are
decided on in the order of the journal; with one call at a time, that is the samples' order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from egm.backends.remote import outcome
from egm.codecs import Codec
from egm.datasets.check import is_outside
from egm.errors import BackendError, DataError, EgmError
from egm.evaluate.plan import PlannedSample
from egm.questions import ImageCache, load_question
from egm.rationales.blind import NAME, BlindCheck, why_not_found
from egm.rationales.candidate import Candidate
from egm.rationales.filters import Filter, keep, run_filters
from egm.rationales.filters.evaluation_picture import EvaluationPicture
from egm.rationales.ledger import Call, Decision, Ledger, Line
from egm.rationales.prices import Spending
from egm.rationales.tally import Tally
from egm.rationales.teachers import Asked, LoadedSample, Teacher, with_size
from egm.types import Completion, Sample

_Who: TypeAlias = Literal["teacher", "blind"]

_CACHED_PIXELS = 25_000_000


@dataclass(slots=True)
class _State:
    """A sample on its way."""

    number: int
    item: PlannedSample
    attempt: int = 0
    reply: Call | None = None
    blind: Call | None = None
    kept: Candidate | None = None
    settled: bool = False


@dataclass(slots=True)
class _Job:
    """A call under way."""

    state: _State
    sample: LoadedSample
    asked: Asked
    is_blind: bool
    cost: float = 0.0


class Runner:
    """What a run holds in memory: where each sample stands, and the calls under way.

    Args:
        planned: The samples, each by its number in the dataset.
        teacher: Who explains.
        blind: The blind check, if there is one.
        filters: Those of the run.
        style: Name of the style.
        tries: Most tries a sample.
        codec: The family that will be trained.
        spending: Budget and prices.
        concurrency: Most calls under way at once.
        go_on: Go on also where nearly all of the last answers were dropped.

    Attributes:
        tally: What became of samples so far.
        stopped: Why the run ended before its time, or None.
        is_early: Whether that was for a bad teacher.
    """

    def __init__(
        self,
        planned: Mapping[int, PlannedSample],
        teacher: Teacher,
        blind: BlindCheck | None,
        filters: Sequence[Filter],
        *,
        style: str,
        tries: int,
        codec: Codec,
        spending: Spending,
        concurrency: int,
        go_on: bool,
    ) -> None:
        self._states = [_State(number, item) for number, item in planned.items()]
        self._teacher, self._blind, self._filters = teacher, blind, filters
        self._pictures = [each for each in filters if isinstance(each, EvaluationPicture)]
        self._style, self._tries, self._codec, self._spending = style, tries, codec, spending
        self.tally = Tally(len(planned), spending)
        self._concurrency, self._go_on = concurrency, go_on
        self._cache = ImageCache()
        self.stopped: str | None = None
        self.is_early = False

    @property
    def kept(self) -> list[tuple[int, Candidate]]:
        """Numbers of the samples with a rationale, in their order, each with what was kept."""
        return [(state.number, state.kept) for state in self._states if state.kept is not None]

    # What the journal says

    def take_up(self, ledger: Ledger) -> None:
        """Go through what the journal holds, as if it happened again; the filters take notice of what was kept."""
        states = {state.item.sample.id: state for state in self._states}
        lines, ledger.lines = ledger.lines, []
        for line in lines:
            self._take_up(line, states, ledger.path)

    def _take_up(self, line: Line, states: Mapping[str, _State], path: Path) -> None:
        state = states.get(line.id)
        if state is None or state.settled or line.attempt != state.attempt:
            raise DataError(
                f"{str(path)!r}: sample {line.id!r} has a line that does not follow from those before it: restore the "
                "file, or start in another folder"
            )
        if isinstance(line, Decision):
            self._settle(state, line)
            return
        self._count(line)
        if line.error is None:
            if line.asked == "blind":
                state.blind = line
            else:
                state.reply = line

    def _count(self, call: Call) -> None:
        asked = self._teacher.name if call.asked == "teacher" or self._blind is None else self._blind.name
        self._spending.lose(asked, *call.lost)
        if call.error is None:
            self._spending.add(asked, *call.tokens, counted=call.counted)

    # What is to be done

    def run(self, ledger: Ledger) -> Iterator[None]:
        """Ask until every sample is settled, or the run has to end; yields after each decision."""
        waiting = deque(state for state in self._states if not state.settled)
        running: dict[Future[Completion], _Job] = {}
        try:
            while True:
                yield from self._start(waiting, running, ledger)
                if not running:
                    return
                ended = wait(running, return_when=FIRST_COMPLETED).done
                for future in [each for each in running if each in ended]:  # in the order that they were started
                    job = running.pop(future)
                    yield from self._end(job, outcome(future), waiting, ledger)
                    self._spending.release(job.cost)
        finally:
            for future in running:
                future.cancel()

    def _start(self, waiting: deque[_State], running: dict[Future[Completion], _Job], ledger: Ledger) -> Iterator[None]:
        """Start calls as long as there is room and budget; decide what needs no call."""
        while waiting and self.stopped is None and len(running) < self._concurrency:
            if (why := self.tally.bad_teacher()) is not None and not self._go_on:
                self.stopped, self.is_early = why, True
                return
            state = waiting.popleft()
            if state.reply is None and (why := self._evaluated(state)) is not None:
                against = {EvaluationPicture.name: why}
                self._decide(state, Decision(id=state.item.sample.id, attempt=0, against=against), waiting, ledger)
                yield
                continue
            if state.reply is not None and (decision := self._decided(state)) is not None:
                self._decide(state, decision, waiting, ledger)
                yield
                continue
            try:
                job = self._job(state)
            except EgmError as error:
                self._fail(state, "teacher", error, ledger)
                yield
                continue
            if not self._spending.reserve(job.cost):
                waiting.appendleft(state)
                if not running:
                    self.stopped = f"the budget of {self._spending.budget} does not cover another call"
                return
            running[job.asked.start(partial(self._may_try_again, job))] = job

    def _may_try_again(self, job: _Job, lost: tuple[int, int]) -> bool:
        """Whether the budget covers another try of a call, beside what the last one took for nothing."""
        asked = self._blind if job.is_blind and self._blind is not None else self._teacher
        if not self._spending.reserve(cost := self._spending.cost(asked.name, *lost)):
            return False
        job.cost += cost
        return True

    def _evaluated(self, state: _State) -> str | None:
        """Say that a sample's picture is evaluated on; then nothing is asked, whatever would be answered."""
        if not self._pictures:
            return None
        sample = state.item.sample
        sized = sample if sample.size is not None else replace(sample, size=(1, 1))
        about = Candidate(sized, "", self._style, codec=self._codec)
        return next(filter(None, (each.check(about) for each in self._pictures)), None)

    @property
    def notes(self) -> list[str]:
        """What the filters could not look for, and why."""
        unknown = [each.unknown for each in self._pictures]
        return [f"pictures of RefCOCO's evaluation splits were not looked for: {why}" for why in unknown if why]

    def _job(self, state: _State) -> _Job:
        sample = self._loaded(state)
        is_blind = state.reply is not None
        if state.reply is not None and self._blind is not None:
            asked, name = self._blind.ask(sample, self._candidate(state, sample.sample).text), self._blind.name
        else:
            asked, name = self._teacher.ask(sample, state.attempt), self._teacher.name
        return _Job(state, sample, asked, is_blind, self._spending.cost(name, *self._spending.most(name, asked.most)))

    def _loaded(self, state: _State) -> LoadedSample:
        item = state.item
        loaded = item.load() if self._looks(state) else item.sample
        if isinstance(loaded, EgmError):
            raise loaded
        if not self._looks(state):
            return _trainable(LoadedSample(with_size(loaded, None), item.seed_index))
        self._cache = self._cache.unless_over(_CACHED_PIXELS)
        question = load_question(item.seed_index, loaded, self._cache)
        sample = with_size(loaded, question.image)
        return _trainable(LoadedSample(sample, item.seed_index, question.image, question.source))

    def _looks(self, state: _State) -> bool:
        return self._teacher.looks or state.reply is not None

    # What came of it

    def _end(
        self, job: _Job, reply: Completion | BackendError, waiting: deque[_State], ledger: Ledger
    ) -> Iterator[None]:
        state: _State = job.state
        asked: _Who = "blind" if job.is_blind else "teacher"
        if isinstance(reply, BackendError):
            self._fail(state, asked, reply, ledger)
            yield
            return
        counted = reply.prompt_tokens is not None and reply.completion_tokens is not None
        name = self._blind.name if job.is_blind and self._blind is not None else self._teacher.name
        tokens = (reply.prompt_tokens or 0, reply.completion_tokens or 0)
        call = Call(
            id=state.item.sample.id,
            attempt=state.attempt,
            asked=asked,
            text=reply.text,
            finish_reason=reply.finish_reason,
            tokens=tokens if counted else self._spending.most(name, job.asked.most),
            counted=counted,
            lost=reply.lost_tokens,
            seconds=reply.seconds,
            colour=job.asked.colour,
            size=job.sample.size,
            **({} if job.is_blind else _about(state.item)),
        )
        ledger.append(call)
        self._count(call)
        if job.is_blind:
            state.blind = call
        else:
            state.reply = call
        decision = self._decided(state)
        if decision is None:
            waiting.appendleft(state)
            return
        self._decide(state, decision, waiting, ledger)
        yield

    def _decided(self, state: _State) -> Decision | None:
        """Decide on a try; None where the blind check has yet to be asked."""
        candidate = self._candidate(state)
        verdicts = run_filters(self._filters, candidate)
        against = {verdict.filter: verdict.why for verdict in verdicts if verdict.why is not None}
        box, overlap = None, None
        if not against and self._blind is not None:
            if state.blind is None:
                return None
            reply = _completion(state.blind)
            found, overlap = self._blind.read(LoadedSample(candidate.sample, 0), reply)
            box = None if found is None else found.corners
            if (why := why_not_found(found, overlap)) is not None:
                against[NAME] = why
        return Decision(id=state.item.sample.id, attempt=state.attempt, against=against, box=box, iou=overlap)

    def _decide(self, state: _State, decision: Decision, waiting: deque[_State], ledger: Ledger) -> None:
        ledger.append(decision)
        self._settle(state, decision)
        if not state.settled:
            waiting.appendleft(state)

    def _settle(self, state: _State, decision: Decision) -> None:
        if state.reply is None:
            self.tally.add_unasked(decision.against)
            state.settled = True
            return
        self.tally.add_try(decision.against, is_first=decision.attempt == 0)
        if not decision.against:
            state.kept = self._candidate(state)
            keep(self._filters, state.kept, ())
            self.tally.kept += 1
            state.settled = True
            return
        state.attempt += 1
        state.reply = state.blind = None
        if state.attempt >= self._tries:
            self.tally.dropped += 1
            state.settled = True

    def _fail(self, state: _State, asked: _Who, error: EgmError, ledger: Ledger) -> None:
        """Keep a call that failed; the sample is left to a resumed run."""
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        lost = error.lost_tokens if isinstance(error, BackendError) else (0, 0)
        call = Call(
            id=state.item.sample.id,
            attempt=state.attempt,
            asked=asked,
            error=said,
            lost=lost,
            **_about(state.item),
        )
        ledger.append(call)
        self._count(call)
        self.tally.add_failure(said)

    def _candidate(self, state: _State, sample: Sample | None = None) -> Candidate:
        assert state.reply is not None
        sample = state.item.sample if sample is None else sample
        if sample.size is None:
            sample = replace(sample, size=state.reply.size)
        reply = _completion(state.reply)
        text = self._teacher.rationale(reply)
        return Candidate(sample, text, self._style, state.attempt, reply, self._codec)


def _trainable(sample: LoadedSample) -> LoadedSample:
    """Refuse a sample that training would, before anybody is paid to explain it."""
    row = sample.sample
    assert row.box is not None
    if is_outside(row.box, sample.size, amodal=row.amodal):
        corners = ", ".join(f"{value:g}" for value in row.box)
        raise DataError(
            f"the true box {corners} passes the edge of its picture of {sample.size[0]} x {sample.size[1]}, which "
            "training refuses: mend or drop the row (egm data check lists all)"
        )
    return sample


def _about(item: PlannedSample) -> dict[str, Any]:
    assert item.sample.box is not None
    return {"image": item.image, "phrase": item.sample.phrase, "truth": item.sample.box.corners}


def _completion(call: Call) -> Completion:
    return Completion(call.text, call.finish_reason or "stop", *call.tokens, seconds=call.seconds)
