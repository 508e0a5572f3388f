"""A storm of faults: `egm eval --server` against a server that fails in every way that a test knows.

Each kind of fault meets 5 % of the requests, the rest is answered. Half of the faults pass at the second try, the
others last. In the end every request must be an answer or a counted, typed failure, and every box one that the server
said: prints a table, and ends with 1 if that does not hold. Stalls are left out, as each would wait for minutes.

Run with `uv run python benchmarks/fault_storm.py [--requests 2000] [--concurrency 32]`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from PIL import Image

from egm.cli import main as egm
from egm.journal import Record, read_journal

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.backends.faulty_server import FaultyServer, Play, fail, say

SIZE = 1000
SHARE = 0.05
FLOOD = "word " * 1_000_000


def event(value: Any) -> Play:
    return Play(raw=b"data: " + json.dumps(value).encode() + b"\n\ndata: [DONE]\n\n")


def whole(message: dict[str, Any], finish: str = "stop") -> Play:
    usage = {"prompt_tokens": 7, "completion_tokens": 30}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}
    return Play(raw=json.dumps(body).encode(), streams=False)


def faults(answer: str) -> dict[str, Play]:
    """Every kind; those that hold the answer in a form of their own count as answered."""
    return {
        "429": fail(429),
        "500": fail(500, "Traceback: [1, 2, 3, 4]"),
        "504 with a page": Play(status=504, raw=b"<html>gateway [1, 2, 3, 4]</html>"),
        "400": fail(400, "too long [1, 2, 3, 4]"),
        "redirect": Play(status=307, raw=b"", headers=(("Location", "http://127.0.0.1:9/v1/chat/completions"),)),
        "reset": Play(before="reset"),
        "reset in the stream": say(answer[:40], after="reset"),
        "closed in the stream": say(answer, after="close"),
        "no finish reason": say(answer, finish=None),
        "no JSON": Play(raw=b'data: {"choices": [\n\n'),
        "no UTF-8": Play(raw=b"data: \xff\xfe\n\n"),
        "a page": Play(raw=b"<html>[1, 2, 3, 4]</html>"),
        "an error in the stream": event({"error": {"message": "out of memory [1, 2, 3, 4]", "code": 500}}),
        "an error with status 200": Play(raw=b'{"error": {"message": "[1, 2, 3, 4]"}}', streams=False),
        "a tool call": whole({"content": None, "tool_calls": [{"function": {"arguments": "[1, 2, 3, 4]"}}]}),
        "a refusal": whole({"content": None, "refusal": "No [1, 2, 3, 4]."}),
        "a filter": whole({"content": ""}, "content_filter"),
        "nothing for its tokens": whole({"content": ""}),
        "a flood": say(*["</think> [1, 2, 3, 4]", FLOOD, FLOOD]),
    }


def parts(answer: str) -> Play:
    return whole({"content": [{"type": "text", "text": answer}]})


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return storm(Path(folder), options.requests, options.concurrency, random.Random(options.seed))


def storm(folder: Path, requests: int, concurrency: int, rng: random.Random) -> int:
    rows, script, expected = [], {}, {}
    Image.new("RGB", (SIZE, SIZE), "teal").save(folder / "teal.png")
    for number in range(requests):
        x, y = rng.randrange(900), rng.randrange(900)
        box, phrase = [x, y, x + 50, y + 60], f"thing number {number:06d}"
        answer = f'A thought.</think> [{{"bbox_2d": {box}, "label": "it"}}]'
        kinds = faults(answer)
        place = int(rng.random() / SHARE)
        kind = [*kinds][place] if place < len(kinds) else "none"
        lasts = kind != "none" and rng.random() < 0.5
        sound = parts(answer) if rng.random() < 0.3 else say(answer)
        script[phrase] = [sound] if kind == "none" else [kinds[kind], *([] if lasts else [sound])]
        expected[str(number)] = kind, lasts, box
        rows.append(
            {"id": str(number), "image": "teal.png", "sent": phrase, "bbox": box, "height": SIZE, "width": SIZE}
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with FaultyServer(script) as server:
        arguments = ["eval", folder / "rows.jsonl", "--images", folder, "--server", server.url + "/v1", "--out", folder]
        sys.argv = ["egm", *map(str, arguments), "--concurrency", str(concurrency), "--max-errors", "1"]
        try:
            egm()
        except SystemExit as end:
            print("exit code", end.code or 0, f"({server.busiest} at once)")
    return report({record.id: record for record in read_journal(folder)[1]}, expected)


def report(records: dict[str, Record], expected: dict[str, tuple[str, bool, list[int]]]) -> int:
    outcomes: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
    wrong = [f"{name}: no record" for name in expected.keys() - records.keys()]
    for name, record in records.items():
        kind, lasts, box = expected[name]
        error = (record.error or "").partition(":")[0]
        outcomes[kind, lasts][f"{record.failure or 'answer'}{f' ({error})' if error else ''}"] += 1
        if record.box is not None and [round(value) for value in record.box] != box:
            wrong.append(f"{name} ({kind}): box {record.box} was never answered")
        if record.box is None and record.failure is None:
            wrong.append(f"{name} ({kind}): neither a box nor a failure")
        if record.failure == "error" and not error.endswith("Error"):
            wrong.append(f"{name} ({kind}): an error without a type: {record.error}")
        if kind == "a refusal" and record.failure != "refused":
            wrong.append(f"{name}: a refusal, but {record.failure}")
        if kind == "none" and record.failure is not None:
            wrong.append(f"{name}: sound, but {record.failure} {record.error}")
    for (kind, lasts), counts in sorted(outcomes.items()):
        print(f"{kind:26}{'lasts' if lasts else 'passes':8}", ", ".join(f"{k} {n}" for k, n in sorted(counts.items())))
    print(f"{len(records)} of {len(expected)} requests recorded, {len(wrong)} of them wrong")
    print(*wrong[:20], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
