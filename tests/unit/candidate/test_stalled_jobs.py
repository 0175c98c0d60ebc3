"""Jobs that wait for capacity: the only sign is a phase that stays NotStarted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from distilled_router.release.table import SUPERSEDED
from tests.unit.candidate.polls import (
    CREATE,
    NAME,
    STOP,
    STOPPING,
    TWICE,
    all_jobs,
    job_of,
    metrics,
    only,
    poll,
)
from tests.unit.local.bedrock.scenes import HOUR
from tests.unit.release_world import OWNER, A, B, Proxy, World

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def stalled(world: World) -> None:
    world.begin(A)
    world.server.fault("job_stalled")
    world.start_job(A)


def test_it_is_reported_on_every_poll_and_continues(world: World, capsys: Capture) -> None:
    world.advance(47 * HOUR)
    poll(world)
    assert metrics(capsys) == []
    world.advance(2 * HOUR)
    assert [poll(world)["outcome"], poll(world)["outcome"]] == ["waiting", "waiting"]
    stalled = metrics(capsys)
    assert [(metric["StalledJobs"], metric["service"]) for metric in stalled] == [([1.0], OWNER)] * 2
    assert stalled[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "DistilledRouter"
    assert world.calls(STOP) == 0


def test_a_job_that_works_for_long_is_not_stalled(world: World, capsys: Capture) -> None:
    world.begin(B)
    world.start_job(B)
    working = job_of(world, f"{OWNER}-{B}")
    world.advance(49 * HOUR)
    poll(world, B, bedrock=Proxy(world.bedrock, get_model_customization_job=only(working)), **STOPPING)
    assert (metrics(capsys), world.calls(STOP)) == ([], 0)


def test_the_time_counts_from_the_end_of_the_phase_before(world: World, capsys: Capture) -> None:
    """The teacher has answered for days; only then does the job wait."""
    job = job_of(world)
    at = datetime.fromtimestamp(world.now + 47 * HOUR, UTC)
    job["statusDetails"] = {
        "dataProcessingDetails": {"status": "Completed", "lastModifiedTime": at},
        "trainingDetails": {"status": "NotStarted", "lastModifiedTime": job["creationTime"]},
    }
    world.advance(49 * HOUR)
    shown = Proxy(world.bedrock, get_model_customization_job=only(job))
    assert poll(world, bedrock=shown, **STOPPING)["outcome"] == "waiting"
    assert (metrics(capsys), world.calls(STOP)) == ([], 0)


def test_it_is_stopped_where_that_is_set_and_the_release_fails_once_it_is(
    world: World, capsys: Capture
) -> None:
    world.advance(49 * HOUR)
    result = poll(world, **STOPPING)
    assert (result["outcome"], f"job {NAME} is being stopped" in result["message"]) == ("waiting", True)
    assert len(metrics(capsys)) == 1
    assert poll(world, **STOPPING) == result
    assert world.calls(STOP) == 1
    world.advance(HOUR)
    result = poll(world, **STOPPING)
    assert result["outcome"] == "failed"
    for part in (
        f"job {NAME} was stopped",
        "had not started for 48.",
        "training NotStarted",
        "release.stall_hours = 48",
        "set another nonce (distillation.nonce",
        "raise release.stall_hours",
    ):
        assert part in result["message"]
    assert all_jobs(world) == {NAME: "Stopped"}


def test_it_is_stopped_and_not_retried(world: World) -> None:
    world.advance(49 * HOUR)
    poll(world, **STOPPING, **TWICE)
    world.advance(HOUR)
    assert poll(world, **STOPPING, **TWICE)["outcome"] == "failed"
    assert all_jobs(world) == {NAME: "Stopped"}


def test_one_that_begins_a_phase_after_a_stop_that_did_not_arrive_continues(world: World) -> None:
    world.advance(49 * HOUR)
    world.server.fault("throttled", operation=STOP)
    with pytest.raises(ClientError, match="Throttling"):
        poll(world, **STOPPING)
    job = job_of(world)
    job["statusDetails"]["trainingDetails"]["status"] = "InProgress"
    shown = Proxy(world.bedrock, get_model_customization_job=only(job))
    assert "training InProgress" in poll(world, bedrock=shown, **STOPPING)["message"]
    assert all_jobs(world) == {NAME: "InProgress"}
    # If someone else stops the job now, that is not taken for our own stop.
    world.bedrock.stop_model_customization_job(jobIdentifier=NAME)
    assert "is Stopping" in poll(world, **STOPPING)["message"]


def test_one_that_completes_as_it_is_stopped_gives_its_model(world: World) -> None:
    world.advance(49 * HOUR)
    before = job_of(world)
    model = world.train(B)
    completed = {**before, "status": "Completed", "outputModelArn": model}
    refused = ClientError({"Error": {"Code": "ConflictException"}}, STOP)
    late = Proxy(world.bedrock, stop_model_customization_job=Mock(side_effect=refused))
    assert poll(world, bedrock=late, **STOPPING)["outcome"] == "waiting"
    shown = Proxy(world.bedrock, get_model_customization_job=only(completed))
    assert poll(world, bedrock=shown, **STOPPING)["outcome"] == "done"


def test_the_job_of_a_superseded_release_is_left_to_its_resource(world: World) -> None:
    world.advance(49 * HOUR)

    def supersede(**parameters: Any) -> Any:
        world.releases.transition(A, SUPERSEDED, "by another")
        return world.bedrock.get_model_customization_job(**parameters)

    shown = Proxy(world.bedrock, get_model_customization_job=supersede)
    assert poll(world, bedrock=shown, **STOPPING)["outcome"] == "failed"
    assert world.calls(STOP) == 0


def test_release_that_is_declared_again_says_that_its_job_is_stopped(world: World) -> None:
    world.advance(49 * HOUR)
    poll(world, **STOPPING)
    world.advance(HOUR)
    world.begin(A, 2)
    result = poll(world, **STOPPING)
    assert (result["outcome"], f"job {NAME} is Stopped" in result["message"]) == ("failed", True)
    assert world.calls(CREATE) == 1
