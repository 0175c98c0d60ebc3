"""Errors, retries, lifecycles, names, folders and answers: the small parts that the resources share."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)

from distilled_router.aws import errors
from distilled_router.aws.custom_resource import (
    REASON_BYTES,
    Event,
    answer,
    answer_event,
    answer_poll,
    complete,
    is_true,
    pending,
    shortened,
)
from distilled_router.aws.errors import ResourceError, with_retries
from distilled_router.aws.storage import deadline, purge
from distilled_router.bedrock import jobs, lifecycle
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags, digest_of, is_owned, release_name
from tests.unit import framework
from tests.unit.resource_scenes import DAY, STUDENT, TEACHER, World, job_properties, refusal, spec

EVENT = Event.parse(framework.create({}))

Client = Callable[[str], Any]


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Pass the time."""
        self.pauses.append(seconds)
        self.now += seconds


def test_retries_end_with_the_first_success() -> None:
    """Case B2."""
    clock, answers = Clock(), [refusal("ThrottlingException"), refusal("ThrottlingException"), "done"]

    def call() -> object:
        found = answers.pop(0)
        if isinstance(found, ClientError):
            raise found
        return found

    result = with_retries(
        call, retryable=errors.is_throttle, seconds=60, sleep=clock.sleep, now=lambda: clock.now
    )

    assert result == "done"
    assert 0.5 <= clock.pauses[0] <= 1
    assert 1 <= clock.pauses[1] <= 2


def test_retries_never_outlast_their_time() -> None:
    """Case B3."""
    clock, error = Clock(), refusal("ThrottlingException")

    def call() -> None:
        raise error

    with pytest.raises(ClientError) as caught:
        with_retries(call, retryable=lambda _: True, seconds=60, sleep=clock.sleep, now=lambda: clock.now)

    assert caught.value is error
    assert 40 <= clock.now <= 60
    assert max(clock.pauses) <= 15


def test_what_is_not_retryable_is_raised_at_once() -> None:
    clock = Clock()

    def call() -> None:
        raise refusal("ValidationException")

    with pytest.raises(ClientError):
        with_retries(call, retryable=errors.is_throttle, seconds=60, sleep=clock.sleep, now=lambda: clock.now)
    assert clock.pauses == []


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (refusal("ThrottlingException", status=429), True),
        (refusal("InternalServerException", status=500), True),
        (refusal("ServiceUnavailableException", status=503), True),
        (ReadTimeoutError(endpoint_url="https://bedrock"), True),
        (ConnectTimeoutError(endpoint_url="https://bedrock"), True),
        (EndpointConnectionError(endpoint_url="https://bedrock"), True),
        (refusal("ValidationException"), False),
        (refusal("ServiceQuotaExceededException"), False),
        (refusal("AccessDeniedException", status=403), False),
        (ParamValidationError(report="a number is no text"), False),
        (ValueError("ours"), False),
    ],
)
def test_what_passes_and_what_does_not(error: Exception, passes: bool) -> None:
    assert errors.is_transient(error) is passes


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "NoSuchKey", "NoSuchVersion", "404"])
def test_a_missing_thing_is_none_and_another_error_is_raised(code: str) -> None:
    def call(found: ClientError) -> None:
        raise found

    assert errors.or_none(call, found=refusal(code)) is None
    with pytest.raises(ClientError):
        errors.or_none(call, found=refusal("AccessDeniedException"))


@pytest.mark.parametrize(
    "reason",
    [
        "x" * 100_000,
        "赤い車" * 5_000,
        "🚗" * 5_000,
        '"\\\n' * 5_000,
        "\ud83d" * 5_000,
        "\x00" * 5_000,
    ],
    ids=["ascii", "three bytes", "four bytes", "escapes", "half surrogates", "control"],
)
def test_every_reason_fits_the_response(reason: str) -> None:
    """Case C9."""
    text = shortened(f"start {reason} advice")

    assert len(json.dumps(text, ensure_ascii=False).encode(errors="replace")) <= REASON_BYTES
    assert text.startswith("start ")
    assert text.endswith(" advice")
    assert " … " in text


def test_a_short_reason_stays_as_it_is() -> None:
    """Case C9."""
    assert shortened("Job a ended — nothing runs.") == "Job a ended — nothing runs."


def test_an_error_of_the_service_becomes_a_short_reason() -> None:
    """Case C2."""

    def work(_: Event) -> dict[str, Any]:
        raise refusal("AccessDeniedException", "no " * 5_000, 403)

    for entry in (answer_event, answer_poll):
        with pytest.raises(ResourceError) as caught:
            entry(EVENT, work)
        assert "AccessDeniedException" in str(caught.value)
        assert len(str(caught.value)) <= REASON_BYTES


def test_a_temporary_error_is_retried_by_is_complete_only() -> None:
    """Case C1."""

    def work(_: Event) -> dict[str, Any]:
        raise refusal("ThrottlingException", status=429)

    assert not answer_poll(EVENT, work)["IsComplete"]
    with pytest.raises(ResourceError):
        answer_event(EVENT, work)


def test_what_is_not_complete_carries_no_data() -> None:
    """Case C5."""
    assert pending("Wait.") == {"IsComplete": False, "Reason": "Wait."}
    assert complete() == {"IsComplete": True}
    assert complete({"Status": "Completed"}) == {"IsComplete": True, "Data": {"Status": "Completed"}}


def test_an_answer_has_our_own_id_and_carries_fields_beside_its_data() -> None:
    """Cases C1, C3."""
    assert answer("job", {"A": "b"}, RequestedAt=1.5) == {
        "PhysicalResourceId": "job",
        "RequestedAt": 1.5,
        "Data": {"A": "b"},
    }
    assert answer("job") == {"PhysicalResourceId": "job"}


def test_a_parsed_event_holds_no_response_url() -> None:
    """Case C9."""
    event = framework.update("job", {"A": "1"}, {"A": "0"})
    parsed = Event.parse(event)

    assert "Signature" not in repr(parsed)
    assert (parsed.request_type, parsed.physical_id, parsed.is_delete) == ("Update", "job", False)
    assert (parsed.properties["A"], parsed.old_properties["A"]) == ("1", "0")
    assert parsed.logical_id == event["LogicalResourceId"]
    assert (parsed.stack_id, parsed.request_id) == (event["StackId"], event["RequestId"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("True", True), (True, True), ("false", False), ("", False), (None, False)],
)
def test_booleans_arrive_as_strings(value: Any, expected: bool) -> None:
    assert is_true(value) is expected


def test_properties_arrive_as_strings_and_leave_as_the_api_takes_them() -> None:
    request = jobs.JobSpec.request(spec())
    teacher = request["customizationConfig"]["distillationConfig"]["teacherModelConfig"]

    assert teacher["maxResponseLengthForInference"] == 1000
    assert "customModelKmsKeyId" not in request
    assert all(isinstance(value, str) for value in job_properties().values() if not isinstance(value, dict))


@pytest.mark.parametrize(
    ("identifier", "model"),
    [
        ("amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        ("us.amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        ("global.amazon.nova-2-lite-v1:0", "amazon.nova-2-lite-v1:0"),
        (STUDENT, STUDENT),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        (
            "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.amazon.nova-pro-v1:0",
            "amazon.nova-pro-v1:0",
        ),
    ],
)
def test_an_inference_profile_is_checked_by_its_model(identifier: str, model: str) -> None:
    """Case B17."""
    assert lifecycle.foundation_model_id(identifier) == model


def test_each_model_is_read_once_and_its_end_counts_from_that_day(world: World) -> None:
    """Case B17."""
    now = world.utc_now()
    end = now + timedelta(days=1)
    world.server.lifecycle("amazon.nova-pro-v1:0", legacy=now.timestamp() - DAY, end=end.timestamp())

    lifecycle.check_usable(world.bedrock, [STUDENT, TEACHER], allow_legacy=True, today=now)
    assert len(world.server.calls("GetFoundationModel")) == 2
    with pytest.raises(ResourceError, match=f"ended on {end:%Y-%m-%d}"):
        lifecycle.check_usable(world.bedrock, [TEACHER], allow_legacy=True, today=end)
    with pytest.raises(ResourceError, match="LEGACY and ends on"):
        lifecycle.check_usable(world.bedrock, [TEACHER], allow_legacy=False, today=now)


def test_a_lookup_that_is_denied_is_no_unknown_model(world: World) -> None:
    """Case B17."""
    world.server.fault("denied", operation="GetFoundationModel")

    with pytest.raises(ClientError, match="AccessDenied"):
        lifecycle.check_usable(world.bedrock, [TEACHER], allow_legacy=False)


FALLBACK = "us.amazon.nova-micro-v1:0"


@pytest.mark.parametrize("fallback", [FALLBACK, "amazon.nova-micro-v1:0"])
def test_a_fallback_that_can_answer_passes(world: World, fallback: str) -> None:
    lifecycle.check_fallback(world.bedrock, fallback, allow_legacy=False)


@pytest.mark.parametrize(
    ("fallback", "details", "text"),
    [
        ("amazon.nova-mikro-v1:0", {}, "unknown to Bedrock in this Region"),
        (
            "amazon.nova-micro-v1:0",
            {"inferenceTypesSupported": ["INFERENCE_PROFILE"]},
            f"profile, {FALLBACK}",
        ),
        (FALLBACK, {"outputModalities": ["EMBEDDING"]}, "writes EMBEDDING, not TEXT"),
    ],
)
def test_a_fallback_that_can_not_answer_is_refused(
    world: World, fallback: str, details: dict[str, Any], text: str
) -> None:
    def read(**parameters: Any) -> Any:
        found = world.bedrock.get_foundation_model(**parameters)["modelDetails"]
        return {"modelDetails": {**found, **details}}

    with pytest.raises(
        ResourceError, match=f"{text}.*Nothing was started|Nothing was started.*{text}"
    ) as caught:
        lifecycle.check_fallback(failing(world.bedrock, read), fallback, allow_legacy=False)
    assert "router.base_model" in str(caught.value)


@pytest.mark.parametrize(("days", "text"), [(0, "ended on"), (1, "is LEGACY")])
def test_a_fallback_that_ends_is_refused_by_its_own_setting(world: World, days: int, text: str) -> None:
    now = world.utc_now()
    world.server.lifecycle(
        "amazon.nova-micro-v1:0", legacy=now.timestamp() - DAY, end=now.timestamp() + days * DAY
    )
    with pytest.raises(ResourceError, match=text) as caught:
        lifecycle.check_fallback(world.bedrock, FALLBACK, allow_legacy=False, today=now)
    assert "in router.base_model" in str(caught.value)
    assert "teacher" not in str(caught.value)


def failing(real: Any, get_foundation_model: Any) -> Any:
    class Client:
        def __getattr__(self, name: str) -> Any:
            return get_foundation_model if name == "get_foundation_model" else getattr(real, name)

    return Client()


def test_a_job_is_not_paid_for_while_the_fallback_can_not_answer(world: World) -> None:
    for later in ({}, {"MadeLater": "true"}):
        properties = job_properties(FallbackModel="us.amazon.nova-mikro-v1:0", **later)
        response = world.jobs().send(framework.create(properties))
        assert not response.succeeded
        assert "us.amazon.nova-mikro-v1:0 is unknown to Bedrock" in response.reason
    assert world.server.calls("CreateModelCustomizationJob") == []


def test_the_fallback_decides_no_job() -> None:
    assert spec(FallbackModel=FALLBACK).token == spec().token
    assert spec(FallbackModel=FALLBACK).request() == spec().request()


def test_names_say_whose_they_are() -> None:
    name = release_name("video-router-prod", "0123456789ab")

    assert digest_of("video-router-prod", name) == "0123456789ab"
    for owner, other in (
        ("video-router", name),
        ("router-prod", name),
        ("video-router-prod", "video-router-prod-0123456789AB"),
        ("video-router-prod", "video-router-prod-0123456789abc"),
        ("video-router-prod", "0123456789ab"),
    ):
        assert digest_of(owner, other) is None


def test_tags_are_lists_in_a_stable_order() -> None:
    tags = bedrock_tags({"b": "2", OWNER_TAG: "us", "a": "1"})

    assert [tag["key"] for tag in tags] == ["a", "b", OWNER_TAG]
    assert is_owned(tags, "us")
    assert not is_owned(tags, "others")
    assert not is_owned([], "us")


def test_a_jobs_phases_are_described() -> None:
    details = {
        "validationDetails": {"status": "Completed"},
        "dataProcessingDetails": {"status": "InProgress"},
        "trainingDetails": {"status": "NotStarted"},
    }
    told = jobs.progress({"status": "InProgress", "statusDetails": details})

    assert told == "validation Completed, data processing InProgress, training NotStarted"
    assert jobs.progress({"status": "InProgress", "statusDetails": None}) == "InProgress"


def test_a_folder_goes_with_all_its_versions_and_nothing_else(aws: Client, bucket: str) -> None:
    s3 = aws("s3")
    for key in ("jobs/a/1", "jobs/a/1", "jobs/a/deep/2", "jobs/ab/1"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.delete_object(Bucket=bucket, Key="jobs/a/1")

    assert purge(s3, bucket, "jobs/a/")

    left = s3.list_object_versions(Bucket=bucket)
    assert [item["Key"] for item in left["Versions"]] == ["jobs/ab/1"]
    assert left.get("DeleteMarkers", []) == []
    assert purge(s3, bucket, "jobs/a/")


def test_a_purge_stops_at_its_deadline_and_continues_later(aws: Client, bucket: str) -> None:
    s3 = aws("s3")
    s3.put_object(Bucket=bucket, Key="jobs/a/1", Body=b"x")

    assert not purge(s3, bucket, "jobs/a/", until=lambda: True)
    assert purge(s3, bucket, "jobs/a/", until=lambda: True)


@pytest.mark.parametrize("prefix", ["", "/", "jobs/a"])
def test_a_purge_takes_folders_only(prefix: str) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        purge(None, "bucket", prefix)


def test_an_object_that_can_not_be_deleted_is_named() -> None:
    class Locked:
        @staticmethod
        def list_object_versions(**_: Any) -> dict[str, Any]:
            return {"Versions": [{"Key": "jobs/a/1", "VersionId": "v"}]}

        @staticmethod
        def delete_objects(**_: Any) -> dict[str, Any]:
            return {"Errors": [{"Key": "jobs/a/1", "Code": "AccessDenied", "Message": "Object Lock"}]}

    with pytest.raises(
        ResourceError, match="s3://bucket/jobs/a/1 can't be deleted: AccessDenied Object Lock"
    ):
        purge(Locked, "bucket", "jobs/a/")


def test_a_deadline_is_over_after_its_seconds() -> None:
    clock = Clock()
    over = deadline(60, lambda: clock.now)

    assert not over()
    clock.sleep(61)
    assert over()
