"""What was measured: the engine, the versions of what decides its speed, and the hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from egm.environment import package_versions

if TYPE_CHECKING:
    from egm.grounder import Grounder


def describe(grounder: Grounder) -> dict[str, Any]:
    """Say what is measured; a server is asked for its name and version.

    Args:
        grounder: What `measure` gets.

    Returns:
        `engine`, `model`, `versions` by name (on a GPU, the driver's too), and `hardware`, None behind a server. A
        server that does not say what it is is "server".
    """
    info = grounder.backend.describe()
    versions = {} if info.release is None else {info.name: info.release}
    versions |= package_versions(*info.packages) | dict(info.versions)
    return {"engine": info.name, "model": grounder.backend.model, "versions": versions, "hardware": info.hardware}
