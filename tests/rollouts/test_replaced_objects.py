"""Somebody who may write to the data bucket tries to get a model past the gate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from distilled_router.bedrock.naming import OWNER_TAG
from local.state import REGION
from tests.engine.system import Traffic
from tests.rollouts.candidates import HOLDOUT_ROWS
from tests.rollouts.scene import Scene

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("rollouts")]

ANALYST = "analyst"


@pytest.fixture
def holdout(scene: Scene) -> Iterator[dict[str, str]]:
    """Return the place of the published hold-out set, which is restored after the test."""
    s3, bucket = scene.engine.aws("s3"), scene.system.physical("data", "Data")
    found = s3.list_objects_v2(Bucket=bucket, Prefix="datasets/")["Contents"]
    (key,) = {item["Key"] for item in found if item["Key"].endswith("/holdout.jsonl")}
    place = {"Bucket": bucket, "Key": key}
    version = s3.head_object(**place)["VersionId"]
    yield place
    for newer in s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]:
        if newer["VersionId"] != version:
            s3.delete_object(**place, VersionId=newer["VersionId"])


def test_a_hold_out_set_that_was_replaced_after_it_was_published_decides_nothing(
    scene: Scene, traffic: Traffic, live: str, holdout: dict[str, str]
) -> None:
    s3, candidate = scene.engine.aws("s3"), scene.candidate()
    rows = s3.get_object(**holdout)["Body"].read()
    # The deployment may publish it again.
    scene.deploy(candidate, "data", "distillation")
    easy = rows.splitlines()[:1] * HOLDOUT_ROWS
    s3.put_object(**holdout, Body=b"\n".join(easy))
    scene.deploy(candidate)
    message = scene.fails(candidate.digest).message
    assert f"s3://{holdout['Bucket']}/{holdout['Key']} was replaced after it was published" in message
    assert f"expected {hashlib.sha256(rows).hexdigest()}" in message
    scene.has_left(candidate)
    assert scene.shares() == {live: 1.0}
    assert {answer.release for answer in traffic.prompt} == {live}


def session(scene: Scene, tags: dict[str, str]) -> Any:
    """Return an S3 client of a role that may do anything with buckets, with these tags."""
    iam, sts = scene.engine.aws("iam"), scene.engine.aws("sts")
    account = sts.get_caller_identity()["Account"]
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "sts:AssumeRole",
    }
    allowed = {"Effect": "Allow", "Action": ["s3:*", "kms:*"], "Resource": "*"}
    policy, trusted = (
        json.dumps({"Version": "2012-10-17", "Statement": [statement]}) for statement in (allowed, trust)
    )
    name = f"{ANALYST}-{len(tags)}"
    role = iam.create_role(
        RoleName=name,
        AssumeRolePolicyDocument=trusted,
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )["Role"]
    iam.put_role_policy(RoleName=name, PolicyName="s3", PolicyDocument=policy)
    found = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="session")["Credentials"]
    s3 = scene.engine.aws("s3")
    return boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=s3.meta.endpoint_url,
        verify=str(scene.engine.state.certificate),
        aws_access_key_id=found["AccessKeyId"],
        aws_secret_access_key=found["SecretAccessKey"],
        aws_session_token=found["SessionToken"],
        config=s3.meta.config,
    )


def test_nobody_but_the_systems_roles_writes_what_decides(scene: Scene, holdout: dict[str, str]) -> None:
    analyst, bucket = session(scene, {}), holdout["Bucket"]
    assert analyst.get_object(**holdout)["Body"].read()
    version = analyst.head_object(**holdout)["VersionId"]
    attempts: list[Callable[[], object]] = [
        lambda: analyst.put_object(**holdout, Body=b"{}"),
        lambda: analyst.delete_object(**holdout),
        lambda: analyst.delete_object(**holdout, VersionId=version),
        lambda: analyst.copy_object(**holdout, CopySource=dict(holdout), MetadataDirective="REPLACE"),
        *(
            lambda folder=folder: analyst.put_object(Bucket=bucket, Key=f"{folder}/new.json", Body=b"{}")
            for folder in ("jobs", "labels/any", "releases/any")
        ),
    ]
    for attempt in attempts:
        with pytest.raises(ClientError, match="AccessDenied"):
            attempt()
    # What a team keeps beside them is its own.
    analyst.put_object(Bucket=bucket, Key="notes/any.txt", Body=b"mine")
    other = session(scene, {OWNER_TAG: "another-owner"})
    with pytest.raises(ClientError, match="AccessDenied"):
        other.put_object(**holdout, Body=b"{}")


def test_job_with_a_role_of_somebody_else_writes_nothing_either(
    scene: Scene, holdout: dict[str, str]
) -> None:
    role, objects = scene.engine.somebodys_role("somebody"), f"arn:aws:s3:::{holdout['Bucket']}"
    assert scene.engine.denied(role, "s3:PutObject", f"{objects}/jobs/any/metrics.csv")
    assert not scene.engine.denied(role, "s3:GetObject", f"{objects}/{holdout['Key']}")
    ours = scene.system.physical("distillation", "JobJobRole")
    arn = scene.engine.aws("iam").get_role(RoleName=ours)["Role"]["Arn"]
    assert not scene.engine.denied(arn, "s3:PutObject", f"{objects}/jobs/any/metrics.csv")
