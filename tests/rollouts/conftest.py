"""One system for all tests of this folder, with a good live release and constant traffic."""

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

# A job of an hour takes a third of a second. Dwell times are not scaled, but polled often.
TIME_SCALE, WAIT_SCALE = 10_000, 0.02
# Pause between two queries.
PAUSE_SECONDS = 0.01


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Return the system after its first deployment."""
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
    """Return the digest of the live release, a good one, which serves all requests when the test begins."""
    return stage.good_release()


@pytest.fixture
def scene(stage: Scene, live: str, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Return the system while that release is live; describe its state if the test fails."""
    del live
    yield stage
    request.node.add_report_section("teardown", "scene", stage.told())


@pytest.fixture
def traffic(scene: Scene) -> Iterator[Traffic]:
    """Send queries all the time; check that each gets weights as its answer."""
    traffic = Traffic(scene.system.router(), PAUSE_SECONDS)
    yield traffic
    traffic.end()
    assert traffic.failures == []
    assert traffic.answers
