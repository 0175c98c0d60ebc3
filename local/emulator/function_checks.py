"""What Lambda checks before it creates or updates a function, and MiniStack does not.

- **The role of a function in a VPC.** Lambda simulates the EC2 calls that it will make for the function's
  network interfaces. For those that change an interface it gives neither a resource nor a condition key: a
  statement on `network-interface/*`, or with a condition, doesn't count
  (hashicorp/terraform-provider-aws#20698; Lambda developer guide, configuration-vpc).
- **The size of the variables**: their JSON has at most 4,096 bytes
  (github-aws-runners/terraform-aws-github-runner#3594).

It imports nothing of MiniStack, so that the permission proof uses the same rules (`tests/iam.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHANGING = ("DeleteNetworkInterface", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses")
MOST_BYTES = 4096


@dataclass(frozen=True)
class Checks:
    """Lambda's checks in an account. `evaluator` is `ministack.core.iam_evaluator`."""

    evaluator: Any
    account: str
    region: str

    def refusal(self, function: Mapping[str, Any], policies: Sequence[Sequence[Any]]) -> str:
        """Return why Lambda refuses a function's properties with its role's policies; empty if it doesn't."""
        variables = (function.get("Environment") or {}).get("Variables") or {}
        measured = json.dumps(variables, separators=(",", ":"), ensure_ascii=False)
        if len(measured.encode()) > MOST_BYTES:
            return (
                "Lambda was unable to configure your environment variables because the environment variables "
                f"you have provided exceeded the 4KB limit. String measured: {measured}"
            )
        network = function.get("VpcConfig") or {}
        for action, resource in self._simulated(network) if network.get("SubnetIds") else ():
            if not self.allows(policies, action, resource):
                return f"The provided execution role does not have permissions to call {action} on EC2"
        return ""

    def _simulated(self, network: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        ec2 = f"arn:aws:ec2:{self.region}:{self.account}"
        for resource in (
            f"{ec2}:network-interface/*",
            *(f"{ec2}:subnet/{name}" for name in network["SubnetIds"]),
            *(f"{ec2}:security-group/{name}" for name in network["SecurityGroupIds"]),
        ):
            yield "CreateNetworkInterface", resource
        yield "DescribeNetworkInterfaces", "*"
        yield from ((action, "*") for action in CHANGING)

    def allows(self, policies: Sequence[Sequence[Any]], action: str, resource: str = "*") -> bool:
        """Return whether policies allow an EC2 action for a request without condition keys.

        An Allow with a condition doesn't count, a Deny whose key is absent doesn't either.
        """
        context = self.evaluator.EvalContext(
            principal_arn=f"arn:aws:sts::{self.account}:assumed-role/role/lambda",
            principal_type="AssumedRole",
            principal_account=self.account,
            action=f"ec2:{action}",
            resource_arn=resource,
            region=self.region,
        )
        counted = [
            [one for one in policy if one.effect == "Deny" or not one.conditions] for policy in policies
        ]
        return bool(self.evaluator.evaluate(context, counted).decision == "Allow")
