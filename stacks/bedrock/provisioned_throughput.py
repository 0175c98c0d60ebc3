"""Construct ProvisionedThroughput: model units by the hour, owned by the stack before they are bought."""

from __future__ import annotations

import json
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.bedrock import permissions as may
from stacks.bedrock.provider import ResourceProvider
from stacks.functions import Function


class ProvisionedThroughput(Construct):
    """Throughput that a release buys, or moves to its model in place, after its gate.

    The deployment creates nothing: the resource owns the name, so that deleting the stack always removes what
    a release bought under it. A commitment can't be deleted before its term; Delete says so.

    Attributes:
        name: the throughput's name, which is the resource's physical id.
        stage: the function that a release calls to be served by it.
        resource: the custom resource.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        name: str,
        student: str,
        model_units: int,
        table: dynamodb.ITable,
        key: kms.IKey,
        model_key: bool = False,
        commitment: str | None = None,
        acknowledge_commitment: bool = False,
        retain_models: bool = True,
        poll_seconds: int = 60,
        tags: Mapping[str, str] | None = None,
        log_days: int = 90,
    ) -> None:
        """Declare the throughput. `commitment` is None (billed by the hour), OneMonth or SixMonths;
        `model_key` says that models are encrypted with `key`.

        Raises ValueError for a commitment that nobody acknowledged: it can't be deleted before its term, and
        AWS renews it at the end.
        """
        super().__init__(scope, construct_id)
        if commitment and not acknowledge_commitment:
            raise ValueError(
                f"Throughput {name}: a commitment of {commitment} is paid to its end, whatever happens to "
                "the stack. Set acknowledge_commitment to say that this is wanted."
            )
        self.name = name
        role = may.function_role(
            self, "Role", self._permissions(owner, student, table, key, model_key=model_key)
        )
        functions = {
            entry: Function(
                self,
                construct,
                folder="provisioned_throughput",
                entry=entry,
                role=role,
                environment={
                    "POWERTOOLS_SERVICE_NAME": owner,
                    "TABLE_NAME": table.table_name,
                    "NAME": owner,
                    "THROUGHPUT_NAME": name,
                    "MODEL_UNITS": str(model_units),
                    "COMMITMENT_DURATION": commitment or "",
                    "POLL_SECONDS": str(poll_seconds),
                    "TAGS": json.dumps(dict(tags or {}), sort_keys=True),
                },
                log_days=log_days,
                timeout=cdk.Duration.minutes(5),
                description=description,
            )
            for construct, entry, description in (
                (
                    "OnEvent",
                    "on_event",
                    "Owns a provisioned throughput's name, and deletes what exists under it",
                ),
                ("IsComplete", "is_complete", "Says whether a provisioned throughput is gone"),
                ("Stage", "stage", "Buys the provisioned throughput, or moves it to a release's model"),
            )
        }
        self.stage: Function = functions["stage"]
        provider = ResourceProvider(
            self,
            "Provider",
            on_event=functions["on_event"],
            is_complete=functions["is_complete"],
            log_days=log_days,
        )
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockProvisionedThroughput",
            service_token=provider.service_token,
            properties={"ProvisionedModelName": name, "Owner": owner, "RetainModels": retain_models},
        )
        self.resource.node.add_dependency(role)

    @staticmethod
    def _permissions(
        owner: str, student: str, table: dynamodb.ITable, key: kms.IKey, *, model_key: bool
    ) -> list[may.Permission]:
        # Bedrock gives the throughput's own actions no condition key for tags (Service Authorization
        # Reference); the handler checks the owner's tag before it touches anything.
        models, throughputs = may.models(student), may.account_arn(may.THROUGHPUTS)
        return [
            may.bedrock(["CreateProvisionedModelThroughput"], [models]),
            may.bedrock(["UpdateProvisionedModelThroughput"], [models, throughputs]),
            may.bedrock(
                [
                    "GetProvisionedModelThroughput",
                    "DeleteProvisionedModelThroughput",
                    "ListTagsForResource",
                    "TagResource",
                ],
                [throughputs],
            ),
            may.bedrock(["DeleteCustomModel"], [models], may.owned(owner)),
            may.bedrock(["ListCustomModelDeployments", "ListProvisionedModelThroughputs"], ["*"]),
            *may.items(table, key, ["GetItem", "UpdateItem", "PutItem"]),
            *([may.model_key(key)] if model_key else []),
        ]
