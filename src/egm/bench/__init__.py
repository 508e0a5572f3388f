"""How fast a model answers: latency and throughput under closed and open loops of requests."""

from __future__ import annotations

from egm.bench.engine_info import describe
from egm.bench.floor import add_floors, copy_bandwidth
from egm.bench.loads import CONNECTIONS, arrivals, connect, connection, load, measure

__all__ = [
    "CONNECTIONS",
    "add_floors",
    "arrivals",
    "connect",
    "connection",
    "copy_bandwidth",
    "describe",
    "load",
    "measure",
]
