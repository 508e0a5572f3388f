"""The machines of a run: what this one has, or a Ray cluster, each of whose nodes is asked what it sees."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egm.environment import package_versions
from egm.errors import EgmError
from egm.training.verl.configure import Cluster
from egm.training.verl.packages import NODE, module

_SECONDS = 5  # to connect to a cluster's head; Ray itself would try for minutes


def this_machine(gpus: int | None) -> Cluster:
    """Return this machine as a cluster of one node.

    Args:
        gpus: How many GPUs to use; all that are visible if not given.

    Raises:
        EgmError: If there are not so many, or none.
    """
    seen = module("torch").cuda.device_count()
    wanted = seen if gpus is None else gpus
    if not wanted or wanted > seen:
        asked = "" if gpus is None else f" and --gpus {gpus} asks for more"
        raise EgmError(
            f"{seen or 'no'} GPUs are visible here{asked}: run it where there are some, or name a Ray cluster with "
            "--cluster"
        )
    return Cluster(wanted, 1, _cpus())


def _cpus() -> int:
    count = getattr(module("ray._private.utils"), "get_num_cpus", os.cpu_count)
    return int(count() or 1)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a Ray cluster for as long as is looked at it.

    Args:
        address: `auto`, its head as HOST:PORT, or `local` for one that ends with the connection.

    Yields:
        The package `ray`.

    Raises:
        EgmError: If there is no cluster.
    """
    if address not in ("auto", "local"):
        _reach(address)
    ray = module("ray")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise refused(address, error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def refused(address: str, error: BaseException) -> EgmError:
    """Say why a cluster does not take a connection, and what to do.

    Args:
        address: Of the cluster.
        error: What Ray raised.
    """
    if _wants_token(error):
        return EgmError(
            f"the Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token, and put its token into "
            "~/.ray/auth_token or RAY_AUTH_TOKEN"
        )
    reason = " ".join(str(error).split())[:200]
    if "Version mismatch" in reason:
        return EgmError(
            f"the Ray cluster at {address} has another version of Ray or of Python than this process ({reason}): use "
            "one environment on all nodes"
        )
    return EgmError(f"there is no Ray cluster at {address} ({reason}): start one with ray start --head")


def _wants_token(error: BaseException | None) -> bool:
    """Whether a connection failed for want of the cluster's token, which Ray says in an error under the last one."""
    while error is not None:
        if type(error).__name__ == "AuthenticationError" or "InvalidAuthToken" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise EgmError(f"--cluster {address!r} is neither auto, HOST:PORT nor http://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), _SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EgmError(
            f"nothing answers at {address} ({error}): start a Ray cluster there with ray start --head --port {port}, "
            "or give another --cluster"
        ) from error


def measure_cluster(ray: Any, address: str, *, gpus: int | None, nodes: int | None) -> Cluster:
    """Return what of a cluster a run may use.

    Args:
        ray: The package, connected.
        address: Of the cluster, for messages.
        gpus: GPUs of each node; by default as many as each of them has.
        nodes: How many nodes; by default all that have GPUs.

    Raises:
        EgmError: If it has no GPUs, fewer than are asked for, or another job holds them.
    """
    found = sorted((int(n["Resources"].get("GPU", 0)) for n in ray.nodes() if n["Alive"]), reverse=True)
    with_gpus = [count for count in found if count]
    if not with_gpus:
        raise EgmError(
            f"the Ray cluster at {address} has {len(found)} nodes and no GPUs: start its nodes with ray start "
            "--num-gpus N, where the GPUs are"
        )
    count = len(with_gpus) if nodes is None else nodes
    each = min(with_gpus[:count]) if gpus is None else gpus
    if sum(have >= each for have in with_gpus) < count:
        raise EgmError(
            f"the Ray cluster at {address} has nodes with {', '.join(map(str, with_gpus))} GPUs, not {count} nodes "
            f"with {each}: lower --nodes or --gpus"
        )
    free = ray.available_resources()
    if free.get("GPU", 0) < count * each:
        raise EgmError(
            f"of the {sum(with_gpus)} GPUs of the Ray cluster at {address} {int(free.get('GPU', 0))} are free, and "
            f"{count * each} are needed: wait for the job that holds them, or lower --nodes or --gpus"
        )
    return Cluster(each, count, int(free.get("CPU", 0)))


def check_nodes(ray: Any, files: Sequence[Path]) -> None:
    """Ask every node which versions it has, and whether it sees the files of the run.

    Args:
        ray: The package, connected.
        files: Files that workers open.

    Raises:
        EgmError: If a node lacks a file, or has a package of another version than this one.
    """
    here = {name: found for name, found in package_versions(*NODE).items() if name != "egm"}
    names, probe = [str(path) for path in files], _probe()
    strategy = module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    alive = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        ray.remote(num_cpus=0)(probe)
        .options(scheduling_strategy=strategy(node_id=node["NodeID"], soft=False))
        .remote(names, list(NODE))
        for node in alive
    ]
    for node, answer in zip(alive, ray.get(asked), strict=True):
        check_answer(str(node["NodeManagerAddress"]), answer, here)


def check_answer(node: str, answer: Mapping[str, Any], here: Mapping[str, str]) -> None:
    """Hold what a node answered against this one.

    Args:
        node: Its address.
        answer: `missing`, files that it does not see; `versions`, of packages by distribution, and of `python`.
        here: Versions here.

    Raises:
        EgmError: If a file is missing there, or a version differs.
    """
    if missing := answer["missing"]:
        raise EgmError(
            f"node {node} does not see {len(missing)} of the files that its workers open, such as {missing[0]!r}: put "
            "run folder, model and pictures on a file system that all nodes share, or leave --absolute out, which puts "
            "the pictures into the data"
        )
    for name, version in here.items():
        if (there := answer["versions"].get(name)) != version:
            raise EgmError(
                f"node {node} has {name} {there or 'not at all'}, and this one {version}: use one environment on all "
                "nodes"
            )


def _probe() -> Callable[[list[str], list[str]], dict[str, Any]]:
    """Make what runs on a node, which need not have this package: a function within one travels by value."""

    def probe(files: list[str], packages: list[str]) -> dict[str, Any]:
        import platform
        from importlib import metadata
        from pathlib import Path

        versions = {"python": platform.python_version()}
        for name in packages:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return {"missing": [name for name in files if not Path(name).exists()], "versions": versions}

    return probe
