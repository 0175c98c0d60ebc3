"""The key and the buckets: encrypted, versioned, closed, logged, and kept as the settings say."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

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
    (rule,) = bucket.properties["LifecycleConfiguration"]["Rules"]
    assert rule["Status"] == "Enabled"
    found: Mapping[str, object] = rule
    return found


def removal(resource: Resource) -> set[str]:
    return {resource.raw["DeletionPolicy"], resource.raw["UpdateReplacePolicy"]}


def test_key_rotates_and_can_be_saved_from_deletion(assembly: Assembly) -> None:
    key = assembly.one("AWS::KMS::Key")
    assert key.properties["EnableKeyRotation"] is True
    assert key.properties["PendingWindowInDays"] == assembly.settings.encryption.key_deletion_days


def test_key_is_for_this_account_and_its_alarms_only(assembly: Assembly) -> None:
    account, alarms = assembly.statements(assembly.one("AWS::KMS::Key").properties["KeyPolicy"])
    own = assembly.settings.account
    assert assembly.plain(account.principal) == {"AWS": f"arn:aws:iam::{own}:root"}
    assert alarms.principal == {"Service": "cloudwatch.amazonaws.com"}
    assert alarms.actions == {"kms:Decrypt", "kms:GenerateDataKey*"}
    assert alarms.conditions == {"StringEquals": {"aws:SourceAccount": own}}


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


@pytest.mark.parametrize("name", ["Data", "AccessLogs"])
def test_buckets_are_closed_to_the_public_and_have_no_acls(assembly: Assembly, name: str) -> None:
    bucket = assembly.one("AWS::S3::Bucket", name)
    assert bucket.properties["PublicAccessBlockConfiguration"] == CLOSED
    assert bucket.properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert "AccessControl" not in bucket.properties


@pytest.mark.parametrize("name", ["Data", "AccessLogs"])
def test_buckets_refuse_what_is_not_tls(assembly: Assembly, name: str) -> None:
    (denial,) = [statement for statement in policy_of(assembly, name) if statement.effect == "Deny"]
    assert denial.principal == {"AWS": "*"}
    assert denial.actions == {"s3:*"}
    assert denial.resources == {f"<{name}.Arn>", f"<{name}.Arn>/*"}
    assert denial.conditions == {"Bool": {"aws:SecureTransport": "false"}}


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
    assert removal(assembly.one("AWS::KMS::Key")) == expected
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
