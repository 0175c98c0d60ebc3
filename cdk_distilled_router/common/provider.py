"""The bridge between CloudFormation and a resource's handler: the CDK's Provider framework, in bounds."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import custom_resources as cr
from constructs import Construct, IConstruct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import CLOUDFORMATION, WAITER, Caller, accept
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.common.nag import acknowledge, function_versions

# CloudFormation gives up on a custom resource after one hour, whatever the framework's own timeout says
# (AWS::CloudFormation::CustomResource, ServiceTimeout). Each poll's own run time adds to its interval.
LONGEST = cdk.Duration.hours(1)
TOTAL = cdk.Duration.minutes(40)
INTERVAL = cdk.Duration.seconds(5)
_MACHINES = may.machine_arn("*")

# Of the framework's own functions. Lambda gives processor time by memory, and its default of 128 MB makes
# Node slow to start; the CDK has no property for it.
FRAMEWORK_MEMORY_MB = 256


class ResourceProvider(cr.Provider):
    """A Provider whose service token stays: a custom resource's token can't be changed by an update.

    Never rename or move one that is deployed.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        on_event: lambda_.Function,
        is_complete: lambda_.Function | None = None,
        hosting: Hosting,
        total_timeout: cdk.Duration = TOTAL,
        query_interval: cdk.Duration = INTERVAL,
    ) -> None:
        """Join the handlers. Raises ValueError for times that CloudFormation would not wait."""
        _check_times(total_timeout, query_interval)
        holder = Construct(scope, f"{construct_id}Framework")
        group = hosting.log_group(holder, "Logs")
        on_event_role = may.function_role(holder, "OnEventRole")
        group.grant_write(on_event_role)
        poll_role = None
        if is_complete is not None:
            poll_role = may.function_role(holder, "PollRole")
            group.grant_write(poll_role)
        super().__init__(
            scope,
            construct_id,
            on_event_handler=on_event,
            is_complete_handler=is_complete,
            log_group=group,
            framework_on_event_role=on_event_role,
            framework_complete_and_timeout_role=poll_role,
            query_interval=query_interval if is_complete else None,
            total_timeout=total_timeout if is_complete else None,
            disable_waiter_state_machine_logging=False if is_complete else None,
            # Without execution data: it holds the URL with which anybody could answer CloudFormation.
            waiter_state_machine_log_options=cr.LogOptions(
                destination=hosting.log_group(holder, "WaiterLogs"),
                include_execution_data=False,
                level=sfn.LogLevel.ALL,
            )
            if is_complete
            else None,
        )
        self._settle("onEvent", CLOUDFORMATION, hosting, on_event_role)
        handlers = [on_event, *([is_complete] if is_complete else [])]
        for handler in handlers:
            for role in [on_event_role] + ([poll_role] if poll_role else []):
                reason = "The Provider framework invokes this one handler, whichever version it has."
                acknowledge(role, f"IAM5[Resource::{function_versions(handler)}]", reason)
        if poll_role:
            for name in ("isComplete", "onTimeout"):
                self._settle(name, WAITER, hosting, poll_role)
            waiter = self.node.find_child("waiter-state-machine")
            waiter_role = waiter.node.find_child("Role")
            assert isinstance(waiter_role, iam.Role)
            _trust_only_ours(waiter_role)
            # CloudFormation names it, so that its role can't name it beforehand.
            hosting.encrypt(waiter, waiter_role, _MACHINES)
            self._accept_waiter(waiter)

    def _settle(self, name: str, caller: Caller, hosting: Hosting, role: iam.Role) -> None:
        """Give a function of the framework memory and its place, and accept what it lacks then."""
        function = _framework(self, name)
        resource = function.node.default_child
        assert isinstance(resource, lambda_.CfnFunction)
        resource.memory_size = FRAMEWORK_MEMORY_MB
        hosting.place(function, role)
        accept(function, caller)

    def _accept_waiter(self, waiter: IConstruct) -> None:
        role = waiter.node.find_child("Role")
        for name in ("isComplete", "onTimeout"):
            function = _framework(self, name)
            reason = "The framework's waiter invokes its own function, whichever version it has."
            acknowledge(role, f"IAM5[Resource::{function_versions(function)}]", reason)
        acknowledge(role, "IAM5[Resource::*]", "Log deliveries have no resource of their own to name.")
        acknowledge(
            role, "IAMWrite", "What writes here makes log deliveries, which have no resource to name."
        )
        acknowledge(role, "IAMNoInlinePolicy", may.OF_ONE_ROLE)
        acknowledge(waiter, "SF2", "The framework's waiter has no switch for tracing; it only polls.")


def _framework(provider: Construct, name: str) -> lambda_.Function:
    """One of the framework's own functions."""
    function = provider.node.find_child(f"framework-{name}")
    assert isinstance(function, lambda_.Function)
    return function


def _trust_only_ours(role: iam.Role) -> None:
    """Let Step Functions assume a role for state machines of this account alone, as the CDK has it for its
    own state machines and not for the waiter's."""
    resource = role.node.default_child
    assert isinstance(resource, iam.CfnRole)
    resource.add_property_override(
        "AssumeRolePolicyDocument.Statement.0.Condition",
        {
            "StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID},
            "ArnLike": {"aws:SourceArn": _MACHINES},
        },
    )


def _check_times(total: cdk.Duration, interval: cdk.Duration) -> None:
    if total.to_seconds() >= LONGEST.to_seconds():
        raise ValueError(
            f"A custom resource can't wait {total.to_human_string()}: CloudFormation gives up after an "
            "hour. Return early and let a state machine go on."
        )
    if total.to_seconds() % interval.to_seconds():
        raise ValueError(
            f"query_interval = {interval.to_human_string()} doesn't divide "
            f"total_timeout = {total.to_human_string()}."
        )
