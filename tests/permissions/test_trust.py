"""Who can assume a role and invoke a function: services, for this account only."""

from __future__ import annotations

import re
from typing import Any

from tests.permissions.grants import Environment
from tests.permissions.proof import Proof

# Lambda passes neither key when it assumes a function's role.
WITHOUT_A_SOURCE = {"lambda.amazonaws.com"}
SOURCES = {
    "JobJobRole": "model-customization-job/*",
    "LabellingBatchRole": "model-invocation-job/*",
    "ReleaseJudgeRole": "evaluation-job/*",
}

# Roles of the Provider framework's state machines, whose names are known.
WAITER = "ProviderwaiterstatemachineRole"


def trust(environment: Environment, role: str) -> dict[str, Any]:
    """The conditions under which a role may be assumed."""
    (statement,) = environment.roles[role].properties["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRole"
    assert set(statement["Principal"]) == {"Service"}
    found: dict[str, Any] = environment.plain(statement.get("Condition", {}))
    return found


def test_services_assume_roles_for_this_account_alone(proof: Proof) -> None:
    for environment in proof.environments:
        for role in environment.roles:
            service = environment.trusted(role)
            if service in WITHOUT_A_SOURCE:
                continue
            source = SOURCES.get(role, "stateMachine:*")
            if role.endswith(WAITER):
                machine = environment.assembly.one("AWS::StepFunctions::StateMachine", role[: -len("Role")])
                name = str(machine.properties["StateMachineName"])
                source = f"stateMachine:{name.replace(environment.assembly.settings.owner, '{owner}')}"
            arn = f"arn:aws:{service.partition('.')[0]}:us-east-1:{{account}}:{source}"
            assert trust(environment, role) == {
                "StringEquals": {"aws:SourceAccount": "{account}"},
                "ArnLike": {"aws:SourceArn": arn},
            }, f"{environment.name} {role}"


def test_a_service_calls_a_function_for_one_rule_or_route_of_ours(proof: Proof) -> None:
    for environment in proof.environments:
        for permission in environment.assembly.resources("AWS::Lambda::Permission"):
            shown = environment.plain(permission.properties)
            assert shown["Action"] == "lambda:InvokeFunction"
            match shown["Principal"]:
                case "events.amazonaws.com":
                    assert re.fullmatch(r"<\w+\.Arn>", shown["SourceArn"])  # a rule of ours: see below
                case "apigateway.amazonaws.com":
                    assert shown["FunctionName"] == "<RouterLive>"
                    api = "arn:aws:execute-api:us-east-1:{account}:<RouterApi>/*/*/"
                    assert shown["SourceArn"] in (f"{api}route", f"{api}routes")
                case other:
                    raise AssertionError(f"{permission.name} lets {other} call")


def test_every_rule_that_calls_a_function_may(proof: Proof) -> None:
    for environment in proof.environments:
        permitted = {
            (shown["SourceArn"], shown["FunctionName"])
            for permission in environment.assembly.resources("AWS::Lambda::Permission")
            if (shown := environment.plain(permission.properties))["Principal"] == "events.amazonaws.com"
        }
        called = {
            (f"<{rule.name}.Arn>", environment.plain(target["Arn"]))
            for rule in environment.assembly.resources("AWS::Events::Rule")
            for target in rule.properties["Targets"]
        }
        assert called == permitted
