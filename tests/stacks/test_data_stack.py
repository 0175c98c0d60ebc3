"""The key and the buckets: encryption, versions, access, logs and retention."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from distilled_router.bedrock.naming import OWNER_TAG
from tests.iam import iam_evaluator
from tests.stacks.assembly import Assembly, Resource, Statement

CLOSED = {
    "BlockPublicAcls": True,
    "BlockPublicPolicy": True,
    "IgnorePublicAcls": True,
    "RestrictPublicBuckets": True,
}


def encryption(bucket: Resource) -> Mapping[str, object]:
    (rule,) = bucket.properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    found: Mapping[str, object] = rule
    return found


def lifecycle(bucket: Resource) -> Mapping[str, object]:
    rules = bucket.properties["LifecycleConfiguration"]["Rules"]
    assert {rule["Status"] for rule in rules} == {"Enabled"}
    return {name: value for rule in rules for name, value in rule.items()}


def removal(resource: Resource) -> set[str]:
    return {resource.raw["DeletionPolicy"], resource.raw["UpdateReplacePolicy"]}


def made(assembly: Assembly) -> Resource | None:
    """Return the key that the stack creates; None if the team has its own."""
    if assembly.settings.encryption.key_arn:
        assert assembly.resources("AWS::KMS::Key") == []
        return None
    return assembly.one("AWS::KMS::Key")


def test_environments_have_a_created_key_and_the_teams_own(
    assemblies: Mapping[str, Assembly],
) -> None:
    assert {made(assembly) is None for assembly in assemblies.values()} == {True, False}


def test_key_rotates_and_can_be_saved_from_deletion(assembly: Assembly) -> None:
    if (key := made(assembly)) is None:
        return
    assert key.properties["EnableKeyRotation"] is True
    assert key.properties["PendingWindowInDays"] == assembly.settings.encryption.key_deletion_days


def test_key_is_for_this_account_and_services_on_its_behalf_only(assembly: Assembly) -> None:
    if (key := made(assembly)) is None:
        return
    account, _, *services = assembly.statements(assembly.plain(key.properties["KeyPolicy"]))
    own = assembly.settings.account
    assert assembly.plain(account.principal) == {"AWS": f"arn:aws:iam::{own}:root"}
    expected = ["cloudwatch.amazonaws.com"]
    if assembly.settings.encryption.runtime_key:
        expected += ["logs.us-east-1.amazonaws.com", "delivery.logs.amazonaws.com"]
    assert [statement.principal["Service"] for statement in services] == expected
    assert services[0].actions == {"kms:Decrypt", "kms:GenerateDataKey*"}
    assert services[0].conditions == {"StringEquals": {"aws:SourceAccount": own}}
    assert all(own in str(statement.conditions) for statement in services)


def by_key_policy_alone(assembly: Assembly, action: str, role: str) -> str:
    """Return the decision about a created key for a role whose own policies don't see the key's tag yet."""
    policy = assembly.plain(assembly.one("AWS::KMS::Key").properties["KeyPolicy"])
    asked = iam_evaluator.EvalContext(
        # A session's `aws:PrincipalArn` is its role (IAM user guide, global condition keys); the evaluator
        # takes it from here.
        principal_arn=f"arn:aws:iam::{assembly.settings.account}:role/{role}",
        principal_type="AssumedRole",
        principal_account=assembly.settings.account,
        action=action,
        resource_arn="arn:aws:kms:us-east-1:444455556666:key/0b8f1c7e-1111-4222-8333-444455556666",
        region="us-east-1",
        service_context={"kms:calleraccount": assembly.settings.account},
    )
    undecided = iam_evaluator.evaluate(asked, [])
    found = iam_evaluator.combine_resource_policy(
        undecided, asked, policy, assembly.settings.account, required=True
    )
    return str(found.decision)


def test_cloudformation_goes_on_with_a_key_whose_tag_does_not_count_yet(assembly: Assembly) -> None:
    """A tag may count for authorization five minutes late, and the key's rotation is enabled in seconds."""
    if made(assembly) is None:
        return
    settings = assembly.settings
    role = f"cdk-{settings.bootstrap_qualifier}-cfn-exec-role-{settings.account}-us-east-1"
    actions = ("EnableKeyRotation", "PutKeyPolicy", "ScheduleKeyDeletion", "CreateGrant", "DescribeKey")
    assert {by_key_policy_alone(assembly, f"kms:{action}", role) for action in actions} == {"Allow"}
    assert by_key_policy_alone(assembly, "kms:DisableKey", role) == "ImplicitDeny"
    for other in (role.replace(settings.bootstrap_qualifier, "other"), "admin"):
        assert by_key_policy_alone(assembly, "kms:PutKeyPolicy", other) == "ImplicitDeny"


def test_data_bucket_is_versioned_and_encrypted_with_our_key(assembly: Assembly) -> None:
    bucket = assembly.one("AWS::S3::Bucket", "Data")
    assert bucket.properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert assembly.plain(encryption(bucket)) == {
        "BucketKeyEnabled": True,
        "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "<Key.Arn>"},
    }


def test_data_bucket_forgets_old_versions_and_half_uploads(assembly: Assembly) -> None:
    rule = lifecycle(assembly.one("AWS::S3::Bucket", "Data"))
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert "ExpirationInDays" not in rule


def test_access_to_data_is_logged(assembly: Assembly) -> None:
    bucket = assembly.one("AWS::S3::Bucket", "Data")
    assert assembly.plain(bucket.properties["LoggingConfiguration"]) == {
        "DestinationBucketName": "<AccessLogs>",
        "LogFilePrefix": "data/",
    }
    (delivery,) = [
        s for s in policy_of(assembly, "AccessLogs") if s.principal == {"Service": "logging.s3.amazonaws.com"}
    ]
    assert delivery.actions == {"s3:PutObject"}
    assert delivery.resources == {"<AccessLogs.Arn>/data/*"}
    assert delivery.conditions == {
        "ArnLike": {"aws:SourceArn": "<Data.Arn>"},
        "StringEquals": {"aws:SourceAccount": assembly.settings.account},
    }


def test_log_bucket_has_s3s_own_encryption_stays_and_empties_itself(assembly: Assembly) -> None:
    bucket = assembly.one("AWS::S3::Bucket", "AccessLogs")
    assert encryption(bucket) == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    assert removal(bucket) == {"Retain"}
    assert lifecycle(bucket)["ExpirationInDays"] == assembly.settings.retention.log_days


def test_a_log_that_was_deleted_can_be_had_back_for_a_month_and_then_leaves_nothing(
    assembly: Assembly,
) -> None:
    bucket = assembly.one("AWS::S3::Bucket", "AccessLogs")
    assert bucket.properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert lifecycle(bucket)["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    # S3 refuses a rule that has it beside a number of days.
    (alone,) = [
        rule
        for rule in bucket.properties["LifecycleConfiguration"]["Rules"]
        if "ExpiredObjectDeleteMarker" in rule
    ]
    assert alone == {"ExpiredObjectDeleteMarker": True, "Status": "Enabled"}


@pytest.mark.parametrize("name", ["Data", "AccessLogs"])
def test_buckets_are_closed_to_the_public_and_have_no_acls(assembly: Assembly, name: str) -> None:
    bucket = assembly.one("AWS::S3::Bucket", name)
    assert bucket.properties["PublicAccessBlockConfiguration"] == CLOSED
    assert bucket.properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert "AccessControl" not in bucket.properties


@pytest.mark.parametrize("name", ["Data", "AccessLogs"])
def test_buckets_refuse_what_is_not_tls(assembly: Assembly, name: str) -> None:
    denial, *more = [statement for statement in policy_of(assembly, name) if statement.effect == "Deny"]
    assert len(more) == (name == "Data")
    assert denial.principal == {"AWS": "*"}
    assert denial.actions == {"s3:*"}
    assert denial.resources == {f"<{name}.Arn>", f"<{name}.Arn>/*"}
    assert denial.conditions == {"Bool": {"aws:SecureTransport": "false"}}


def test_only_roles_with_the_owners_tag_write_what_decides(assembly: Assembly) -> None:
    (denial,) = [s for s in policy_of(assembly, "Data") if "s3:PutObject*" in s.actions]
    assert (denial.effect, denial.principal) == ("Deny", {"AWS": "*"})
    assert {"s3:DeleteObject*", "s3:PutObject*"} <= denial.actions
    folders = ("datasets", "jobs", "labels", "releases")
    assert denial.resources == {f"<Data.Arn>/{folder}/*" for folder in folders}
    owner = assembly.settings.owner
    assert denial.conditions == {"StringNotEquals": {f"aws:PrincipalTag/{OWNER_TAG}": [owner]}}
    writing = [
        role
        for role in assembly.resources("AWS::IAM::Role")
        for statement in assembly.role_statements(role)
        if statement.effect == "Allow"
        and statement.actions & {"s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"}
    ]
    assert {"DatasetRole", "JobJobRole", "ReleaseEvaluationRole"} & {role.name for role in writing}
    for role in writing:
        assert {"Key": OWNER_TAG, "Value": owner} in role.properties["Tags"], role.name


def test_no_bucket_policy_allows_another_account(assembly: Assembly) -> None:
    allowed = [
        statement
        for name in ("Data", "AccessLogs")
        for statement in policy_of(assembly, name)
        if statement.effect == "Allow"
    ]
    assert all(set(statement.principal) == {"Service"} and statement.conditions for statement in allowed)


def test_key_and_data_are_removed_or_kept_as_the_settings_say(assembly: Assembly) -> None:
    expected = {"Retain" if assembly.settings.retention.data == "retain" else "Delete"}
    if key := made(assembly):
        assert removal(key) == expected
    assert removal(assembly.one("AWS::S3::Bucket", "Data")) == expected


def test_both_retentions_are_among_the_environments(assemblies: Mapping[str, Assembly]) -> None:
    assert {assembly.settings.retention.data for assembly in assemblies.values()} == {"retain", "delete"}


def policy_of(assembly: Assembly, bucket: str) -> list[Statement]:
    return [
        statement
        for policy in assembly.resources("AWS::S3::BucketPolicy")
        if assembly.plain(policy.properties["Bucket"]) == f"<{bucket}>"
        for statement in assembly.statements(policy.properties["PolicyDocument"])
    ]
