"""Which processes of a server are busy, and whether the GPU is; `serving.py` tells it of 64 requests at once."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import time
from contextlib import suppress


class Busy:
    """How much of a core each process of a server takes meanwhile, and how much of the time the GPU has work."""

    def __init__(self, command: str) -> None:
        import psutil

        found = [process for process in psutil.process_iter(["cmdline"]) if command in (process.info["cmdline"] or [])]
        family = {child.pid: child for process in found for child in (process, *process.children(recursive=True))}
        self.processes = list(family.values())
        self.shares: dict[str, float] = {}
        self.gpu: list[int] = []

    async def watch(self) -> None:
        """Look every half a second, until it is cancelled."""
        before, begun = self._seconds(), time.perf_counter()
        while True:
            await asyncio.sleep(0.5)
            self.gpu.append(await asyncio.to_thread(_gpu_use))
            passed = time.perf_counter() - begun
            self.shares = {name: (spent - before.get(name, 0)) / passed for name, spent in self._seconds().items()}

    def _seconds(self) -> dict[str, float]:
        spent = {}
        for process in self.processes:
            with suppress(Exception):  # it may have ended
                times = process.cpu_times()
                spent[f"{process.name()} {process.pid}"] = times.user + times.system
        return spent

    def text(self) -> str:
        """The busiest processes, and the GPU."""
        busiest = sorted(self.shares.items(), key=lambda item: -item[1])[:4]
        shares = ", ".join(f"{name} {share:.2f}" for name, share in busiest if share >= 0.05)
        return f"cores: {shares}; GPU {statistics.mean(self.gpu or [0]):.0f} %"


def _gpu_use() -> int:
    """Per cent of the last moment in which the first visible GPU had a kernel."""
    number = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    asked = ["nvidia-smi", "-i", number, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return int(said) if said.isdigit() else 0
