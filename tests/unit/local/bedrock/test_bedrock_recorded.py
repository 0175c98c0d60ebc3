"""The stand-in's answers have the shape of answers that Bedrock really gave.

The recorded answers are beside the project, or absent, like the other real data: `shared/data/recorded/`. The
stand-in is brought into the state of each recorded answer and asked the same; their fields, types, ARNs, enum
values, states, error codes, texts and HTTP statuses are compared. `DIFFERENCES` names what differs, and why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import real_data
from tests.unit.local.bedrock.scenes import BASE, HOUR, ROLE, Scene
from tests.unit.local.bedrock.test_bedrock_batch import create as create_batch
from tests.unit.local.bedrock.test_bedrock_batch import records
from tests.unit.local.bedrock.test_bedrock_evaluations import create as create_evaluation

FOLDER = real_data.FOLDER / "recorded"
Answer = dict[str, Any]

NEWER = "Bedrock has added the field since the answer was recorded"
REQUEST = "echoed from the request; the stand-in takes only evaluation jobs with a judge and given answers"
SYSTEM_PROFILES = "the stand-in has only system profiles"
#: What differs, by operation: the difference, and why it stays.
DIFFERENCES: Mapping[str, Mapping[str, str]] = {
    "GetCustomModel": {"adds customizationType": NEWER, "adds modelStatus": NEWER},
    "ListCustomModels": {
        "adds customizationType": NEWER,
        "adds modelStatus": NEWER,
        "adds ownerAccountId": NEWER,
    },
    "GetModelCustomizationJob": {"adds statusDetails": NEWER},
    "ListModelCustomizationJobs": {"adds statusDetails": NEWER},
    "GetModelInvocationJob": {
        "adds modelInvocationType": "in the answers of List since 2026-03-13; this one is older",
        "adds totalRecordCount": NEWER,
        "adds processedRecordCount": NEWER,
        "adds successRecordCount": NEWER,
        "adds errorRecordCount": NEWER,
    },
    "ListModelInvocationJobs": {"adds modelInvocationType": "not in the answers before 2026-03-13"},
    "GetEvaluationJob": {},
    "ListEvaluationJobs": {
        "lacks modelIdentifiers": REQUEST,
        "lacks inferenceConfigSummary.modelConfigSummary.bedrockModelIdentifiers": REQUEST,
        "adds inferenceConfigSummary.modelConfigSummary.precomputedInferenceSourceIdentifiers": REQUEST,
        "adds customMetricsEvaluatorModelIdentifiers": REQUEST,
    },
    "ListFoundationModels": {"adds modelLifecycle.startOfLifeTime": NEWER},
    "ListInferenceProfiles": {
        "inferenceProfileArn is arn:aws:bedrock:REGION:ACCOUNT:inference-profile/NAME, not "
        "arn:aws:bedrock:REGION:ACCOUNT:application-inference-profile/ID": SYSTEM_PROFILES,
        "type is SYSTEM_DEFINED, not APPLICATION": SYSTEM_PROFILES,
        "models[].modelArn is arn:aws:bedrock:REGION::foundation-model/NAME, not "
        "arn:aws:bedrock:::foundation-model/NAME": "the recorded profile is global; the stand-in's are not",
    },
}
#: Recorded operations that the stand-in doesn't have, with what takes their place here.
NOT_MODELLED = {
    "ListInferenceProfiles": "compared with GetInferenceProfile, whose fields are the same",
    "DeleteInferenceProfile": "its errors are compared with those of other operations",
}


@dataclass(frozen=True)
class Recorded:
    """One recorded answer."""

    name: str
    status: int
    answer: Answer


def recorded(operation: str) -> list[Recorded]:
    """Return the recorded answers of an operation; skip the test, with a message, if they are absent."""
    if not FOLDER.is_dir():
        pytest.skip(f"recorded answers are absent: no {FOLDER.parent.name}/{FOLDER.name} beside the project")
    found = []
    for path in sorted(FOLDER.glob(f"*/bedrock.{operation}_*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        answer = {name: value for name, value in content["data"].items() if name != "ResponseMetadata"}
        found.append(Recorded(f"{path.parent.name}/{path.name}", content["status_code"], answer))
    assert found, operation
    return found


# The shape of an answer

MAPS = {"hyperParameters"}
ECHOED = {"evaluationConfig", "inferenceConfig"}
ENUMS = {"status", "type", "jobType", "applicationType", "customizationType", "modelInvocationType"}
_ARN_PARTS = (
    (re.compile(r"(?<=:)[a-z]{2}-[a-z]+-\d(?=:)"), "REGION"),
    (re.compile(r"(?<=:)\d{12}(?=:)"), "ACCOUNT"),
    (re.compile(r"/[a-z0-9]{12}$"), "/ID"),
    (re.compile(r"/(?!ID$)[^/]+"), "/NAME"),
)


def shape(name: str, value: Any) -> Any:
    """Return a value's type; an ARN without its names, and an enum's value."""
    if isinstance(value, datetime) or (isinstance(value, dict) and value.get("__class__") == "datetime"):
        return "timestamp"
    if isinstance(value, dict):
        if name in MAPS:
            return {"*": shape("", next(iter(value.values())))}
        return {key: shape(key, item) for key, item in value.items() if key not in ECHOED}
    if isinstance(value, list):
        return [shape(name, item) for item in value]
    if isinstance(value, str) and value.startswith("arn:"):
        for pattern, word in _ARN_PARTS:
            value = pattern.sub(word, value)
        return value
    return value if name in ENUMS else type(value).__name__


def differences(given: Any, real: Any, path: str = "") -> Iterator[str]:
    """Yield how a shape differs from that of a recorded answer."""
    if isinstance(given, dict) and isinstance(real, dict):
        at = f"{path}." if path else ""
        yield from (f"lacks {at}{name}" for name in real.keys() - given.keys())
        yield from (f"adds {at}{name}" for name in given.keys() - real.keys())
        for name in given.keys() & real.keys():
            yield from differences(given[name], real[name], f"{at}{name}")
    elif isinstance(given, list) and isinstance(real, list):
        # An empty list fits any other.
        for item, other in zip(given, real, strict=False):
            yield from differences(item, other, f"{path}[]")
    elif given != real:
        yield f"{path} is {given}, not {real}"


# The stand-in in the state of a recorded answer


def customization_job(scene: Scene, real: Answer) -> str:
    """Create a customization job like the recorded one and return its name."""
    key = real.get("outputModelKmsKeyArn")
    scene.create_job(
        customizationType="FINE_TUNING",
        customizationConfig=None,
        hyperParameters={"epochCount": "1"},
        customModelKmsKeyId=key,
    )
    if real.get("status") == "Stopping":
        scene.control.stop_model_customization_job(jobIdentifier="job")
    return "job"


def custom_model(scene: Scene, real: Answer) -> str:
    """Create a custom model like the recorded one and return its name."""
    job = customization_job(scene, {})
    scene.advance(2 * HOUR)
    assert scene.job(job)["status"] == "Completed", real
    return job


def batch_job(scene: Scene, real: Answer) -> str:
    """Create a batch job like the recorded one and return its ARN."""
    is_failed = real.get("status") == "Failed"
    arn = create_batch(scene, records(1 if is_failed else 100), modelId=BASE)
    if real.get("status") in ("Stopping", "Stopped"):
        scene.control.stop_model_invocation_job(jobIdentifier=arn)
    if real.get("status") in ("Failed", "Stopped"):
        scene.advance(HOUR)
    return arn


def evaluation_job(scene: Scene, real: Answer) -> str:
    """Create an evaluation job like the recorded one and return its ARN."""
    arn = create_evaluation(scene, jobDescription="an evaluation")
    if real.get("status") == "Completed":
        scene.advance(HOUR)
    return arn


def _first(answer: Answer) -> Answer:
    """Return the first summary of a List answer, alone."""
    (summaries,) = (value for value in answer.values() if isinstance(value, list))
    return dict(summaries[0])


Asked = Callable[[Scene, Answer], Answer]
#: What is asked of the stand-in, after it is in the state of the recorded answer or summary.
GETS: Mapping[str, Asked] = {
    "GetModelCustomizationJob": lambda s, real: s.job(customization_job(s, real)),
    "GetCustomModel": lambda s, real: s.control.get_custom_model(modelIdentifier=custom_model(s, real)),
    "GetModelInvocationJob": lambda s, real: s.control.get_model_invocation_job(
        jobIdentifier=batch_job(s, real)
    ),
    "GetEvaluationJob": lambda s, real: s.control.get_evaluation_job(jobIdentifier=evaluation_job(s, real)),
}


def listed(create: Callable[[Scene, Answer], str], operation: str) -> Asked:
    """Return a function that creates a resource and returns its summary."""

    def asked(scene: Scene, real: Answer) -> Answer:
        create(scene, real)
        return _first(getattr(scene.control, operation)())

    return asked


LISTS: Mapping[str, Asked] = {
    "ListModelCustomizationJobs": listed(customization_job, "list_model_customization_jobs"),
    "ListCustomModels": listed(custom_model, "list_custom_models"),
    "ListModelInvocationJobs": listed(batch_job, "list_model_invocation_jobs"),
    "ListEvaluationJobs": listed(evaluation_job, "list_evaluation_jobs"),
    "ListFoundationModels": listed(lambda *_: "", "list_foundation_models"),
    "ListInferenceProfiles": lambda s, _: s.control.get_inference_profile(
        inferenceProfileIdentifier=f"us.{BASE}"
    ),
}


def without_metadata(answer: Answer) -> Answer:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def check(operation: str, found: set[str]) -> None:
    """Compare the differences with the known ones; a known one that is gone is an error, too."""
    assert found == set(DIFFERENCES[operation])


@pytest.mark.parametrize("operation", GETS)
def test_description_has_the_recorded_fields(scene: Scene, operation: str) -> None:
    found = set()
    for real in recorded(operation):
        scene.bedrock.reset()
        given = GETS[operation](scene, real.answer)
        assert given["ResponseMetadata"]["HTTPStatusCode"] == real.status
        found |= set(differences(shape("", without_metadata(given)), shape("", real.answer)))
    check(operation, found)


@pytest.mark.parametrize("operation", LISTS)
def test_summary_has_the_recorded_fields(scene: Scene, operation: str) -> None:
    found: set[str] = set()
    compared = set()
    for real in recorded(operation):
        (summaries,) = real.answer.values()
        for summary in summaries:
            expected = shape("", summary)
            if (key := json.dumps(expected, sort_keys=True)) in compared:
                continue
            compared.add(key)
            scene.bedrock.reset()
            given = without_metadata(LISTS[operation](scene, summary))
            found |= set(differences(shape("", given), expected))
    check(operation, found)


# Writes, tags and errors


def tags(scene: Scene) -> list[dict[str, str]]:
    arn = scene.create_job(jobTags=[{"key": "Owner", "value": "c7n"}])
    found: list[dict[str, str]] = scene.control.list_tags_for_resource(resourceARN=arn)["tags"]
    return found


WRITES: Mapping[str, Callable[[Scene], Answer]] = {
    "CreateModelInvocationJob": lambda s: s.control.create_model_invocation_job(
        jobName="batch",
        roleArn=ROLE,
        modelId=BASE,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://data/in/queries.jsonl"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://data/out/"}},
    ),
    "DeleteCustomModel": lambda s: s.control.delete_custom_model(modelIdentifier=custom_model(s, {})),
    "ListTagsForResource": lambda s: s.control.list_tags_for_resource(
        resourceARN=s.create_job(jobTags=[{"key": "Owner", "value": "c7n"}])
    ),
    "StopModelCustomizationJob": lambda s: s.control.stop_model_customization_job(
        jobIdentifier=customization_job(s, {})
    ),
    "StopModelInvocationJob": lambda s: s.control.stop_model_invocation_job(jobIdentifier=batch_job(s, {})),
    "TagResource": lambda s: s.control.tag_resource(
        resourceARN=s.create_job(), tags=[{"key": "Owner", "value": "c7n"}]
    ),
    "UntagResource": lambda s: s.control.untag_resource(resourceARN=s.create_job(), tagKeys=["Owner"]),
}


@pytest.mark.parametrize("operation", WRITES)
def test_write_answers_as_recorded(scene: Scene, operation: str) -> None:
    given = WRITES[operation](scene)
    for real in recorded(operation):
        if real.status < 300:
            assert given["ResponseMetadata"]["HTTPStatusCode"] == real.status
            assert list(differences(shape("", without_metadata(given)), shape("", real.answer))) == []


def model_in_use(scene: Scene) -> None:
    model = scene.train()
    scene.deploy(model)
    scene.control.delete_custom_model(modelIdentifier=model)


UNKNOWN = "arn:aws:bedrock:us-east-1:000000000000"
#: Calls that fail, with the recorded error that they share.
FAILURES: Mapping[str, tuple[str, Callable[[Scene], Any]]] = {
    "batch job to stop": (
        "test_bedrock_model_invocation_job_stop_not_found/bedrock.StopModelInvocationJob_1.json",
        lambda s: s.control.stop_model_invocation_job(jobIdentifier="aaaaaaaaaaaa"),
    ),
    "batch job": (
        "test_bedrock_model_invocation_job_stop_not_found/bedrock.StopModelInvocationJob_1.json",
        lambda s: s.control.get_model_invocation_job(jobIdentifier="aaaaaaaaaaaa"),
    ),
    **{
        name: ("test_bedrock_inference_profile_delete_not_found/bedrock.DeleteInferenceProfile_1.json", call)
        for name, call in {
            "inference profile": lambda s: s.control.get_inference_profile(
                inferenceProfileIdentifier="us.unknown"
            ),
            "job": lambda s: s.control.get_model_customization_job(jobIdentifier="unknown"),
            "job to stop": lambda s: s.control.stop_model_customization_job(jobIdentifier="unknown"),
            "model": lambda s: s.control.delete_custom_model(modelIdentifier="unknown"),
            "deployment": lambda s: s.control.delete_custom_model_deployment(
                customModelDeploymentIdentifier="unknown"
            ),
            "throughput": lambda s: s.control.delete_provisioned_model_throughput(
                provisionedModelId="unknown"
            ),
            "evaluation job": lambda s: s.control.stop_evaluation_job(
                jobIdentifier=f"{UNKNOWN}:evaluation-job/aaaaaaaaaaaa"
            ),
            "tagged resource": lambda s: s.control.list_tags_for_resource(
                resourceARN=f"{UNKNOWN}:custom-model/{BASE}:128k/aaaaaaaaaaaa"
            ),
        }.items()
    },
    "model in use": (
        "test_bedrock_inference_profile_delete_conflict/bedrock.DeleteInferenceProfile_1.json",
        model_in_use,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_error_has_the_recorded_code_text_and_status(scene: Scene, case: str) -> None:
    """AWS documents no texts for the other operations; they get those of the recorded ones."""
    name, call = FAILURES[case]
    operation = name.partition("bedrock.")[2].partition("_")[0]
    real = next(one for one in recorded(operation) if one.name == name)
    with pytest.raises(ClientError) as caught:
        call(scene)
    given = caught.value.response
    assert given["Error"] == real.answer["Error"]
    assert given["ResponseMetadata"]["HTTPStatusCode"] == real.status


def test_every_recorded_operation_is_compared() -> None:
    recorded("GetCustomModel")
    operations = {path.name.split(".")[1].partition("_")[0] for path in FOLDER.glob("*/bedrock.*.json")}
    assert operations == GETS.keys() | LISTS.keys() | WRITES.keys() | NOT_MODELLED.keys()
