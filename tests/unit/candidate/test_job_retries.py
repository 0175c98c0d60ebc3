"""Jobs that failed by an internal error of Bedrock are retried, and never paid twice."""

from __future__ import annotations

from typing import Any

import pytest

from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, attempt_name
from distilled_router.release.table import SUPERSEDED
from local.bedrock.faults import ROLE_TEXTS
from tests.unit.candidate.polls import CREATE, NAME, TWICE, all_jobs, hashes, job_of, only, poll, tags
from tests.unit.local.bedrock.scenes import HOUR
from tests.unit.release_world import OWNER, A, Proxy, World

SECOND, THIRD = attempt_name(NAME, 2), attempt_name(NAME, 3)


@pytest.fixture(autouse=True)
def begun(world: World) -> None:
    world.begin(A)


def fails(world: World, times: int, message: str | None = None) -> None:
    """Start the job and let this many attempts fail."""
    world.server.fault("job_failed", count=times, message=message)
    world.start_job(A)
    world.advance(HOUR)


def test_nothing_is_retried_unless_configured(world: World) -> None:
    fails(world, 1)
    result = poll(world)
    assert result["outcome"] == "failed"
    assert "Encountered an internal error when processing the request." in result["message"]
    assert all_jobs(world) == {NAME: "Failed"}


def test_the_next_attempt_is_awaited_and_gives_its_model(world: World) -> None:
    fails(world, 1)
    result = poll(world, **TWICE)
    assert result["outcome"] == "waiting"
    assert f"Retrying as {SECOND}, attempt 2 of 3" in result["message"]
    assert all_jobs(world) == {NAME: "Failed", SECOND: "InProgress"}
    assert poll(world, **TWICE)["message"].startswith("job InProgress, attempt 2 of 3: validation")
    world.advance(2 * HOUR)
    assert poll(world, **TWICE)["outcome"] == "done"
    job = job_of(world, SECOND)
    assert world.release(A).model_arn == job["outputModelArn"]
    assert tags(world, job["outputModelArn"]) == {OWNER_TAG: OWNER, DIGEST_TAG: A, **hashes(world)}
    assert world.calls(CREATE) == 2


def test_the_last_attempt_fails_the_release_with_its_own_reason(world: World) -> None:
    fails(world, 3)
    for _ in range(2):
        assert poll(world, **TWICE)["outcome"] == "waiting"
        world.advance(HOUR)
    result = poll(world, **TWICE)
    assert result["outcome"] == "failed"
    assert result["message"].startswith(f"job {THIRD} is Failed (validation Failed")
    assert "attempt 3 of 3): Encountered an internal error" in result["message"]
    assert all_jobs(world) == dict.fromkeys((NAME, SECOND, THIRD), "Failed")


def test_role_that_is_not_ready_is_waited_for_and_not_for_ever(world: World) -> None:
    fails(world, 1)
    world.server.fault("validation", operation=CREATE, count=None, message=ROLE_TEXTS[1])
    result = poll(world, poll_seconds=HOUR, **TWICE)
    assert (result["outcome"], result["seconds"]) == ("waiting", 15)
    world.advance(HOUR)
    result = poll(world, poll_seconds=HOUR, **TWICE)
    assert result["outcome"] == "failed"
    assert ROLE_TEXTS[1] in result["message"]
    assert "correct the role and deploy again" in result["message"]
    assert all_jobs(world) == {NAME: "Failed"}


def test_another_failure_is_not_tried_again(world: World) -> None:
    fails(world, 1, "Unable to parse Amazon S3 file.")
    assert poll(world, **TWICE)["outcome"] == "failed"
    assert world.calls(CREATE) == 1


def test_another_failure_of_a_later_attempt_is_not_tried_again(world: World) -> None:
    fails(world, 1)
    world.server.fault("job_failed", message="Unable to parse Amazon S3 file.")
    poll(world, **TWICE)
    world.advance(HOUR)
    assert "Unable to parse" in poll(world, **TWICE)["message"]
    assert world.calls(CREATE) == 2


def test_neither_a_new_attempt_of_the_release_nor_a_lost_table_counts_anew(world: World) -> None:
    fails(world, 3)
    for _ in range(2):
        poll(world, **TWICE)
        world.advance(HOUR)
    world.releases.table.delete_item(Key={"id": world.releases.key(f"release@{A}")})
    world.begin(A)
    assert poll(world, **TWICE)["outcome"] == "failed"
    assert world.calls(CREATE) == 3
    # With a higher limit, there is one more attempt.
    assert poll(world, retry_internal_errors=3)["outcome"] == "waiting"
    assert world.calls(CREATE) == 4


def test_a_step_that_is_delivered_twice_creates_one_attempt(world: World) -> None:
    fails(world, 1)

    def twice(**parameters: Any) -> Any:
        poll(world, **TWICE)
        return world.bedrock.create_model_customization_job(**parameters)

    both = Proxy(world.bedrock, create_model_customization_job=twice)
    assert poll(world, bedrock=both, **TWICE)["outcome"] == "waiting"
    assert all_jobs(world) == {NAME: "Failed", SECOND: "InProgress"}


def test_a_step_that_was_late_creates_no_attempt_that_another_one_created(world: World) -> None:
    """It saw one failed attempt; when it sends its call, the second has failed and the third is running."""
    fails(world, 2)

    def late(**parameters: Any) -> Any:
        poll(world, **TWICE)
        world.advance(HOUR)
        poll(world, **TWICE)
        return world.bedrock.create_model_customization_job(**parameters)

    slow = Proxy(world.bedrock, create_model_customization_job=late)
    poll(world, bedrock=slow, **TWICE)
    assert all_jobs(world) == {NAME: "Failed", SECOND: "Failed", THIRD: "InProgress"}


@pytest.mark.parametrize("answer", ["error", "dropped"])
def test_a_lost_answer_creates_one_attempt(world: World, answer: str) -> None:
    fails(world, 1)
    world.server.fault("lost_response", operation=CREATE, answer=answer)
    assert poll(world, **TWICE)["outcome"] == "waiting"
    assert poll(world, **TWICE)["message"].startswith("job InProgress, attempt 2 of 3")
    assert all_jobs(world) == {NAME: "Failed", SECOND: "InProgress"}


def test_a_crash_after_the_create_creates_one_attempt(world: World) -> None:
    fails(world, 1)

    def crash(**parameters: Any) -> None:
        world.bedrock.create_model_customization_job(**parameters)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        poll(world, bedrock=Proxy(world.bedrock, create_model_customization_job=crash), **TWICE)
    assert poll(world, **TWICE)["message"].startswith("job InProgress, attempt 2 of 3")
    assert all_jobs(world) == {NAME: "Failed", SECOND: "InProgress"}


def test_an_attempt_that_cannot_be_seen_yet_is_not_created_twice(world: World) -> None:
    """Bedrock's reads may lag behind its writes; the client request token prevents a second job."""
    fails(world, 1)
    first = job_of(world)
    poll(world, **TWICE)
    blind = Proxy(world.bedrock, get_model_customization_job=only(first))
    assert poll(world, bedrock=blind, **TWICE)["outcome"] == "waiting"
    assert all_jobs(world) == {NAME: "Failed", SECOND: "InProgress"}


def test_a_throttled_attempt_is_created_by_the_next_poll(world: World) -> None:
    fails(world, 1)
    world.server.fault("throttled", operation=CREATE)
    result = poll(world, **TWICE)
    assert (result["outcome"], "ThrottlingException" in result["message"]) == ("waiting", True)
    assert all_jobs(world) == {NAME: "Failed"}
    poll(world, **TWICE)
    assert all_jobs(world) == {NAME: "Failed", SECOND: "InProgress"}


def test_a_refused_attempt_ends_the_release_with_both_reasons(world: World) -> None:
    fails(world, 1)
    world.server.fault("over_quota", operation=CREATE)
    result = poll(world, **TWICE)
    assert result["outcome"] == "failed"
    assert "Encountered an internal error" in result["message"]
    assert "ServiceQuotaExceededException" in result["message"]


def test_a_release_whose_stack_is_being_deleted_creates_no_attempt(world: World) -> None:
    fails(world, 1)
    world.close()
    assert poll(world, **TWICE)["outcome"] == "failed"
    assert all_jobs(world) == {NAME: "Failed"}


def test_a_superseded_release_creates_no_attempt(world: World) -> None:
    fails(world, 1)

    def supersede(**parameters: Any) -> Any:
        world.releases.transition(A, SUPERSEDED, "by another")
        return world.bedrock.get_model_customization_job(**parameters)

    shown = Proxy(world.bedrock, get_model_customization_job=supersede)
    assert poll(world, bedrock=shown, **TWICE)["outcome"] == "failed"
    assert all_jobs(world) == {NAME: "Failed"}


def test_all_attempts_together_have_the_time_of_one(world: World) -> None:
    fails(world, 1)
    world.server.fault("job_stalled")
    poll(world, **TWICE)
    world.advance(118 * HOUR)
    assert poll(world, **TWICE)["outcome"] == "waiting"
    world.advance(2 * HOUR)
    assert "is still InProgress after 121 h" in poll(world, **TWICE)["message"]


def test_job_that_fails_after_the_timeout_is_not_retried(world: World) -> None:
    fails(world, 1)
    world.advance(121 * HOUR)
    assert poll(world, **TWICE)["outcome"] == "failed"
    assert world.calls(CREATE) == 1
