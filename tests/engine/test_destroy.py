"""Another team's stack is destroyed at different moments of a release: nothing runs on or hangs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from distilled_router.release.table import EVALUATING, ROLLING_OUT
from tests.engine.apps import TEACHER
from tests.engine.release_apps import Scene

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-destroy")]

# The throughput's resource polls every 30 s.
WAIT_SCALE = 0.03

DENIED = "An explicit deny is in the way."
NO_CAPACITY = "There is no capacity for this deployment."


def test_a_delete_that_fails_names_the_resource_and_holds_bedrocks_own_text(scene: Scene) -> None:
    """Case B31.

    tests/unit/distilled_router/aws/test_throttling.py covers the second try with direct events: AWS keeps the
    dependencies of a resource that could not be deleted, but the emulator deletes its functions.
    """
    scene.order("deployment_failed", message=NO_CAPACITY)
    digest = scene.deploy()
    assert NO_CAPACITY in scene.fails(digest).message
    assert scene.held("deployments") == {}

    scene.order("denied", operation="ListCustomModelDeployments", message=DENIED, count=None)
    first = scene.destroy()
    assert first.status == "DELETE_FAILED"
    assert any(reason.startswith("Release") and DENIED in reason for reason in first.reasons), first
    assert len(scene.held("models")) == 1


def _phase(scene: Scene, name: str) -> set[str]:
    return {job["details"][f"{name}Details"] for job in scene.engine.held("jobs").values()}


@dataclass(frozen=True)
class Moment:
    """A moment to destroy the stack at: `is_now` detects it, `options` and the ordered fault prolong it."""

    name: str
    is_now: Callable[[Scene], bool]
    order: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    is_second: bool = False

    def __str__(self) -> str:
        return self.name


STANDING = {"dwell_seconds": 600}
MOMENTS = (
    Moment(
        "the job is queued",
        lambda scene: _phase(scene, "dataProcessing") == {"Completed"},
        {"kind": "job_stalled"},
    ),
    Moment(
        "the job runs",
        lambda scene: _phase(scene, "training") == {"InProgress"},
        {"kind": "training_stalled"},
    ),
    Moment(
        "the deployment is being made",
        lambda scene: "Creating" in scene.held("deployments").values(),
        {"kind": "deployment_stalled"},
    ),
    Moment(
        "the candidate is being evaluated",
        lambda scene: scene.states() == [EVALUATING] and bool(scene.engine.calls("Converse")),
        {"kind": "slow", "operation": "Converse", "milliseconds": 1500, "count": None},
        # Its execution must not end before the stack is destroyed.
        STANDING,
    ),
    Moment(
        "the judge grades",
        lambda scene: "InProgress" in scene.held("evaluations").values(),
        {"kind": "evaluation_stalled"},
        {"judge": TEACHER},
    ),
    Moment(
        "the candidate is rolled out",
        lambda scene: scene.states() == [ROLLING_OUT],
        options=STANDING,
    ),
    Moment(
        "throughput is being bought",
        lambda scene: "Creating" in scene.held("throughput").values(),
        {"kind": "throughput_stalled"},
        {"model_units": 1},
    ),
    Moment(
        "throughput is being moved",
        lambda scene: "Updating" in scene.held("throughput").values(),
        {"kind": "throughput_update_stalled"},
        {"model_units": 1},
        is_second=True,
    ),
)


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_stack_destroyed_at_any_moment_leaves_nothing_running(moment: Moment, scene: Scene) -> None:
    """Case B11."""
    if moment.is_second:
        scene.goes_live(scene.deploy(**moment.options))
    if moment.order:
        scene.order(**moment.order)
    scene.deploy(**moment.options, nonce="second" if moment.is_second else "")
    scene.until(lambda: moment.is_now(scene), moment.name)
    execution = scene.begin_to_destroy()
    scene.until(lambda: scene.execution_status(execution) != "RUNNING", "the execution is stopped")
    assert scene.execution_status(execution) == "ABORTED"
    # Bedrock refuses to delete what it is creating or changing.
    scene.engine.bedrock("/_faults", delete=True)
    assert scene.wait().succeeded
    assert scene.left() == []
