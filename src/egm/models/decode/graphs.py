"""CUDA graphs: a function recorded once on a GPU, then replayed without the host's part in it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol, TypeAlias

import torch

from egm.errors import first_line

_COUNTED: Final = 1024  # keys whose uses are counted; where there are more, counting begins anew
_TRIES: Final = 2  # runs before a recording, in which libraries allocate what they need

Tensors: TypeAlias = tuple[torch.Tensor, ...]


class Clock(Protocol):
    """What is told how long recording took, so that it counts as no part of an answer."""

    stood: float


@dataclass(frozen=True, slots=True)
class _Recording:
    graph: Any
    inputs: Tensors
    outputs: Tensors
    held: Any


class RecordedCalls:
    """Calls as CUDA graphs, one for each key; a key is recorded when it comes for the second time.

    Where as many are recorded as are kept, a key takes the place of the one used least when it has come more than twice
    as often: many keys in turn are not recorded over and over.

    What a call returns is overwritten by the next call, of whatever key: they share their memory.

    Args:
        device: Where the tensors are. Calls on a CPU are never recorded.
        most: How many recordings are kept; none are made with 0.
        what: What goes on without graphs where a recording fails, as the warning begins.

    Attributes:
        recorded: How many recordings were made.
        replayed: How many calls were replays.
        eager: How many calls ran as they were written.
    """

    def __init__(self, device: torch.device, most: int, what: str) -> None:
        self._device, self._what = device, what
        self._most = most if device.type == "cuda" else 0
        self._recordings: dict[Hashable, _Recording] = {}
        self._uses: dict[Hashable, int] = {}
        self._pool: Any = None
        self.recorded = self.replayed = self.eager = 0

    def __call__(
        self,
        key: Hashable,
        function: Callable[..., Tensors],
        inputs: Sequence[torch.Tensor],
        *,
        held: Callable[[], Any] = lambda: None,
        clock: Clock | None = None,
    ) -> Tensors:
        """Call a function.

        Args:
            key: What the recording depends on: shapes, and whatever else the function reads but its inputs.
            function: Takes the inputs, makes nobody wait for the device, and returns tensors.
            inputs: Tensors on the device.
            held: Returns what else the function reads on the device, to be kept with its recording.
            clock: What stands still while recording.
        """
        uses = self._count(key)
        recording = self._recordings.get(key)
        if recording is None and uses > 1 and self._has_room(uses):
            recording = self._record(key, function, inputs, held, clock)
        if recording is None:
            self.eager += 1
            return function(*inputs)
        for place, tensor in zip(recording.inputs, inputs, strict=True):
            place.copy_(tensor)
        recording.graph.replay()
        self.replayed += 1
        return recording.outputs

    def clear(self) -> None:
        """Give back the recordings and their memory; uses are counted on."""
        self._recordings.clear()
        self._pool = None

    def _count(self, key: Hashable) -> int:
        """Count a use of a key; return how often it has come."""
        if len(self._uses) >= _COUNTED and key not in self._uses:
            self._uses = dict.fromkeys(self._recordings, 1)
        uses = self._uses[key] = self._uses.get(key, 0) + 1
        return uses

    def _has_room(self, uses: int) -> bool:
        """Tell whether a key that came so often is recorded; the least used recording makes room where it must."""
        if len(self._recordings) < self._most:
            return True
        least = min(self._recordings, key=self._uses.__getitem__, default=None)
        if least is None or uses <= 2 * self._uses[least]:
            return False
        del self._recordings[least]
        return True

    def _record(
        self,
        key: Hashable,
        function: Callable[..., Tensors],
        inputs: Sequence[torch.Tensor],
        held: Callable[[], Any],
        clock: Any,
    ) -> _Recording | None:
        """Record a call; None, with a warning, and never again, if it cannot be done."""
        torch.cuda.synchronize(self._device)
        begun = time.perf_counter()
        places, kept = tuple(tensor.clone() for tensor in inputs), held()
        try:
            graph, outputs = capture_graph(lambda: function(*places), self._device, self._pool)
        except Exception as error:  # kernels that are compiled have many ways to fail
            self._most = 0
            self.clear()
            warnings.warn(f"{self._what} without CUDA graphs: {first_line(error)}", stacklevel=2)
            return None
        finally:
            torch.cuda.synchronize(self._device)
            if clock is not None:
                clock.stood += time.perf_counter() - begun
        self._pool = self._pool or graph.pool()
        self.recorded += 1
        self._recordings[key] = recording = _Recording(graph, places, outputs, kept)
        return recording


def capture_graph(
    function: Callable[[], Any], device: torch.device, pool: Any, between: Callable[[], None] = lambda: None
) -> tuple[Any, Any]:
    """Record a call, after trying it on a side stream, as torch's notes on CUDA graphs ask for.

    Args:
        function: What is recorded: nothing in it may make the host wait.
        device: The GPU.
        pool: Memory that it shares with other graphs, of which one runs at a time; None gives it its own.
        between: Called after each run, to put back what it changed.

    Returns:
        The graph, and what the recorded call returned: tensors that each replay writes anew.
    """
    stream = _side_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_TRIES):
            function()
            between()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        outputs = function()
    between()
    return graph, outputs


@cache
def _side_stream(device: torch.device) -> Any:
    """Return the one stream that calls are tried on: libraries keep memory for each that they have seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
