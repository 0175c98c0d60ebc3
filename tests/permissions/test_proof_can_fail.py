"""The proof finds wrong policies: each test breaks one and expects a problem."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.iam import function_checks
from tests.permissions.calls import ALLOWED, FOLDER, RESOURCE_TAG, Call, check
from tests.permissions.grants import Grant
from tests.permissions.other_environments import Policy, reached
from tests.permissions.proof import Proof
from tests.stacks.assembly import Statement


def find(proof: Proof, role: str, action: str, resource: str = "") -> Grant:
    """Return a grant of a role."""
    return next(g for g in proof.grants if (g.role, g.action) == (role, action) and resource in g.resource)


def broken(proof: Proof, *grants: Grant, instead: tuple[Grant, ...] = ()) -> Proof:
    """Return a proof with other policies."""
    changed = tuple(environment.without(*grants, instead=instead) for environment in proof.environments)
    return Proof(changed, proof.recorded)


@pytest.mark.parametrize(
    ("role", "action"),
    [
        ("JobRole", "bedrock:CreateModelCustomizationJob"),
        ("JobRole", "iam:PassRole"),
        ("JobJobRole", "s3:PutObject"),
        ("ReleaseStateMachineRole", "sns:Publish"),
        ("RouterRole", "kms:Decrypt"),
        ("RouterRole", "ec2:CreateNetworkInterface"),
        ("LabellingStepRole", "kms:Decrypt"),
    ],
)
def test_an_action_that_is_missing_is_a_call_that_is_denied(proof: Proof, role: str, action: str) -> None:
    lost = [grant for grant in proof.grants if (grant.role, grant.action) == (role, action)]
    assert any(f"{role}: {action}" in told for told in broken(proof, *lost).denied())


def test_a_wildcard_is_too_wide_and_against_the_reference(proof: Proof) -> None:
    grant = find(proof, "JobRole", "s3:DeleteObject")
    wide = broken(proof, grant, instead=(replace(grant, resource="*"),))
    assert any("any resource" in told for told in wide.against_the_reference())
    assert any("another resource: JobRole: s3:DeleteObject" in told for told in wide.too_wide())


def test_a_condition_that_is_lost_lets_a_neighbour_in(proof: Proof) -> None:
    for role, action, what in (
        ("JobRole", "bedrock:StopModelCustomizationJob", "somebody else's"),
        ("JobRole", "bedrock:CreateModelCustomizationJob", "for another owner"),
        ("JobRole", "iam:PassRole", "for lambda"),
        ("RouterRole", "dynamodb:GetItem", "another item"),
        ("RouterRole", "bedrock:InvokeModel", "somebody else's"),
        ("RouterRole", "bedrock:InvokeModel", "nobody's"),
        ("ReleaseEvaluationRole", "dynamodb:UpdateItem", "the route"),
        ("ReleaseGradeAnswersRole", "dynamodb:UpdateItem", "the declaration"),
        ("ReleaseSweeperRole", "dynamodb:UpdateItem", "the route"),
        ("WaitRole", "dynamodb:PutItem", "the route"),
        ("RouterRole", "kms:Decrypt", "directly"),
        ("ReleaseReleaseRole", "s3:ListBucketVersions", "the whole bucket"),
        ("ReleaseStateMachineRole", "kms:Decrypt", "another machine"),
    ):
        grants = [grant for grant in proof.grants if (grant.role, grant.action) == (role, action)]
        bare = tuple(replace(grant, conditions="{}") for grant in grants)
        told = broken(proof, *grants, instead=bare).too_wide()
        assert any(line.startswith(f"{what}: {role}: {action}") for line in told), (role, action)


@pytest.mark.parametrize("action", function_checks.CHANGING)
@pytest.mark.parametrize(
    ("resource", "conditions"),
    [
        ("arn:aws:ec2:us-east-1:{account}:network-interface/*", {}),
        ("*", {"Null": {"lambda:SourceFunctionArn": "true"}}),
        ("*", {"ArnEquals": {"ec2:Subnet": "arn:aws:ec2:us-east-1:{account}:subnet/{id}"}}),
    ],
)
def test_lambda_refuses_a_role_whose_permission_it_does_not_see(
    proof: Proof, action: str, resource: str, conditions: dict[str, dict[str, str]]
) -> None:
    grant = find(proof, "RouterRole", f"ec2:{action}")
    instead = (replace(grant, resource=resource, conditions=json.dumps(conditions)),)
    told = f"RouterFunction: The provided execution role does not have permissions to call {action} on EC2"
    assert any(told in line for line in broken(proof, grant, instead=instead).refused())


def test_without_the_deny_a_functions_code_could_use_the_interfaces(proof: Proof) -> None:
    denials = [
        grant
        for environment in proof.environments
        for grant in environment.grants.get("RouterRole", ())
        if grant.effect == "Deny"
    ]
    assert denials
    told = broken(proof, *denials).too_wide()
    for action in ("CreateNetworkInterface", "DescribeSubnets", *function_checks.CHANGING):
        assert any(line.startswith(f"by the function's code: RouterRole: ec2:{action}") for line in told)


def test_a_condition_that_the_action_does_not_support_is_a_problem(proof: Proof) -> None:
    grant = find(proof, "JobRole", "s3:DeleteObject")
    conditions = json.dumps({"StringEqualsIfExists": {"bedrock:InferenceProfileArn": "x"}})
    told = broken(proof, grant, instead=(replace(grant, conditions=conditions),)).against_the_reference()
    assert any("no condition key bedrock:InferenceProfileArn" in line for line in told)


def test_an_unknown_action_or_resource_type_is_a_problem(proof: Proof) -> None:
    grant = find(proof, "RouterRole", "bedrock:InvokeModel", "custom-model-deployment")
    model = grant.resource.replace("custom-model-deployment", "custom-model")
    wrong = (replace(grant, action="bedrock:Converse"), replace(grant, resource=model))
    told = broken(proof, instead=wrong).against_the_reference()
    assert any("there is no such action" in line for line in told)
    assert any("a custom-model, and the action takes" in line for line in told)


def test_an_unused_permission_is_a_problem(proof: Proof) -> None:
    extra = Grant("RouterRole", "bedrock:ListCustomModels", "*")
    assert extra in broken(proof, instead=(extra,)).unused()


def test_a_new_or_denied_call_is_a_problem_of_its_test_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    resources = {"r": {"stack": "search-1", "logical_id": "RouterRole12345678", "type": "AWS::IAM::Role"}}
    call = {"role": "r", "action": "s3:GetObject", "resource": "arn:aws:s3:::x/y", "context": {}}
    assert any("new: RouterRole" in told for told in _told(resources, {**call, "decision": ALLOWED}))
    assert _told(resources, {**call, "decision": "ImplicitDeny"}) == [
        "ImplicitDeny: RouterRole: s3:GetObject on arn:aws:s3:::x/y"
    ]


def test_another_folder_is_a_new_call_but_another_object_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which objects a delete in the middle still finds differs from run to run."""
    monkeypatch.delenv(FOLDER, raising=False)
    role = {"stack": "search-1", "logical_id": "LabellingRole12345678", "type": "AWS::IAM::Role"}
    bucket = {"stack": "search-1", "logical_id": "Data12345678", "type": "AWS::S3::Bucket"}
    resources = {"r": role, "data": bucket}

    def told(key: str) -> list[str]:
        call = {
            "role": "r",
            "action": "s3:DeleteObject",
            "resource": f"arn:aws:s3:::data/{key}",
            "context": {},
        }
        return _told(resources, {**call, "decision": ALLOWED})

    assert not told("labels/search/0123456789abcdef/labelled/17.jsonl")
    assert any("new: LabellingRole" in line for line in told("releases/search/0123456789abcdef/plan.json"))


def _told(resources: dict[str, dict[str, str]], call: dict[str, object]) -> list[str]:
    return check({"resources": resources, "calls": [call]})


def test_a_neighbour_is_not_a_call_that_is_made(proof: Proof) -> None:
    """A neighbour that the role also calls is not checked."""
    assert not any(dict(call.context).get(RESOURCE_TAG) == "{somebody else}" for call in proof.recorded)
    assert all(isinstance(call, Call) for call in proof.recorded)


NEW = {"StringEqualsIfExists": {"aws:RequestTag/distilled-router:owner": "video-router-dev"}}
OURS = {"StringEquals": {"aws:ResourceTag/distilled-router:owner": "video-router-dev"}}


def statement(
    action: str, resource: str, conditions: Mapping[str, Any] | None = None, principal: str = ""
) -> Statement:
    """Return a statement that allows something."""
    return Statement(
        "Allow", frozenset({action}), frozenset({resource}), conditions or {}, {"Service": principal}
    )


@pytest.mark.parametrize(
    ("action", "resource", "right", "wrong"),
    [
        ("kms:ScheduleKeyDeletion", "arn:aws:kms:us-east-1:444455556666:key/*", OURS, {}),
        ("bedrock:InvokeModel", "arn:aws:bedrock:us-east-1:444455556666:custom-model-deployment/*", OURS, {}),
        ("apigateway:DELETE", "arn:aws:apigateway:us-east-1::/apis/*", OURS, {}),
        ("apigateway:TagResource", "arn:aws:apigateway:us-east-1::/apis/*", OURS, {}),
        ("ec2:DeleteSecurityGroup", "*", OURS, {}),
        ("iam:TagRole", "arn:aws:iam::444455556666:role/video-router-dev-*", NEW, {}),
        ("iam:CreateRole", "arn:aws:iam::444455556666:role/video-router-dev-*", NEW, {}),
    ],
)
def test_another_environments_tag_is_not_ours(
    proof: Proof, action: str, resource: str, right: Mapping[str, Any], wrong: Mapping[str, Any]
) -> None:
    assert not _reached(proof, statement(action, resource, right))
    assert _reached(proof, statement(action, resource, wrong))


@pytest.mark.parametrize(
    ("action", "right", "wrong"),
    [
        (
            "dynamodb:UpdateItem",
            "arn:aws:dynamodb:us-east-1:444455556666:table/video-router-dev-*",
            "arn:aws:dynamodb:us-east-1:444455556666:table/video-router-dev*",
        ),
        ("s3:DeleteBucket", "arn:aws:s3:::video-router-dev-data-*", "arn:aws:s3:::video-router-*"),
        (
            "cloudformation:CreateChangeSet",
            "arn:aws:cloudformation:us-east-1:444455556666:stack/video-router-dev-data/*",
            "*",
        ),
        (
            "sts:AssumeRole",
            "arn:aws:iam::444455556666:role/cdk-dev-deploy-role-444455556666-us-east-1",
            "arn:aws:iam::444455556666:role/cdk-*-deploy-role-444455556666-us-east-1",
        ),
        ("sqs:DeleteQueue", "arn:aws:sqs:us-east-1:444455556666:video-router-dev-*", "*"),
    ],
)
def test_another_environments_names_are_not_ours(proof: Proof, action: str, right: str, wrong: str) -> None:
    assert not _reached(proof, statement(action, right))
    assert _reached(proof, statement(action, wrong))


def test_another_environments_alarms_and_log_groups_may_not_use_ours(proof: Proof) -> None:
    alarms = {"ArnLike": {"aws:SourceArn": "arn:aws:cloudwatch:us-east-1:444455556666:alarm:{}*"}}
    groups = {
        "ArnLike": {"kms:EncryptionContext:aws:logs:arn": "arn:aws:logs:us-east-1:444455556666:log-group:{}*"}
    }
    for found, service in ((alarms, "cloudwatch"), (groups, "logs")):
        right, wrong = (
            json.loads(json.dumps(found).replace("{}", name)) for name in ("video-router-dev-", "")
        )
        for conditions, expected in ((right, False), (wrong, True)):
            one = statement("sns:Publish", "*", conditions, f"{service}.amazonaws.com")
            assert bool(_reached(proof, one, is_ours=False)) is expected


def _reached(proof: Proof, found: Statement, *, is_ours: bool = True) -> list[Grant]:
    (dev,) = [one for one in proof.environments if one.name == "dev"]
    return list(reached(Policy("broken", (found,), is_ours), dev.assembly.settings))
