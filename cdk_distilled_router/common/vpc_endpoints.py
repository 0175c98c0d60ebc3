"""Construct VpcEndpoints: the VPC endpoints that functions in private subnets need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from cdk_distilled_router.common.hosting import VpcConfig
from cdk_distilled_router.common.vpc_services import GATEWAYS, INTERFACES


class VpcEndpoints(Construct):
    """Interface and gateway endpoints for functions in a VPC without a route to the internet.

    Use them in a VPC that only the functions use and that has none of these endpoints: their private DNS
    names apply to the whole VPC, and their security group accepts calls only from the functions' groups.

    Example::

        vpc = VpcConfig(
            subnet_ids=["subnet-0123456789abcdef0"], security_group_ids=["sg-0123456789abcdef0"]
        )
        endpoints = VpcEndpoints(
            self, "Endpoints", vpc_id="vpc-01234567", vpc=vpc, route_table_ids=["rtb-01234567"]
        )
        job.resource.node.add_dependency(endpoints)

    Cost:
        Each of the five interface endpoints by the hour and subnet, and by the gigabyte. The two gateway
        endpoints are free.

    Permissions:
        The endpoints' policies allow principals of this account, and answers to CloudFormation.

    Delete:
        The endpoints and their security group are deleted. Let all custom resources depend on this construct:
        their Delete needs the endpoints.
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
        """Declare the endpoints.

        Args:
            vpc_id: VPC of the subnets.
            vpc: subnets and security groups of the functions. Each subnet must be in a different Availability
                Zone: an interface endpoint accepts one subnet per zone.
            route_table_ids: route tables of the subnets, which get routes to S3 and DynamoDB.
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
            # Endpoints open no connections. A group without egress rules would allow all traffic, so this
            # rule matches nothing, as in the CDK's own groups.
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
    """Return the statement for answers of custom resources and signals of wait conditions.

    They go to AWS's buckets by URLs that CloudFormation signs, so no principal of this account makes the call
    (CloudFormation user guide, vpc-interface-endpoints).
    """
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
