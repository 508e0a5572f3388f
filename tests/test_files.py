from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from egm.files import lock, write_text

HOLDER = """
import sys
from egm.files import lock, write_text
with open(sys.argv[1], "a") as file:
    print(lock(file.fileno()), flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """Start a process that takes the lock, and holds it until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with holder(path) as process, path.open("a") as file:
        assert not lock(file.fileno())
        process.kill()
        process.wait()
        assert lock(file.fileno())
        assert lock(file.fileno())  # its own
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_lasts_while_a_child_has_the_file_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("a") as file:
        assert lock(file.fileno())
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(file.fileno(),)
        )
    with child, path.open("a") as file:
        assert not lock(file.fileno())
        child.kill()
        child.wait()
        assert lock(file.fileno())


def test_content_and_place_in_a_locked_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("kept\n")
    with path.open("a+") as file:
        file.seek(2)
        assert lock(file.fileno())
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 2
    assert path.read_text() == "kept\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    (tmp_path / f".summary.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_text(path, "{}")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
