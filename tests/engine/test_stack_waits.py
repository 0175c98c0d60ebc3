"""A stack that waits for its release (`ReleaseWait`), and succeeds or fails with it."""

from __future__ import annotations

import pytest

from distilled_router.bedrock.naming import release_name
from distilled_router.release.table import LIVE, ROLLING_OUT
from tests.engine.apps import OWNER
from tests.engine.release_apps import BAD_DATA, Scene

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-waits")]

# Stages and the Provider framework poll at short intervals: nothing here takes long.
WAIT_SCALE = 0.03
# Seconds that a stack waits, and seconds of one window.
LONG = (1200, 1200)


def test_a_stack_completes_once_its_release_is_live_and_does_not_wait_again(scene: Scene) -> None:
    """CloudFormation can't update a wait: another timeout is another wait, for a release that is live
    already."""
    digest = scene.begin(wait=LONG)
    scene.until(lambda: scene.release(digest).state == ROLLING_OUT, "the release is a candidate")
    assert scene.status() == "CREATE_IN_PROGRESS"
    assert scene.windows() == [1]
    assert scene.wait().succeeded
    assert scene.release(digest).state == LIVE
    assert scene.windows() == []

    waits = scene.physical_ids("AWS::CloudFormation::WaitCondition")
    assert scene.deploy(wait=LONG, poll_seconds=2) == digest
    assert scene.physical_ids("AWS::CloudFormation::WaitCondition") == waits
    for seconds, windows in (((200, 300), 1), ((500, 300), 2)):
        assert scene.deploy(wait=seconds) == digest
        others = scene.physical_ids("AWS::CloudFormation::WaitCondition")
        assert (len(others), others & waits) == (windows, set())
        assert scene.windows() == []


def test_a_failed_job_fails_the_stack_with_the_jobs_own_message(scene: Scene) -> None:
    """Case B6."""
    scene.order("job_failed", message=BAD_DATA)
    digest = scene.begin(wait=LONG)
    outcome = scene.wait()
    assert outcome.status == "ROLLBACK_COMPLETE"
    assert any("Condition" in reason and BAD_DATA in reason for reason in outcome.reasons), outcome
    assert scene.held("jobs") == {release_name(OWNER, digest): "Failed"}
    assert scene.left() == []
    assert scene.destroy().succeeded


def test_the_end_of_the_last_window_rolls_the_stack_back_and_ends_its_release(scene: Scene) -> None:
    """Case B11."""
    scene.order("job_stalled")
    digest = scene.begin(wait=(3, 3))
    outcome = scene.wait()
    assert outcome.status == "ROLLBACK_COMPLETE"
    assert any("WaitCondition timed out" in reason for reason in outcome.reasons), outcome
    assert scene.held("jobs") == {release_name(OWNER, digest): "Stopped"}
    assert scene.left() == []
    assert scene.destroy().succeeded


def test_a_release_is_handed_from_window_to_window(scene: Scene) -> None:
    """These windows are ended half-way; in production, 25 minutes before their timeout."""

    def tick() -> None:
        """Invoke the function that EventBridge invokes every ten minutes."""
        scene.call("WaitTick")

    def second_window() -> bool:
        tick()
        return scene.windows() == [2]

    def final() -> bool:
        tick()
        return scene.release(digest).is_final

    scene.order("deployment_stalled")
    digest = scene.begin(wait=(240, 20))
    scene.until(lambda: scene.windows() == [1], "the first window is registered")
    tick()
    assert scene.windows() == [1]
    scene.until(second_window, "the second window is registered")
    assert not scene.release(digest).is_final
    scene.engine.bedrock("/_faults", delete=True)
    scene.until(final, "the release is final")
    assert scene.wait().succeeded
    assert scene.release(digest).state == LIVE
    assert scene.windows() == []


def test_a_second_release_that_fails_rolls_its_stack_back_to_the_first_one(scene: Scene) -> None:
    """Case B14."""
    first = scene.deploy(wait=LONG)
    scene.order("job_failed", message=BAD_DATA)
    second = scene.begin(wait=LONG, nonce="second")
    seen = scene.live_until(lambda: not scene.is_busy(), "the stack is rolled back")
    outcome = scene.wait()
    assert outcome.status == "UPDATE_ROLLBACK_COMPLETE", outcome
    assert any(BAD_DATA in reason for reason in outcome.reasons), outcome
    assert seen == {first}
    names = [release_name(OWNER, digest) for digest in (first, second)]
    assert scene.held("jobs") == {names[0]: "Completed", names[1]: "Failed"}
    assert scene.held("deployments") == {names[0]: "Active"}
    assert scene.declared() == first
    assert scene.running() == []
    assert scene.executions() == sorted([f"{first}-1", f"{second}-1"])
