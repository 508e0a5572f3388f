"""`python -m egm.server MODEL`: serve a model. Nothing is printed on standard output; the log goes to the other."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from egm.errors import EgmError
from egm.terminal import printable


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m egm.server",
        description="Serve a model from this machine over the OpenAI protocol. For several, take an engine.",
        epilog="A key is read from EGM_SERVER_KEY, or from --key-file; without one only this machine may ask.",
    )
    parser.add_argument("model", metavar="MODEL", help="egm-tiny, a model folder, or a hub name")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, default=30000, help="port to listen at, 0 for any (%(default)s)")
    parser.add_argument(
        "--served-model-name", nargs="+", action="extend", metavar="NAME", help="names in requests (MODEL as given)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="most requests together (%(default)s)")
    parser.add_argument("--queue", type=int, default=64, metavar="N", help="most requests that wait (%(default)s)")
    parser.add_argument("--connections", type=int, default=256, metavar="N", help="most connections (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="most seconds of a request (%(default)g)"
    )
    parser.add_argument(
        "--grace", type=float, default=10.0, metavar="S", help="seconds to finish in when told to end (%(default)g)"
    )
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="file that holds the key")
    return parser.parse_args(arguments)


def main() -> None:
    """Serve; what a user can mend is one line on standard error and exit code 2."""
    options = parse()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("uvicorn", "httpx", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            _serve(options)
    except EgmError as error:
        print("error:", printable(str(error)), file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:  # before anything was served
        sys.exit(130)


def _serve(options: argparse.Namespace) -> None:
    from egm.server.limits import Limits
    from egm.server.run import read_key, serve

    times = {"request_seconds": options.timeout, "grace_seconds": options.grace}
    serve(
        options.model,
        host=options.host,
        port=options.port,
        names=options.served_model_name or (),
        device=options.device,
        dtype=options.dtype,
        batch_size=options.batch_size,
        limits=replace(Limits(queue=options.queue, connections=options.connections), **times),
        key=read_key(options.key_file),
    )


if __name__ == "__main__":
    main()
