"""Construct ProvisionedThroughput: model units by the hour, bought by the deployment or by a release."""

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
from cdk_distilled_router.common.ownership import registering, resource_env
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.existing import ExistingThroughput
from cdk_distilled_router.props import RETAIN, RetentionProps, ThroughputProps
from distilled_router.bedrock.naming import MODEL_NAME, throughput_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.env import Env, ServeFromThroughputEnv

# Users report 20 to 30 minutes until throughput is in service, and also for a change of its model.
TOTAL = cdk.Duration.minutes(55)
INTERVAL = cdk.Duration.seconds(30)

_MODEL_ARN = re.compile(r"arn:[^:]+:bedrock:[^:]*:[^:]*:custom-model/(?P<student>[^/]+)/[^/]+")


@dataclass(frozen=True, kw_only=True)
class ThroughputOptions:
    """Options of throughput, besides model units and commitment.

    Args:
        student: base model, e.g. `amazon.nova-micro-v1:0:128k`, for permissions. Default: the base model in
            `model_arn`, if that is known at synthesis.
        model_key: customer managed key of the models, if they have one.
        retention: `throughput` decides whether it stays when its resource is deleted; it is billed until you
            delete it.
        poll_seconds: with a table, seconds between two polls by a release.
        tags: tags of the throughput, in addition to the owner's.
    """

    student: str | None = None
    model_key: kms.IKey | None = None
    retention: RetentionProps = RETAIN
    poll_seconds: int = 300
    tags: Mapping[str, str] = field(default_factory=dict)


class ProvisionedThroughput(Construct):
    """Throughput for one custom model, bought by the deployment or by a release.

    With `model_arn`, the deployment buys it and waits until it is in service. With `table`, the releases
    table, a Release buys it as its last step, or updates it to its model (`ReleaseProps.throughput`). Then
    there is no custom resource here, and the Release owns the throughput.

    A new model of the same base, or a new name, updates the throughput in place and keeps its ARN. New model
    units or a new commitment replace it: the new throughput is bought before the old one is deleted.

    Example::

        throughput = ProvisionedThroughput(
            self,
            "Throughput",
            owner="search",
            model_arn="arn:aws:bedrock:us-east-1:111122223333:custom-model/amazon.nova-micro-v1:0:128k/a1b2c3d4e5f6",
            props=ThroughputProps(model_units=1),
        )

    Attributes:
        name: the throughput's name, which contains model units and commitment.
        provisioned_model_arn: ARN to invoke the model; None if a release buys the throughput.
        hourly_price_usd: price of one model unit and hour if the throughput is committed; None otherwise.
        stage: the function of the step ServeFromThroughput; None until a Release takes the throughput.
        resource: the custom resource; None if a release buys the throughput.

    Cost:
        Each model unit by the hour, from InService until it is deleted. With a commitment, to the end of its
        term, which renews itself.

    Permissions:
        The functions buy, change and delete throughput only with the owner's tag, for models of the student.

    Delete:
        The throughput is deleted, unless `options.retention` keeps it; then it is billed until you delete it.
        Committed throughput can't be deleted before its term ends: deletion, and changes that need it, fail
        with date, hours and cost left, unless `retention.throughput` is "retain".
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
            owner: owner of the throughput, used as a tag.
            props: model units and commitment.
            name: prefix of the throughput's name, followed by `-<model units>mu` and the commitment. Default:
                the owner. With a table it must be the owner, by which the sweeper finds the throughput.
            model_arn: the custom model to serve.
            table: the releases table, instead of a model.
            options: student, key, retention and tags.
            hosting: VPC, key and log retention of the functions.

        Raises:
            ValueError: not exactly one of `model_arn` and `table` is given; a commitment is not acknowledged
                or has no price; or Bedrock doesn't accept a value.
        """
        super().__init__(scope, construct_id)
        name = name or owner
        self.name = _checked_name(name, props)
        _check_commitment(self.name, props)
        _check_use(self.name, owner=owner, name=name, model_arn=model_arn, table=table)
        self.hourly_price_usd = props.hourly_price_usd if props.term else None
        self._owner, self._props, self._options, self._hosting = owner, props, options, hosting
        self._table = table
        student = options.student or _student(self.name, model_arn)
        role_id = "StepRole" if table else "Role"
        self._role = may.function_role(self, role_id, self._permissions(student))
        self.stage: Function | None = None
        self.resource = self._resource(model_arn) if model_arn else None
        self.provisioned_model_arn = (
            self.resource.get_att_string("ProvisionedModelArn") if self.resource else None
        )

    @staticmethod
    def from_provisioned_model_arn(
        scope: Construct, construct_id: str, provisioned_model_arn: str
    ) -> ExistingThroughput:
        """Look up throughput that was bought elsewhere; it is never updated, tagged or deleted."""
        return ExistingThroughput(scope, construct_id, provisioned_model_arn)

    def serve_releases_of(self, claimant: Claimant) -> None:
        """Declare the step of the release that takes the throughput, as `stage`.

        `claimant` is the Release's custom resource, which owns what the step buys.
        """
        assert self._table is not None
        environment = ServeFromThroughputEnv(
            owner=self._owner,
            stack_id=claimant.stack_id,
            logical_id=claimant.logical_id,
            absence_seconds=self._hosting.absence_seconds,
            table_name=self._table.table_name,
            throughput_name=self.name,
            model_units=self._props.model_units,
            commitment=self._props.commitment,
            retain_throughput=self._options.retention.throughput == "retain",
            poll_seconds=self._options.poll_seconds,
            tags=self._options.tags,
        )
        self.stage = self._function(
            "ServeFromThroughput",
            "serve_from_throughput",
            environment,
            "Buys the provisioned throughput, or updates it to a release's model",
            MACHINE,
        )

    def _resource(self, model_arn: str) -> cdk.CustomResource:
        resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockProvisionedThroughput",
            service_token=self._provider().service_token,
            properties=self._properties(model_arn),
        )
        resource.node.add_dependency(self._role)
        return resource

    def _properties(self, model_arn: str) -> dict[str, object]:
        """Return the custom resource's properties, without unset ones."""
        props = self._props
        properties: dict[str, object] = {
            "ProvisionedModelName": self.name,
            "Owner": self._owner,
            "ModelArn": model_arn,
            "ModelUnits": props.model_units,
            "CommitmentDuration": props.term,
            "HourlyPriceUsd": props.hourly_price_usd,
            "Retain": self._options.retention.throughput == "retain",
            "Tags": dict(self._options.tags),
        }
        return {name: value for name, value in properties.items() if value is not None}

    def _provider(self) -> ResourceProvider:
        environment = resource_env(self, self._owner, self._hosting, TOTAL)
        begins = "Names or updates a provisioned throughput"
        checks = "Buys or deletes a provisioned throughput, and checks that a change has ended"
        return ResourceProvider(
            self,
            "Provider",
            on_event=self._function("OnEvent", "on_event", environment, begins),
            is_complete=self._function("IsComplete", "is_complete", environment, checks),
            hosting=self._hosting,
            total_timeout=TOTAL,
            query_interval=INTERVAL,
        )

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

    def _permissions(self, student: str) -> list[may.Permission]:
        key, table = self._options.model_key, self._table
        return [
            *_to_buy(self._owner, student),
            *([may.model_key(key)] if key else []),
            *(_to_release(self._owner, table) if table else registering(self, self._hosting)),
        ]


def _to_buy(owner: str, student: str) -> list[may.Permission]:
    """Return the permissions to buy, update and delete throughput."""
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
        # Its own throughput is found by its tags, since it can be renamed.
        may.bedrock(["ListProvisionedModelThroughputs"], ["*"]),
    ]


def _to_release(owner: str, table: dynamodb.ITable) -> list[may.Permission]:
    """Return the additional permissions to serve releases from throughput."""
    return [
        # Models of any student: a release of an earlier student is served again after a rollback.
        may.bedrock(["GetCustomModel"], [may.account_arn(may.MODELS)]),
        *may.owner_items(
            owner, table, table.encryption_key, ["GetItem", "Scan"], may.UPDATE_RELEASES, may.MOVE_ROUTE
        ),
    ]


def _checked_name(name: str, props: ThroughputProps) -> str:
    """Return the throughput's full name. Raise ValueError if Bedrock doesn't accept it."""
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
            f"Throughput {name}: a commitment of {term} is charged for its whole term, even if the stack is "
            "deleted. Set acknowledge_commitment to accept this."
        )
    if term and price is None:
        raise ValueError(
            f"Throughput {name}: a commitment of {term} needs hourly_price_usd, the price of one model "
            "unit and hour from the Bedrock price list, to report the remaining cost."
        )
    if price is not None and price <= 0:
        raise ValueError(f"Throughput {name}: hourly_price_usd = {price:g}; allowed is more than 0.")


def _check_use(
    whole: str, *, owner: str, name: str, model_arn: str | None, table: dynamodb.ITable | None
) -> None:
    if (model_arn is None) == (table is None):
        raise ValueError(
            f"Throughput {whole}: give either model_arn, if the deployment buys it, or table, if releases "
            "buy it."
        )
    if table and name != owner:
        raise ValueError(
            f"Throughput {whole}: with a table, name must be the owner {owner!r}, by which the sweeper finds "
            f"it; found {name!r}."
        )


def _student(whole: str, model_arn: str | None) -> str:
    """Return the base model in a custom model's ARN. Raise ValueError if that is unknown at synthesis."""
    match = _MODEL_ARN.fullmatch(model_arn or "")
    if not match:
        raise ValueError(
            f"Throughput {whole}: give student, the base model such as amazon.nova-micro-v1:0:128k; only a "
            f"custom model's ARN that is known at synthesis contains it, found {model_arn!r}."
        )
    return match["student"]
