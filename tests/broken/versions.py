"""Handlers that are broken on purpose, in ways that cost money.

Each version changes one file of `lambda/`. Its replacement of an entry point calls the original, so that a
version fits whatever the original does inside.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """One broken version: what is wrong with it, and how it is made."""

    name: str
    file: str
    change: Callable[[str], str]


def random_token(source: str) -> str:
    """Break the file so that each client request token is new: a repeated call is paid twice."""
    tree = ast.parse(source)
    chance = ast.parse("__import__('uuid').uuid4().hex", mode="eval").body
    changed = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for place, key in enumerate(node.keys):
                if isinstance(key, ast.Constant) and key.value == "clientRequestToken":
                    node.values[place] = chance
                    changed += 1
        elif isinstance(node, ast.keyword) and node.arg == "clientRequestToken":
            node.value = chance
            changed += 1
    if not changed:
        raise ValueError("No client request token is to be found; look where it is made now.")
    return ast.unparse(tree)


def followed_by(code: str) -> Callable[[str], str]:
    """Return the file with more definitions at its end, which replace earlier ones."""

    def change(source: str) -> str:
        for name in ("handle", "check"):
            if not any(isinstance(n, ast.FunctionDef) and n.name == name for n in ast.parse(source).body):
                raise ValueError(f"There is no function {name} to replace; look what it is called now.")
        return f"{source}\n\n{code}"

    return change


# The job has our physical id only once isComplete has created it, and the framework's before.
JOB_KNOWN_LATE = """
_named, _made = handle, check


def handle(event, now=time.time):
    answered = _named(event, now)
    if not event.is_delete:
        answered["Name"] = answered.pop("PhysicalResourceId")
    return answered


def check(event, bedrock, s3, now=time.time):
    if event.is_delete:
        return _made(event, bedrock, s3, now)
    name = event.raw["Name"]
    made = _made(Event.parse({**event.raw, "PhysicalResourceId": name}), bedrock, s3, now)
    return {**made, "PhysicalResourceId": name} if made["IsComplete"] else made
"""

# onEvent waits, as may seem natural, and responds once everything is ready.
THROUGHPUT_KNOWN_LATE = """
_named, _bought = handle, check


def handle(event, bedrock, now=_utc_now):
    answered = _named(event, bedrock, now)
    if event.is_delete:
        return answered
    for _ in range(3):
        bought = _bought(Event.parse({**event.raw, **answered}), bedrock, now)
        if bought["IsComplete"]:
            return {**answered, "Data": bought.get("Data", {})}
    raise ResourceError("The throughput was not in service in time.")


def check(event, bedrock, now=_utc_now):
    return _bought(event, bedrock, now) if event.is_delete else complete()
"""

DELETE_AT_ONCE = """
_asked = check


def check(event, *others, **named):
    return complete() if event.is_delete else _asked(event, *others, **named)
"""

JOB, THROUGHPUT = "distillation_job/handler.py", "provisioned_throughput/handler.py"

VERSIONS = (
    Version("random idempotency token: job", "distilled_router/bedrock/jobs.py", random_token),
    Version("random idempotency token: throughput", "distilled_router/bedrock/purchase.py", random_token),
    Version("physical id only after the wait: job", JOB, followed_by(JOB_KNOWN_LATE)),
    Version("physical id only after the wait: throughput", THROUGHPUT, followed_by(THROUGHPUT_KNOWN_LATE)),
    Version("Delete that does not wait: job", JOB, followed_by(DELETE_AT_ONCE)),
    Version("Delete that does not wait: throughput", THROUGHPUT, followed_by(DELETE_AT_ONCE)),
)
