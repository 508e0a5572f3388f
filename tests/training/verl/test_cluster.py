"""What nodes answer, and clusters that are not there; a real one is asked in tests/integration."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from egm.errors import EgmError
from egm.training.verl.cluster import check_answer, connected, measure_cluster, refused, this_machine
from egm.training.verl.configure import Cluster

HERE = {"verl": "0.9.1", "python": "3.12.4"}
OTHER_RAY = """Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.12.4
This process on node 10.0.0.2 was started with:
    Ray: 2.50.0
    Python: 3.11.7
"""


class Nodes:
    """What Ray says of a cluster whose nodes have so many GPUs, some of which are held."""

    def __init__(self, *gpus: int, held: int = 0) -> None:
        self._gpus, self._held = gpus, held

    def nodes(self) -> list[dict[str, Any]]:
        lost = {"Alive": False, "Resources": {"GPU": 64.0}}
        return [{"Alive": True, "Resources": {"GPU": float(n)} if n else {}} for n in self._gpus] + [lost]

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 32.0, "GPU": float(sum(self._gpus) - self._held)}


def test_a_node_that_sees_all_and_has_the_same() -> None:
    check_answer("10.0.0.2", {"missing": [], "versions": HERE | {"more": "1"}}, HERE)


@pytest.mark.parametrize(
    ("missing", "versions", "says"),
    [
        (["/d/a.jpg", "/d/b.jpg"], HERE, "node 10.0.0.2 does not see 2 of the files .* such as '/d/a.jpg': put"),
        ([], HERE | {"verl": "0.9.2"}, "node 10.0.0.2 has verl 0.9.2, and this one 0.9.1"),
        ([], {"python": "3.12.4"}, "node 10.0.0.2 has verl not at all, and this one 0.9.1"),
    ],
)
def test_a_node_that_does_not_fit(missing: list[str], versions: dict[str, str], says: str) -> None:
    with pytest.raises(EgmError, match=says):
        check_answer("10.0.0.2", {"missing": missing, "versions": versions}, HERE)


def test_a_port_at_which_nothing_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with (
        pytest.raises(EgmError, match=rf"nothing answers at 127.0.0.1:{port} \(.*ray start --head --port {port}"),
        connected(f"127.0.0.1:{port}"),
    ):
        pass


@pytest.mark.parametrize("address", ["nowhere", "h:x", ":"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(EgmError, match="is neither auto, HOST:PORT nor http://HOST:PORT"), connected(address):
        pass


@pytest.mark.parametrize(
    ("nodes", "asked", "says"),
    [
        (Nodes(0, 0), {}, "has 2 nodes and no GPUs: start its nodes with ray start --num-gpus N, where the GPUs are"),
        (Nodes(8, 4), {"gpus": 8, "nodes": 2}, "has nodes with 8, 4 GPUs, not 2 nodes with 8: lower --nodes or --gpus"),
        (Nodes(8), {"nodes": 2}, "has nodes with 8 GPUs, not 2 nodes with 8: lower --nodes"),
        (
            Nodes(8, held=4),
            {},
            "of the 8 GPUs of the Ray cluster at h:1 4 are free, and 8 are needed: wait for the job",
        ),
    ],
)
def test_a_cluster_that_is_too_small(nodes: Nodes, asked: dict[str, int], says: str) -> None:
    with pytest.raises(EgmError, match=re.escape(says)):
        measure_cluster(nodes, "h:1", **{"gpus": None, "nodes": None} | asked)


def test_a_cluster_is_used_as_far_as_its_nodes_are_alike() -> None:
    assert measure_cluster(Nodes(8, 0, 4), "h:1", gpus=None, nodes=None) == Cluster(4, 2, 32)
    assert measure_cluster(Nodes(8, 0, 4), "h:1", gpus=8, nodes=1) == Cluster(8, 1, 32)


def test_a_machine_has_fewer_gpus() -> None:
    with pytest.raises(EgmError, match=r"GPUs are visible here and --gpus 4096 asks for more: run it where there are"):
        this_machine(4096)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            RuntimeError(OTHER_RAY),
            r"another version of Ray or of Python .*Ray: 2\.60\.0.* Ray: 2\.50\.0.*one environment",
        ),
        (RuntimeError("InvalidAuthToken"), "asks for a token: set RAY_AUTH_MODE=token"),
        (ConnectionError("Failed to\nconnect"), r"there is no Ray cluster at h:1 \(Failed to connect\): start one"),
    ],
)
def test_a_cluster_that_takes_no_connection_says_why(error: Exception, says: str) -> None:
    message = str(refused("h:1", error))
    assert re.search(says, message)
    assert "\n" not in message
