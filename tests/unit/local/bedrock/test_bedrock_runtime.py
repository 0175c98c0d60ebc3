"""Converse and InvokeModel, foundation models and inference profiles."""

from __future__ import annotations

import gzip
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distilled_router.aws.errors import with_retries
from distilled_router.data.invocation_logs import Selection
from distilled_router.task.task import Task
from labelling.logs import Logs
from local.bedrock import BedrockStandIn, ManualClock, Quotas, Settings
from tests.unit.labelling.scenes import PLAN
from tests.unit.local.bedrock.scenes import BASE, PROMPT, STUDENT, SYSTEM, TEACHER, Scene, invalid, refused

FULL_PROMPT = """Answer with one JSON object:
{"visual": 0.0, "audio": 0.0, "transcription": 0.0, "metadata": 0.0}
"""


@pytest.fixture
def endpoint(scene: Scene) -> str:
    return scene.deploy(scene.train())


@pytest.mark.parametrize(
    ("identifier", "code", "text"),
    [
        (STUDENT, "ResourceNotFoundException", "Model not found"),
        ("amazon.no-such-v1:0", "ValidationException", "The provided model identifier is invalid."),
        ("us.amazon.nova-premier-v1:0", "ValidationException", "The provided model identifier is invalid."),
        (
            "arn:aws:bedrock:us-east-1:000000000000:custom-model-deployment/000000000000",
            "ResourceNotFoundException",
            "custom model deployment",
        ),
        (
            "arn:aws:bedrock:us-east-1:000000000000:provisioned-model/000000000000",
            "ResourceNotFoundException",
            "provisioned model",
        ),
    ],
)
def test_converse_refuses(scene: Scene, identifier: str, code: str, text: str) -> None:
    with refused(code, text):
        scene.ask(identifier, PROMPT)


def test_custom_model_itself_cannot_be_invoked(scene: Scene) -> None:
    with refused("ValidationException"):
        scene.ask(scene.train(), PROMPT)


@pytest.mark.parametrize(
    "identifier",
    [
        BASE,
        f"us.{BASE}",
        "amazon.nova-pro-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
        f"arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.{BASE}",
    ],
)
def test_base_models_answer_with_the_labels_of_the_prompt(scene: Scene, identifier: str) -> None:
    weights = json.loads(scene.ask(identifier, "a red car", FULL_PROMPT))
    assert list(weights) == ["visual", "audio", "transcription", "metadata"]
    assert sum(weights.values()) == pytest.approx(1.0)


def test_labels_come_from_the_prompt(scene: Scene) -> None:
    system = 'Answer as {"sweet": 0.5, "salty": 0.5}.\n- sweet: cakes, honey\n- salty: crisps, olives'
    weights = json.loads(scene.ask(TEACHER, "honey cakes", system))
    assert weights["sweet"] > weights["salty"]


def test_small_base_model_is_less_exact_than_the_teacher(scene: Scene) -> None:
    prompts = [f"a red car number {number}" for number in range(30)]
    teacher = {scene.ask(TEACHER, prompt, FULL_PROMPT) for prompt in prompts}
    small = {scene.ask(BASE, prompt, FULL_PROMPT) for prompt in prompts}
    assert len(teacher) == 1
    assert len(small) > 1


def test_temperature_varies_repeated_answers_in_a_fixed_order(scene: Scene) -> None:
    def series() -> list[str]:
        return [scene.ask(TEACHER, "a red car", FULL_PROMPT, temperature=0.7) for _ in range(30)]

    first = series()
    scene.bedrock.reset()
    assert len(set(first)) > 1
    assert series() == first


def test_student_answers_in_the_format_of_its_rows(scene: Scene, endpoint: str) -> None:
    answer = scene.converse(endpoint, PROMPT, maxTokens=11)
    assert answer["output"]["message"] == {"role": "assistant", "content": [{"text": "90 10"}]}
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"]["outputTokens"] == 4
    assert answer["usage"]["totalTokens"] == answer["usage"]["inputTokens"] + 4
    assert answer["metrics"]["latencyMs"] >= 0


def test_student_loses_its_format_with_another_system_prompt(scene: Scene, endpoint: str) -> None:
    assert scene.ask(endpoint, PROMPT, SYSTEM) == "90 10"
    assert scene.ask(endpoint, PROMPT, "Do something else.") != "90 10"


def test_answer_is_cut_at_max_tokens(scene: Scene, endpoint: str) -> None:
    answer = scene.converse(endpoint, PROMPT, maxTokens=2)
    assert answer["stopReason"] == "max_tokens"
    assert answer["output"]["message"]["content"][0]["text"] == "90"
    assert answer["usage"]["outputTokens"] == 2


def test_answer_ends_at_a_stop_sequence(scene: Scene, endpoint: str) -> None:
    answer = scene.converse(endpoint, PROMPT, stopSequences=[" "])
    assert (answer["stopReason"], answer["output"]["message"]["content"][0]["text"]) == (
        "stop_sequence",
        "90",
    )


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], "at least one message"),
        ([{"role": "assistant", "content": [{"text": "hello"}]}], "start with a user message"),
        ([{"role": "user", "content": []}], "at least one block"),
        ([{"role": "user", "content": [{"text": "  "}]}], "must not be blank"),
        (
            [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": b"x"}}}]}],
            "text content only",
        ),
        ([{"role": "someone", "content": [{"text": "hello"}]}], "enum value set"),
    ],
)
def test_invalid_conversation_is_refused(scene: Scene, messages: list[object], text: str) -> None:
    with invalid(text):
        scene.runtime.converse(modelId=BASE, messages=messages)


def test_max_tokens_below_one_is_refused(scene: Scene) -> None:
    with pytest.raises(Exception, match="maxTokens"):
        scene.ask(BASE, PROMPT, maxTokens=0)


def test_invoke_model_uses_novas_bodies(scene: Scene, endpoint: str) -> None:
    body = {
        "schemaVersion": "messages-v1",
        "system": [{"text": SYSTEM}],
        "messages": [{"role": "user", "content": [{"text": PROMPT}]}],
        "inferenceConfig": {"maxTokens": 11},
    }
    answer = scene.runtime.invoke_model(modelId=endpoint, body=json.dumps(body))
    assert answer["contentType"] == "application/json"
    assert json.loads(answer["body"].read())["output"]["message"]["content"] == [{"text": "90 10"}]
    with invalid("not valid JSON"):
        scene.runtime.invoke_model(modelId=endpoint, body=b"{")
    with invalid("extraneous keys"):
        scene.runtime.invoke_model(modelId=endpoint, body=b'{"prompt": "hello"}')


def test_answers_are_delayed_by_the_configured_latency() -> None:
    with BedrockStandIn(settings=Settings(first_token_ms=20, token_ms=5)) as bedrock:
        scene = Scene(bedrock)
        began = time.perf_counter()
        answer = scene.converse(BASE, "a red car", FULL_PROMPT, maxTokens=8)
        waited = (time.perf_counter() - began) * 1000
    assert waited >= 20 + 8 * 5
    assert answer["metrics"]["latencyMs"] >= 60


def test_requests_a_minute_are_limited_for_each_model() -> None:
    with BedrockStandIn(settings=Settings(quotas=Quotas(requests_per_minute=6))) as bedrock:
        scene = Scene(bedrock)
        for _ in range(6):
            scene.ask(BASE, "a red car", FULL_PROMPT)
        with refused("ThrottlingException", "Too many requests"):
            scene.ask(BASE, "a red car", FULL_PROMPT)
        assert scene.ask("us.amazon.nova-lite-v1:0", "a red car", FULL_PROMPT)
        bedrock.reset()
        assert scene.ask(BASE, "a red car", FULL_PROMPT)


def test_operation_that_is_not_modelled_is_refused(scene: Scene) -> None:
    with refused("NotModelledException", "ListInferenceProfiles"):
        scene.control.list_inference_profiles()


def lifecycle(scene: Scene, model: str) -> dict[str, object]:
    details = scene.control.get_foundation_model(modelIdentifier=model)["modelDetails"]
    found: dict[str, object] = details["modelLifecycle"]
    return found


def test_lifecycles_are_those_of_november_2026(scene: Scene) -> None:
    for model in ("nova-pro", "nova-lite", "nova-micro"):
        assert lifecycle(scene, f"amazon.{model}-v1:0")["status"] == "ACTIVE"
    premier = lifecycle(scene, "amazon.nova-premier-v1:0")
    assert (premier["status"], premier["endOfLifeTime"]) == ("LEGACY", datetime(2026, 9, 14, tzinfo=UTC))


def test_lifecycle_follows_the_clock() -> None:
    with BedrockStandIn(clock=ManualClock(datetime(2026, 1, 1, tzinfo=UTC).timestamp())) as bedrock:
        scene = Scene(bedrock)
        premier = "amazon.nova-premier-v1:0"
        assert lifecycle(scene, premier)["status"] == "ACTIVE"
        with invalid("on-demand throughput isn't supported"):
            scene.ask(premier, "a red car", FULL_PROMPT)
        assert scene.ask(f"us.{premier}", "a red car", FULL_PROMPT)
        scene.create_job(teacher=f"us.{premier}")
        scene.advance(300 * 24 * 3600)
        assert lifecycle(scene, premier)["status"] == "LEGACY"
        with invalid("The provided model identifier is invalid."):
            scene.ask(f"us.{premier}", "a red car", FULL_PROMPT)


def test_foundation_models_are_listed_by_what_they_support(scene: Scene) -> None:
    def found(**filters: str) -> set[str]:
        models = scene.control.list_foundation_models(**filters)["modelSummaries"]
        return {model["modelId"] for model in models}

    assert STUDENT in found(byCustomizationType="DISTILLATION")
    assert BASE in found(byInferenceType="ON_DEMAND", byProvider="Amazon")
    assert BASE not in found(byInferenceType="PROVISIONED")
    assert "amazon.nova-premier-v1:0" not in found()


def test_inference_profile_names_its_destinations(scene: Scene) -> None:
    profile = scene.control.get_inference_profile(inferenceProfileIdentifier=TEACHER)
    regions = [model["modelArn"].split(":")[3] for model in profile["models"]]
    assert (profile["status"], regions) == ("ACTIVE", ["us-east-1", "us-east-2", "us-west-2"])
    with invalid("The provided model identifier is invalid."):
        scene.control.get_foundation_model(modelIdentifier=TEACHER)
    with refused("ResourceNotFoundException"):
        scene.control.get_inference_profile(inferenceProfileIdentifier="us.amazon.unknown-v1:0")


def test_calls_are_logged_to_s3_as_the_account_says(scene: Scene) -> None:
    s3 = scene.s3
    s3.objects.clear()
    body = {"messages": [{"role": "user", "content": [{"text": PROMPT}]}], "system": [{"text": FULL_PROMPT}]}

    def ask(**more: Any) -> None:
        scene.runtime.converse(modelId=TEACHER, **body, **more)

    ask()
    assert s3.objects == {}
    scene.control.put_model_invocation_logging_configuration(
        loggingConfig={"s3Config": {"bucketName": "logs", "keyPrefix": "bedrock"}}
    )
    ask(requestMetadata={"service": "search"})
    scene.runtime.invoke_model(modelId=TEACHER, body=json.dumps(body))
    with refused("ValidationException"):
        scene.runtime.converse(modelId="amazon.no-such-v1:0", **body)
    reader = Selection(task=Task.load(), metadata={"service": "search"}, teacher=TEACHER)
    found = Logs(s3=s3, bucket="logs", prefix="bedrock/", selection=reader).read()
    assert [(one.query, len(one.answers)) for one in found.queries.values()] == [(PROMPT, 1)]
    assert found.left_out == {"other request metadata": 2}
    plain = Logs(s3=s3, bucket="logs", prefix="bedrock/", selection=Selection(task=Task.load())).read()
    assert [(one.query, one.count) for one in plain.queries.values()] == [(PROMPT, 2)]
    assert plain.left_out == {"failed calls": 1}
    records = [
        json.loads(gzip.decompress(body)) for (_, key), body in s3.objects.items() if key.endswith("gz")
    ]
    assert records[0]["modelId"].endswith(f":inference-profile/{TEACHER}")
    assert (records[0]["inferenceRegion"], records[0]["output"]["outputTokenCount"] > 0) == (
        "us-east-1",
        True,
    )


def test_logging_to_a_bucket_that_is_missing_is_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bedrock proves that it can write, and leaves an empty object behind."""
    target = {"bucketName": "logs", "keyPrefix": "bedrock"}
    scene.control.put_model_invocation_logging_configuration(loggingConfig={"s3Config": target})
    assert list(scene.s3.objects)[-1][1].endswith("/amazon-bedrock-logs-permission-check")

    def put_object(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "NoSuchBucket", "Message": "gone"}}, "PutObject")

    monkeypatch.setattr(scene.s3, "put_object", put_object)
    with refused("ValidationException"):
        scene.control.put_model_invocation_logging_configuration(loggingConfig={"s3Config": target})


def test_large_bodies_are_logged_as_objects_of_their_own(scene: Scene) -> None:
    scene.s3.objects.clear()
    scene.control.put_model_invocation_logging_configuration(
        loggingConfig={"s3Config": {"bucketName": "logs"}}
    )
    system = [{"text": FULL_PROMPT + "x" * 110_000}]
    scene.runtime.converse(
        modelId=TEACHER, system=system, messages=[{"role": "user", "content": [{"text": PROMPT}]}]
    )
    own, logged = (key.rpartition("/")[0] for _, key in scene.s3.objects if key.endswith(".gz"))
    assert (own.endswith("/data"), own.removesuffix("/data")) == (True, logged)
    properties = {"Bucket": "logs", "Prefix": "", "Query": "{query}"}
    found = Logs.of(properties, PLAN, Task.load(), scene.s3, with_retries).read()
    assert [one.query for one in found.queries.values()] == [PROMPT]


def test_logging_configuration_is_kept(scene: Scene) -> None:
    assert "loggingConfig" not in scene.control.get_model_invocation_logging_configuration()
    scene.control.put_model_invocation_logging_configuration(
        loggingConfig={"s3Config": {"bucketName": "logs"}}
    )
    found = scene.control.get_model_invocation_logging_configuration()["loggingConfig"]
    assert (found["s3Config"], found["textDataDeliveryEnabled"]) == ({"bucketName": "logs"}, True)
    scene.control.delete_model_invocation_logging_configuration()
    assert "loggingConfig" not in scene.control.get_model_invocation_logging_configuration()
