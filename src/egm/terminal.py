"""Text from data and models, made safe to print."""

from __future__ import annotations

import re
import shlex
import sys

_SECRET = re.compile(r"(\b[a-zA-Z][\w+.-]*://)(?:[^/\s:@]*:\S*|[^/\s]+)@")  # user and password; one may hold / and @
_JOINER = "\N{ZERO WIDTH JOINER}"  # of emoji, and of letters in scripts such as Persian


def printable(text: str) -> str:
    r"""Put text on one line that cannot steer a terminal: no escape sequences, no changes of direction.

    Example:
        >>> printable("a\n b \x1b[31m")
        'a b �[31m'
    """
    return spaced(" ".join(text.split()))


def spaced(text: object) -> str:
    r"""Make text printable that is a line already, such as a path or a table's row: its spaces stay as they are.

    Example:
        >>> spaced("a  b \x9b31m")
        'a  b �31m'
    """
    return "".join(char if char.isprintable() or char == _JOINER else "\N{REPLACEMENT CHARACTER}" for char in str(text))


def without_password(text: str) -> str:
    """Leave user and password out of URLs.

    Example:
        >>> without_password("--server http://me:secret@host:1/v1")
        '--server http://host:1/v1'
    """
    return _SECRET.sub(r"\1", text)


def shell_command(*words: object) -> str:
    """Write a command for a shell, each word quoted where that is needed, and without the password of a URL.

    Example:
        >>> shell_command("egm", "eval", "my rows.jsonl", "--server", "http://me:secret@host:1/v1")
        "egm eval 'my rows.jsonl' --server http://host:1/v1"
    """
    return shlex.join(without_password(str(word)) for word in words)


def command_line() -> tuple[str, ...]:
    """The command line of this process, without the password of a URL."""
    return tuple(map(without_password, sys.argv))
