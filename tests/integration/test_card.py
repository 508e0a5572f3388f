"""The lines of a model card behind each server that can be had, and the clients that ask it."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import pytest

from egm.codecs import get_codec
from egm.environment import sees_gpu
from egm.images import load_image
from egm.publish.export import export_model
from egm.publish.usage import EXAMPLE, PHRASE, PORT
from egm.serve.ready import free_port, is_healthy

pytestmark = pytest.mark.integration

SERVERS = {
    "egm": "egm serve",
    "transformers": "transformers serve",
    "vllm": "vllm serve",
    "sglang": "sglang.launch_server",
}
RIGHT = (195.1, 170.9, 218.9, 195.1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(Path("egm-tiny"), tmp_path_factory.mktemp("models") / "out", dtype="float32")


def block(folder: Path, language: str, words: str, port: int) -> str:
    """The block of the card in a language that holds some words, for another port; a shell's without its prompt."""
    found = re.findall(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    (one,) = (each for each in found if words in each)
    return re.sub(r"^\$ ", "", str(one)).replace(str(PORT), str(port))


@contextmanager
def served(command: str, folder: Path, port: int) -> Iterator[None]:
    program, *words = shlex.split(command)
    beside = Path(sysconfig.get_path("scripts")) / program
    start = {"egm": [sys.executable, "-m", "egm.cli"], "python": [sys.executable]}.get(program, [str(beside)])
    log = folder.parent / "server.log"
    with log.open("w") as file, subprocess.Popen([*start, *words], cwd=folder, stdout=file, stderr=file) as process:
        try:
            while not is_healthy(f"http://127.0.0.1:{port}"):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize("engine", SERVERS)
def test_the_lines_of_the_card_run(exported: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    if engine in ("vllm", "sglang"):
        if importlib.util.find_spec(engine) is None:
            pytest.skip(f"{engine} is not installed beside EGM")
        if not sees_gpu():
            pytest.skip(f"{engine} needs a GPU")
    port = free_port()
    monkeypatch.chdir(exported)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with served(block(exported, "console", SERVERS[engine], port), exported, port):
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(block(exported, "python", "from openai", port), "README.md", "exec"), {})
        read = get_codec("qwen3_vl").parse(out.getvalue(), size=load_image(EXAMPLE).size, phrase=PHRASE)
        assert read.box is not None, out.getvalue()
        assert tuple(read.box) == pytest.approx(RIGHT, abs=2)
        words = shlex.split(block(exported, "console", "egm ground", port))[1:]
        asked = [sys.executable, "-m", "egm.cli", *words]
        ended = subprocess.run(asked, capture_output=True, text=True, check=False, env=dict(os.environ))
        assert ended.returncode == 0, ended.stderr
        numbers = re.search(r"box ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+)", ended.stdout)
        assert numbers is not None, ended.stdout
        assert tuple(map(float, numbers.groups())) == pytest.approx(RIGHT, abs=2)
