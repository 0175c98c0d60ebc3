"""Lambda's checks of a function and its role, as the emulator makes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.iam import function_checks, iam_evaluator

EC2 = "arn:aws:ec2:us-east-1:000000000000"
FUNCTION = {"VpcConfig": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}}
NETWORK = [f"{EC2}:network-interface/*", f"{EC2}:subnet/*", f"{EC2}:security-group/sg-1"]
CHECKS = function_checks.Checks(iam_evaluator, "000000000000", "us-east-1")

Statement = Mapping[str, Any]


def statement(
    *actions: str, resource: Any = "*", effect: str = "Allow", **condition: Mapping[str, str]
) -> Statement:
    names = [f"ec2:{name}" for name in actions]
    return {"Effect": effect, "Action": names, "Resource": resource, "Condition": condition}


CREATE = statement("CreateNetworkInterface", resource=NETWORK)
DESCRIBE = statement("DescribeNetworkInterfaces")
CHANGE = statement(*function_checks.CHANGING)


def refusal(*statements: Statement, function: Mapping[str, Any] = FUNCTION) -> str:
    parsed = iam_evaluator.parse_policy_document({"Statement": list(statements)})
    return str(CHECKS.refusal(function, [parsed]))


def test_the_documented_policies_are_accepted() -> None:
    everything = statement("CreateNetworkInterface", "DescribeNetworkInterfaces", *function_checks.CHANGING)
    assert refusal(everything) == refusal(CREATE, DESCRIBE, CHANGE) == ""


def test_a_deny_of_the_functions_code_does_not_count() -> None:
    """Lambda developer guide, permissions-source-function-arn: its own calls don't have the key."""
    code = {"lambda:SourceFunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:*"}
    deny = statement(*function_checks.CHANGING, effect="Deny", ArnLike=code)
    assert refusal(CREATE, DESCRIBE, CHANGE, deny) == ""


@pytest.mark.parametrize("action", function_checks.CHANGING)
def test_a_change_is_allowed_without_a_resource_and_without_a_condition(action: str) -> None:
    others = statement(*(name for name in function_checks.CHANGING if name != action))
    wanted = f"The provided execution role does not have permissions to call {action} on EC2"
    for seen_by_lambda in (
        statement(action, resource=f"{EC2}:network-interface/*"),
        statement(action, Null={"lambda:SourceFunctionArn": "true"}),
        statement(action, ArnEquals={"ec2:Subnet": f"{EC2}:subnet/subnet-1"}),
        statement(action, effect="Deny"),
    ):
        assert refusal(CREATE, DESCRIBE, others, seen_by_lambda) == wanted


def test_an_interface_is_created_in_every_subnet_and_group() -> None:
    for number in range(len(NETWORK)):
        less = statement("CreateNetworkInterface", resource=NETWORK[:number] + NETWORK[number + 1 :])
        assert refusal(less, DESCRIBE, CHANGE).endswith("to call CreateNetworkInterface on EC2")
    assert refusal(CREATE, CHANGE).endswith("to call DescribeNetworkInterfaces on EC2")


def test_a_function_outside_a_vpc_needs_nothing() -> None:
    assert refusal(function={}) == refusal(function={"VpcConfig": {"SubnetIds": []}}) == ""


def test_variables_are_measured_as_json() -> None:
    def of(value: str) -> Mapping[str, Any]:
        return {"Environment": {"Variables": {"A": value}}}

    longest = "x" * (4096 - len('{"A":""}'))
    assert refusal(function=of(longest)) == ""
    assert "exceeded the 4KB limit" in refusal(function=of(longest + "x"))
    assert "exceeded the 4KB limit" in refusal(function=of(json.dumps({"a": "b"}) + longest[12:]))
