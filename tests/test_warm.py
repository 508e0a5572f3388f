"""What is forked from the template is as what is started afresh, but for what it has imported already."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import warm

pytestmark = pytest.mark.skipif(not warm.supported(), reason="children can be given away on Linux alone")
ENVIRONMENT = os.environ | warm.ENVIRONMENT | {"PYTHONUNBUFFERED": ""}
IMPORTED = "colorsys"  # something that nothing else imports


@pytest.fixture(scope="module", autouse=True)
def template() -> Iterator[warm.Template]:
    template = warm.Template([IMPORTED])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm.Popen, "template", template)
        yield template
    template.close()


def both(*arguments: Any, given: Path = Path(os.devnull), **options: Any) -> list[tuple[int, str, str]]:
    """Run a command of the interpreter warm and afresh: exit code, output, and the last line of what went wrong."""
    found = []
    options = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    for start in (warm.Popen, subprocess.Popen):
        with given.open() as file, start([sys.executable, *arguments], stdin=file, **options) as process:
            out, err = process.communicate(timeout=60)
        found.append((process.returncode, out, "".join(err.splitlines()[-1:])))
    return found


def run(code: str, **options: Any) -> str:
    options = {"env": ENVIRONMENT} | options
    with warm.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **options) as process:
        out: str = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    return out.strip()


@pytest.mark.parametrize(
    "code",
    [
        "print('said'); import sys; print('told', file=sys.stderr)",
        "import sys; sys.stdout.write('without an end'); sys.exit(3)",
        "import sys; sys.exit('a reason')",
        "import sys; sys.exit(256 + 7)",
        "raise ValueError('a mistake')",
        "import os, signal; print('never written'); os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; print('written', flush=True); os.kill(os.getpid(), signal.SIGTERM)",
        "import signal; print('written'); signal.raise_signal(signal.SIGINT)",
        "import atexit; atexit.register(print, 'at the end')",
        "import threading; threading.Timer(0.01, print, ['after the end']).start()",
        "import sys; print(sys.stdin.read()[::-1], __name__, sys.modules['__main__'].__dict__ is globals())",
        "import os, sys; print(sys.argv, sys.path[0], os.getcwd(), os.environ['WORD'], os.environ.get('GONE'))",
        "import os; print(os.getppid(), os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid())",
        "import os; print(len(os.listdir('/proc/self/task')), os.get_inheritable(1))",
        "import signal; print({n: signal.getsignal(n) for n in (1, 2, 13, 15, 17)}, signal.pthread_sigmask(0, []))",
        "import gc, sys; print(gc.isenabled(), [(s.line_buffering, s.errors) for s in (sys.stdout, sys.stderr)])",
        "import sys; sys.stdout.reconfigure(errors='backslashreplace'); print('\\udc80')",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=print, args=(1,)); p.start(); p.join()",
    ],
)
def test_a_program_does_and_ends_as_a_fresh_one(code: str, tmp_path: Path) -> None:
    given = tmp_path / "in"
    given.write_text("!dlrow")
    forked, fresh = both("-c", code, "a", "b", cwd=tmp_path, env=ENVIRONMENT | {"WORD": "é"}, given=given)
    assert forked == fresh


def test_sessions_and_output_that_waits_for_nothing_are_as_asked() -> None:
    code = "import os, sys; print(os.getsid(0) == os.getpid(), end=''); sys.stderr.write('told'); os._exit(1)"
    forked, fresh = both("-u", "-c", code, start_new_session=True)
    assert forked == fresh == (1, "True", "told")
    forked, fresh = both("-c", code, env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"})
    assert forked == fresh == (1, "False", "told")
    forked, fresh = both("-c", code)
    assert forked == fresh == (1, "", "")


def test_scripts_and_modules_are_run_as_by_the_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "a" / "script.py"
    script.parent.mkdir()
    script.write_text("import beside, os, sys\nprint(__name__, __file__, sys.argv, sys.path[0], beside.__name__)")
    (tmp_path / "a" / "beside.py").write_text("")
    forked, fresh = both(script, "x", "--y", cwd=tmp_path)
    assert forked == fresh
    assert forked[1].startswith("__main__ ")
    forked, fresh = both("-m", "a.script", "x", cwd=tmp_path)
    assert (forked[0], forked[2]) == (1, "ModuleNotFoundError: No module named 'beside'")
    assert forked == fresh
    forked, fresh = both("-m", "script", "x", cwd=tmp_path / "a")
    assert forked == fresh
    assert forked[0] == 0


def test_it_has_imported_and_another_environment_starts_afresh() -> None:
    code = f"import sys; print({IMPORTED!r} in sys.modules)"
    assert run(code) == "True"
    assert run(code, env=ENVIRONMENT | {"HF_HUB_OFFLINE": "0"}) == "False"
    assert run(code, env=ENVIRONMENT | {"PYTHONPATH": "elsewhere"}) == "False"


def test_it_is_a_child_of_the_process_that_asked_and_starts_children_of_its_own() -> None:
    inner = f"import os, sys; print(os.getppid(), {IMPORTED!r} in sys.modules)"
    code = f"""
import os, subprocess, sys
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()  # what is forked does not come from here
told = subprocess.run([sys.executable, "-c", {inner!r}], capture_output=True, text=True, check=True).stdout
print(os.getppid(), told.split() == [str(os.getpid()), "True"])
"""
    assert run(code) == f"{os.getpid()} True"


def test_files_are_handed_on_under_their_numbers_and_no_others() -> None:
    reads, writes = os.pipe()
    code = f"import os; os.write({writes}, b'told'); print({reads} in map(int, os.listdir('/proc/self/fd')))"
    assert run(code, pass_fds=[writes]) == "False"
    os.close(writes)
    assert os.read(reads, 9) == b"told"
    assert os.read(reads, 9) == b""  # no other process holds the end that was written to
    os.close(reads)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_is_killed_as_any(number: signal.Signals) -> None:
    code = "import signal, sys; print('here', flush=True); sys.stdin.read()"
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with warm.Popen([sys.executable, "-c", code], env=ENVIRONMENT, **pipes) as process:
        assert process.stdout.readline() == b"here\n"
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=60) == -number
        assert process.stdout.read() == b""


def test_templates_end_with_those_who_have_them(template: warm.Template) -> None:
    code = f"""
import os, runpy
made = runpy.run_path({warm.__file__!r})["Template"]()
print(made.process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        ends = [os.pidfd_open(int(process.stdout.readline()))]  # type: ignore[union-attr]
        process.wait()
    listing = "import os; print(*(p for p in os.listdir('/proc') if p.isdigit()))"
    own = "import os; print(open(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read(), flush=True); input()"
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with warm.Popen([sys.executable, "-c", own], env=ENVIRONMENT, **pipes) as process:
        number = int(process.stdout.readline())
        assert str(number) in run(listing).split()
        ends.append(os.pidfd_open(number))
        process.kill()
    for end in ends:
        assert select.select([end], [], [], 60)[0] == [end]
        os.close(end)
    assert template.process.poll() is None
