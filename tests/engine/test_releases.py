"""Releases of another team's app, from a deployment to the live release."""

from __future__ import annotations

import json

import pytest

from distilled_router.bedrock.naming import attempt_name, release_name
from distilled_router.release.table import EVALUATING, ROLLING_OUT, SUPERSEDED, WAITING
from tests.engine.apps import BUCKET, OWNER, ROWS, STUDENT, TEACHER
from tests.engine.release_apps import BAD_DATA, Scene

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-releases")]

# Stages and the Provider framework poll at short intervals: nothing here takes long.
WAIT_SCALE = 0.03


def test_events_that_come_twice_make_one_job_one_execution_and_one_deployment(scene: Scene) -> None:
    """Deletes that are delivered twice remove all of them. Case B1."""
    scene.engine.deliver(2)
    digest = scene.deploy()
    release = scene.goes_live(digest)
    assert (release.attempt, scene.executions()) == (1, [f"{digest}-1"])
    assert scene.live() == digest
    name = release_name(OWNER, digest)
    assert scene.held("jobs") == {name: "Completed"}
    assert scene.held("deployments") == {name: "Active"}
    made = {
        (call["operation"], call["parameters"]["clientRequestToken"])
        for call in scene.engine.calls()
        if call["operation"].startswith("Create")
    }
    # Two concurrent polls may both send the create call with one token: Bedrock creates one, as seen above.
    assert sorted(operation for operation, _ in made) == [
        "CreateCustomModelDeployment",
        "CreateModelCustomizationJob",
    ]
    assert scene.destroy().succeeded
    assert scene.left() == []


def test_a_redeploy_while_a_job_runs_changes_nothing(scene: Scene) -> None:
    """The same holds for a redeployment that changes the functions' settings. Case B1."""
    scene.order("job_stalled")
    digest = scene.deploy()
    scene.until(lambda: "job InProgress" in scene.release(digest).message, "the release waits for the job")
    before, written = scene.release(digest), scene.engine.written()
    assert written == ["CreateModelCustomizationJob"]
    for options in ({}, {"poll_seconds": 2}):
        assert scene.deploy(**options) == digest
        after = scene.release(digest)
        assert (after.state, after.attempt, after.execution) == (WAITING, 1, before.execution)
        assert scene.running() == scene.executions() == [f"{digest}-1"]
    assert scene.engine.written() == written


def test_a_new_digest_supersedes_a_running_release_while_the_live_release_stays(scene: Scene) -> None:
    """Case B14."""
    first = scene.deploy()
    scene.goes_live(first)
    second = scene.deploy(nonce="second", dwell_seconds=600)
    scene.until(lambda: scene.release(second).state == ROLLING_OUT, "the second release is a candidate")
    assert scene.served() == (second, first)

    third = scene.begin(nonce="third")
    seen = scene.live_until(lambda: scene.release(third).is_final, "the third release is final")
    assert scene.wait().succeeded
    scene.goes_live(third)
    assert seen == {first, third}
    assert scene.release(second).state == SUPERSEDED
    assert third in scene.release(second).message
    kept = [release_name(OWNER, digest) for digest in (first, third)]
    # Removed by the sweep that runs when an execution ends, or by the release itself, without a call of the
    # test.
    scene.until(lambda: sorted(scene.held("deployments")) == sorted(kept), "the second's deployment goes")
    scene.until(lambda: sorted(scene.held("models")) == sorted(kept), "the second's model goes")
    assert scene.served() == (third,)


def test_a_failed_job_fails_the_release_with_its_own_message_and_is_not_paid_again(scene: Scene) -> None:
    """An invalid data set stays invalid, so there is no retry. Case B6."""
    scene.order("job_failed", message=BAD_DATA)
    digest = scene.deploy(retry_internal_errors=1)
    release = scene.fails(digest)
    assert BAD_DATA in release.message
    assert "validation Failed" in release.message  # the phase that it reached
    assert scene.held("jobs") == {release_name(OWNER, digest): "Failed"}
    assert scene.live() is None
    assert scene.held("deployments") == {}


def test_an_internal_error_of_bedrock_is_retried_as_often_as_configured(scene: Scene) -> None:
    """Case B6."""
    scene.order("job_failed")
    once = scene.deploy()
    assert "internal error" in scene.fails(once).message
    name = release_name(OWNER, once)
    assert scene.held("jobs") == {name: "Failed"}

    # The same job; its failure now counts as retryable.
    again = scene.deploy(retry_internal_errors=1)
    assert again == once
    scene.goes_live(again)
    assert scene.held("jobs") == {name: "Failed", attempt_name(name, 2): "Completed"}
    assert scene.live() == again
    assert scene.destroy().succeeded
    assert scene.left() == []


def test_a_stalled_job_is_stopped_if_configured_and_its_release_ends(scene: Scene) -> None:
    scene.order("job_stalled")
    digest = scene.deploy(stop_stalled=True, stall_hours=0.0005)
    release = scene.fails(digest)
    assert "was stopped: its next phase had not started" in release.message
    assert scene.held("jobs") == {release_name(OWNER, digest): "Stopped"}
    assert scene.engine.written() == ["CreateModelCustomizationJob", "StopModelCustomizationJob"]


def test_an_adopted_model_is_released_without_a_job_and_outlives_the_stack(scene: Scene) -> None:
    """Case T3."""
    arn = _foreign_model(scene)
    before = len(scene.engine.calls("CreateModelCustomizationJob"))
    digest = scene.deploy(adopted=arn)
    release = scene.goes_live(digest)
    assert (release.model_arn, scene.live()) == (arn, digest)
    assert len(scene.engine.calls("CreateModelCustomizationJob")) == before
    assert scene.destroy().succeeded
    assert scene.held("deployments") == {}
    assert list(scene.held("models")) == ["theirs"]


def test_a_judge_grades_the_candidate_before_it_goes_live(scene: Scene) -> None:
    """The grade is stored in the release's item, and the evaluation job's files are deleted."""
    digest = scene.deploy(judge=TEACHER, minimum_judge_score=2.0)
    release = scene.goes_live(digest)
    ((name, status),) = scene.held("evaluations").items()
    assert (digest in name, status) == (True, "Completed")
    scores = json.loads(scene.item(digest)["scores"])
    assert 2.0 <= scores["judge_score"] <= 5.0
    assert release.attempt == 1
    assert scene.destroy().succeeded
    assert scene.left() == []


def test_a_judge_that_fails_ends_the_release_if_a_minimum_grade_is_set(scene: Scene) -> None:
    scene.order("evaluation_failed", message="The judge is tired.")
    digest = scene.deploy(judge=TEACHER, minimum_judge_score=2.0)
    assert "The judge is tired." in scene.fails(digest).message
    assert scene.held("deployments") == {}


def test_a_release_that_is_superseded_stops_its_judge(scene: Scene) -> None:
    scene.order("evaluation_stalled")
    first = scene.deploy(judge=TEACHER)
    scene.until(lambda: "InProgress" in scene.held("evaluations").values(), "the judge grades")
    assert scene.release(first).state == EVALUATING
    second = scene.deploy(judge=TEACHER, nonce="second")
    # Removed by the sweep that runs when an execution ends, without a call of the test.
    scene.until(
        lambda: sorted(scene.held("evaluations").values()) == ["Completed", "Stopped"],
        "the first one's judge is stopped, and the second's is done",
    )
    scene.goes_live(second)
    assert scene.release(first).state == SUPERSEDED


def _foreign_model(scene: Scene) -> str:
    """Distil a model without any construct and return its ARN."""
    teacher = {"teacherModelIdentifier": TEACHER}
    scene.engine.aws("bedrock").create_model_customization_job(
        jobName="theirs",
        customModelName="theirs",
        roleArn=scene.engine.somebodys_role("theirs"),
        baseModelIdentifier=STUDENT,
        customizationType="DISTILLATION",
        customizationConfig={"distillationConfig": {"teacherModelConfig": teacher}},
        trainingDataConfig={"s3Uri": f"s3://{BUCKET}/{ROWS}"},
        outputDataConfig={"s3Uri": f"s3://{BUCKET}/theirs/"},
    )
    scene.until(lambda: scene.held("models"), "the model of somebody else is there")
    return str(scene.engine.held("models")["theirs"]["arn"])
