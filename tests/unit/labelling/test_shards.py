"""A shard of queries: labelled by a batch job or by single calls, retried after bad answers, never paid
twice."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from distilled_router.aws.objects import Seal
from distilled_router.bedrock.naming import DIGEST_TAG, LABELS_TAG, OWNER_TAG
from distilled_router.bedrock.ownership import REQUEST_TAG
from distilled_router.bedrock.roles import NEW_ROLE_SECONDS
from labelling.life import LIFE
from labelling.shards import OUTAGE_SECONDS, PART
from local.bedrock import BedrockStandIn, Settings
from local.bedrock.faults import ROLE_TEXTS
from tests.unit.labelling.scenes import (
    CLAIMANT,
    CREATE,
    FIRST,
    HOUR,
    OWNER,
    ROLE,
    SECOND,
    Scene,
    failing,
    printed,
    replaced,
    spoilt,
)
from tests.unit.quota import Quota


def test_large_shard_is_one_batch_job_of_all_samples(scene: Scene) -> None:
    queries = scene.publish(60)
    result = scene.label()
    assert result["outcome"] == "done"
    (job,) = scene.jobs()
    assert job["modelInvocationType"] == "Converse"
    assert len(scene.records()) == 120
    assert scene.asked() == 0
    rows = scene.labelled()
    assert [row["query"] for row in rows] == queries
    assert all(len(row["answers"]) == 2 for row in rows)
    assert spoilt(rows) == []
    assert all(row["input_tokens"] > 100 for row in rows)


def test_small_shard_is_asked_by_calls(scene: Scene) -> None:
    scene.publish(20)
    assert scene.label()["outcome"] == "done"
    assert scene.jobs() == []
    assert scene.asked() == 40
    assert spoilt(scene.labelled()) == []


def test_traffic_of_a_query_stays_with_it(scene: Scene) -> None:
    scene.publish(1)
    rows = [{"number": 0, "query": "a red car", "count": 2.5}, {"number": 1, "query": "a boat"}]
    scene.folder.write_rows("queries/00000.jsonl", rows)
    assert scene.label()["outcome"] == "done"
    assert [row.get("count") for row in scene.labelled()] == [2.5, None]


def test_teacher_gets_its_full_prompt_and_the_plan(scene: Scene) -> None:
    scene.publish(60)
    scene.label()
    asked = next(scene.folder.rows("rounds/00000/001/input.jsonl"))["modelInput"]
    assert asked["system"][0]["text"].startswith("You decide how a video search engine")
    assert asked["messages"] == [
        {"role": "user", "content": [{"text": "a red car number 0 driving at night"}]}
    ]
    assert asked["inferenceConfig"] == {"maxTokens": 200, "temperature": 0.5}


@pytest.mark.parametrize("count", [20, 60])
def test_labelled_shard_is_not_paid_again(scene: Scene, count: int) -> None:
    scene.publish(count)
    scene.label()
    before = scene.asked(), len(scene.jobs())
    assert scene.label(execution=SECOND)["outcome"] == "done"
    assert (scene.asked(), len(scene.jobs())) == before


def test_bad_answers_are_asked_once_more_and_then_listed(scene: Scene) -> None:
    scene.publish(60)
    scene.server.fault("output_prose", count=7)
    scene.server.fault("output_empty", count=3)
    assert scene.label()["outcome"] == "done"
    assert len(scene.jobs()) == 1  # ten are too few for a second batch job
    assert scene.asked() == 10
    assert spoilt(scene.labelled()) == []
    scene.server.reset()
    scene.server.s3.objects.clear()
    scene.publish(20)
    scene.server.fault("output_empty", count=41)  # all forty, and one in the second round
    assert scene.label()["outcome"] == "done"
    assert scene.asked() == 80
    assert spoilt(scene.labelled()) == ["empty answer (end_turn)"]


def test_many_bad_answers_are_retried_as_a_batch(scene: Scene) -> None:
    scene.publish(80)
    scene.server.fault("output_empty", count=130)
    assert scene.label()["outcome"] == "done"
    assert len(scene.jobs()) == 2
    assert len(scene.records(2)) == 130
    assert scene.asked() == 0


@pytest.mark.parametrize(
    "network", [{}, {"subnetIds": ["subnet-1", "subnet-2"], "securityGroupIds": ["sg-1"]}]
)
def test_a_batch_runs_in_the_network_if_there_is_one(scene: Scene, network: dict[str, list[str]]) -> None:
    scene.publish(60)
    scene.label(network=network)
    job = scene.bedrock.get_model_invocation_job(jobIdentifier=scene.jobs()[0]["jobArn"])
    assert job.get("vpcConfig", {}) == network


def test_bad_answers_are_paid_no_third_time(scene: Scene) -> None:
    scene.publish(20)
    scene.server.fault("output_empty", count=1_000)
    assert scene.label()["outcome"] == "done"
    scene.server.s3.objects.pop(("data", f"{scene.plan.folder}labelled/00000.jsonl"))
    assert scene.label(execution=SECOND)["outcome"] == "done"
    assert scene.asked() == 80


def test_batch_whose_answer_was_lost_is_found_again(scene: Scene) -> None:
    scene.publish(60)
    scene.server.fault("lost_response", operation=CREATE)
    assert scene.label()["outcome"] == "done"
    assert len(scene.jobs()) == 1


def test_crash_after_the_batch_was_created_pays_for_no_second_one(scene: Scene) -> None:
    scene.publish(60)

    def made(**request: Any) -> Any:
        scene.bedrock.create_model_invocation_job(**request)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.shard(bedrock=failing(scene.bedrock, create_model_invocation_job=made)).label()
    assert scene.label(execution=SECOND)["outcome"] == "done"
    assert len(scene.jobs()) == 1


def test_crash_between_calls_loses_one_part_at_most(scene: Scene) -> None:
    scene.publish(40)
    crash = [PART + 10]

    def converse(**request: Any) -> Any:
        if crash[0] == 0:
            raise KeyboardInterrupt
        crash[0] -= 1
        return scene.runtime.converse(**request)

    with pytest.raises(KeyboardInterrupt):
        scene.shard(
            runtime=failing(scene.runtime, converse=converse), plan=scene.with_plan(concurrency=1).plan
        ).label()
    assert scene.label(execution=SECOND)["outcome"] == "done"
    assert scene.asked() == 80 + 10


def test_batch_of_a_stopped_execution_is_awaited_by_the_next(scene: Scene) -> None:
    scene.publish(60)
    assert scene.shard().label()["outcome"] == "waiting"
    assert scene.label(execution=SECOND)["outcome"] == "done"
    assert len(scene.jobs()) == 1


def test_nothing_is_begun_for_an_execution_that_was_stopped(scene: Scene) -> None:
    for count in (20, 60):
        scene.publish(count)
        scene.wanted[0] = False
        result = scene.shard().label()
        assert result["outcome"] == "failed"
        assert "was stopped" in result["message"]
    assert (scene.jobs(), scene.asked()) == ([], 0)


def test_batch_that_was_created_while_its_execution_was_stopped_is_stopped(scene: Scene) -> None:
    scene.publish(60)

    def made(**request: Any) -> Any:
        scene.wanted[0] = False
        return scene.bedrock.create_model_invocation_job(**request)

    result = scene.shard(bedrock=failing(scene.bedrock, create_model_invocation_job=made)).label()
    assert result["outcome"] == "failed"
    assert [job["status"] for job in scene.jobs()] == ["Stopping"]


def test_failed_batch_fails_the_shard_and_another_execution_tries_again(scene: Scene) -> None:
    scene.publish(60)
    scene.shard().label()
    scene.server.s3.objects.pop(("data", f"{scene.plan.folder}rounds/00000/001/input.jsonl"))
    result = scene.label()
    assert result["outcome"] == "failed"
    assert "batch job" in result["message"]
    assert "Could not validate GetObject" in result["message"]
    assert scene.label(execution=SECOND)["outcome"] == "done"
    assert [job["status"] for job in scene.jobs()] == ["Failed", "Completed"]


def test_stopped_batch_leaves_all_to_the_next_round(scene: Scene) -> None:
    scene.publish(60)
    scene.shard().label()
    scene.server.advance(60)
    scene.bedrock.stop_model_invocation_job(jobIdentifier=scene.jobs()[0]["jobArn"])
    assert scene.label()["outcome"] == "done"
    assert [job["status"] for job in scene.jobs()] == ["Stopped", "Completed"]


def test_shard_that_got_hardly_an_answer_fails_with_the_reason(scene: Scene) -> None:
    scene.publish(20)
    error = ClientError({"Error": {"Code": "ThrottlingException", "Message": "Too many."}}, "Converse")

    def converse(**request: Any) -> Any:
        raise error

    result = scene.label(runtime=failing(scene.runtime, converse=converse))
    assert result["outcome"] == "failed"
    assert "40 of 40 records got no answer, for example: ThrottlingException: Too many." in result["message"]
    assert scene.label(execution=SECOND)["outcome"] == "done"
    assert scene.asked() == 40


@pytest.mark.parametrize("rate", [0.5, 0.01])
def test_teacher_that_is_throttled_below_one_call_a_second_loses_no_answer(scene: Scene, rate: float) -> None:
    """With the last rate, 50 answers take longer than the wait for an outage."""
    scene.publish(25)
    quota, waited = Quota(scene.runtime, rate=rate, burst=4), 0
    while (result := scene.shard(runtime=quota, waited=waited).label())["outcome"] == "waiting":
        assert result["seconds"] < 120
        quota.wait(result["seconds"])
        waited += result["seconds"]
    assert result["outcome"] == "done", result["message"]
    assert quota.throttled > 0
    assert spoilt(scene.labelled()) == []
    assert scene.asked() == 50


@pytest.mark.parametrize("code", ["ThrottlingException", "ServiceUnavailableException"])
def test_teacher_that_answers_no_more_is_waited_for_in_bounds(scene: Scene, code: str) -> None:
    scene.publish(20)
    calls = iter(range(1_000_000))

    def converse(**request: Any) -> Any:
        if next(calls) < 10:
            return scene.runtime.converse(**request)
        raise ClientError({"Error": {"Code": code, "Message": "Later."}}, "Converse")

    runtime, waits = failing(scene.runtime, converse=converse), [0]
    while (result := scene.shard(runtime=runtime, waited=sum(waits)).label())["outcome"] == "waiting":
        assert f"10 of 40 calls done; {code}: Later." in result["message"] or sum(waits) >= OUTAGE_SECONDS
        waits.append(result["seconds"])
    assert "30 of 40 records got no answer" in result["message"]
    # One wait in each of the two rounds, and few polls of an hour.
    assert 2 * OUTAGE_SECONDS <= sum(waits) < 2.5 * OUTAGE_SECONDS
    assert len(waits) < 120
    # Another execution has its own time, and asks only what was not answered.
    assert scene.label(execution=SECOND)["outcome"] == "done"
    assert scene.asked() == 40


def test_teacher_that_can_not_be_asked_fails_at_once(scene: Scene) -> None:
    scene.publish(20)
    calls = []

    def converse(**request: Any) -> Any:
        calls.append(request)
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "No."}}, "Converse")

    result = scene.label(runtime=failing(scene.runtime, converse=converse))
    assert result["outcome"] == "failed"
    assert "Teacher us.amazon.nova-pro-v1:0 can't be called: AccessDeniedException: No." in result["message"]
    assert "distillation.teacher" in result["message"]
    assert len(calls) <= PART


def test_call_without_an_answer_is_retried(scene: Scene) -> None:
    scene.publish(20)
    failures = [3]

    def converse(**request: Any) -> Any:
        if failures[0]:
            failures[0] -= 1
            raise ReadTimeoutError(endpoint_url="https://bedrock")
        return scene.runtime.converse(**request)

    assert scene.label(runtime=failing(scene.runtime, converse=converse))["outcome"] == "done"
    assert spoilt(scene.labelled()) == []


@pytest.mark.parametrize(
    ("kind", "message", "text"),
    [
        ("throttled", None, "did not create"),
        ("unavailable", None, "did not create"),
        ("over_quota", None, "Waiting for other batch jobs"),
        *(("validation", message, message) for message in ROLE_TEXTS),
    ],
)
def test_batch_that_bedrock_does_not_take_yet_is_retried(
    scene: Scene, kind: str, message: str | None, text: str
) -> None:
    scene.publish(60)
    scene.server.fault(kind, operation=CREATE, message=message)
    result = scene.shard().label()
    assert result["outcome"] == "waiting"
    assert text in result["message"]
    assert scene.label()["outcome"] == "done"
    assert len(scene.jobs()) == 1


def test_an_account_without_batch_inference_is_told_what_to_do(scene: Scene) -> None:
    scene.publish(60)
    text = "Your account is not authorized to perform this action. Please create a support case."
    scene.server.fault("denied", operation=CREATE, message=text)
    result = scene.shard().label()
    assert result["outcome"] == "failed"
    assert text in result["message"]
    assert "has not opened batch inference to this account" in result["message"]
    assert 'dataset.labels = "given"' in result["message"]
    assert scene.jobs() == []


def test_role_that_does_not_become_ready_ends_the_shard(scene: Scene) -> None:
    scene.publish(60)
    scene.server.lag(role_seconds=24 * HOUR)
    first = scene.shard().label()
    assert (first["outcome"], first["seconds"]) == ("waiting", 15)
    result = scene.shard(waited=NEW_ROLE_SECONDS + 1).label()
    assert result["outcome"] == "failed"
    assert f"policy of {ROLE} must" in result["message"]
    assert scene.jobs() == []


def test_batch_is_polled_ever_less_often(scene: Scene) -> None:
    scene.publish(60)
    scene.shard().label()
    assert scene.shard().label()["seconds"] == scene.plan.poll_seconds
    assert scene.shard(waited=10 * HOUR).label()["seconds"] == HOUR / 2
    assert scene.shard(waited=100 * HOUR).label()["seconds"] == HOUR


@pytest.mark.parametrize("code", ["ConflictException", "ValidationException"])
def test_batch_that_is_not_listed_yet_is_awaited(code: str) -> None:
    """Its name is in use already, and AWS does not document the error's class."""
    with BedrockStandIn(settings=Settings(name_in_use=code)) as server:
        scene = Scene(server, server.client("bedrock"), server.client("bedrock-runtime"))
        scene.publish(60)
        server.fault("lost_response", operation=CREATE, answer="error")
        server.lag(list_seconds=HOUR)
        bedrock = server.client("bedrock", attempts=1)
        assert scene.shard(bedrock=bedrock).label()["outcome"] == "waiting"
        server.forget_tokens()
        result = scene.shard(bedrock=bedrock).label()
        assert result["outcome"] == "waiting"
        assert "currently in use" in result["message"]
        server.advance(HOUR)
        assert scene.label()["outcome"] == "done"
        assert len(scene.jobs()) == 1


def test_calls_that_take_long_go_on_in_the_next_invocation(scene: Scene) -> None:
    scene.publish(40)
    times = iter([0.0, 0.0, 700.0])
    result = scene.shard(now=lambda: next(times)).label()
    assert result["outcome"] == "waiting"
    assert f"{PART} of 80 calls done" in result["message"]
    assert scene.label()["outcome"] == "done"
    assert scene.asked() == 80


def test_jobs_of_another_life_have_other_names(scene: Scene) -> None:
    scene.publish(60)
    scene.label()
    names = {job["jobName"] for job in scene.jobs()}
    scene.server.s3.objects.clear()
    scene.publish(60)
    scene.shard().label()
    assert len({job["jobName"] for job in scene.jobs()} - names) == 1
    assert all(len(job["jobName"]) <= 63 for job in scene.jobs())


def test_labelling_without_its_life_says_what_to_do_and_pays_nothing(scene: Scene) -> None:
    scene.publish(60)
    del scene.server.s3.objects["data", f"{scene.plan.folder}{LIFE}"]
    result = scene.shard().label()
    assert result["outcome"] == "failed"
    assert f"s3://data/{scene.plan.folder}life.json is missing" in result["message"]
    assert "Raise release.attempt and deploy again" in result["message"]
    assert scene.jobs() == []


def test_batch_job_says_from_its_creation_whose_it_is(scene: Scene) -> None:
    scene.publish(60)
    scene.shard().label()
    (call,) = scene.server.calls(CREATE)
    tags = {tag["key"]: tag["value"] for tag in call["parameters"]["tags"]}
    assert tags == {
        OWNER_TAG: OWNER,
        LABELS_TAG: scene.plan.labels,
        DIGEST_TAG: scene.plan.digest,
        REQUEST_TAG: FIRST,
        **CLAIMANT.tag,
    }


def test_batch_job_that_is_not_readable_yet_is_not_paid_twice(scene: Scene) -> None:
    scene.publish(60)
    scene.shard().label()
    answers = iter([None, None])

    def read(**request: Any) -> Any:
        if next(answers, 1) is None:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "None."}}, "Get")
        return scene.bedrock.get_model_invocation_job(**request)

    lagging = failing(scene.bedrock, get_model_invocation_job=read)
    result = scene.shard(bedrock=lagging, absence_seconds=5).label()
    assert result["outcome"] == "waiting"
    assert len(scene.jobs()) == 1


def test_no_label_holds_what_is_no_weight(scene: Scene) -> None:
    scene.publish(20)
    scene.server.fault("output_prose", count=1_000)
    scene.label()
    assert "NaN" not in printed(scene.labelled())
    scene.server.advance(HOUR)


# Somebody else writes to the bucket


@pytest.mark.parametrize(
    ("count", "key", "change"),
    [
        (20, "queries/00000.jsonl", ("red car", "blue bus")),
        (60, "rounds/00000/001/input.jsonl", ("red car", "blue bus")),
        (60, "rounds/00000/001/round.json", ('"number": 1', '"number": 1 ')),
        (20, "rounds/00000/001/answers-000.jsonl", ('"weights"', '"weights" ')),
    ],
)
def test_replaced_file_ends_the_labelling_of_its_shard(
    scene: Scene, count: int, key: str, change: tuple[str, str]
) -> None:
    scene.publish(count)
    assert scene.label()["outcome"] == "done"
    asked = scene.asked()
    del scene.server.s3.objects[scene.bucket, f"{scene.plan.folder}labelled/00000.jsonl"]
    replaced(scene, key, change)
    result = scene.label(SECOND)
    assert result["outcome"] == "failed"
    assert f"{scene.folder.uri(key)} was not written by these functions, or was replaced" in result["message"]
    assert (scene.asked(), len(scene.jobs())) == (asked, 0 if asked else 1)


def test_answers_that_an_earlier_stack_left_are_used_and_later_ones_are_not(scene: Scene) -> None:
    scene.publish(20)
    assert scene.label()["outcome"] == "done"
    asked = scene.asked()
    del scene.server.s3.objects[scene.bucket, f"{scene.plan.folder}labelled/00000.jsonl"]
    another = replace(scene, seal=Seal("the key of another stack's table", since=time.time() + 3600))
    assert another.label(SECOND)["outcome"] == "done"
    assert scene.asked() == asked
    late = replace(scene, seal=Seal("the key of a third stack's table", since=time.time() - 3600))
    del scene.server.s3.objects[scene.bucket, f"{scene.plan.folder}labelled/00000.jsonl"]
    assert "found another one" in late.label(SECOND)["message"]
