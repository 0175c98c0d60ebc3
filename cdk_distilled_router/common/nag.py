"""Acknowledge findings of compliance checks: each at its construct, with a reason.

Several rule sets can have a rule for the same matter: cdk-nag's packs, AWS Control Tower's rules for
cfn-guard, and checkov. A matter is acknowledged for all of them at once, with the same reason.

cdk-nag puts the value into the id of a finding, so this module formats values as cdk-nag does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from constructs import Construct, IConstruct

AWS_SOLUTIONS, SERVERLESS = "AwsSolutions", "Serverless"
NIST, HIPAA, PCI = "NIST.800.53.R5", "HIPAA.Security", "PCI.DSS.321"
COMPLIANCE = (NIST, HIPAA, PCI)


def _nag(rule: str, *packs: str) -> tuple[str, ...]:
    return tuple(f"{pack}::{pack}-{rule}" for pack in packs)


def _guard(rule: str) -> str:
    return f"cdk-validator-cfnguard::{rule}_check"


def _checkov(rule: str) -> str:
    return f"checkov::CKV_AWS_{rule}"


MATTERS: Mapping[str, tuple[str, ...]] = {
    # Functions.
    "L1": (*_nag("L1", AWS_SOLUTIONS), *_nag("LambdaLatestVersion", SERVERLESS)),
    "LambdaConcurrency": (*_nag("LambdaConcurrency", NIST, HIPAA), _checkov("115")),
    "LambdaDLQ": (*_nag("LambdaDLQ", SERVERLESS, NIST, HIPAA), _checkov("116")),
    "LambdaEnvironmentKey": (_checkov("173"),),
    "LambdaInsideVPC": (
        *_nag("LambdaInsideVPC", *COMPLIANCE),
        _guard("lambda_inside_vpc"),
        _checkov("117"),
    ),
    "LambdaPublicAccess": (_guard("lambda_function_public_access_prohibited"),),
    "LambdaTracing": _nag("LambdaTracing", SERVERLESS),
    # State machines, logs, queues, roles.
    "SF2": (
        *_nag("SF2", AWS_SOLUTIONS),
        *_nag("StepFunctionStateMachineXray", SERVERLESS),
        _guard("step_functions_state_machine_tracing_enabled"),
    ),
    "LogGroupEncrypted": (
        *_nag("CloudWatchLogGroupEncrypted", *COMPLIANCE),
        _guard("cloudwatch_log_group_encrypted"),
        _checkov("158"),
    ),
    "SQSRedrivePolicy": (*_nag("SQSRedrivePolicy", SERVERLESS), _guard("sqs_dlq")),
    "SQSEncryptionKMS": (_checkov("27"),),
    "IAMNoInlinePolicy": _nag("IAMNoInlinePolicy", *COMPLIANCE),
    "IAMWrite": (_checkov("111"),),
    # Storage and keys.
    "S3AccessLogs": (_guard("s3_bucket_logging_enabled"), _checkov("18")),
    "S3EncryptionKMS": (
        *_nag("S3DefaultEncryptionKMS", *COMPLIANCE),
        _guard("s3_bucket_default_encryption_kms"),
    ),
    "S3Notifications": (_guard("s3_event_notifications_enabled"),),
    "S3ObjectLock": (_guard("s3_bucket_object_lock_enabled"),),
    "S3Replication": _nag("S3BucketReplicationEnabled", *COMPLIANCE),
    "DynamoDBEncryptionKMS": (_guard("dynamodb_table_encrypted_kms"), _checkov("119")),
    "DynamoDBInBackupPlan": _nag("DynamoDBInBackupPlan", NIST, HIPAA),
    "KMSGrants": (_guard("kms_create_grant_aws_service"),),
    "KMSPrincipal": (_checkov("33"),),
}
"""All acknowledged matters, with the rules for them in each rule set."""


def ids(matter: str) -> tuple[str, ...]:
    """Return the rules for one of `MATTERS`, or for AwsSolutions' `IAM5[...]`.

    IAM5 needs the details of a finding: its bare name acknowledges nothing.

    Raises:
        KeyError: the matter is unknown.
    """
    return _nag(matter, AWS_SOLUTIONS) if matter.startswith("IAM5") else MATTERS[matter]


def acknowledge(construct: IConstruct, matter: str, reason: str) -> None:
    """Acknowledge a matter at a construct, for all rule sets that have a rule for it.

    Raises:
        KeyError: the matter is unknown.
    """
    acknowledgements = [cdk.Acknowledgment(id=id_, reason=reason) for id_ in ids(matter)]
    cdk.Validations.of(construct).acknowledge(*acknowledgements)


def acknowledge_resource(role: Construct, resource: Any, reason: str) -> None:
    """Acknowledge a resource with a wildcard in a role's policy."""
    acknowledge(role, f"IAM5[Resource::{shown(role, resource)}]", reason)


def exported(value: Any, *, of: IConstruct, seen_from: Construct) -> Any:
    """Return an attribute of a construct as a stack refers to it: as an import if it is another stack's."""
    stack = cdk.Stack.of(of)
    if stack is cdk.Stack.of(seen_from):
        return value
    return stack.export_value(value)


def shown(scope: Construct, value: Any) -> str:
    """Return a value as cdk-nag writes it: `<LogicalId.Arn>` for an attribute, a name for an import."""
    return _text(cdk.Stack.of(scope).resolve(value))


def _text(value: Any) -> str:
    match value:
        case {"Fn::Join": [separator, list(parts)]}:
            return str(separator).join(_text(part) for part in parts)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{resource}.{attribute}>"
        case {"Ref": name}:
            return f"<{name}>"
        case {"Fn::ImportValue": name}:
            return str(name)
        case dict():
            return json.dumps(value, separators=(",", ":"))
        case _:
            return str(value)


def function_versions(function: Construct) -> str:
    """Return a function's ARN with any version, which the CDK grants to its callers, as cdk-nag writes it."""
    child = function.node.default_child
    assert isinstance(child, cdk.CfnElement)
    return f"<{cdk.Stack.of(function).get_logical_id(child)}.Arn>:*"
