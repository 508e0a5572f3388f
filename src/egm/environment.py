"""What a figure was measured on, and with: the processor's name, the driver's version, and those of packages."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from egm._version import __version__

_CPU_INFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, AMD, and Windows under Linux


def gpu_name() -> str | None:
    """Return the name of the first visible GPU, None if there is none."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def cpu_name() -> str:
    """Return the CPU's name, or its architecture where the system does not tell, and its number of cores."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return f"CPU ({found[1].strip() if found else platform.machine()}, {os.cpu_count()} cores)"


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, None where the system does not tell."""
    try:
        found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", _DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None


def package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of EGM, Python and those of some packages that are installed, by name."""
    found = {"egm": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def sees_gpu() -> bool:
    """Whether there is a GPU for a process that is started here, as far as the system tells without loading torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return driver_version() is not None or any(Path(path).exists() for path in _GPU_DEVICES)
