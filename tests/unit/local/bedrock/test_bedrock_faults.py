"""Injected faults, the record of calls and the control endpoints."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.bedrock.clock import ScaledClock
from local.bedrock.faults import FOREIGN
from local.bedrock.work import Work
from local.keys import HEADER
from tests.unit.local.bedrock.scenes import (
    DAY,
    HOUR,
    MINUTE,
    PROMPT,
    Scene,
    conflict,
    invalid,
    refused,
)
from tests.unit.local.bedrock.test_bedrock_batch import create as create_batch
from tests.unit.local.bedrock.test_bedrock_batch import records
from tests.unit.local.bedrock.test_bedrock_evaluations import create as create_evaluation

CREDENTIAL = "AKIA/20261124/us-east-1/bedrock/aws4_request"
SIGNED = {"Authorization": f"AWS4-HMAC-SHA256 Credential={CREDENTIAL}, SignedHeaders=host"}


def control(
    scene: Scene, method: str, path: str, body: Any = None, token: str | None = None
) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {HEADER: scene.bedrock.token if token is None else token}
    request = urllib.request.Request(scene.bedrock.endpoint + path, data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        ("denied", "AccessDeniedException", 403),
        ("validation", "ValidationException", 400),
        ("conflict", "ConflictException", 400),
        ("over_quota", "ServiceQuotaExceededException", 400),
        ("not_found", "ResourceNotFoundException", 404),
    ],
)
def test_next_calls_fail_with_the_injected_error(scene: Scene, kind: str, code: str, status: int) -> None:
    scene.bedrock.fault(kind, operation="ListCustomModels", count=2, message="injected")
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            scene.control.list_custom_models()
        answer = caught.value.response
        assert (answer["Error"]["Code"], answer["Error"]["Message"]) == (code, "injected")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    scene.control.list_custom_models()


@pytest.mark.parametrize("kind", ["throttled", "failed"])
def test_one_throttled_or_failed_call_is_retried_by_the_client(scene: Scene, kind: str) -> None:
    scene.bedrock.fault(kind, operation="ListCustomModels")
    scene.bedrock.client("bedrock").list_custom_models()
    assert [call["outcome"] for call in scene.bedrock.calls()][1:] == ["ok"]


def test_fault_of_one_model_does_not_affect_others(scene: Scene) -> None:
    scene.bedrock.fault("denied", operation="Converse", modelId="amazon.nova-micro-v1:0", count=None)
    scene.ask("amazon.nova-lite-v1:0", "a red car")
    for _ in range(2):
        with refused("AccessDeniedException"):
            scene.ask("amazon.nova-micro-v1:0", "a red car")


@pytest.mark.parametrize("named", ["endpoint", "model", "model's ARN", "endpoint's ARN"])
@pytest.mark.parametrize("bought", [False, True], ids=["on demand", "throughput"])
def test_fault_of_a_custom_model_can_be_injected_by_name(scene: Scene, named: str, bought: bool) -> None:
    """A fault can be injected by name before the model exists."""
    if "ARN" not in named:
        scene.bedrock.fault("denied", operation="Converse", modelId=named)
        scene.bedrock.fault("output_empty", modelId=named)
    models = {name: scene.train(name) for name in ("model", "other")}
    other = scene.deploy(models["other"], "somebody-else")
    arn = scene.provision(models["model"], "endpoint") if bought else scene.deploy(models["model"])
    if "ARN" in named:
        identifier = arn if named == "endpoint's ARN" else models["model"]
        scene.bedrock.fault("denied", operation="Converse", modelId=identifier)
        scene.bedrock.fault("output_empty", modelId=identifier)
    assert scene.ask(other, PROMPT)
    with refused("AccessDeniedException"):
        scene.ask(arn, PROMPT)
    assert scene.ask(arn, PROMPT) == ""
    assert scene.ask(arn, PROMPT)


def test_slow_call_is_delayed(scene: Scene) -> None:
    scene.bedrock.fault("slow", operation="*", milliseconds=40)
    began = time.perf_counter()
    scene.control.list_custom_models()
    assert time.perf_counter() - began >= 0.04


def test_response_that_dribbles_arrives_byte_by_byte(scene: Scene) -> None:
    scene.bedrock.fault("dribble", operation="ListCustomModels", milliseconds=2)
    request = urllib.request.Request(f"{scene.bedrock.endpoint}/custom-models", headers=SIGNED)
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer) == {"modelSummaries": []}
    assert time.perf_counter() - began > 0.2


@pytest.mark.parametrize("answer", FOREIGN)
def test_answer_of_somebody_else_has_status_200(scene: Scene, answer: str) -> None:
    scene.bedrock.fault("foreign", operation="ListCustomModels", answer=answer)
    request = urllib.request.Request(f"{scene.bedrock.endpoint}/custom-models", headers=SIGNED)
    with urllib.request.urlopen(request, timeout=60) as found:
        assert (found.status, found.read()) == (200, FOREIGN[answer])


@pytest.mark.parametrize("answer", ["dropped", "error"])
def test_call_with_a_lost_response_is_executed_and_found_by_its_token(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    scene.bedrock.fault("lost_response", operation="CreateModelCustomizationJob", answer=answer)
    monkeypatch.setattr(scene, "control", scene.bedrock.client("bedrock", attempts=2))
    # The client sends the same token again after the lost response.
    scene.create_job()
    outcomes = [call["outcome"] for call in scene.bedrock.calls("CreateModelCustomizationJob")]
    assert outcomes == ["lost", "ok"]
    assert len(scene.bedrock.state()["jobs"]) == 1


def test_stalled_job_waits_for_training_until_it_is_stopped(scene: Scene) -> None:
    scene.bedrock.fault("job_stalled")
    scene.create_job()
    scene.advance(3 * DAY)
    assert scene.job()["status"] == "InProgress"
    assert list(scene.phases().values()) == ["Completed", "Completed", "NotStarted"]
    scene.control.stop_model_customization_job(jobIdentifier="job")
    scene.advance(MINUTE * 5)
    assert scene.job()["status"] == "Stopped"


def test_stalled_training_runs_until_it_is_stopped(scene: Scene) -> None:
    scene.bedrock.fault("training_stalled")
    scene.create_job()
    scene.advance(3 * DAY)
    assert list(scene.phases().values()) == ["Completed", "Completed", "InProgress"]
    scene.control.stop_model_customization_job(jobIdentifier="job")
    scene.advance(MINUTE * 5)
    assert scene.job()["status"] == "Stopped"


def test_deployments_and_throughput_stall_until_faults_are_cleared(scene: Scene) -> None:
    def statuses() -> list[str]:
        state = scene.bedrock.state()
        return [str(state[kind][0]["status"]) for kind in ("deployments", "throughput")]

    model = scene.train()
    scene.bedrock.fault("deployment_stalled")
    scene.bedrock.fault("throughput_stalled")
    scene.deploy(model)
    scene.provision(model)
    scene.advance(DAY)
    assert statuses() == ["Creating", "Creating"]
    scene.bedrock.clear_faults()
    assert statuses() == ["Active", "InService"]

    scene.bedrock.fault("throughput_update_stalled")
    change = {"provisionedModelId": "units", "desiredProvisionedModelName": "renamed"}
    scene.control.update_provisioned_model_throughput(**change)
    scene.advance(DAY)
    assert statuses() == ["Active", "Updating"]
    assert control(scene, "DELETE", "/_faults")[0] == 200
    assert statuses() == ["Active", "InService"]


def test_work_is_done_only_once_its_time_is_known() -> None:
    """A job that read the time too early would end before its work."""
    seen: list[float | None] = []

    class Watched(ScaledClock):
        def now(self) -> float:
            seen.append(work.finished(0))
            ended.set()
            return 7.0

    ended = threading.Event()
    work = Work(Watched(), lambda: None)
    work.start()
    assert ended.wait(60)
    assert seen == [None]


def test_failed_job_has_the_injected_message(scene: Scene) -> None:
    scene.bedrock.fault("job_failed", message="Encountered an internal error.")
    scene.create_job()
    scene.create_job("next")
    scene.advance(2 * HOUR)
    assert (scene.job()["status"], scene.job()["failureMessage"]) == (
        "Failed",
        "Encountered an internal error.",
    )
    assert scene.job("next")["status"] == "Completed"


def test_job_is_stopped_by_a_fault(scene: Scene) -> None:
    scene.bedrock.fault("job_stopped")
    scene.create_job()
    scene.advance(29 * MINUTE)
    assert scene.job()["status"] == "Stopping"
    scene.advance(HOUR)
    assert scene.job()["status"] == "Stopped"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("output_prose", "I'd say this request is mostly about pictures, with a little of everything else."),
        ("output_wrapped", "Sure! Here is the answer:\n```\n90 10\n```"),
        ("output_truncated", "90"),
        ("output_empty", ""),
        ("output_wrong_sum", "180.5 10"),
        ("output_negative", "-90 10"),
        ("output_not_numbers", "high low"),
        ("output_too_few", "90"),
    ],
)
def test_next_output_is_malformed_by_a_fault(scene: Scene, kind: str, text: str) -> None:
    endpoint = scene.deploy(scene.train())
    scene.bedrock.fault(kind, modelId=endpoint)
    assert "{" in scene.ask("amazon.nova-micro-v1:0", PROMPT, 'Answer as {"fruit": 0.5, "bread": 0.5}.')
    assert scene.ask(endpoint, PROMPT) == text
    assert scene.ask(endpoint, PROMPT) == "90 10"


@pytest.mark.parametrize(
    ("kind", "blocks", "stop"),
    [
        ("output_two_blocks", [{"text": "These are the weights."}, {"text": "90 10"}], "end_turn"),
        ("output_no_content", [], "end_turn"),
        ("output_cut_off", [{"text": "90"}], "max_tokens"),
        (
            "output_guarded",
            [{"text": "Sorry, the model can't answer this request."}],
            "guardrail_intervened",
        ),
    ],
)
def test_next_response_is_reshaped_by_a_fault(
    scene: Scene, kind: str, blocks: list[dict[str, str]], stop: str
) -> None:
    endpoint = scene.deploy(scene.train())
    scene.bedrock.fault(kind, modelId=endpoint)
    answer = scene.converse(endpoint, PROMPT)
    assert answer["output"]["message"]["content"] == blocks
    assert answer["stopReason"] == stop
    assert len(scene.converse(endpoint, PROMPT)["output"]["message"]["content"]) == 1


def test_reasoning_precedes_the_text_with_a_fault(scene: Scene) -> None:
    endpoint = scene.deploy(scene.train())
    scene.bedrock.fault("output_reasoning", modelId=endpoint)
    reasoning, text = scene.converse(endpoint, PROMPT)["output"]["message"]["content"]
    assert reasoning["reasoningContent"]["reasoningText"]["text"]
    assert text == {"text": "90 10"}


def test_calls_are_recorded_with_caller_parameters_and_outcome(scene: Scene) -> None:
    router = scene.bedrock.client("bedrock", access_key="AKIAROUTER")
    router.list_custom_models(nameContains="x")
    with invalid():
        scene.create_job("under_score")
    first, second = scene.bedrock.calls()
    assert (first["operation"], first["access_key"], first["outcome"]) == (
        "ListCustomModels",
        "AKIAROUTER",
        "ok",
    )
    assert first["parameters"] == {"nameContains": "x"}
    assert (second["outcome"], second["parameters"]["jobName"]) == ("ValidationException", "under_score")
    assert "jobName" in second["message"]
    assert first["time"] == scene.bedrock.clock.now()
    del first["access_key"]
    assert control(scene, "GET", "/_calls?operation=ListCustomModels") == (200, [first])


def tag(scene: Scene, arn: str, value: str) -> None:
    scene.control.tag_resource(resourceARN=arn, tags=[{"key": "owner", "value": value}])


def test_calls_are_recorded_with_their_resource_and_its_tags(scene: Scene) -> None:
    job = scene.create_job(jobTags=[{"key": "owner", "value": "first"}])
    scene.advance(2 * HOUR)
    model = str(scene.job()["outputModelArn"])
    tag(scene, model, "first")
    units = scene.provision(model, tags=[{"key": "owner", "value": "first"}])
    tag(scene, units, "second")
    scene.control.delete_provisioned_model_throughput(provisionedModelId="units")
    with conflict():
        scene.control.stop_model_customization_job(jobIdentifier="job")
    recorded = [
        (call["operation"], call["resource"], call["tags"].get("owner")) for call in scene.bedrock.calls()
    ]
    assert recorded == [
        ("CreateModelCustomizationJob", job, "first"),
        ("GetModelCustomizationJob", job, "first"),
        ("TagResource", model, "first"),
        ("CreateProvisionedModelThroughput", units, "first"),
        ("TagResource", units, "second"),
        ("DeleteProvisionedModelThroughput", units, "second"),
        ("StopModelCustomizationJob", job, "first"),
    ]


def test_state_shows_the_tags_of_every_kind_of_resource(scene: Scene) -> None:
    model = scene.train()
    batch, evaluation = create_batch(scene, records()), create_evaluation(scene)
    arns = [scene.bedrock.state()["jobs"][0]["arn"], model, scene.deploy(model), scene.provision(model)]
    for number, arn in enumerate([*arns, batch, evaluation]):
        tag(scene, arn, str(number))
    state = scene.bedrock.state()
    kinds = ("jobs", "models", "deployments", "throughput", "batch", "evaluations")
    assert [state[kind][0]["tags"]["owner"] for kind in kinds] == ["0", "1", "2", "3", "4", "5"]


def test_request_must_be_signed_for_the_region(scene: Scene) -> None:
    status, answer = control(scene, "GET", "/custom-models")
    assert (status, answer["message"]) == (403, "Missing Authentication Token")
    assert scene.bedrock.calls()[-1]["outcome"] == "MissingAuthenticationTokenException"


def test_control_endpoints_need_the_token(scene: Scene) -> None:
    for method, path in (
        ("GET", "/_state"),
        ("GET", "/_calls"),
        ("GET", "/_faults"),
        ("POST", "/_faults"),
        ("DELETE", "/_lag"),
        ("POST", "/_latency"),
        ("POST", "/_lifecycle"),
        ("POST", "/_reset"),
        ("GET", "/_unknown"),
    ):
        for token in ("", "guessed"):
            status, answer = control(scene, method, path, {"kind": "job_failed"}, token=token)
            assert (status, scene.bedrock.token in str(answer)) == (403, False), path
    assert control(scene, "GET", "/_faults") == (200, [])
    assert control(scene, "GET", "/_health", token="")[0] == 200


def test_state_reset_and_health(scene: Scene) -> None:
    scene.deploy(scene.train(jobTags=[{"key": "owner", "value": "me"}]))
    status, state = control(scene, "GET", "/_state")
    assert status == 200
    assert (state["jobs"][0]["status"], state["jobs"][0]["tags"]) == ("Completed", {"owner": "me"})
    assert [item["name"] for item in state["deployments"]] == ["endpoint"]
    assert state == scene.bedrock.state()
    assert control(scene, "GET", "/_health")[1]["status"] == "ok"
    assert control(scene, "POST", "/_reset") == (200, {})
    assert not any(scene.bedrock.state().values())
    assert scene.bedrock.calls() == []


def test_pending_faults_are_listed_and_can_be_removed(scene: Scene) -> None:
    faults = [{"kind": "job_failed"}, {"kind": "throttled", "operation": "Converse", "count": 3}]
    status, pending = control(scene, "POST", "/_faults", faults)
    assert (status, [fault["kind"] for fault in pending]) == (200, ["job_failed", "throttled"])
    assert control(scene, "GET", "/_faults")[1] == pending
    control(scene, "DELETE", "/_faults")
    assert control(scene, "GET", "/_faults") == (200, [])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"kind": "nonsense"}, "use one of throttled, denied"),
        ({"kind": "throttled"}, "needs an operation's name"),
        ({"kind": "throttled", "operation": "NoSuch"}, "needs an operation's name"),
        ({"kind": "slow", "operation": "*"}, "milliseconds from 0"),
        ({"kind": "job_failed", "count": 0}, "whole number from 1"),
        ({"kind": "job_failed", "often": 1}, "a fault takes kind, count"),
        ({"kind": "job_failed", "operation": "Converse"}, "takes no operation"),
        ({"kind": "lost_response", "operation": "*", "answer": "late"}, "'dropped' or 'error'"),
        ({"kind": "dribble", "operation": "*"}, "dribble needs milliseconds from 0"),
        ({"kind": "foreign", "operation": "*"}, "'html' or 'empty'"),
        ("text", "a fault is a JSON object"),
        ([1], "a fault is a JSON object"),
    ],
)
def test_invalid_fault_is_refused_with_what_is_allowed(scene: Scene, fault: Any, text: str) -> None:
    status, answer = control(scene, "POST", "/_faults", fault)
    assert (status, text in answer["message"]) == (400, True), answer


def test_latency_and_lifecycle_can_be_set_while_it_runs(scene: Scene) -> None:
    assert control(scene, "POST", "/_latency", {"first_token_ms": 15})[0] == 200
    assert scene.converse("amazon.nova-micro-v1:0", "a red car")["metrics"]["latencyMs"] >= 15
    assert control(scene, "POST", "/_latency", {"first_token_ms": 0})[0] == 200
    wanted = {"modelId": "amazon.nova-pro-v1:0", "legacyTime": 1_700_000_000}
    assert control(scene, "POST", "/_lifecycle", wanted)[0] == 200
    details = scene.control.get_foundation_model(modelIdentifier="amazon.nova-pro-v1:0")["modelDetails"]
    assert details["modelLifecycle"]["status"] == "LEGACY"
    assert control(scene, "POST", "/_lifecycle", {"modelId": "unknown"})[0] == 400
    assert control(scene, "POST", "/_lifecycle", {**wanted, "endOfLifeTime": "soon"})[0] == 400
    assert control(scene, "POST", "/_latency", {"first_token_ms": -1})[0] == 400
    assert control(scene, "GET", "/_nothing")[0] == 404


def test_fault_can_skip_calls_first(scene: Scene) -> None:
    scene.bedrock.fault("denied", operation="ListCustomModels", skip=2)
    scene.control.list_custom_models()
    scene.control.list_custom_models()
    with refused("AccessDeniedException"):
        scene.control.list_custom_models()
    scene.control.list_custom_models()
