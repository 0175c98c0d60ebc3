"""What custom resources need to own what they pay for: a table of requests, and their own identity."""

from __future__ import annotations

import aws_cdk as cdk
import jsii
from aws_cdk import aws_dynamodb as dynamodb
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.common.nag import acknowledge
from cdk_distilled_router.common.provider import TOTAL
from cdk_distilled_router.common.tables import items_table
from distilled_router.bedrock.ownership import Claimant
from distilled_router.env import ResourceEnv


def requests_table(scope: Construct, hosting: Hosting) -> dynamodb.Table:
    """Return the stack's table of requests, one item for each custom resource (`aws.fence`).

    That of a distillation stack also holds the ledger (`cost.limit`) and the seals of labels.

    Each stack has its own, so that it is deleted with the resources that use it.
    """
    stack = cdk.Stack.of(scope)
    existing = stack.node.try_find_child("ResourceRequests")
    if isinstance(existing, dynamodb.Table):
        return existing
    table = items_table(stack, "ResourceRequests", hosting.table_key)
    if hosting.table_key is None:
        acknowledge(
            table,
            "DynamoDBEncryptionKMS",
            "It holds ids and properties of CloudFormation's requests, committed amounts and the keys of "
            "labels' seals, and no queries or answers. hosting.data_key or hosting.key encrypts it.",
        )
    return table


def registering(scope: Construct, hosting: Hosting) -> list[may.Permission]:
    """Return what registering requests, and reading the newest one, needs."""
    return may.items(requests_table(scope, hosting), hosting.table_key, ["GetItem", "UpdateItem"])


def resource_env(
    scope: Construct, owner: str, hosting: Hosting, total_timeout: cdk.Duration = TOTAL
) -> ResourceEnv:
    """Return the variables of a custom resource's handlers; `total_timeout` is that of its provider."""
    return ResourceEnv(
        owner=owner,
        requests_table=requests_table(scope, hosting).table_name,
        absence_seconds=hosting.absence_seconds,
        wait_seconds=total_timeout.to_seconds(),
    )


def claimant(scope: Construct, resource: str = "Resource") -> Claimant:
    """Return a custom resource as what claims paid resources, also before it is declared.

    `resource` is the id of the custom resource in `scope`.
    """
    logical_id = cdk.Lazy.string(_LogicalId(scope, resource))
    return Claimant(cdk.Stack.of(scope).stack_id, logical_id)


@jsii.implements(cdk.IStableStringProducer)
class _LogicalId:
    """The logical id of a custom resource, which may be declared later."""

    def __init__(self, scope: Construct, resource: str) -> None:
        self._scope, self._resource = scope, resource

    def produce(self) -> str:
        """Return the logical id."""
        element = self._scope.node.find_child(self._resource).node.default_child
        assert isinstance(element, cdk.CfnElement)
        return str(cdk.Stack.of(self._scope).get_logical_id(element))
