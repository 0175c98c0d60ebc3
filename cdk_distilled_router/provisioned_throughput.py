"""Construct ProvisionedThroughput: model units by the hour, owned by the stack before they are bought."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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
from cdk_distilled_router.props import RETAIN, RetentionProps, ThroughputProps
from distilled_router.bedrock.naming import MODEL_NAME, throughput_name
from distilled_router.env import Env, ProvisionedThroughputEnv, ServeFromThroughputEnv

# Throughput comes into service after 20 to 30 minutes, as users report, and so does a move.
TOTAL = cdk.Duration.minutes(55)
INTERVAL = cdk.Duration.seconds(30)

_MODEL_ARN = re.compile(r"arn:[^:]+:bedrock:[^:]*:[^:]*:custom-model/(?P<student>[^/]+)/[^/]+")


@dataclass(frozen=True, kw_only=True)
class ThroughputOptions:
    """What decides neither how much is bought nor for how long.

    Args:
        student: the model's base, e.g. `amazon.nova-micro-v1:0:128k`, for permissions. Default: as the
            model's ARN has it, where that is known at synthesis.
        model_key: encrypts the models, where a key of the account does.
        retention: `throughput` says whether it stays when the resource goes, billed until somebody deletes
            it; with a table, `models` whether the model that only it served does.
        poll_seconds: with a table: how often a release looks at it.
        tags: put on it, besides the owner's.
    """

    student: str | None = None
    model_key: kms.IKey | None = None
    retention: RetentionProps = RETAIN
    poll_seconds: int = 300
    tags: Mapping[str, str] = field(default_factory=dict)


class ProvisionedThroughput(Construct):
    """Throughput for one custom model, bought by the deployment or by a release.

    With `model_arn` the deployment buys it and waits until it is in service:
    `ProvisionedThroughput(self, "Throughput", owner="search", model_arn=model_arn,
    props=ThroughputProps(model_units=1))`.

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
        props: ThroughputProps,
        name: str | None = None,
        model_arn: str | None = None,
        table: dynamodb.ITable | None = None,
        options: ThroughputOptions = ThroughputOptions(),
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the throughput of a model, or of a table's releases.

        Args:
            owner: name of whoever owns what is made, used as a tag.
            props: how much, and for how long.
            name: begins the throughput's name, which gets `-<model units>mu` and the commitment. Default: the
                owner's, by which the sweeper finds it, and which it has to be with a table.
            model_arn: the custom model to serve.
            table: the releases table, in place of a model.
            options: permissions, retention and tags.
            hosting: where functions run, with which key, and how long their logs are kept.

        Raises:
            ValueError: not exactly one of `model_arn` and `table`; a commitment that nobody acknowledged, or
                without its price; or a value that Bedrock would refuse.
        """
        super().__init__(scope, construct_id)
        name = name or owner
        self.name = _checked_name(name, props)
        _check_commitment(self.name, props)
        _check_use(self.name, owner=owner, name=name, model_arn=model_arn, table=table)
        self._owner, self._props, self._options, self._hosting = owner, props, options, hosting
        student = options.student or _student(self.name, model_arn)
        self._role = may.function_role(self, "Role", self._permissions(student, table))
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockProvisionedThroughput",
            service_token=self._provider(table).service_token,
            properties=self._properties(model_arn),
        )
        self.resource.node.add_dependency(self._role)
        self.provisioned_model_arn = (
            self.resource.get_att_string("ProvisionedModelArn") if model_arn else None
        )
        self.stage = self._step(table) if table else None

    @staticmethod
    def from_provisioned_model_arn(
        scope: Construct, construct_id: str, provisioned_model_arn: str
    ) -> ExistingThroughput:
        """Throughput that was bought elsewhere: looked up when deployed, never moved, tagged or deleted."""
        return ExistingThroughput(scope, construct_id, provisioned_model_arn)

    def _properties(self, model_arn: str | None) -> dict[str, object]:
        """Return the custom resource's properties; what says nothing is left out."""
        props, retention = self._props, self._options.retention
        properties: dict[str, object] = {
            "ProvisionedModelName": self.name,
            "Owner": self._owner,
            "ModelArn": model_arn,
            "ModelUnits": props.model_units,
            "CommitmentDuration": props.term,
            "HourlyPriceUsd": props.hourly_price_usd,
            "Retain": retention.throughput == "retain",
            "RetainModels": None if model_arn else retention.models == "retain",
            "Tags": dict(self._options.tags),
        }
        return {name: value for name, value in properties.items() if value is not None}

    def _provider(self, table: dynamodb.ITable | None) -> ResourceProvider:
        on_event = ProvisionedThroughputEnv(owner=self._owner, table_name=table.table_name if table else "")
        return ResourceProvider(
            self,
            "Provider",
            on_event=self._function(
                "OnEvent",
                "on_event",
                on_event,
                "Names a provisioned throughput, moves it, or asks for its end",
            ),
            is_complete=self._function(
                "IsComplete",
                "is_complete",
                Env(owner=self._owner),
                "Buys a provisioned throughput; says whether it is done",
            ),
            hosting=self._hosting,
            total_timeout=TOTAL,
            query_interval=INTERVAL,
        )

    def _step(self, table: dynamodb.ITable) -> Function:
        """Declare the function by which a release buys the throughput, or moves it."""
        environment = ServeFromThroughputEnv(
            owner=self._owner,
            table_name=table.table_name,
            throughput_name=self.name,
            model_units=self._props.model_units,
            commitment=self._props.commitment,
            retain_throughput=self._options.retention.throughput == "retain",
            poll_seconds=self._options.poll_seconds,
            tags=self._options.tags,
        )
        step = self._function(
            "ServeFromThroughput",
            "serve_from_throughput",
            environment,
            "Buys the provisioned throughput, or moves it to a release's model",
            MACHINE,
        )
        # A release buys by new settings only once the resource has taken them.
        step.node.add_dependency(self.resource)
        return step

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

    def _permissions(self, student: str, table: dynamodb.ITable | None) -> list[may.Permission]:
        key = self._options.model_key
        return [
            *_buying(self._owner, student),
            *([may.model_key(key)] if key else []),
            *(_releasing(self._owner, table) if table else []),
        ]


def _buying(owner: str, student: str) -> list[may.Permission]:
    """Return what buying, moving and deleting throughput takes."""
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


def _releasing(owner: str, table: dynamodb.ITable) -> list[may.Permission]:
    """Return what doing so for releases takes besides."""
    return [
        # Of any student: what a student before had made is looked at, and deleted.
        may.bedrock(["GetCustomModel", "ListTagsForResource"], [may.account_arn(may.MODELS)]),
        may.bedrock(["DeleteCustomModel"], [may.account_arn(may.MODELS)], may.owned(owner)),
        may.bedrock(["ListCustomModelDeployments", "ListProvisionedModelThroughputs"], ["*"]),
        *may.items(table, table.encryption_key, ["GetItem", "UpdateItem", "PutItem", "Scan"]),
    ]


def _checked_name(name: str, props: ThroughputProps) -> str:
    """The throughput's whole name. Raises ValueError for one that Bedrock would not take."""
    whole = throughput_name(name, props.model_units, props.term)
    if props.model_units < 1:
        raise ValueError(f"Throughput {whole}: model_units = {props.model_units}; allowed is 1 or more.")
    if not cdk.Token.is_unresolved(whole) and not MODEL_NAME.fullmatch(whole):
        raise ValueError(
            f"Throughput {whole}: the name has {len(whole)} characters; allowed are 63, letters and digits "
            "in groups joined by single hyphens or underscores. Choose another name."
        )
    return whole


def _check_commitment(name: str, props: ThroughputProps) -> None:
    term, price = props.term, props.hourly_price_usd
    if term and not props.acknowledge_commitment:
        raise ValueError(
            f"Throughput {name}: a commitment of {term} is paid to its end, whatever happens to "
            "the stack. Set acknowledge_commitment to say that this is wanted."
        )
    if term and price is None:
        raise ValueError(
            f"Throughput {name}: a commitment of {term} needs hourly_price_usd, the price of one model "
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
