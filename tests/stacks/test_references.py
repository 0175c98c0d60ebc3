"""References between stacks, and the places of the digest.

CloudFormation refuses to change an export that another stack imports, so only what stays is exported, and
what carries the digest is a literal in each template.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stacks.settings import STACKS
from tests.stacks.assembly import Assembly, Resource, walk

STAYING = {
    "AWS::S3::Bucket",
    "AWS::KMS::Key",
    "AWS::DynamoDB::Table",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::Logs::LogGroup",
    "AWS::IAM::Role",
}


def imports(template: Mapping[str, Any]) -> set[str]:
    return {
        value["Fn::ImportValue"]
        for value in walk(template)
        if isinstance(value, dict) and "Fn::ImportValue" in value
    }


def exports(template: Mapping[str, Any]) -> dict[str, Any]:
    return {
        output["Export"]["Name"]: output["Value"]
        for output in template.get("Outputs", {}).values()
        if "Export" in output
    }


def test_values_flow_down_the_list_of_stacks_only(assembly: Assembly) -> None:
    known = set[str]()
    for stack in STACKS:
        assert imports(assembly.templates[stack]) <= known, stack
        known |= set(exports(assembly.templates[stack]))


def test_references_are_imports_and_of_no_other_kind(assembly: Assembly) -> None:
    for stack, template in assembly.templates.items():
        functions = {key for value in walk(template) if isinstance(value, dict) for key in value}
        assert not {"Fn::GetStackOutput", "Fn::Transform"} & functions, stack
        parameters = template.get("Parameters", {})
        assert set(parameters) <= {"BootstrapVersion"}, stack


def test_nothing_is_exported_in_vain(assembly: Assembly) -> None:
    imported = set[str]().union(*(imports(template) for template in assembly.templates.values()))
    assert imported == set(assembly.exports)


def test_only_what_stays_is_exported(assembly: Assembly) -> None:
    for template in assembly.templates.values():
        for value in exports(template).values():
            logical_id = value["Ref"] if "Ref" in value else value["Fn::GetAtt"][0]
            assert template["Resources"][logical_id]["Type"] in STAYING


def test_no_export_holds_the_digest(assembly: Assembly) -> None:
    text = str(assembly.exports)
    assert assembly.identity.digest not in text
    assert assembly.identity.dataset_digest not in text


def test_the_digest_is_in_no_logical_id_but_those_of_a_wait(assembly: Assembly) -> None:
    carrying = {resource.type for resource in assembly.resources() if has_digest(assembly, resource)}
    wait = {
        "AWS::CloudFormation::WaitCondition",
        "AWS::CloudFormation::WaitConditionHandle",
        "Custom::BedrockReleaseWait",
    }
    assert carrying == (wait if assembly.settings.release.wait_hours else set())


def has_digest(assembly: Assembly, resource: Resource) -> bool:
    return assembly.identity.digest in resource.logical_id


def test_another_digest_changes_neither_data_nor_router_nor_operations(
    assemblies: Mapping[str, Assembly],
) -> None:
    dev, other = assemblies["dev"], assemblies["another-digest"]
    assert dev.identity.digest != other.identity.digest
    for stack in ("data", "router", "operations"):
        assert dev.templates[stack] == other.templates[stack]


def test_another_digest_changes_the_resources_that_start_its_work_and_no_other(
    assemblies: Mapping[str, Assembly],
) -> None:
    dev, other = assemblies["dev"], assemblies["another-digest"]
    changed = set()
    for before, after in zip(dev.resources(), other.resources(), strict=True):
        assert before.logical_id == after.logical_id
        if before.raw != after.raw:
            changed.add(before.type)
            assert before.properties["ServiceToken"] == after.properties["ServiceToken"]
    # The data set is the same, only the nonce isn't: its resource counts another job against the limit.
    assert changed == {"Custom::BedrockDataset", "Custom::BedrockDistillationJob", "Custom::BedrockRelease"}


def test_environments_never_share_a_name(assemblies: Mapping[str, Assembly]) -> None:
    """Two environments in one account must not share names of exports, machines, alarms, budgets, logs."""
    named: dict[str, set[str]] = {}
    for environment in ("local", "dev", "prod"):
        assembly = assemblies[environment]
        named[environment] = set(assembly.exports) | {
            str(assembly.plain(value))
            for resource in assembly.resources()
            for key, value in {**resource.properties, **resource.properties.get("Budget", {})}.items()
            if key in {"StateMachineName", "AlarmName", "BudgetName", "LogGroupName", "DashboardName"}
        }
        assert named[environment]
    assert not named["local"] & named["dev"]
    assert not named["dev"] & named["prod"]
