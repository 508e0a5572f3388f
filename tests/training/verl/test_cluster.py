"""What nodes answer, and clusters that are not there; a real one is asked in tests/integration."""

from __future__ import annotations

import socket

import pytest

from egm.errors import EgmError
from egm.training.verl.cluster import check_answer, connected

HERE = {"verl": "0.9.1", "python": "3.12.4"}


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
