"""The functions' entry points, each behind its caller in an account: the Provider framework, the release's
state machine, or a schedule. They use test doubles."""

from __future__ import annotations

import ast
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache, partial
from importlib import import_module
from itertools import cycle
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distilled_router.aws import custom_resource
from distilled_router.aws.errors import NotYetError, code, with_retries
from distilled_router.bedrock.naming import throughput_name
from distilled_router.bedrock.ownership import REQUEST_TAG
from distilled_router.cost.lines import Spec
from distilled_router.release.table import Releases
from labelling.batch import RUNNING as BATCH_RUNNING
from local.bedrock import BedrockStandIn
from stacks.settings import PROJECT
from tests.unit.framework import STACK, Framework
from tests.unit.release_world import OWNER, World

# Seconds between polls: the first as of the Provider's waiter, the others longer, 40 minutes in all.
POLLS = (5, 5, 5, 5, 20, 40, 80, 160, 320, 640, 1120)
# The state machine retries a failed step four times; EventBridge retries a rule's function twice.
MACHINE_TRIES, RULE_TRIES = 5, 3
# How often a stage may return `waiting`, and for how many seconds at least: a release may take days.
STAGE_POLLS, STAGE_POLL = 8, 1200

JUDGE = "us.amazon.nova-pro-v1:0"
GATE = {
    "minimum_valid_output": 0.5,
    "minimum_dominant_accuracy": 0.5,
    "maximum_mean_absolute_error": 0.5,
    "minimum_examples": 1,
}
COST = Spec(
    method="distillation",
    teacher=JUDGE,
    student="amazon.nova-micro-v1:0:128k",
    base_model="us.amazon.nova-micro-v1:0",
    max_response_length=1000,
    synthesis=True,
    job=f"{OWNER}-{'9' * 12}",
)
SETTINGS = {
    "POWERTOOLS_SERVICE_NAME": OWNER,
    "TABLE_NAME": "releases",
    "REQUESTS_TABLE": "requests",
    "STACK_ID": STACK,
    "LOGICAL_ID": "ReleaseResource1A2B3C4D",
    "ABSENCE_SECONDS": "0",
    "WAIT_SECONDS": "2400",
    "POLL_SECONDS": "300",
    "TIMEOUT_HOURS": "120",
    "STALL_HOURS": "48",
    "STOP_STALLED": "true",
    "RETRY_INTERNAL_ERRORS": "1",
    "TAGS": json.dumps({"team": "search"}),
    "KEEP_RELEASES": "0",
    "MARGIN_SECONDS": "300",
    "RETAIN_MODELS": "false",
    "RETAIN_THROUGHPUT": "false",
    "THROUGHPUT_NAME": throughput_name(OWNER, 1, None),
    "MODEL_UNITS": "1",
    "COMMITMENT": "none",
    "NEEDS": json.dumps({"method": "distillation"}),
    "NETWORK": "{}",
    "LABELLING_MACHINE_ARN": "",
    "BUCKET": "data",
    "BATCH_ROLE_ARN": "arn:aws:iam::000000000000:role/batch",
    "TRAINING_KEY": "training.jsonl",
    "HOLDOUT_KEY": "holdout.jsonl",
    "GATE": json.dumps({"minimum_judge_score": 2.0, **GATE}),
    "BASE_MODEL": "",
    "HOLDOUT_SHA256": "",
    "SLICE_QUERIES": "0",
    "MARGIN_ERROR": "0.02",
    "MARGIN_DOMINANT": "0.03",
    "OUTAGE_MINUTES": "60",
    "JUDGE": JUDGE,
    "JUDGE_ROLE_ARN": "arn:aws:iam::000000000000:role/judge",
    "JUDGE_HOURS": "24",
    "COST": json.dumps(asdict(COST)),
    "MAXIMUM_COST_USD": "100000",
    "MAXIMUM_COST_DAYS": "30",
}


@cache
def asks_bedrock(folder: str) -> bool:
    """Return whether a function's code creates a client of Bedrock's control plane with `aws.clients`."""
    return any(
        isinstance(node, ast.Call) and ast.unparse(node) == "client('bedrock')"
        for path in (PROJECT / "lambda" / folder).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def entries() -> set[str]:
    """Return the entry points, e.g. `candidate.deploy_candidate`, that call Bedrock's control plane or stand
    behind the Provider framework."""
    found = set[str]()
    for path in (PROJECT / "lambda").glob("*/handler.py"):
        names = {
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and [a.arg for a in node.args.args] == ["event", "context"]
        }
        if "on_event" in names or asks_bedrock(path.parent.name):
            found |= {f"{path.parent.name}.{name}" for name in names}
    return found


def folders() -> set[str]:
    """Return the folders of these entry points."""
    return {name.partition(".")[0] for name in entries()}


@dataclass
class Play:
    """Callers of the entry points, in one world. `entered` lists the entry points that were called."""

    world: World
    bedrock: Any
    entered: set[str] = field(default_factory=set)
    memory: dict[str, Any] = field(default_factory=dict)

    def call(self, name: str, event: Mapping[str, Any]) -> Any:
        """Call an entry point, e.g. `candidate.deploy_candidate`."""
        self.entered.add(name)
        folder, entry = name.split(".")
        return getattr(import_module(f"{folder}.handler"), entry)(dict(event), None)

    def resource(self, folder: str) -> Framework:
        """Return a custom resource behind the Provider framework."""
        polled, pauses = hasattr(import_module(f"{folder}.handler"), "is_complete"), cycle(POLLS)

        def tick() -> None:
            seconds = next(pauses)
            self.world.advance(seconds)
            self.world.requests.pass_time(seconds)

        return Framework(
            partial(self.call, f"{folder}.on_event"),
            partial(self.call, f"{folder}.is_complete") if polled else None,
            tick=tick,
            most_polls=len(POLLS),
        )

    def stage(self, name: str, digest: str, outcome: str = "done") -> bool:
        """Run a stage of a release once, as the state machine does."""
        return self.until(name, {"release": digest}, outcome)

    def until(self, name: str, event: Mapping[str, Any], outcome: str = "done") -> bool:
        """Run a stage as a state machine does; return whether it reached this outcome and no other."""
        for _ in range(STAGE_POLLS):
            result = self.call(name, event)
            if result["outcome"] != "waiting":
                assert result["outcome"] == outcome, f"{name}: {result}"
                return True
            self.world.advance(max(result["seconds"], STAGE_POLL))
        return False

    def task(self, name: str, event: Mapping[str, Any], tries: int = MACHINE_TRIES) -> bool:
        """Call a function again after each failure, up to a number of times; return whether it succeeded."""
        for _ in range(tries):
            try:
                self.call(name, event)
            except ClientError as error:
                if code(error) != "ThrottlingException":
                    raise
                self.world.advance(60)
            except NotYetError:
                self.world.advance(60)
            else:
                return True
        return False

    @staticmethod
    def _tags(item: Mapping[str, Any]) -> list[tuple[str, str]]:
        # A tag that holds the request id differs in each play.
        return sorted(tag for tag in item["tags"].items() if tag[0] != REQUEST_TAG)

    def picture(self) -> dict[str, list[Any]]:
        """Return what costs money, is routed to, or is tagged, without the ids that Bedrock generates."""
        state = self.world.server.state()
        names = {item["arn"]: item["name"] for item in state["models"]}
        jobs = [job for job in state["jobs"] if job["status"] in ("InProgress", "Stopping")]
        batches = [job["name"] for job in state["batch"] if job["status"] in BATCH_RUNNING]
        judged = [job["name"] for job in state["evaluations"] if job["status"] == "InProgress"]
        return {
            "batches": [len(batches)],
            "judged": judged,
            "running": sorted((job["name"], self._tags(job)) for job in jobs),
            "models": sorted((model["name"], self._tags(model)) for model in state["models"]),
            "endpoints": sorted(
                (item["name"], item["status"], names.get(item["model"]), self._tags(item))
                for item in (*state["deployments"], *state["throughput"])
            ),
        }

    def created(self) -> Counter[str]:
        """Return the number of successful calls of each create operation."""
        return Counter(
            call["operation"]
            for call in self.world.server.calls()
            if call["operation"].startswith("Create") and call["outcome"] in ("ok", "lost")
        )


@contextmanager
def entered(world: World, bedrock: Any) -> Iterator[Play]:
    """Make the entry points use the doubles, their clock and these settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        clients = {"bedrock": bedrock, "stepfunctions": world.stepfunctions, "s3": world.s3}
        patch.setattr(custom_resource, "table", lambda _: world.requests)
        # Repeated calls wait on the stand-in's clock.
        clock = {"sleep": world.advance, "now": world.server.clock.now}
        patch.setattr(with_retries, "__kwdefaults__", clock)
        for folder in folders():
            module = import_module(f"{folder}.handler")
            if hasattr(module, "client"):
                # Bedrock reads the files that these write or check.
                reads = folder in ("candidate", "labelling", "evaluation")
                own = {**clients, "s3": world.server.s3} if reads else clients
                patch.setattr(module, "client", own.__getitem__)
            if hasattr(module, "table"):
                patch.setattr(module, "table", lambda _: world.releases.table)
            for part, timed in _on_time(module, world):
                patch.setattr(module, part, timed)
        yield Play(world, bedrock)


def _on_time(module: ModuleType, world: World) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the module's functions and classes that take a clock, bound to the stand-in's."""
    for name, part in vars(module).items():
        if not callable(part) or isinstance(part, partial):
            continue
        try:
            now = inspect.signature(part).parameters.get("now")
        except ValueError:
            continue
        if now is not None and now.default is not inspect.Parameter.empty:
            yield name, _timed(part, now.default, world)


def _timed(part: Callable[..., Any], default: Any, world: World) -> Callable[..., Any]:
    if not callable(default):
        return lambda *given, **named: part(*given, now=world.now, **named)
    if isinstance(default(), datetime):
        return partial(part, now=lambda: datetime.fromtimestamp(world.now, default().tzinfo))
    return partial(part, now=world.server.clock.now)


def wiped(releases: Releases) -> Releases:
    """Return a releases table without items."""
    table = releases.table
    for item in table.scan(ConsistentRead=True)["Items"]:
        table.delete_item(Key={"id": item["id"]})
    return releases


def nothing(play: Play) -> None:
    """Change nothing in an empty account."""
    del play


@dataclass
class Theatre:
    """Supplies empty accounts, one after another. `plain` is a client that makes each call once."""

    server: BedrockStandIn
    plain: Any
    releases: Releases
    stepfunctions: Any
    s3: Any
    plays: int = 0

    @contextmanager
    def play(self, prepare: Callable[[Play], object] = nothing, bedrock: Any = None) -> Iterator[Play]:
        """Yield an account that the plain client prepared; the entry points then use the given one."""
        self.server.reset()
        self.plays += 1
        releases = Releases(wiped(self.releases).table, OWNER, now=self.server.clock.now)
        world = World(self.server, self.plain, self.stepfunctions, self.s3, releases, 1000 + self.plays)
        with entered(world, self.plain) as play:
            prepare(play)
            if bedrock is None:
                yield play
            else:
                with entered(world, bedrock) as throttled:
                    throttled.memory |= play.memory
                    yield throttled
