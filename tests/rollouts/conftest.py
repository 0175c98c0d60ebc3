"""One system for all tests here, with a good release that serves and traffic that goes on meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from local.state import State
from stacks.settings import PROJECT
from tests.engine.engine import Engine
from tests.engine.system import Traffic
from tests.permissions.calls import check
from tests.rollouts.candidates import synthesize
from tests.rollouts.scene import Scene

# A job of an hour takes a third of a second. A step's dwell time is what it is, and is looked at often.
TIME_SCALE, WAIT_SCALE = 10_000, 0.02
# Between two queries.
PAUSE_SECONDS = 0.01


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The system as it was deployed first."""
    folder = PROJECT / ".cache" / f"rollouts-{os.getpid()}"
    try:
        good, worse = synthesize(folder)
        engine = Engine(
            State(tmp_path_factory.mktemp("rollouts")), time_scale=TIME_SCALE, wait_scale=WAIT_SCALE
        )
        try:
            scene = Scene(engine, good, worse)
            yield scene
            assert not (found := check(engine.asked_of_iam())), "\n".join(found)
        finally:
            engine.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def live(stage: Scene) -> str:
    """The digest of the good release that serves all requests when the test begins."""
    return stage.good_release()


@pytest.fixture
def scene(stage: Scene, live: str, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The system while that release serves. What is there at the end is told where a test fails."""
    del live
    yield stage
    request.node.add_report_section("teardown", "scene", stage.told())


@pytest.fixture
def traffic(scene: Scene) -> Iterator[Traffic]:
    """Queries all the time: each is answered, and each answer is weights."""
    traffic = Traffic(scene.system.router(), PAUSE_SECONDS)
    yield traffic
    traffic.end()
    assert traffic.failures == []
    assert traffic.answers
