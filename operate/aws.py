"""AWS clients of one account and Region."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBServiceResource
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_sts import STSClient

# A command waits for a person, so it fails early.
CONFIG = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 3})


class Aws:
    """Clients, each made when it is first used.

    Args:
        region: The Region.
        variables: Keys and endpoints under the names of AWS's own variables, such as AWS_ENDPOINT_URL.
            boto3 finds by its own rules what is not there.
    """

    def __init__(self, region: str, variables: Mapping[str, str] | None = None) -> None:
        given = variables or {}
        self.session = boto3.Session(
            aws_access_key_id=given.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=given.get("AWS_SECRET_ACCESS_KEY"),
            region_name=region,
        )
        self._options: dict[str, Any] = {
            "endpoint_url": given.get("AWS_ENDPOINT_URL"),
            "verify": given.get("AWS_CA_BUNDLE"),
            "config": CONFIG,
        }
        self._bedrock_options = self._options | {"endpoint_url": given.get("AWS_ENDPOINT_URL_BEDROCK")}

    @cached_property
    def cloudformation(self) -> CloudFormationClient:
        """CloudFormation."""
        return self.session.client("cloudformation", **self._options)

    @cached_property
    def cloudwatch(self) -> CloudWatchClient:
        """CloudWatch."""
        return self.session.client("cloudwatch", **self._options)

    @cached_property
    def dynamodb(self) -> DynamoDBServiceResource:
        """DynamoDB, as a resource: its items come as plain Python values."""
        return self.session.resource("dynamodb", **self._options)

    @cached_property
    def functions(self) -> LambdaClient:
        """Lambda."""
        return self.session.client("lambda", **self._options)

    @cached_property
    def parameters(self) -> Any:
        """Systems Manager, which has the Parameter Store."""
        return self.session.client("ssm", **self._options)

    @cached_property
    def quotas(self) -> Any:
        """Service Quotas."""
        return self.session.client("service-quotas", **self._options)

    @cached_property
    def s3(self) -> S3Client:
        """S3."""
        return self.session.client("s3", **self._options)

    @cached_property
    def stepfunctions(self) -> SFNClient:
        """Step Functions."""
        return self.session.client("stepfunctions", **self._options)

    @cached_property
    def sts(self) -> STSClient:
        """STS."""
        return self.session.client("sts", **self._options)

    @cached_property
    def bedrock(self) -> BedrockClient:
        """Bedrock."""
        return self.session.client("bedrock", **self._bedrock_options)
