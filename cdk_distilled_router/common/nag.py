"""Acknowledging what the checks find: one finding at a time, at its construct, with its reason.

A matter may be known to several rule sets: cdk-nag's packs, AWS Control Tower's rules for cfn-guard, and
checkov. It is accepted once, for all of them, so that whichever a team runs finds the same reason.

cdk-nag writes a finding with the value that it is about, so the value has to be written as it does.
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
    "DynamoDBInBackupPlan": _nag("DynamoDBInBackupPlan", NIST, HIPAA),
    "KMSGrants": (_guard("kms_create_grant_aws_service"),),
}
"""What is accepted somewhere, and each rule set's name for it."""


def ids(matter: str) -> tuple[str, ...]:
    """Each rule set's name for one of `MATTERS`, or for AwsSolutions' `IAM5[...]`.

    A rule with details isn't matched by its bare name. Raises KeyError for any other matter.
    """
    return _nag(matter, AWS_SOLUTIONS) if matter.startswith("IAM5") else MATTERS[matter]


def acknowledge(construct: IConstruct, matter: str, reason: str) -> None:
    """Accept one finding of a construct, for all rule sets that know of the matter. Raises KeyError for what
    is no matter."""
    accepted = [cdk.Acknowledgment(id=id_, reason=reason) for id_ in ids(matter)]
    cdk.Validations.of(construct).acknowledge(*accepted)


def acknowledge_resource(role: Construct, resource: Any, reason: str) -> None:
    """Accept that a role's policy names this resource, which holds a wildcard."""
    acknowledge(role, f"IAM5[Resource::{shown(role, resource)}]", reason)


def exported(value: Any, *, of: IConstruct, seen_from: Construct) -> Any:
    """An attribute of a construct as another stack's template refers to it: an import of its export."""
    stack = cdk.Stack.of(of)
    if stack is cdk.Stack.of(seen_from):
        return value
    return stack.export_value(value)


def shown(scope: Construct, value: Any) -> str:
    """A value as cdk-nag writes it: `<LogicalId.Arn>` for an attribute, the export's name for an import."""
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
    """A function's ARN with any version, as the CDK grants it to whoever invokes the function."""
    child = function.node.default_child
    assert isinstance(child, cdk.CfnElement)
    return f"<{cdk.Stack.of(function).get_logical_id(child)}.Arn>:*"
