"""The MCP server, asked by the SDK's own client: in this process, and over standard input and output."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from PIL import Image

from egm.backends import ScriptedBackend
from egm.backends.checkpoint import find_checkpoint
from egm.codecs import get_codec
from egm.datasets.synthetic.example import example_picture
from egm.doors.mcp import build_mcp_server
from egm.errors import EgmError
from egm.grounder import Grounder

SCRIPT = {
    "the cup": 'A cup.</think>[{"bbox_2d": [0, 0, 500, 500]}]',
    "cups": 'Two.</think>[{"bbox_2d": [0, 0, 500, 500]}, {"bbox_2d": [500, 500, 1000, 1000]}]',
    "a dog": "None here.</think>[]",
    "a riddle": "</think>A hard one.",
}
CUP = [0, 0, 32, 24]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for path in (folder / "a.png", folder / "deep" / "b.png", tmp_path / "secret.png"):
        Image.new("RGB", (64, 48)).save(path)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "words.png").write_text("not a picture")
    return folder


def served(pictures: Path, asking: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        with Grounder(ScriptedBackend(SCRIPT), get_codec("qwen3_vl")) as grounder:
            async with Client(build_mcp_server(grounder, pictures)) as client:
                return await asking(client)

    return asyncio.run(run())


def asked(pictures: Path, *calls: tuple[str, str, str]) -> list[Any]:
    async def ask(client: Client) -> list[Any]:
        return [await client.call_tool(tool, {"image": image, "phrase": phrase}) for tool, image, phrase in calls]

    found: list[Any] = served(pictures, ask)
    return found


def test_the_three_tools_say_what_they_take_and_give(pictures: Path) -> None:
    listed = served(pictures, lambda client: client.list_tools()).tools
    assert [tool.name for tool in listed] == ["ground", "count", "check"]
    for tool in listed:
        assert tool.input_schema["required"] == ["image", "phrase"]
        assert "failure" in tool.output_schema["properties"]
        assert tool.annotations.read_only_hint


def test_answers_are_boxes_in_pixels(pictures: Path) -> None:
    ground, deep, count, yes, no, none = (
        result.structured_content
        for result in asked(
            pictures,
            ("ground", "a.png", "the cup"),
            ("ground", "deep/b.png", "the cup"),
            ("count", "a.png", "cups"),
            ("check", "a.png", "the cup"),
            ("check", "a.png", "a dog"),
            ("count", "a.png", "a dog"),
        )
    )
    assert ground == deep == {"box": CUP, "failure": None, "size": [64, 48]}
    assert count == {"count": 2, "boxes": [CUP, [32, 24, 64, 48]], "failure": None, "size": [64, 48]}
    assert yes == {"present": True, "box": CUP, "failure": None, "size": [64, 48]}
    assert no == {"present": False, "box": None, "failure": None, "size": [64, 48]}
    assert none["count"] == 0


def test_a_failed_answer_is_neither_yes_nor_no_nor_a_number(pictures: Path) -> None:
    ground, count, check = asked(pictures, *((tool, "a.png", "a riddle") for tool in ("ground", "count", "check")))
    assert ground.structured_content["failure"] == "no_box"
    assert (count.structured_content["count"], count.structured_content["failure"]) == (None, "no_box")
    assert (check.structured_content["present"], check.structured_content["failure"]) == (None, "no_box")


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("../secret.png", "leads outside"),
        ("link.png", "leads outside"),
        ("/etc/passwd", "leads outside"),
        ("http://127.0.0.1/a.png", "is a URL, and nothing is fetched"),
        ("file:///etc/passwd", "is a URL, and nothing is fetched"),
        ("data:image/png;base64,AAAA", "is a URL, and nothing is fetched"),
        ("gone.png", "there is no file"),
        ("deep", "is a folder"),
        ("words.png", "words.png"),
        ("", "is a folder"),
    ],
)
def test_no_other_picture_is_opened(pictures: Path, image: str, said: str) -> None:
    for result in asked(pictures, *((tool, image, "the cup") for tool in ("ground", "count", "check"))):
        assert result.is_error
        assert said in result.content[0].text
        assert str(pictures.parent) not in result.content[0].text  # where it lies is nothing to the client


def test_phrases_are_checked_and_an_engines_error_is_told(pictures: Path) -> None:
    empty, long, unknown, fine = asked(
        pictures,
        ("ground", "a.png", "  "),
        ("ground", "a.png", "x" * 2000),
        ("ground", "a.png", "a cloud"),
        ("ground", "a.png", "the cup"),
    )
    assert "the phrase is empty" in empty.content[0].text
    assert "over the limit of 1,000" in long.content[0].text
    assert unknown.is_error
    assert "the model did not answer" in unknown.content[0].text
    assert not fine.is_error


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with Grounder(ScriptedBackend([]), get_codec("qwen3_vl")) as grounder, pytest.raises(EgmError, match="no folder"):
        build_mcp_server(grounder, tmp_path / "gone")


def test_the_command_serves_the_sdks_client_over_standard_streams(tmp_path: Path) -> None:
    (tmp_path / "shapes.png").write_bytes(example_picture().read_bytes())

    async def run() -> Any:
        bare = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "egm.cli", "mcp", str(tmp_path)], env=bare, cwd=tmp_path
        )
        async with Client(stdio_client(command)) as client:
            asked = {"image": "shapes.png", "phrase": "the cross farthest from the square"}
            return client.server_info, await client.call_tool("ground", asked)

    info, result = asyncio.run(run())
    assert info.name == "egm"
    assert result.structured_content["box"] == pytest.approx([195.072, 170.912, 218.88, 195.104])


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal")
def test_on_a_terminal_it_names_its_own_command_with_what_was_given(tmp_path: Path) -> None:
    import pty

    leader, terminal = pty.openpty()
    (tmp_path / "model").symlink_to(find_checkpoint("egm-tiny").path)
    command = [sys.executable, "-m", "egm.cli", "mcp", ".", "--sample", "--prompt", "qwen3", "--model", "./model"]
    with subprocess.Popen(command, stdin=terminal, stdout=-1, stderr=-1, text=True, cwd=tmp_path) as child:
        os.close(terminal)
        assert child.stderr is not None
        said = next(line for line in child.stderr if line.startswith("next:"))
        child.kill()
    os.close(leader)
    assert f"start this command: egm mcp {tmp_path} --model {tmp_path}/model --prompt qwen3 --sample; Ctrl-C" in said


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_does_not_wait_for_the_clients_next_line(tmp_path: Path) -> None:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    child = subprocess.Popen(
        [sys.executable, "-m", "egm.cli", "mcp", str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        child.stdin.write(json.dumps(asked).encode() + b"\n")
        child.stdin.flush()
        assert b'"id":1' in child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == -signal.SIGINT
