"""A password before the @ of a server's URL is printed nowhere and kept in no file, whatever becomes of a command."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from PIL import Image

from ..backends.faulty_server import FaultyServer, say
from ..doctor.replayed import Replayed
from ..doctor.served import served
from .conftest import Egm, Outcome

SECRET = "Xk9Qz"
"""It stands in no name, so that where it is found the password was printed."""
USERS = [
    *(f"user:{SECRET}", f"{SECRET}:", SECRET, f"user:{SECRET}%20", f"user:a@{SECRET}", f"user:{SECRET}@b"),
    *(f"user:12/{SECRET}", f"user:{SECRET}/12", f"user:{SECRET}?12", f"user:12?{SECRET}", f"user:12#{SECRET}"),
]
"""What may stand before the @, written as it should be or not."""
COMMANDS = {
    "doctor": "doctor --server URL",
    "doctor by a checkpoint": "doctor --server URL --reference egm-tiny --picture 224",
    "doctor in JSON": "doctor --json --server URL",
    "eval": "eval synthref/val --limit 1 --server URL --out run",
    "eval by two": "eval synthref/val --limit 1 --server http://127.0.0.1:9 --server URL --out run",
    "ground": "ground a.png cup --server URL",
    "bench": "bench latency --requests 1 --server URL",
    "calibrate": "calibrate synthref/train --limit 1 --server URL --out gate",
    "rationales": "rationales synthref/train --teacher egm-tiny --limit 1 --server URL --out made",
    "blind check": "rationales synthref/train --limit 1 --teacher synthref --blind-server URL --out made",
    "mcp": "mcp . --server URL",
    "web": "web --server URL --port 0",
    "web by name": "web --server egm@URL --port 0",
    "grpo": "grpo rl.yaml --set rollout.engine=vllm-server --set rollout.url=URL --out run",
    "verl": "verl rl.yaml --cluster URL --print",
    "verl's recipe": "verl rl.yaml --set rollout.url=URL --gpus 1 --print",
}


def hidden(outcome: Outcome, folder: Path) -> bool:
    """Whether neither the streams nor a file of a folder hold the password."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return SECRET not in outcome.out + outcome.err + outcome.next and SECRET.encode() not in b"".join(files)


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """A picture and a recipe for the commands that take one."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    recipe = {"model": {"name": "egm-tiny"}, "data": {"scenes": 2}, "optim": {"steps": 1, "prompts": 1}}
    (tmp_path / "rl.yaml").write_text(yaml.safe_dump(recipe))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("user", [USERS[0], USERS[6], USERS[8]])
def test_where_nothing_listens(egm: Egm, tmp_path: Path, command: str, user: str) -> None:
    outcome = egm(*command.replace("URL", f"http://{user}@127.0.0.1:9").split())
    assert hidden(outcome, tmp_path)
    if "--cluster" not in command:
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome


@pytest.mark.parametrize("user", USERS)
def test_before_a_server_that_answers(egm: Egm, tmp_path: Path, user: str) -> None:
    with served(Replayed()) as url:
        outcome = egm("doctor", "--server", url.replace("//", f"//{user}@"))
    assert (outcome.code, outcome.next) == (2, "")
    assert "holds a password" in outcome.err or "is no server's URL" in outcome.err
    assert hidden(outcome, tmp_path)


def test_a_key_is_sent_and_not_shown(egm: Egm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with served(Replayed()) as url:
        outcome = egm("doctor", "--server", url)
    assert (outcome.code, outcome.next) == (0, f"egm eval DATASET --server {url}")
    assert hidden(outcome, tmp_path)
    with FaultyServer({"": [say('</think> [{"bbox_2d": [0, 0, 500, 500]}]')]}) as server:
        asked = egm("eval", "synthref/val", "--limit", 1, "--server", server.url, "--out", "run")
    assert asked.code == 0, asked.err
    assert hidden(asked, tmp_path)
