"""Schedules: operations on the system and the faults during them, all derived from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

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
ROLE = "Could not assume provided IAM role. Please verify that the role exists."
INTERNAL = "Encountered an internal error when processing the request."

DEPLOY, DESTROY, LET_GO = "deploy", "destroy", "let go"
MEDDLING = (
    "stop the execution",
    "stop the job",
    "delete the deployment",
    "break the route",
    "kill a function",
)

Fault = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One operation on the stacks, the faults ordered before it, and the seconds after it.

    `pause` is None if the step waits for the release. `meddling` happens in the middle of the pause.
    """

    action: str
    variant: str
    faults: tuple[Fault, ...]
    deliveries: int
    pause: float | None
    meddling: str | None

    def __str__(self) -> str:
        faults = ", ".join(_shown(fault) for fault in self.faults) or "no faults"
        then = "until the release ends" if self.pause is None else f"for {self.pause:.1f} s"
        meddled = f", intervention: {self.meddling}" if self.meddling else ""
        twice = ", events twice" if self.deliveries > 1 else ""
        return f"{self.action} {self.variant}{twice} ({faults}), then {then}{meddled}"


@dataclass(frozen=True)
class Schedule:
    """Steps that begin with a deployment; the run destroys everything after the last one."""

    seed: int
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        """Return the schedule of a seed."""
        random = Random(seed)
        steps = [_step(random, DEPLOY)]
        for _ in range(random.randint(1, 4)):
            steps.append(_step(random, random.choices((DEPLOY, DESTROY), (5, 1))[0]))
        if random.random() < 0.5:
            # Destroyed while the last step's work is in progress.
            steps[-1] = Step(**{**vars(steps[-1]), "pause": random.uniform(0, 4)})
        return cls(seed, tuple(steps))


def _step(random: Random, action: str) -> Step:
    faults = tuple(_fault(random) for _ in range(random.choice((0, 1, 1, 2, 3))))
    pause = None if random.random() < 0.4 else random.uniform(0, 6)
    return Step(
        action=action,
        variant=random.choice(NAMES),
        faults=faults,
        deliveries=random.choice((1, 1, 2)),
        pause=pause,
        meddling=random.choice(MEDDLING) if random.random() < 0.3 else None,
    )


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
            role = {"kind": "validation", "operation": "CreateModelCustomizationJob", "message": ROLE}
            return {**role, "count": count}
        case 5:
            return {"kind": "job_failed", "message": INTERNAL, "count": random.choice((1, 2))}
        case _:
            return {"kind": random.choice(ENDINGS), "skip": random.choice((0, 0, 1))}


def _shown(fault: Fault) -> str:
    where = f" {fault['operation']}" if "operation" in fault else ""
    times = f", {fault['count']} times" if fault.get("count", 1) != 1 else ""
    return f"{fault['kind']}{where}{times}"
