"""The job's service role, and the function that passes it to Bedrock."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, TRAINING_TAG, holdout_tag
from tests.stacks.assembly import Assembly, Statement

MODEL_KEY_ACTIONS = {"kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant"}


def allow(
    actions: set[str], resources: set[str], conditions: Mapping[str, object] | None = None
) -> Statement:
    return Statement("Allow", frozenset(actions), frozenset(resources), conditions or {}, {"AWS": "*"})


def test_job_role_is_for_bedrocks_customization_jobs_of_this_account(assembly: Assembly) -> None:
    """Case T13."""
    role = assembly.one("AWS::IAM::Role", "JobJobRole")
    (trust,) = assembly.statements(role.properties["AssumeRolePolicyDocument"])
    account, region = assembly.settings.account, assembly.settings.region
    assert trust.principal == {"Service": "bedrock.amazonaws.com"}
    assert trust.actions == {"sts:AssumeRole"}
    assert trust.conditions == {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": f"arn:aws:bedrock:{region}:{account}:model-customization-job/*"},
    }


def test_job_role_may_read_data_write_its_output_and_ask_the_teacher(assembly: Assembly) -> None:
    account, region = assembly.settings.account, assembly.settings.region
    data = f"labels/{assembly.settings.owner}/*" if assembly.is_labelled_here else "datasets/*"
    read = [data, "jobs/*"]
    expected = [
        allow({"s3:GetObject"}, {f"<Data.Arn>/{folder}" for folder in read}),
        allow({"s3:PutObject"}, {"<Data.Arn>/jobs/*"}),
        allow({"s3:ListBucket"}, {"<Data.Arn>"}, {"StringLike": {"s3:prefix": read}}),
        allow({"kms:Decrypt", "kms:GenerateDataKey"}, {"<Key.Arn>"}),
    ]
    if assembly.settings.distillation.method == "distillation":
        teacher = assembly.settings.distillation.teacher
        profile = f"arn:aws:bedrock:{region}:{account}:inference-profile/{teacher}"
        model = f"arn:aws:bedrock:us-*::foundation-model/{teacher.removeprefix('us.')}"
        expected.append(allow({"bedrock:InvokeModel"}, {profile, model}))
    granted = assembly.role_statements(assembly.one("AWS::IAM::Role", "JobJobRole"))
    # The permissions for a VPC: see test_platform.
    granted = [s for s in granted if not any(action.startswith("ec2:") for action in s.actions)]
    assert granted == expected


def test_only_functions_that_create_jobs_pass_a_role_and_only_this_one_to_bedrock(assembly: Assembly) -> None:
    passing = [
        (role.name, statement)
        for role in assembly.resources("AWS::IAM::Role")
        for statement in assembly.role_statements(role)
        if any(action.lower().startswith("iam:") for action in statement.actions)
    ]
    to_bedrock = {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}}
    pass_it = allow({"iam:PassRole"}, {"<JobJobRole.Arn>"}, to_bedrock)
    if assembly.is_labelled_here:
        # The labelling passes the role of batch jobs: see test_labelling_stack.
        passing = [found for found in passing if found[0] != "LabellingStepRole"]
    # GradeAnswers passes the role of evaluation jobs: see test_release_stack.
    passing = [found for found in passing if found[0] != "ReleaseGradeAnswersRole"]
    makers = ["JobRole"]
    if assembly.settings.release.retry_internal_errors:
        makers.append("ReleaseCandidateRole")
    assert passing == [(maker, pass_it) for maker in makers]


def test_stopping_a_job_or_deleting_a_model_needs_the_owners_tag(assembly: Assembly) -> None:
    owned = {"StringEquals": {f"aws:ResourceTag/{OWNER_TAG}": assembly.settings.owner}}
    ending = {
        "bedrock:StopModelCustomizationJob",
        "bedrock:DeleteCustomModel",
        "bedrock:DeleteCustomModelDeployment",
        "bedrock:DeleteProvisionedModelThroughput",
        "bedrock:UntagResource",
    }
    found = [
        statement
        for role in assembly.resources("AWS::IAM::Role")
        for statement in assembly.role_statements(role)
        if statement.actions & ending
    ]
    assert {action for statement in found for action in statement.actions} >= ending
    assert [statement for statement in found if statement.conditions != owned] == []


def test_jobs_and_models_of_an_earlier_student_can_be_ended(assembly: Assembly) -> None:
    """Case B14."""
    account, region = assembly.settings.account, assembly.settings.region
    mine = f"arn:aws:bedrock:{region}:{account}"
    ending = {
        "bedrock:StopModelCustomizationJob": {"JobRole": f"{mine}:model-customization-job/*"},
        "bedrock:DeleteCustomModel": dict.fromkeys(
            ("JobRole", "ReleaseSweeperRole", "ReleaseReleaseRole"), f"{mine}:custom-model/*"
        ),
    }
    for action, roles in ending.items():
        for name, arn in roles.items():
            role = assembly.one("AWS::IAM::Role", name)
            allowed = [s.resources for s in assembly.role_statements(role) if action in s.actions]
            assert allowed == [{arn}], f"{name}: {action}"


def test_model_key_adds_its_permissions_and_nothing_else_does(assembly: Assembly) -> None:
    through_bedrock = f"bedrock.{assembly.settings.region}.amazonaws.com"
    encrypted = {
        role.name: statement.actions
        for role in assembly.resources("AWS::IAM::Role")
        for statement in assembly.role_statements(role)
        if through_bedrock in str(statement.conditions)
    }
    job = assembly.one("Custom::BedrockDistillationJob")
    if not assembly.settings.encryption.model_key:
        assert encrypted == {}
        assert "CustomModelKmsKeyId" not in job.properties
        return
    assert encrypted["JobRole"] == MODEL_KEY_ACTIONS
    assert encrypted["ReleaseCandidateRole"] == MODEL_KEY_ACTIONS
    # Invoking the model needs the key.
    assert "kms:Decrypt" in encrypted["ReleaseEvaluationRole"] & encrypted["RouterRole"]
    assert assembly.plain(job.properties["CustomModelKmsKeyId"]) == "<Key.Arn>"


def test_model_key_is_on_and_off_among_the_environments(assemblies: Mapping[str, Assembly]) -> None:
    assert {assembly.settings.encryption.model_key for assembly in assemblies.values()} == {True, False}


def test_job_and_model_have_tags_with_owner_and_digest(assembly: Assembly) -> None:
    tags = dict(assembly.one("Custom::BedrockDistillationJob").properties["Tags"])
    own = {OWNER_TAG: assembly.settings.owner, DIGEST_TAG: assembly.identity.digest}
    holdout = holdout_tag(f"datasets/{assembly.identity.holdout_digest}/holdout.jsonl")
    hashes = {name: tags.pop(name, None) for name in (TRAINING_TAG, holdout)}
    assert tags == {**assembly.settings.tags, **own}
    # What the Dataset's resources answered. A labelling adds those of its own files.
    datasets = {one.name: one.logical_id for one in assembly.resources("Custom::BedrockDataset")}
    publishing = {TRAINING_TAG: "Dataset", holdout: "DatasetHoldout"}
    expected = {tag: datasets[name] for tag, name in publishing.items() if name in datasets}
    assert {tag: value["Fn::GetAtt"][0] for tag, value in hashes.items() if value} == expected


def test_no_job_starts_before_the_data_set_has_passed(assembly: Assembly) -> None:
    job = assembly.one("Custom::BedrockDistillationJob")
    if assembly.is_labelled_here:
        assert job.properties["MadeLater"] is True
        return
    holdout = assembly.one("Custom::BedrockDataset", "DatasetHoldout")
    assert holdout.logical_id in job.raw["DependsOn"]
    for training in assembly.resources("Custom::BedrockDataset"):
        if training.name == "Dataset":
            assert training.logical_id in holdout.raw["DependsOn"]


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        ("Custom::BedrockDataset", "DatasetRole"),
        ("Custom::BedrockDistillationJob", "JobRole"),
        ("Custom::BedrockRelease", "ReleaseReleaseRole"),
    ],
)
def test_resource_is_created_after_the_policy_of_its_handler(
    assembly: Assembly, kind: str, role: str
) -> None:
    """A policy is a separate resource, so the role's ARN alone doesn't wait for it."""
    if kind == "Custom::BedrockDataset" and assembly.is_labelled_here:
        kind, role = "Custom::BedrockLabelling", "LabellingRole"
    policies = {
        policy.logical_id
        for policy in assembly.resources("AWS::IAM::Policy")
        if assembly.plain(policy.properties["Roles"]) == [f"<{role}>"]
    }
    assert policies
    assert all(policies <= set(resource.raw["DependsOn"]) for resource in assembly.resources(kind))
