"""What all parts of a release share: where its model comes from, its properties, and its stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.props import (
    RETAIN,
    EvaluationProps,
    GateProps,
    RetentionProps,
    RolloutProps,
    TimingProps,
)
from cdk_distilled_router.provisioned_throughput import ProvisionedThroughput

# The defaults are the numbers of environments/prod.toml, for a router of real queries. A hold-out set of
# fewer than 200 examples fails.
GATE = GateProps(
    minimum_valid_output=0.98,
    minimum_dominant_accuracy=0.85,
    maximum_mean_absolute_error=0.10,
    minimum_examples=200,
)
ROLLOUT = RolloutProps(
    steps=[0.05, 0.25, 0.5, 1.0],
    dwell_seconds=1800,
    maximum_error_rate=0.01,
    maximum_fallback_rate=0.03,
    maximum_invalid_output_rate=0.02,
    bake_seconds=3600,
    minimum_requests=200,
)
TIMING = TimingProps(poll_seconds=300, timeout_hours=120, stall_hours=48, wait_hours=0)


class ReleaseSource(Protocol):
    """Where a release's model comes from: a DistillationJob, an ExistingJob or an ExistingModel.

    All but the role are literals at synthesis, so that another stack may read them without an export. The
    role is read only where `timing.retry_internal_errors` needs it.
    """

    @property
    def digest(self) -> str:
        """12 hex digits of all that decides the model."""

    @property
    def student(self) -> str:
        """The base model's customization id, part of the model's ARN."""

    @property
    def source(self) -> str:
        """The name of a job of ours, a job's ARN, or a model's ARN."""

    @property
    def role(self) -> iam.IRole | None:
        """The role that Bedrock assumes for a job of ours; None for jobs and models of others."""

    @property
    def labelling_machine_arn(self) -> str:
        """The state machine that creates the job; empty where none does."""

    @property
    def has_model_key(self) -> bool:
        """Whether the model is encrypted with a customer managed key."""


@dataclass(frozen=True, kw_only=True)
class ReleaseStores:
    """What a release may share with other constructs.

    Args:
        table: the releases table, partition key `id` (string), encrypted with `key`; by default its own.
        topic: gets a message at each release's end; by default its own.
        key: encrypts bucket, table and topic. Default: the bucket's; without one, AWS's own keys do.
    """

    table: dynamodb.ITable | None = None
    topic: sns.ITopic | None = None
    key: kms.IKey | None = None


@dataclass(frozen=True, kw_only=True)
class ReleaseProps:
    """How a model goes into production.

    Args:
        gate: what a candidate must reach on the hold-out set.
        evaluation: how a candidate is asked, and what it is compared with.
        rollout: how a candidate takes over the requests.
        timing: how long steps may take, and what is retried. A stack waits only by a ReleaseWait.
        retention: what stays when the construct goes: models, reports (`data`), and throughput that nothing
            is routed to.
        base_model: asked the hold-out set too with `evaluation.compare_base`, by the full prompt; empty for
            none.
        throughput: where the release serves from, if not from the on-demand deployment that a candidate is
            evaluated on. It needs this release's table.
        tags: put on what releases create, besides the owner's.
    """

    gate: GateProps = GATE
    evaluation: EvaluationProps = field(default_factory=EvaluationProps)
    rollout: RolloutProps = ROLLOUT
    timing: TimingProps = TIMING
    retention: RetentionProps = RETAIN
    base_model: str = ""
    throughput: ProvisionedThroughput | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def judge(self) -> str:
        """The model that grades answers; empty where none does."""
        return self.evaluation.judge or ""

    @property
    def compared_base_model(self) -> str:
        """The base model that is compared; empty where none is."""
        return self.base_model if self.evaluation.compare_base else ""


@dataclass(frozen=True, kw_only=True)
class ReleaseContext:
    """What the parts of one release are made from.

    Args:
        scope: the construct of the release.
        owner: name of whoever owns what releases create.
        job: where the model comes from.
        bucket: holds the hold-out set, and gets the reports under `releases/`.
        holdout_key: key of the hold-out set in the bucket.
        props: how the model goes into production.
        table, topic, key: as `ReleaseStores` has them, made where they were not given.
        undelivered: keeps what could not be delivered.
        hosting: where functions run, with which key, and how long their logs are kept.
    """

    scope: Construct
    owner: str
    job: ReleaseSource
    bucket: s3.IBucket
    holdout_key: str
    props: ReleaseProps
    table: dynamodb.ITable
    topic: sns.ITopic
    key: kms.IKey | None
    undelivered: sqs.IQueue
    hosting: Hosting
