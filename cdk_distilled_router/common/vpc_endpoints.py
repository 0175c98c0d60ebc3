"""The VPC endpoints that functions in private subnets need, and which of them calls what through each.

The lists follow from what the functions' roles may call; a test holds them against the policies of all
environments. Not among them, since the service itself and not the function in its network makes the call:
CloudWatch Logs and X-Ray (Lambda and Step Functions deliver), KMS (S3, DynamoDB, Lambda and Bedrock ask with
the caller's permissions), SNS (Step Functions publishes), STS (Lambda hands out the role's credentials).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from cdk_distilled_router.common.hosting import VpcConfig

INTERFACES: Mapping[str, str] = {
    "bedrock": "Creates, polls and deletes jobs, models, deployments and throughput.",
    "bedrock-runtime": "The router, the evaluation, a rollout's probes, and labels asked one by one.",
    "lambda": "The CDK's Provider framework invokes the custom resources' functions.",
    "monitoring": "The rollout reads the router's metrics.",
    "states": "Starts, polls and stops releases, labellings and the framework's waiters.",
}
GATEWAYS: Mapping[str, str] = {
    "dynamodb": "Reads and writes the releases table with the route.",
    "s3": "Data bucket, sources, answers to CloudFormation, and Bedrock's jobs in the VPC.",
}


class Endpoints(Construct):
    """Interface and gateway endpoints for functions of a VPC, for calls of this account's principals alone.

    Their private DNS names hold in all of the VPC, and their security group takes calls from the functions'
    groups only: meant for a VPC of the functions' own, which has none of these endpoints yet.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        vpc_id: str,
        vpc: VpcConfig,
        route_table_ids: Sequence[str],
    ) -> None:
        """Declare them.

        Args:
            vpc_id: where the subnets are.
            vpc: the functions' network. No two of its subnets are in one Availability Zone: an interface
                endpoint takes one subnet in each.
            route_table_ids: those of the subnets, which get the routes to S3 and DynamoDB.
        """
        super().__init__(scope, construct_id)
        group = self._group(vpc_id, vpc)
        for service in INTERFACES:
            ec2.CfnVPCEndpoint(
                self,
                _name(service),
                vpc_id=vpc_id,
                service_name=_service(service),
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=list(vpc.subnet_ids),
                security_group_ids=[group.attr_group_id],
                policy_document=_policy(_own_calls()),
            )
        statements = {"s3": [_own_calls(), _answers_to_cloudformation()], "dynamodb": [_own_calls()]}
        for service in GATEWAYS:
            ec2.CfnVPCEndpoint(
                self,
                _name(service),
                vpc_id=vpc_id,
                service_name=_service(service),
                vpc_endpoint_type="Gateway",
                route_table_ids=list(route_table_ids),
                policy_document=_policy(*statements[service]),
            )

    def _group(self, vpc_id: str, vpc: VpcConfig) -> ec2.CfnSecurityGroup:
        return ec2.CfnSecurityGroup(
            self,
            "SecurityGroup",
            vpc_id=vpc_id,
            group_description="Interface endpoints: HTTPS from the functions",
            security_group_ingress=[
                ec2.CfnSecurityGroup.IngressProperty(
                    ip_protocol="tcp",
                    from_port=443,
                    to_port=443,
                    source_security_group_id=name,
                    description="HTTPS from the functions",
                )
                for name in vpc.security_group_ids
            ],
            # Endpoints begin no connection. A group without a rule of its own would allow all of them, so
            # this one allows what isn't there, as the CDK's own groups do.
            security_group_egress=[
                ec2.CfnSecurityGroup.EgressProperty(
                    ip_protocol="icmp",
                    from_port=252,
                    to_port=86,
                    cidr_ip="255.255.255.255/32",
                    description="Nothing",
                )
            ],
        )


def _name(service: str) -> str:
    return "".join(part.title() for part in service.split("-"))


def _service(service: str) -> str:
    return f"com.amazonaws.{cdk.Aws.REGION}.{service}"


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _own_calls() -> dict[str, Any]:
    return {
        "Sid": "OwnPrincipals",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "*",
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:PrincipalAccount": cdk.Aws.ACCOUNT_ID}},
    }


def _answers_to_cloudformation() -> dict[str, Any]:
    """Answers of custom resources and signals of wait conditions go to buckets of AWS's, by URLs that
    CloudFormation has signed, not our role (CloudFormation user guide, vpc-interface-endpoints)."""
    region = cdk.Fn.join("", cdk.Fn.split("-", cdk.Aws.REGION))
    bucket = f"arn:{cdk.Aws.PARTITION}:s3:::cloudformation"
    return {
        "Sid": "AnswersToCloudFormation",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "s3:PutObject",
        "Resource": [
            f"{bucket}-custom-resource-response-{region}/*",
            f"{bucket}-waitcondition-{cdk.Aws.REGION}/*",
        ],
    }
