"""Settings of the VPC in which functions and Bedrock's jobs run."""

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from cdk_distilled_router.props import Props
from stacks.settings.fields import once

_HEX = r"([0-9a-f]{8}|[0-9a-f]{17})"
_DIGITS = "8 or 17 hex digits"

VpcId = Annotated[
    str,
    StringConstraints(pattern=rf"^vpc-{_HEX}$"),
    Field(json_schema_extra={"x-allowed": f"the id of a VPC, vpc- and {_DIGITS}"}),
]
SubnetId = Annotated[
    str,
    StringConstraints(pattern=rf"^subnet-{_HEX}$"),
    Field(json_schema_extra={"x-allowed": f"the id of a subnet, subnet- and {_DIGITS}"}),
]
SecurityGroupId = Annotated[
    str,
    StringConstraints(pattern=rf"^sg-{_HEX}$"),
    Field(json_schema_extra={"x-allowed": f"the id of a security group, sg- and {_DIGITS}"}),
]
RouteTableId = Annotated[
    str,
    StringConstraints(pattern=rf"^rtb-{_HEX}$"),
    Field(json_schema_extra={"x-allowed": f"the id of a route table, rtb- and {_DIGITS}"}),
]


class NetworkEndpoints(Props):
    """VPC endpoints that the data stack creates."""

    vpc_id: VpcId = Field(
        description="VPC of the subnets. It must belong to the functions and have none of these endpoints "
        "yet: private DNS names apply to the whole VPC, and the endpoints accept only the functions' "
        "security groups."
    )
    route_table_ids: Annotated[list[RouteTableId], Field(min_length=1, max_length=200)] = Field(
        description="Route tables of the subnets. They get routes to S3 and DynamoDB."
    )

    _check_route_tables = field_validator("route_table_ids")(once)


class Network(Props):
    """An existing VPC for all functions and for Bedrock's customization and batch jobs."""

    subnet_ids: Annotated[list[SubnetId], Field(min_length=1, max_length=16)] = Field(
        description="Private subnets, for example one per Availability Zone. They must reach what "
        "docs/platform.md lists (botocore: bedrock and lambda SubnetIds)."
    )
    security_group_ids: Annotated[list[SecurityGroupId], Field(min_length=1, max_length=5)] = Field(
        description="Security groups of functions and jobs. They must allow HTTPS out (botocore: bedrock "
        "and lambda SecurityGroupIds)."
    )
    attached: bool = Field(
        default=True,
        description="Whether functions and jobs run in the network. To leave the network, set it to false "
        "and deploy, an hour before you remove [network]: AWS still needs the roles to delete the network's "
        "interfaces. Default: true.",
    )
    endpoints: NetworkEndpoints | None = Field(
        default=None,
        description="VPC endpoints that the data stack creates: five interface endpoints, billed by the "
        "hour in each subnet, and gateway endpoints for S3 and DynamoDB. Default: none, the VPC already "
        "reaches these services.",
    )

    _check_ids = field_validator("subnet_ids", "security_group_ids")(once)
