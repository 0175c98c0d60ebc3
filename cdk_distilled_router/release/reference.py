"""What a router needs of a release, which may be another stack's or another app's."""

from __future__ import annotations

from dataclasses import dataclass, field

from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from cdk_distilled_router.props import HeadProps


@dataclass(frozen=True, kw_only=True)
class HeadSource:
    """Where the releases' classification heads are, and how the router uses them.

    Args:
        bucket: the bucket that the releases write their reports to.
        key: the bucket's KMS key. Default: the one that the bucket was created or imported with.
        props: mode, and the share of queries by which head and student are compared.
    """

    bucket: s3.IBucket
    key: kms.IKey | None = None
    props: HeadProps = field(default_factory=HeadProps)


@dataclass(frozen=True, kw_only=True)
class ReleaseReference:
    """A release that another app deploys, for a `Router` beside it.

    Args:
        owner: owner of the releases; also the API's name, and the dimension `service` of its metrics.
        table: the releases table with the route.
        student: base model of the releases, such as `amazon.nova-micro-v1:0:128k`, for the price of their
            tokens.
        key: the table's KMS key. Default: the one that the table was created or imported with.
        model_key: customer managed key of the models. Default: they have none.
        heads: where classification heads are. Default: the router uses none.
    """

    owner: str
    table: dynamodb.ITable
    student: str
    key: kms.IKey | None = None
    model_key: kms.IKey | None = None
    heads: HeadSource | None = None
