"""AWS clients of this command: of the local system, whatever the caller's own AWS configuration says; or of
the account that the caller's shell has credentials of."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Self

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBServiceResource
    from mypy_boto3_stepfunctions import SFNClient

# The emulator answers in milliseconds or not at all.
CONFIG = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 3})


class Aws:
    """Clients made from the variables of `.local/env`; by `of_account`, from the caller's configuration."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._session = boto3.Session(
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            region_name=variables["AWS_REGION"],
        )
        self._endpoint: str | None = variables["AWS_ENDPOINT_URL"]
        self._verify: str | None = variables["AWS_CA_BUNDLE"]
        self._bedrock: str | None = variables["AWS_ENDPOINT_URL_BEDROCK"]

    @classmethod
    def of_account(cls, region: str) -> Self:
        """Clients of AWS itself, with the caller's own credentials."""
        aws = cls.__new__(cls)
        aws._session = boto3.Session(region_name=region)
        aws._endpoint = aws._verify = aws._bedrock = None
        return aws

    @cached_property
    def cloudformation(self) -> CloudFormationClient:
        """CloudFormation."""
        return self._session.client(
            "cloudformation", endpoint_url=self._endpoint, verify=self._verify, config=CONFIG
        )

    @cached_property
    def cloudwatch(self) -> CloudWatchClient:
        """CloudWatch."""
        return self._session.client(
            "cloudwatch", endpoint_url=self._endpoint, verify=self._verify, config=CONFIG
        )

    @cached_property
    def dynamodb(self) -> DynamoDBServiceResource:
        """DynamoDB, as a resource: its items come as plain Python values."""
        return self._session.resource(
            "dynamodb", endpoint_url=self._endpoint, verify=self._verify, config=CONFIG
        )

    @cached_property
    def stepfunctions(self) -> SFNClient:
        """Step Functions."""
        return self._session.client(
            "stepfunctions", endpoint_url=self._endpoint, verify=self._verify, config=CONFIG
        )

    @cached_property
    def bedrock(self) -> BedrockClient:
        """Bedrock, or its stand-in."""
        return self._session.client("bedrock", endpoint_url=self._bedrock, config=CONFIG)
