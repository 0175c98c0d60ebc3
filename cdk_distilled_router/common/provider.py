"""The CDK's Provider framework, which calls the handlers of custom resources, with our limits and roles."""

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
from cdk_distilled_router.common.retries import OF_FUNCTION

# CloudFormation gives up on a custom resource after one hour, regardless of the framework's timeout
# (AWS::CloudFormation::CustomResource, ServiceTimeout). The run time of each poll adds to its interval.
LONGEST = cdk.Duration.hours(1)
TOTAL = cdk.Duration.minutes(40)
INTERVAL = cdk.Duration.seconds(5)
# Characters in a state machine's name (AWS::StepFunctions::StateMachine, StateMachineName).
LONGEST_NAME = 80

# Memory of the framework's functions. With Lambda's default of 128 MB, Node gets little CPU and starts
# slowly; the CDK has no property for it.
FRAMEWORK_MEMORY_MB = 256


class ResourceProvider(cr.Provider):
    """A Provider with our roles, log groups and limits.

    Never rename or move a deployed one: its service token would change, and CloudFormation can't update that.
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
        """Declare the provider of a custom resource's handlers.

        Raises:
            ValueError: CloudFormation can't wait for `total_timeout`, or `query_interval` doesn't divide it.
        """
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
            # Execution data contains a URL that allows anyone to answer CloudFormation.
            waiter_state_machine_log_options=cr.LogOptions(
                destination=hosting.log_group(holder, "WaiterLogs", vended_by="states"),
                include_execution_data=False,
                level=sfn.LogLevel.ALL,
            )
            if is_complete
            else None,
        )
        self._configure("onEvent", CLOUDFORMATION, hosting, on_event_role)
        for handler in [on_event, *([is_complete] if is_complete else [])]:
            for role in [on_event_role] + ([poll_role] if poll_role else []):
                reason = "The Provider framework invokes this one handler; the CDK grants all its versions."
                acknowledge(role, f"IAM5[Resource::{function_versions(handler)}]", reason)
        if poll_role:
            self._configure_waiter(hosting, poll_role, total_timeout, query_interval)

    def _configure_waiter(
        self, hosting: Hosting, role: iam.Role, total: cdk.Duration, interval: cdk.Duration
    ) -> None:
        """Configure the framework's state machine and the functions that it calls with a role."""
        for name in ("isComplete", "onTimeout"):
            self._configure(name, WAITER, hosting, role)
        waiter = self.node.find_child("waiter-state-machine")
        waiter_role = waiter.node.find_child("Role")
        assert isinstance(waiter_role, iam.Role)
        arn = may.machine_arn(_name(waiter))
        _trust_this_machine_only(waiter_role, arn)
        hosting.encrypt(waiter, waiter_role, arn)
        self._retry_timeout(waiter, total, interval)
        self._acknowledge_waiter(waiter)

    def _configure(self, name: str, caller: Caller, hosting: Hosting, role: iam.Role) -> None:
        """Set memory, VPC and key of a function of the framework, and acknowledge its findings."""
        function = _framework(self, name)
        resource = function.node.default_child
        assert isinstance(resource, lambda_.CfnFunction)
        resource.memory_size = FRAMEWORK_MEMORY_MB
        hosting.place(function, role)
        accept(function, caller)

    def _retry_timeout(self, waiter: IConstruct, total: cdk.Duration, interval: cdk.Duration) -> None:
        """Replace the waiter's definition by one with retries of its last task; the CDK has no option.

        That task answers CloudFormation that the time is over. If it fails, CloudFormation waits for an hour.
        A test compares all else with the CDK's own definition.
        """
        poll, end = "framework-isComplete-task", "framework-onTimeout-task"
        polls = {
            "ErrorEquals": ["States.ALL"],
            "IntervalSeconds": int(interval.to_seconds()),
            "MaxAttempts": int(total.to_seconds() // interval.to_seconds()),
            "BackoffRate": 1,
        }
        tasks: dict[str, dict[str, object]] = {
            poll: {
                "Retry": [polls],
                "Catch": [{"ErrorEquals": ["States.ALL"], "Next": end}],
                "Resource": _framework(self, "isComplete").function_arn,
            },
            end: {"Retry": list(OF_FUNCTION), "Resource": _framework(self, "onTimeout").function_arn},
        }
        states = {name: {"Type": "Task", "End": True, **task} for name, task in tasks.items()}
        machine = _machine(waiter)
        machine.definition_string = cdk.Stack.of(self).to_json_string({"StartAt": poll, "States": states})

    def _acknowledge_waiter(self, waiter: IConstruct) -> None:
        role = waiter.node.find_child("Role")
        for name in ("isComplete", "onTimeout"):
            function = _framework(self, name)
            reason = (
                "The framework's state machine invokes this one function; the CDK grants all its versions."
            )
            acknowledge(role, f"IAM5[Resource::{function_versions(function)}]", reason)
        acknowledge(role, "IAM5[Resource::*]", "The actions for log deliveries don't support resources.")
        acknowledge(
            role, "IAMWrite", "The write actions create log deliveries, which don't support resources."
        )
        acknowledge(role, "IAMNoInlinePolicy", may.OF_ONE_ROLE)
        acknowledge(
            waiter, "SF2", "The CDK has no option to trace the framework's state machine, which only polls."
        )


def _framework(provider: Construct, name: str) -> lambda_.Function:
    """Return one of the framework's functions."""
    function = provider.node.find_child(f"framework-{name}")
    assert isinstance(function, lambda_.Function)
    return function


def _machine(waiter: IConstruct) -> sfn.CfnStateMachine:
    """Return the resource of the framework's state machine."""
    machine = waiter.node.find_child("Resource")
    assert isinstance(machine, sfn.CfnStateMachine)
    return machine


def _name(waiter: IConstruct) -> str:
    """Name the framework's state machine after its stack and logical id, and return the name.

    The name that CloudFormation generates does not contain the stack's (aws-amplify/amplify-hosting#2597), so
    no policy could tell it from another environment's. A moved construct has another logical id, and needs
    another name until the old state machine is deleted.
    """
    machine, stack = _machine(waiter), cdk.Stack.of(waiter)
    name = f"{stack.stack_name}-{machine.logical_id}"
    if len(str(stack.resolve(name))) > LONGEST_NAME:
        name = cdk.Names.unique_resource_name(
            waiter, max_length=LONGEST_NAME, separator="-", allowed_special_characters="-_"
        )
    machine.state_machine_name = name
    return name


def _trust_this_machine_only(role: iam.Role, arn: str) -> None:
    """Allow Step Functions to assume a role only for one state machine.

    The CDK adds these conditions for other state machines, but not for that of the framework.
    """
    resource = role.node.default_child
    assert isinstance(resource, iam.CfnRole)
    resource.add_property_override(
        "AssumeRolePolicyDocument.Statement.0.Condition",
        {"StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID}, "ArnLike": {"aws:SourceArn": arn}},
    )


def _check_times(total: cdk.Duration, interval: cdk.Duration) -> None:
    if total.to_seconds() >= LONGEST.to_seconds():
        raise ValueError(
            f"A custom resource can't wait {total.to_human_string()}: CloudFormation gives up after an "
            "hour. Return early and continue in a state machine."
        )
    if total.to_seconds() % interval.to_seconds():
        raise ValueError(
            f"query_interval = {interval.to_human_string()} doesn't divide "
            f"total_timeout = {total.to_human_string()}."
        )
