"""Answer the first batch of an execution environment: `python -m tests.unit.router.first_batch`.

It imports the function's handler, prints a line, waits for a line, asks a batch of 16 and then one query, and
prints what came of it as JSON. It runs as a process of its own, so that a test can limit its CPU time.
"""

from __future__ import annotations

import json
import sys
import time

QUERIES = 16


def main() -> None:
    """Answer once."""
    from router.handler import handler

    _write("ready")
    sys.stdin.readline()
    began, used = time.monotonic(), time.process_time()
    batch = handler({"queries": [f"dog barking {number}" for number in range(QUERIES)]}, None)["answers"]
    seconds, cpu = time.monotonic() - began, time.process_time() - used
    after = handler({"query": "engine roaring"}, None)
    found = {
        "seconds": seconds,
        "cpu": cpu,
        "answers": [(answer["source"], answer["reason"]) for answer in batch],
        "after": (after["source"], after["reason"]),
    }
    _write(json.dumps(found))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
