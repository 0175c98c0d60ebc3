"""Custom resources and their handlers agree on properties, entry points and times."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from distillation_job.handler import job_spec
from distilled_router.aws.custom_resource import is_true
from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from stacks.settings import PROJECT
from tests.stacks.assembly import Assembly, Resource

HANDLERS = {
    "Custom::BedrockDataset": "dataset",
    "Custom::BedrockDistillationJob": "distillation_job",
    "Custom::BedrockLabelling": "labelling",
    "Custom::BedrockRelease": "release",
    "Custom::BedrockReleaseWait": "release_wait",
}
# Read by a name that a loop gives, or by what the handler calls.
COST = {"Cost", "MaximumCostUsd", "MaximumCostDays"}
ALSO_READ = {"dataset": {"Training", "Holdout"} | COST, "labelling": {"Seals"} | COST}
# A change of these sends an Update; the handler doesn't read them.
TRIGGERS = {"dataset": {"Hashes"}, "release": {"Gate", "Rollout", "RetryInternalErrors"}}

# A resource has one of these.
EITHER = {"labelling": {"Queries", "Logs"}}


def subscripts(folder: str, *names: str) -> tuple[set[str], set[str]]:
    """Return the constant keys that a folder's code reads from variables or attributes of these names.

    The first set has keys of subscripts, the second keys of `get`.
    """
    required, optional = set[str](), set[str]()
    for path in sorted((PROJECT / "lambda" / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Subscript(value=value, slice=ast.Constant(str(key))) if _named(value) in names:
                    required.add(key)
                case ast.Call(func=ast.Attribute(value=value, attr="get"), args=[ast.Constant(str(key)), *_]):
                    if _named(value) in names:
                        optional.add(key)
    return required, optional


def _named(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def sent(value: Any) -> Any:
    """Return a property as CloudFormation sends it: with strings for all scalars."""
    match value:
        case dict():
            return {key: sent(inner) for key, inner in value.items()}
        case list():
            return [sent(inner) for inner in value]
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def custom_resources(assembly: Assembly) -> Iterator[Resource]:
    return (resource for resource in assembly.resources() if resource.type.startswith("Custom::"))


def test_every_custom_resource_has_the_properties_that_its_handler_reads(assembly: Assembly) -> None:
    for resource in custom_resources(assembly):
        folder = HANDLERS[resource.type]
        required, optional = subscripts(folder, "properties")
        also, triggers = ALSO_READ.get(folder, set()), TRIGGERS.get(folder, set())
        if folder == "release" and assembly.settings.evaluation.judge:
            triggers = {*triggers, "Judge"}
        given = set(resource.properties) - {"ServiceToken"}
        either = EITHER.get(folder, set())
        assert required - either <= given, folder
        assert len(given & either) == bool(either), folder
        # A new value sends an Update: it starts a release again, or adds attributes at an upgrade.
        assert given - required - optional - also - {"Attempt"} == triggers, folder


def test_every_kind_of_custom_resource_is_among_the_environments(
    assemblies: Mapping[str, Assembly],
) -> None:
    found = {resource.type for each in assemblies.values() for resource in custom_resources(each)}
    assert found == set(HANDLERS)


def test_job_is_what_the_settings_describe(assembly: Assembly) -> None:
    properties = assembly.plain(assembly.one("Custom::BedrockDistillationJob").properties)
    spec = job_spec(sent(properties))
    settings, identity = assembly.settings.distillation, assembly.identity
    is_distillation = settings.method == "distillation"
    assert spec.job_name == spec.custom_model_name == identity.job_name
    assert spec.role_arn == "<JobJobRole.Arn>"
    assert spec.base_model_identifier == settings.student
    assert spec.customization_type == ("DISTILLATION" if is_distillation else "FINE_TUNING")
    assert spec.training_data_uri == assembly.training_uri
    assert spec.output_data_uri == f"s3://<Data>/jobs/{identity.job_name}/"
    assert spec.teacher_model_identifier == (settings.teacher if is_distillation else None)
    assert spec.max_response_length_for_inference == settings.max_response_length
    expected = settings.hyperparameters.to_api() if settings.hyperparameters else {}
    assert dict(spec.hyper_parameters) == expected


def test_what_is_kept_at_the_end_is_what_the_settings_say(assembly: Assembly) -> None:
    keep = assembly.settings.retention
    resources = {resource.type: sent(resource.properties) for resource in custom_resources(assembly)}
    job, release = resources["Custom::BedrockDistillationJob"], resources["Custom::BedrockRelease"]
    data = "Custom::BedrockLabelling" if assembly.is_labelled_here else "Custom::BedrockDataset"
    assert is_true(resources[data]["Retain"]) == (keep.data == "retain")
    assert is_true(job["RetainOutput"]) == is_true(release["RetainReports"]) == (keep.data == "retain")
    assert is_true(job["RetainModel"]) == is_true(release["RetainModels"]) == (keep.models == "retain")


def test_custom_resources_get_their_delete(assembly: Assembly) -> None:
    for resource in custom_resources(assembly):
        assert resource.raw["DeletionPolicy"] == resource.raw["UpdateReplacePolicy"] == "Delete"


def test_waiters_give_up_before_cloudformation_does(assembly: Assembly) -> None:
    """Its limit is an hour from the request on; a poll's own run time comes on top of the interval.

    Case C8.
    """
    waiters = [
        machine
        for machine in assembly.resources("AWS::StepFunctions::StateMachine")
        if machine.name.endswith("Providerwaiterstatemachine")
    ]
    assert len(waiters) >= 2
    for waiter in waiters:
        (retry,) = assembly.definition(waiter)["States"]["framework-isComplete-task"]["Retry"]
        assert retry["BackoffRate"] == 1
        assert retry["MaxAttempts"] * (retry["IntervalSeconds"] + 1) < 3600
    for resource in custom_resources(assembly):
        assert int(resource.properties.get("ServiceTimeout", 3600)) >= 3600


def test_no_state_machine_has_a_generated_name(assembly: Assembly) -> None:
    names = [
        machine.properties["StateMachineName"]
        for machine in assembly.resources("AWS::StepFunctions::StateMachine")
    ]
    assert all(name.startswith(f"{assembly.settings.owner}-") for name in names)
    assert len(set(names)) == len(names)


def test_waiters_log_everything_but_the_data_with_the_answers_url(assembly: Assembly) -> None:
    for machine in assembly.resources("AWS::StepFunctions::StateMachine"):
        logging = machine.properties["LoggingConfiguration"]
        assert logging["Level"] == "ALL"
        if machine.name.endswith("Providerwaiterstatemachine"):
            assert logging["IncludeExecutionData"] is False


def test_gate_and_rollout_arrive_as_they_were_set(assembly: Assembly) -> None:
    judge = assembly.one("AWS::Lambda::Function", "ReleaseScoreAndGate").properties["Environment"][
        "Variables"
    ]
    gate = Gate(**json.loads(judge["GATE"]))
    assert gate == Gate(**assembly.settings.gate.model_dump())
    assert judge["HOLDOUT_KEY"] == assembly.holdout_key
    variables = assembly.one("AWS::Lambda::Function", "ReleaseRollOut").properties["Environment"]["Variables"]
    settings = assembly.settings.rollout
    assert Rollout.of(json.loads(variables["ROLLOUT"])) == Rollout(
        steps=tuple(settings.steps),
        dwell_seconds=settings.dwell_seconds,
        maximum_error_rate=settings.maximum_error_rate,
        maximum_fallback_rate=settings.maximum_fallback_rate,
        maximum_invalid_output_rate=settings.maximum_invalid_output_rate,
        non_inferiority_margin=settings.non_inferiority_margin,
        latency_margin=settings.latency_margin,
        bake_seconds=settings.bake_seconds,
        probes=settings.probes,
    )


# Import each handler with its own variables, and only its bundle, the layer and Python on the path.
IMPORTING = """
import importlib, json, os, sys
sys.path = [entry for entry in sys.path if "site-packages" not in entry]
for function in json.load(sys.stdin):
    path, layer = function["bundle"], function["layer"]
    os.environ |= function["variables"]
    sys.path[:0] = [path, layer]
    module, _, entry = function["handler"].rpartition(".")
    if not callable(getattr(importlib.import_module(module), entry)):
        sys.exit(f"{function['handler']} is no function")
    del sys.path[:2]
    for name, found in list(sys.modules.items()):
        if path in (getattr(found, "__file__", None) or str(getattr(found, "__path__", ""))):
            del sys.modules[name]
    for name in function["variables"]:
        del os.environ[name]
"""


def test_every_entry_point_starts_with_nothing_but_its_bundle_its_layer_and_its_variables(
    assemblies: Mapping[str, Assembly],
) -> None:
    """The emulator's functions can import from this virtual environment, which hides missing modules."""
    functions = {}
    for environment in ("provisioned", "fine-tuning", "raw-queries"):
        assembly = assemblies[environment]
        (layer, *_) = assembly.resources("AWS::Lambda::LayerVersion")
        for function in assembly.functions():
            properties = assembly.plain(function.properties)
            functions[properties["Handler"]] = {
                "bundle": _asset(assembly, properties["Code"]["S3Key"]),
                "layer": _asset(assembly, layer.properties["Content"]["S3Key"]) + "/python",
                "handler": properties["Handler"],
                "variables": properties["Environment"]["Variables"],
            }
    assert len(functions) > 10
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", IMPORTING],
        input=json.dumps(list(functions.values())),
        # Those that Lambda sets; and no call gets further than the discard port.
        env={
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def _asset(assembly: Assembly, key: str) -> str:
    return str(assembly.folder / f"asset.{key.removesuffix('.zip')}")
