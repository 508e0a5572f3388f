"""Processes that begin warm: forked from one that has imported what takes long, not started to import it again.

`Popen` stands in the place of `subprocess.Popen`. A command of this interpreter (`-m`, `-c` or a script) is sent to a
template process, which forks twice and lets the one between end, so that the kernel gives the child to whoever asked:
it is waited for, killed and counted like any child. It has an own template to start warm processes from, as it was
before it did anything. Whatever else is to be started is started as ever.

A fork differs from a fresh process in what is settled by imports, which is why some variables of the environment must
be the template's, and in the seed of `hash()`. Linux alone gives children away; elsewhere all is started as ever.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

ENVIRONMENT: Final = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
"""What a process must have in its environment to begin warm: no pool of threads may be there when a process forks."""
_READ_BY_IMPORTS: Final = (*ENVIRONMENT, "HF_HOME", "PYTHONPATH", "TORCH_LOGS")
_ABOVE: Final = 256  # file descriptors of a template, out of the way of those that are handed on under their numbers
_PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(frozen=True)
class Request:
    """What a child is to be; the files at its descriptors travel beside it."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str | None
    descriptors: list[int]
    session: bool
    unbuffered: bool


class Template:
    """A process to fork others from, which ends with this one.

    Args:
        modules: What it imports first; `module:name` takes a name that its module loads on first use.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = os.environ | ENVIRONMENT
        self.settled = {name: environment.get(name) for name in _READ_BY_IMPORTS}
        self._connection = ours
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether a process of this environment would have imported the same."""
        return all(environment.get(name) == value for name, value in self.settled.items())

    def start(self, request: Request, files: Sequence[int]) -> int:
        """Fork a child of the calling process; gives its number."""
        _adopt_orphans(True)
        try:
            socket.send_fds(self._connection, [json.dumps(asdict(request)).encode()], files)
            answer = self._connection.recv(64)
        except BaseException:
            self._connection.close()  # the next answer read there might be this one's
            raise
        finally:
            _adopt_orphans(False)
        if not answer:
            raise ChildProcessError("the template process has ended")
        child = int(answer)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # which fails if it was not given away
        return child

    def close(self) -> None:
        """End it; what was forked from it goes on."""
        # Closing alone would not be seen: a data loader's worker that is forked from here holds the connection too.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen`, but that what the interpreter is to run begins warm where it can."""

    template: ClassVar[Template | None] = None

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
        start_new_session, process_group,
    ):  # fmt: skip
        command = [] if isinstance(args, str | bytes) else [os.fsdecode(word) for word in args]
        unbuffered = command[1:2] == ["-u"]
        arguments = command[1 + unbuffered :]
        environment = dict(os.environ if env is None else env)
        plain = executable is None and preexec_fn is None and close_fds and not shell and process_group == -1
        known = arguments[:1] in (["-m"], ["-c"]) or (arguments and not arguments[0].startswith("-"))
        template = self.template
        if template is None or command[:1] != [sys.executable] or not (plain and known and template.suits(environment)):
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
                start_new_session, process_group,
            )  # fmt: skip
            return
        own = [default if given == -1 else given for default, given in enumerate((p2cread, c2pwrite, errwrite))]
        request = Request(
            arguments=arguments,
            environment=environment,
            folder=None if cwd is None else str(Path(os.fsdecode(cwd)).absolute()),
            descriptors=[0, 1, 2, *pass_fds],
            session=start_new_session,
            unbuffered=unbuffered or bool(environment.get("PYTHONUNBUFFERED")),
        )
        self.pid = template.start(request, [*own, *pass_fds])
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def supported() -> bool:
    """Whether children can be given away here."""
    return sys.platform == "linux" and _adopt_orphans(False)


def _adopt_orphans(adopt: bool) -> bool:
    """Let children that lose their parent, below this process, become this process's (or init's, as ever)."""
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0) == 0)


# ---- in the template


def serve(connection: socket.socket) -> tuple[Request, list[int]]:
    """Fork a child for each request; returns in the child alone, with its request and files."""
    while True:
        message, files, _, _ = socket.recv_fds(connection, 2**20, 64)
        if not message:
            os._exit(0)
        await_parent, has_parent = os.pipe()
        hear, tell = os.pipe()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child:
                os.write(tell, b"%d" % child)
                os._exit(0)
            for descriptor in (hear, tell, has_parent):
                os.close(descriptor)
            connection.close()
            os.read(await_parent, 1)
            os.close(await_parent)
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours, connection = (socket.socket(fileno=_above(end.detach())) for end in pair)
            if os.fork():
                connection.close()
                assert Popen.template is not None
                Popen.template._connection = ours
                return Request(**json.loads(message)), list(files)
            ours.close()  # and this is the child's own template
        else:
            os.waitpid(between, 0)  # from here on the child is theirs who asked
            connection.send(os.read(hear, 64))
            os.write(has_parent, b".")
            for descriptor in (hear, tell, await_parent, has_parent):
                os.close(descriptor)
        for descriptor in files:
            os.close(descriptor)


def _above(descriptor: int) -> int:
    import fcntl  # not everywhere, and this module is imported everywhere

    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    os.close(descriptor)
    return moved


def run(request: Request, files: list[int]) -> NoReturn:
    """Be the process that was asked for, to its end.

    The end is an interpreter's, but that what was imported is not taken apart piece by piece.
    """
    code = 0
    try:
        _become(request, files)
        _execute(*request.arguments)
    except SystemExit as end:
        if end.code is not None:
            code = end.code & 0xFF if isinstance(end.code, int) else 1
            if not isinstance(end.code, int):
                sys.stderr.write(f"{end.code}\n")
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def _become(request: Request, files: list[int]) -> None:
    if request.session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request.environment)
    if request.folder is not None:
        os.chdir(request.folder)
    held = [_above(file) for file in files]
    for file, descriptor in zip(held, request.descriptors, strict=True):
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdin = open(0, encoding=sys.stdin.encoding, closefd=False)  # noqa: SIM115
    sys.stdout = _writer(sys.stdout, 1, unbuffered=request.unbuffered)
    sys.stderr = _writer(sys.stderr, 2, unbuffered=request.unbuffered)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # `random` itself sees to it
    importlib.invalidate_caches()


def _execute(kind: str, *rest: str) -> None:
    if kind == "-m":
        sys.argv = [*rest]
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as the interpreter does
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = [kind, *rest]
        sys.path.insert(0, str(Path(kind).resolve().parent))
        runpy.run_path(kind, run_name="__main__")


def _writer(before: Any, descriptor: int, *, unbuffered: bool) -> io.TextIOWrapper:
    """A standard stream anew: the one before remembers whether what stood at its descriptor could be sought in."""
    binary = open(descriptor, "wb", buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    lines = not unbuffered and (descriptor == 2 or os.isatty(descriptor))
    return io.TextIOWrapper(binary, before.encoding, before.errors, line_buffering=lines, write_through=unbuffered)


def main() -> None:
    """Import, and wait for requests."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for those who ask; this ends with them
    connection = socket.socket(fileno=_above(int(sys.argv[1])))
    del sys.path[0]
    subprocess.Popen = Popen  # type: ignore[misc]
    for name in sys.argv[2:]:
        module, _, attribute = name.partition(":")
        found = importlib.import_module(module)
        if attribute:
            getattr(found, attribute)
    sys.stdout.flush()
    gc.collect()
    gc.freeze()  # a collection in a child would touch all of it, and each page touched is copied
    assert threading.active_count() == 1, threading.enumerate()
    template = Template.__new__(Template)
    template.settled = {name: os.environ.get(name) for name in _READ_BY_IMPORTS}
    Popen.template = template
    run(*serve(connection))


if __name__ == "__main__":
    main()
