"""Schedules: operations on the system and the faults during them, all derived from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from local.bedrock.faults import ROLE_TEXTS
from tests.faults.variants import NAMES

READS = (
    "GetModelCustomizationJob",
    "GetFoundationModel",
    "GetCustomModel",
    "GetCustomModelDeployment",
    "GetProvisionedModelThroughput",
    "ListTagsForResource",
    "ListCustomModels",
    "ListCustomModelDeployments",
    "ListProvisionedModelThroughputs",
)
WRITES = (
    "CreateModelCustomizationJob",
    "StopModelCustomizationJob",
    "CreateCustomModelDeployment",
    "DeleteCustomModelDeployment",
    "CreateProvisionedModelThroughput",
    "UpdateProvisionedModelThroughput",
    "DeleteProvisionedModelThroughput",
    "DeleteCustomModel",
)
CREATES = tuple(name for name in WRITES if name.startswith("Create"))
PASSING = ("throttled", "failed", "unavailable")
ENDINGS = (
    "job_failed",
    "job_stopped",
    "job_stalled",
    "deployment_failed",
    "throughput_failed",
    "throughput_update_failed",
)
INTERNAL = "Encountered an internal error when processing the request."

DEPLOY, DESTROY, LET_GO = "deploy", "destroy", "let go"
MEDDLING = (
    "stop the execution",
    "stop the job",
    "delete the deployment",
    "break the route",
    "kill a function",
)

RESOURCES = (
    "Custom::BedrockDataset",
    "Custom::BedrockDistillationJob",
    "Custom::BedrockDistillationJob",
    "Custom::BedrockRelease",
    "Custom::BedrockRelease",
)
TOUR = 0
# A model that was replaced is deleted, so none is declared again later. The throughput moves from the first
# model to the second one, and is destroyed in use.
TOUR_VARIANTS = (
    *("retrying", "first", "moved-job", "moved-dataset", "refused", "throughput", "moved-release"),
    *("moved-throughput", "second", "broken-release", "broken-job", "more-units", "with-head"),
)
# Shorter than `absence_seconds` in environments/local.toml.
LONGEST_LAG = 0.8
LAGS = ("get_seconds", "list_seconds", "tags_seconds", "status_seconds", "misses")

Fault = Mapping[str, Any]


@dataclass(frozen=True)
class Early:
    """A stack that is deleted some seconds after its creation began, if the step creates it."""

    stack: str
    after: float


@dataclass(frozen=True)
class Step:
    """One operation on the stacks, the faults ordered before it, and the seconds after it.

    `pause` is None if the step waits for the release. `meddling` happens in the middle of the pause.
    `cancellation` orders CloudFormation to stop waiting for a resource; `lag` is that of Bedrock's reads.
    """

    action: str
    variant: str
    faults: tuple[Fault, ...] = ()
    deliveries: int = 1
    pause: float | None = None
    meddling: str | None = None
    cancellation: Mapping[str, Any] | None = None
    early: Early | None = None
    lag: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        then = "until the release ends" if self.pause is None else f"for {self.pause:.1f} s"
        meddled = f", intervention: {self.meddling}" if self.meddling else ""
        return f"{self.action} {self.variant} ({self._conditions()}), then {then}{meddled}"

    def _conditions(self) -> str:
        shown = [_shown(fault) for fault in self.faults]
        if self.deliveries > 1:
            shown.append("events twice")
        if order := self.cancellation:
            shown.append(f"{order['resource_type']} {order['how']} after {order['after']:.1f} s")
        if self.early:
            shown.append(f"{self.early.stack} deleted {self.early.after:.1f} s after its creation began")
        shown += [f"{name} lag {value:.1f}" for name, value in self.lag.items()]
        return ", ".join(shown) or "no faults"


@dataclass(frozen=True)
class Schedule:
    """Steps that begin with a deployment; the run destroys everything after the last one."""

    seed: int
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        """Return the schedule of a seed; that of `TOUR` deploys every variant without faults."""
        if seed == TOUR:
            tour = [Step(DEPLOY, name) for name in TOUR_VARIANTS]
            # Deployed again, the first one finds its job and no record of what was committed.
            return cls(seed, (*tour, Step(DESTROY, TOUR_VARIANTS[-1]), Step(DEPLOY, "first")))
        random = Random(seed)
        steps = [_step(random, DEPLOY)]
        for _ in range(random.randint(1, 4)):
            steps.append(_step(random, random.choices((DEPLOY, DESTROY), (5, 1))[0]))
        if random.random() < 0.5:
            # Destroyed while the last step's work is in progress.
            steps[-1] = replace(steps[-1], pause=random.uniform(0, 3))
        return cls(seed, tuple(steps))


def _step(random: Random, action: str) -> Step:
    faults = tuple(_fault(random) for _ in range(random.choice((0, 1, 1, 2, 3))))
    pause = None if random.random() < 0.4 else random.uniform(0, 4)
    return Step(
        action=action,
        variant=random.choice(NAMES),
        faults=faults,
        deliveries=random.choice((1, 1, 2)),
        pause=pause,
        meddling=random.choice(MEDDLING) if random.random() < 0.3 else None,
        cancellation=_cancellation(random) if random.random() < 0.35 else None,
        early=_early(random) if random.random() < 0.2 else None,
        lag=_lag(random) if random.random() < 0.3 else {},
    )


def _cancellation(random: Random) -> Mapping[str, Any]:
    """Return an order to stop waiting for a resource; its response is lost if it is a timeout."""
    return {
        "resource_type": random.choice(RESOURCES),
        "how": random.choice(("cancelled", "cancelled", "timeout")),
        # Not at once: the events of Create and Delete would overtake each other.
        "after": random.choice((random.uniform(0.3, 1), random.uniform(0.3, 4))),
    }


def _early(random: Random) -> Early:
    return Early(random.choice(("distillation", "release")), random.uniform(0, 2))


def _lag(random: Random) -> Mapping[str, float]:
    """Return seconds by which kinds of reads lag, and how many reads miss a new resource."""
    chosen = random.sample(LAGS, random.randint(1, 3))
    return {
        name: random.randint(1, 2) if name == "misses" else random.uniform(0, LONGEST_LAG) for name in chosen
    }


def _fault(random: Random) -> Fault:
    """Return a random fault order for the Bedrock stand-in."""
    count, skip = random.choice((1, 1, 2, 5)), random.choice((0, 0, 0, 1, 3))
    match random.randrange(7):
        case 0 | 1:
            operation = random.choice(READS + WRITES)
            return {"kind": random.choice(PASSING), "operation": operation, "count": count, "skip": skip}
        case 2:
            answer = random.choice(("dropped", "error"))
            operation = random.choice(WRITES)
            return {"kind": "lost_response", "operation": operation, "answer": answer, "skip": skip}
        case 3:
            return {"kind": "over_quota", "operation": random.choice(CREATES), "count": count}
        case 4:
            role = {"kind": "validation", "operation": "CreateModelCustomizationJob"}
            return {**role, "message": random.choice(ROLE_TEXTS), "count": count}
        case 5:
            return {"kind": "job_failed", "message": INTERNAL, "count": random.choice((1, 2))}
        case _:
            return {"kind": random.choice(ENDINGS), "skip": random.choice((0, 0, 1))}


def _shown(fault: Fault) -> str:
    where = f" {fault['operation']}" if "operation" in fault else ""
    times = f", {fault['count']} times" if fault.get("count", 1) != 1 else ""
    return f"{fault['kind']}{where}{times}"
