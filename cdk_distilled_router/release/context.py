"""Inputs that all parts of a release share: the source of its model, its properties, and its stores."""

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

from cdk_distilled_router.common.grants import Permission
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.props import (
    RETAIN,
    EvaluationProps,
    GateProps,
    HeadProps,
    RetentionProps,
    RolloutProps,
    TimingProps,
)
from cdk_distilled_router.provisioned_throughput import ProvisionedThroughput

# Stricter than the settings, which leave these two to the environment.
GATE = GateProps(minimum_balanced_accuracy=0.75)
ROLLOUT = RolloutProps(bake_seconds=3600)
TIMING = TimingProps()


class ReleaseSource(Protocol):
    """The source of a release's model: a DistillationJob, an ExistingJob or an ExistingModel.

    All attributes except the role are literals at synthesis, so that another stack needs no export for them.
    The role is read only if `timing.retry_internal_errors` is set. A source may also have `teacher`, the
    model that the student learns from, for the reports.
    """

    @property
    def digest(self) -> str:
        """Return 12 hex digits of everything that decides the model."""

    @property
    def student(self) -> str:
        """Return the base model's customization id, part of the model's ARN."""

    @property
    def source(self) -> str:
        """Return the name of a DistillationJob's job, or the ARN of an adopted job or model."""

    @property
    def role(self) -> iam.IRole | None:
        """Return the role that Bedrock assumes for a DistillationJob; None for an adopted job or model."""

    @property
    def labelling_machine_arn(self) -> str:
        """Return the ARN of the state machine that creates the job; empty if there is none."""

    @property
    def has_model_key(self) -> bool:
        """Return whether the model is encrypted with a customer managed key."""

    @property
    def training_key(self) -> str:
        """Return the key of a DistillationJob's training rows; empty for an adopted job or model."""

    def reading_training(self, scope: Construct) -> list[Permission]:
        """Return what checking the job's training file needs; empty if its SHA-256 is unknown."""


@dataclass(frozen=True, kw_only=True)
class ReleaseStores:
    """Resources that a release can share with other constructs.

    Args:
        table: the releases table, with partition key `id` (string), encrypted with `key`. Default: a new one.
        topic: receives a message at the end of each release. Default: a new one.
        key: encrypts bucket, table and topic. Default: the bucket's key, or AWS's own keys if it has none.
    """

    table: dynamodb.ITable | None = None
    topic: sns.ITopic | None = None
    key: kms.IKey | None = None


@dataclass(frozen=True, kw_only=True)
class ReleaseProps:
    """Properties of a release.

    Args:
        gate: what a candidate must reach on the hold-out set.
        evaluation: how a candidate is evaluated, and what it is compared with.
        head: whether a classification head is trained, and how much worse its answers may be.
        rollout: how a candidate takes over the requests.
        timing: time limits and retries. A stack waits for the release only with a ReleaseWait.
        retention: what stays when the construct is deleted: models, reports (`data`), and throughput that the
            route doesn't use.
        base_model: model to compare with if `evaluation.compare_base` is set, asked with the full prompt;
            empty for none.
        throughput: serves the live release instead of the on-demand deployment on which the candidate is
            evaluated. It needs this release's table.
        tags: tags of the resources that releases create, in addition to the owner's.
        environment: name of the environment, for the reports. An owner that ends with it, as `search-dev`
            does with `dev`, is shown without it.
        holdout_sha256: SHA-256 of the hold-out set. Default: the one that the DistillationJob knows; for an
            adopted job or model, that of what the evaluation reads first.
    """

    gate: GateProps = GATE
    evaluation: EvaluationProps = field(default_factory=EvaluationProps)
    head: HeadProps = field(default_factory=HeadProps)
    rollout: RolloutProps = ROLLOUT
    timing: TimingProps = TIMING
    retention: RetentionProps = RETAIN
    base_model: str = ""
    throughput: ProvisionedThroughput | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    environment: str = ""
    holdout_sha256: str = ""

    @property
    def judge(self) -> str:
        """Return the model that grades answers; empty for none."""
        return self.evaluation.judge or ""

    @property
    def compared_base_model(self) -> str:
        """Return the base model to compare with; empty for none."""
        return self.base_model if self.evaluation.compare_base else ""


@dataclass(frozen=True, kw_only=True)
class ReleaseContext:
    """Inputs of all parts of a release.

    Args:
        scope: the construct of the release.
        owner: owner of the resources that releases create.
        job: source of the model.
        bucket: has the hold-out set, and receives the reports under `releases/<owner>/`.
        holdout_key: key of the hold-out set in the bucket.
        props: properties of the release.
        table, topic, key: given as `ReleaseStores`, or the release's own.
        undelivered: queue of undelivered events and messages.
        hosting: VPC, key and log retention of the functions.
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
