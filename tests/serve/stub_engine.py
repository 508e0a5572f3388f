"""Stands in for SGLang and vLLM, which take a GPU: a server that answers as they do, and dies in the ways they die.

It is copied into packages of their names (`install`), takes their options as they come, and does what STUB says.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import subprocess
import sys
from pathlib import Path

ANSWER = 'thought</think>\n```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "it"}]\n```'
DEATHS = {
    "memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.2 GiB free.",
    "missing": "ModuleNotFoundError: No module named 'flash_attn'",
    "unknown": "ValueError: Model architectures ['OddForCausalLM'] are not supported for now.",
    "plain": "RuntimeError: something that nobody has seen before",
}
ORPHAN = "import os, subprocess, sys; print(os.getpid(), flush=True); subprocess.Popen([sys.executable, *sys.argv[1:]])"
DEAF = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
while True:
    signal.pause()
"""


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    options, _ = parser.parse_known_args()
    mode, folder = os.environ.get("STUB", ""), Path(os.environ["STUB_FOLDER"])
    keys = ("SGLANG_VIT_ENABLE_CUDA_GRAPH", "SGLANG_VLM_CACHE_SIZE_MB", "EGM_SERVER_KEY", "VLLM_API_KEY")
    seen = {"arguments": sys.argv[1:], "environment": {key: os.environ[key] for key in keys if key in os.environ}}
    if "--config" in sys.argv:
        file = Path(sys.argv[sys.argv.index("--config") + 1])
        seen["config"], seen["mode"] = file.read_text(), oct(file.parent.stat().st_mode & 0o777)
    (folder / "seen.json").write_text(json.dumps(seen))
    with (folder / "started").open("a") as file:
        file.write(".")
    if mode in DEATHS:
        sys.stdout.write(f"INFO loading\n{DEATHS[mode]}\nINFO bye\n")
        sys.exit(1)
    if mode == "family":  # a child, and a grandchild of a parent that is gone, both deaf, the latter in another session
        deaf = ["-c", DEAF, str(folder / "pids")]
        subprocess.Popen([sys.executable, *deaf])
        subprocess.run([sys.executable, "-c", ORPHAN, *deaf], start_new_session=True, check=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                self.reply(503 if mode == "never" else 200, {})
            elif self.path == "/v1/models":
                self.reply(200, {"data": [{"id": options.served_model_name, "object": "model", "owned_by": "stub"}]})
            else:
                self.reply(200 if self.path == "/version" else 404, {"version": "9.9"})
                if mode == "dies afterwards":  # this is asked last
                    os._exit(4)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with (folder / "asked").open("a") as file:
                file.write(".")
            with (folder / "stops").open("a") as file:
                file.write(json.dumps(asked.get("stop")) + "\n")
            # Several threads may have counted before this one looks: the number may have been passed.
            most = int(mode.rpartition(" ")[2]) if mode.startswith("dies after ") else None
            if mode == "dies when asked" or (most is not None and (folder / "asked").stat().st_size >= most):
                sys.stdout.write("FATAL: the scheduler hit an exception\n")
                sys.stdout.flush()
                os._exit(3)
            text = "" if mode == "silent" else ANSWER
            choice = {"index": 0, "finish_reason": "stop"}
            for stop in asked.get("stop", ()):  # SGLang calls it so, and leaves it out of the text
                text, choice["matched_stop"] = text.partition(stop)[0], stop
            choice["message"] = {"role": "assistant", "content": text}
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            self.reply(200, {"id": "1", "model": asked["model"], "choices": [choice], "usage": usage})

        def reply(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    http.server.ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
