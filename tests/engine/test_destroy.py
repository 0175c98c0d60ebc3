"""Another team's stack is destroyed at different moments of a release: nothing runs on or hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from distilled_router.release.table import EVALUATING, ROLLING_OUT
from local.state import State
from tests.engine.apps import TEACHER
from tests.engine.engine import Engine
from tests.engine.release_apps import Scene

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-destroy")]

# Time runs this many times faster than in Bedrock. A job takes 1.4 s, everything else is ready at once.
FAST = 3000
# Slow enough to catch a deployment (0.8 s) and throughput (2 s) while they are being created.
SLOW = 600
# A job takes 20 s, and no test waits for its end.
SLOWEST = 200
# The throughput's resource polls every 30 s.
WAIT_SCALE = 0.03

DENIED = "An explicit deny is in the way."
NO_CAPACITY = "There is no capacity for this deployment."


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[float], Engine]]:
    """Yield servers by time scale, kept for the whole file."""
    started: dict[float, Engine] = {}

    def engine(time_scale: float) -> Engine:
        if time_scale not in started:
            state = State(tmp_path_factory.mktemp("engine"))
            started[time_scale] = Engine(state, time_scale=time_scale, wait_scale=WAIT_SCALE)
        return started[time_scale]

    yield engine
    for each in started.values():
        each.close()


@pytest.fixture
def scene_at(
    engines: Callable[[float], Engine],
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[float], Scene]]:
    """Return a team before its first deployment; describe its state if the test fails."""
    made: list[Scene] = []

    def scene(time_scale: float) -> Scene:
        engine = engines(time_scale)
        engine.reset()
        engine.bedrock("/_latency", {"first_token_ms": 0})
        made.append(Scene(engine, tmp_path_factory.getbasetemp() / "release-apps"))
        return made[-1]

    yield scene
    for each in made:
        request.node.add_report_section("teardown", "scene", each.told())


def test_a_delete_that_fails_names_the_resource_and_holds_bedrocks_own_text(
    scene_at: Callable[[float], Scene],
) -> None:
    """Case B31.

    tests/unit/distilled_router/aws/test_throttling.py covers the second try with direct events: AWS keeps the
    dependencies of a resource that could not be deleted, but the emulator deletes its functions.
    """
    scene = scene_at(FAST)
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
    options: Mapping[str, Any] = field(default_factory=dict)
    order: str = ""
    latency_ms: float = 0
    is_second: bool = False
    time_scale: float = FAST

    def __str__(self) -> str:
        return self.name


MOMENTS = (
    Moment(
        "the job is queued",
        lambda scene: _phase(scene, "dataProcessing") == {"Completed"},
        order="job_stalled",
    ),
    Moment(
        "the candidate is being evaluated",
        lambda scene: scene.states() == [EVALUATING] and bool(scene.engine.calls("Converse")),
        latency_ms=1500,
    ),
    Moment(
        "the judge grades",
        lambda scene: "InProgress" in scene.held("evaluations").values(),
        options={"judge": TEACHER},
        order="evaluation_stalled",
    ),
    Moment(
        "the candidate is rolled out",
        lambda scene: scene.states() == [ROLLING_OUT],
        options={"dwell_seconds": 600},
    ),
    Moment(
        "the job runs",
        lambda scene: _phase(scene, "training") == {"InProgress"},
        time_scale=SLOWEST,
    ),
    Moment(
        "the deployment is being made",
        lambda scene: "Creating" in scene.held("deployments").values(),
        time_scale=SLOW,
    ),
    Moment(
        "throughput is being bought",
        lambda scene: "Creating" in scene.held("throughput").values(),
        options={"model_units": 1},
        time_scale=SLOW,
    ),
    Moment(
        "throughput is being moved",
        lambda scene: "Updating" in scene.held("throughput").values(),
        options={"model_units": 1},
        is_second=True,
        time_scale=SLOW,
    ),
)


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_stack_destroyed_at_any_moment_leaves_nothing_running(
    moment: Moment, scene_at: Callable[[float], Scene]
) -> None:
    """Case B11."""
    scene = scene_at(moment.time_scale)
    if moment.order:
        scene.order(moment.order)
    scene.engine.bedrock("/_latency", {"first_token_ms": moment.latency_ms})
    if moment.is_second:
        scene.goes_live(scene.deploy(**moment.options))
        scene.deploy(**moment.options, nonce="second")
    else:
        scene.deploy(**moment.options)
    scene.until(lambda: moment.is_now(scene), moment.name)
    execution = scene.begin_to_destroy()
    scene.until(lambda: scene.execution_status(execution) != "RUNNING", "the execution is stopped")
    assert scene.execution_status(execution) == "ABORTED"
    assert scene.wait().succeeded
    assert scene.left() == []
