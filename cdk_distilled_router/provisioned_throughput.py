"""Construct ProvisionedThroughput: model units by the hour, owned by the stack before they are bought."""

from __future__ import annotations

import re
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK, MACHINE, Caller
from cdk_distilled_router.common.functions import Function
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.existing import ExistingThroughput
from distilled_router.bedrock.naming import MODEL_NAME, throughput_name
from distilled_router.env import Env, ProvisionedThroughputEnv, ServeFromThroughputEnv

# Throughput comes into service after 20 to 30 minutes, as users report, and so does a move.
TOTAL = cdk.Duration.minutes(55)
INTERVAL = cdk.Duration.seconds(30)

_MODEL_ARN = re.compile(r"arn:[^:]+:bedrock:[^:]*:[^:]*:custom-model/(?P<student>[^/]+)/[^/]+")


class ProvisionedThroughput(Construct):
    """Throughput for one custom model, bought by the deployment or by a release.

    With `model_arn` the deployment buys it and waits until it is in service:
    `ProvisionedThroughput(self, "Throughput", owner="search", name="search-router", model_arn=model_arn,
    model_units=1)`.

    With `table`, the releases table, the deployment buys nothing: a Release buys it, or moves it to its model
    in place, after its gate. The resource owns the name, so that deleting the stack always removes what was
    bought under it.

    Another model of the same base, or another name, is a change in place, under the same ARN. Other model
    units or another commitment are other throughput: the new one is bought before the old one goes. A
    commitment can't be deleted before its term, and AWS renews it at the end: Delete, and a change that would
    have to delete one, are refused, unless `retain` is set.

    Attributes:
        name: the throughput's name, which says its model units and its commitment.
        provisioned_model_arn: what the model is invoked by; None where a release buys it.
        stage: the function that a release calls to be served by it; None where the deployment buys it.
        resource: the custom resource.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        name: str,
        model_units: int,
        model_arn: str | None = None,
        table: dynamodb.ITable | None = None,
        student: str | None = None,
        key: kms.IKey | None = None,
        model_key: bool = False,
        commitment: str | None = None,
        acknowledge_commitment: bool = False,
        hourly_price_usd: float | None = None,
        retain: bool = False,
        retain_models: bool = True,
        poll_seconds: int = 300,
        tags: Mapping[str, str] | None = None,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the throughput of a model, or of a table's releases.

        Args:
            owner: name of whoever owns what is made, used as a tag.
            name: begins the throughput's name, which gets `-<model units>mu` and the commitment; with a table
                it is the owner's, by which the sweeper finds it.
            model_units: at least 1; the account's quota is 0 until AWS raises it.
            model_arn: the custom model to serve.
            table: the releases table, in place of a model.
            student: the model's base, e.g. `amazon.nova-micro-v1:0:128k`, for permissions. Default: as the
                model's ARN has it, where that is known at synthesis.
            key: encrypts the table, and with `model_key` the models.
            model_key: whether models are encrypted with `key`.
            commitment: None (billed by the hour), `OneMonth` or `SixMonths`.
            acknowledge_commitment: says that the whole term will be paid.
            hourly_price_usd: of one model unit, from the Bedrock price list; needed with a commitment, whose
                rest is told in USD wherever it can't be deleted.
            retain: leave the throughput when the resource goes. It is billed until somebody deletes it.
            retain_models: with a table: leave the model that only it served, when the resource goes.
            poll_seconds: with a table: how often a release looks at it.
            tags: put on it, besides the owner's.
            hosting: where functions run, with which key, and how long their logs are kept.

        Raises:
            ValueError: not exactly one of `model_arn` and `table`; a commitment that nobody acknowledged, or
                without its price; or a value that Bedrock would refuse.
        """
        super().__init__(scope, construct_id)
        self.name = _checked_name(name, model_units, commitment)
        _check_commitment(self.name, commitment, hourly_price_usd, acknowledged=acknowledge_commitment)
        _check_use(self.name, owner=owner, name=name, model_arn=model_arn, table=table)
        if model_key and key is None:
            raise ValueError(f"Throughput {self.name}: model_key needs key, which encrypts the models.")
        student = student or _student(self.name, model_arn)
        permissions = [
            *self._permissions(owner, student),
            *([may.model_key(key)] if model_key and key else []),
            *(self._release_permissions(owner, table, key) if table else []),
        ]
        self._role = may.function_role(self, "Role", permissions)
        self._hosting = hosting
        provider = ResourceProvider(
            self,
            "Provider",
            on_event=self._function(
                "OnEvent",
                "on_event",
                ProvisionedThroughputEnv(owner=owner, table_name=table.table_name if table else ""),
                "Names a provisioned throughput, moves it, or asks for its end",
            ),
            is_complete=self._function(
                "IsComplete",
                "is_complete",
                Env(owner=owner),
                "Buys a provisioned throughput; says whether it is done",
            ),
            hosting=hosting,
            total_timeout=TOTAL,
            query_interval=INTERVAL,
        )
        properties: dict[str, object] = {
            "ProvisionedModelName": self.name,
            "Owner": owner,
            "ModelArn": model_arn,
            "ModelUnits": model_units,
            "CommitmentDuration": commitment,
            "HourlyPriceUsd": hourly_price_usd,
            "Retain": retain,
            "RetainModels": retain_models if table else None,
            "Tags": dict(tags or {}),
        }
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockProvisionedThroughput",
            service_token=provider.service_token,
            properties={name: value for name, value in properties.items() if value is not None},
        )
        self.resource.node.add_dependency(self._role)
        self.provisioned_model_arn = (
            self.resource.get_att_string("ProvisionedModelArn") if model_arn else None
        )
        self.stage: Function | None = None
        if table:
            self.stage = self._function(
                "ServeFromThroughput",
                "serve_from_throughput",
                ServeFromThroughputEnv(
                    owner=owner,
                    table_name=table.table_name,
                    throughput_name=self.name,
                    model_units=model_units,
                    commitment=commitment or "none",
                    retain_throughput=retain,
                    poll_seconds=poll_seconds,
                    tags=dict(tags or {}),
                ),
                "Buys the provisioned throughput, or moves it to a release's model",
                MACHINE,
            )
            # A release buys by new settings only once the resource has taken them.
            self.stage.node.add_dependency(self.resource)

    @staticmethod
    def from_provisioned_model_arn(
        scope: Construct, construct_id: str, provisioned_model_arn: str
    ) -> ExistingThroughput:
        """Throughput that was bought elsewhere: looked up when deployed, never moved, tagged or deleted."""
        return ExistingThroughput(scope, construct_id, provisioned_model_arn)

    def _function(
        self, construct_id: str, entry: str, environment: Env, description: str, caller: Caller = FRAMEWORK
    ) -> Function:
        return Function(
            self,
            construct_id,
            handler=f"provisioned_throughput.{entry}",
            role=self._role,
            environment=environment,
            hosting=self._hosting,
            description=description,
            caller=caller,
        )

    @staticmethod
    def _permissions(owner: str, student: str) -> list[may.Permission]:
        models, throughputs = may.models(student), may.account_arn(may.THROUGHPUTS)
        change = ["UpdateProvisionedModelThroughput", "DeleteProvisionedModelThroughput"]
        return [
            may.bedrock(["GetFoundationModel"], [may.foundation_model_arn(student)]),
            may.bedrock(["GetCustomModel", "UpdateProvisionedModelThroughput"], [models]),
            may.bedrock(["CreateProvisionedModelThroughput"], [models], may.tagged_for(owner)),
            may.tagging(owner, [throughputs]),
            *may.retagging(owner, [throughputs]),
            may.bedrock(["GetProvisionedModelThroughput", "ListTagsForResource"], [throughputs]),
            may.bedrock(change, [throughputs], may.owned(owner)),
        ]

    @staticmethod
    def _release_permissions(
        owner: str, table: dynamodb.ITable, key: kms.IKey | None
    ) -> list[may.Permission]:
        return [
            # Of any student: what a student before had made is looked at, and deleted.
            may.bedrock(["GetCustomModel", "ListTagsForResource"], [may.account_arn(may.MODELS)]),
            may.bedrock(["DeleteCustomModel"], [may.account_arn(may.MODELS)], may.owned(owner)),
            may.bedrock(["ListCustomModelDeployments", "ListProvisionedModelThroughputs"], ["*"]),
            *may.items(table, key, ["GetItem", "UpdateItem", "PutItem", "Scan"]),
        ]


def _checked_name(name: str, model_units: int, commitment: str | None) -> str:
    """The throughput's whole name. Raises ValueError for one that Bedrock would not take."""
    whole = throughput_name(name, model_units, commitment)
    if model_units < 1:
        raise ValueError(f"Throughput {whole}: model_units = {model_units}; allowed is 1 or more.")
    if not cdk.Token.is_unresolved(whole) and not MODEL_NAME.fullmatch(whole):
        raise ValueError(
            f"Throughput {whole}: the name has {len(whole)} characters; allowed are 63, letters and digits "
            "in groups joined by single hyphens or underscores. Choose another name."
        )
    return whole


def _check_commitment(name: str, commitment: str | None, price: float | None, *, acknowledged: bool) -> None:
    if commitment and not acknowledged:
        raise ValueError(
            f"Throughput {name}: a commitment of {commitment} is paid to its end, whatever happens to "
            "the stack. Set acknowledge_commitment to say that this is wanted."
        )
    if commitment and price is None:
        raise ValueError(
            f"Throughput {name}: a commitment of {commitment} needs hourly_price_usd, the price of one model "
            "unit and hour from the Bedrock price list: what is left to pay is told in USD."
        )
    if price is not None and price <= 0:
        raise ValueError(f"Throughput {name}: hourly_price_usd = {price:g}; allowed is more than 0.")


def _check_use(
    whole: str, *, owner: str, name: str, model_arn: str | None, table: dynamodb.ITable | None
) -> None:
    if (model_arn is None) == (table is None):
        raise ValueError(
            f"Throughput {whole}: give either model_arn, for the deployment to buy it, or table, for its "
            "releases to buy it."
        )
    if table and name != owner:
        raise ValueError(
            f"Throughput {whole}: with a table its name is the owner's, {owner!r}, by which the sweeper "
            f"finds it; found {name!r}."
        )


def _student(whole: str, model_arn: str | None) -> str:
    """The base model in a custom model's ARN. Raises ValueError where it can't be read at synthesis."""
    match = _MODEL_ARN.fullmatch(model_arn or "")
    if not match:
        raise ValueError(
            f"Throughput {whole}: give student, the base model such as amazon.nova-micro-v1:0:128k; it can "
            f"be read only in a custom model's ARN that is known at synthesis, found {model_arn!r}."
        )
    return match["student"]
