"""The whole system on the emulator: its templates, its deployed resources, and traffic to its router."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import aws_cdk as cdk

from distilled_router.release.table import LIVE, Releases
from distilled_router.task.task import Task
from operate.route import Router
from stacks.application import declare
from stacks.identity import Identity
from stacks.settings import PROJECT, Settings
from tests.engine import layers
from tests.engine.engine import Engine, until
from tests.stacks.assembly import unhashed

STACKS = ("data", "distillation", "release", "router")
"""In order of dependency. Operations watches these, and owns nothing that costs."""

# The shortest waits that are allowed.
SHORT: Mapping[str, Mapping[str, Any]] = {
    "evaluation": {"slice_queries": 0, "compare_base": False},
    # Their hold-out sets have few rows, which can't show a smaller margin.
    "gate": {"non_inferiority_margin": 0.2},
    "rollout": {"steps": [0.5, 1.0], "dwell_seconds": 1},
    # Training a head takes longer than all else of a release; `test_heads` has one.
    "head": {"mode": "off"},
    "release": {"poll_seconds": 1, "wait_hours": 0},
}
# Seconds in which a query fails if its function was killed while or just before it ran.
KILL_SECONDS = 30.0
# An answer that takes so long shows that the machine stood still; usually it takes a few milliseconds.
LATE_SECONDS = 1.0
TASK = Task.load()


@dataclass(frozen=True)
class Variant:
    """One variant's assembly."""

    name: str
    assembly: Path
    owner: str
    digest: str
    throughput: str
    retries: int

    @cached_property
    def templates(self) -> Mapping[str, Mapping[str, Any]]:
        """Return templates by stack, in order of dependency."""
        return {
            stack: json.loads((self.assembly / f"{self.owner}-{stack}.template.json").read_text())
            for stack in STACKS
        }

    def logical_id(self, stack: str, name: str) -> str:
        """Return the logical id of a resource: its name and the CDK's hash."""
        resources: Mapping[str, Any] = self.templates[stack]["Resources"]
        return next(key for key in resources if unhashed(key) == name)


def changed(settings: Settings, *changes: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Return settings with other values, by section."""
    values = settings.model_dump()
    for source in changes:
        for section, fields in source.items():
            values[section] = {**values[section], **fields}
    return Settings.model_validate(values)


def variant(name: str, assembly: Path, settings: Settings) -> Variant:
    """Synthesize one variant and return it."""
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    app = cdk.App(context=context, outdir=str(assembly), analytics_reporting=False)
    declare(app, settings)
    app.synth()
    layers.empty(assembly)
    identity = Identity.of(settings)
    provisioned = settings.endpoint.kind == "provisioned"
    return Variant(
        name,
        assembly,
        settings.owner,
        identity.digest,
        identity.throughput_name if provisioned else "",
        settings.release.retry_internal_errors,
    )


def wait_until_live(engine: Engine, declared: Variant) -> None:
    """Wait until the release that a variant declares has ended; assert that it is live."""
    table = engine.resources(f"{declared.owner}-release")[declared.logical_id("release", "Releases")]
    releases = Releases(engine.table(table), declared.owner)
    until(
        lambda: (release := releases.get(declared.digest)) and release.is_final,
        lambda: releases.get(declared.digest),
    )
    release = releases.get(declared.digest)
    assert release is not None
    assert release.state == LIVE, release


@dataclass(frozen=True)
class System:
    """The deployed system; any of its variants gives the names of its resources."""

    engine: Engine
    variant: Variant

    def physical(self, stack: str, name: str) -> str:
        """Return the physical id of a resource by its name without the CDK's hash."""
        resources = self.engine.resources(f"{self.variant.owner}-{stack}")
        return {unhashed(key): physical_id for key, physical_id in resources.items()}[name]

    def table(self) -> Any:
        """Return the releases table as a DynamoDB resource."""
        return self.engine.table(self.physical("release", "Releases"))

    def releases(self) -> Releases:
        """Return the table of releases and route."""
        return Releases(self.table(), self.variant.owner)

    def router(self) -> Router:
        """Send queries to the router."""
        return self.engine.router(self.engine.outputs(f"{self.variant.owner}-router")["ApiId"])

    def sweep(self) -> Any:
        """Run the hourly sweep now; return its result."""
        name = self.physical("release", "ReleaseSweep")
        answer = self.engine.aws("lambda").invoke(FunctionName=name, Payload=b"{}")
        return json.loads(answer["Payload"].read())


@dataclass(frozen=True)
class Answer:
    """An answer to a query: its release, its source, when the query was sent (monotonic clock), and the
    seconds until it came."""

    asked_at: float
    source: str
    release: str | None
    seconds: float


class Traffic:
    """Sends different queries to the router, one after another, so that the cache answers none.

    `failures` lists queries without an answer, or whose answer is not weights. `killed_at` is when a function
    was killed: if it was the router's, its current query has no answer, and a client would send it again.
    """

    QUERIES = ("red car at night", "who says hello", "the song of the credits", "made in 1998")

    def __init__(self, router: Router, pause: float = 0.1) -> None:
        """Start."""
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self.killed_at = -KILL_SECONDS
        self._router, self._pause = router, pause
        self._began = time.time()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop after the current query."""
        self._over.set()
        self._thread.join(60)

    @property
    def prompt(self) -> list[Answer]:
        """Return the answers but those of the fallback to queries that took long.

        On a machine that stands still for a moment, a router may read the route too late, or a model may
        answer too late.
        """
        return [each for each in list(self.answers) if each.source != "base" or each.seconds < LATE_SECONDS]

    def since(self, moment: float) -> list[Answer]:
        """Return the answers to queries sent after a moment of the monotonic clock."""
        return [answer for answer in list(self.answers) if answer.asked_at > moment]

    def _run(self) -> None:
        number = 0
        while not self._over.is_set():
            query = f"{self.QUERIES[number % 4]} {self._began:.0f} {number}"
            failure = self._failure(query)
            if failure and time.monotonic() - self.killed_at < KILL_SECONDS:
                failure = self._failure(query)
            if failure:
                self.failures.append(failure)
            number += 1
            self._over.wait(self._pause)

    def _failure(self, query: str) -> str | None:
        asked_at = time.monotonic()
        try:
            answer = self._router.ask(query)
            weights = answer["weights"]
            if set(weights) != set(TASK.labels) or abs(sum(weights.values()) - 1) > 1e-6:
                raise ValueError(f"not weights: {weights}")
        except Exception as error:  # any error means a query without an answer
            return repr(error)
        seconds = time.monotonic() - asked_at
        self.answers.append(Answer(asked_at, str(answer["source"]), answer["release"], seconds))
        return None
