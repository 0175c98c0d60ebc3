"""What CloudFormation does to resources in progress, and MiniStack does not.

- **Cancelled**: when a sibling fails, CloudFormation stops waiting for a resource. The resource's function
  and the waiter of the CDK's Provider framework go on; their late response is accepted and ignored. MiniStack
  creates one resource at a time, so an order says which operation is cancelled: see `Order`.
- **Timeout**: the same, since no response came within the hour: it was lost.
- **A Create that failed** is deleted in the rollback, by the physical id in its response, or by one that
  CloudFormation invents. An Update that failed is followed by an Update back to the old properties.
- **A stack deleted in CREATE_IN_PROGRESS**: creations are cancelled, then everything is deleted.
- **Clean-up**: an update ends with a phase of its own status, in which old resources are deleted. If that
  fails, it is reported, and the resource no longer belongs to the stack.
- **Deliveries**: AWS may deliver an event twice.
- **Functions** that Lambda would refuse: see `functions`; and stages with settings of a route that does not
  exist yet.
- **Exports** and **state machines** have names that are unique in account and Region. The name that is
  generated for a state machine does not contain the stack's.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import secrets
import string
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from typing import Any

import functions  # type: ignore[import-not-found]  # this folder is on the path when it runs
from ministack.services import apigateway, cloudformation, lambda_svc, stepfunctions
from ministack.services.cloudformation import changesets, custom_resource, handlers, stacks

CREATE, UPDATE = "Create", "Update"
IN_PROGRESS = {CREATE: "CREATE_IN_PROGRESS", UPDATE: "UPDATE_IN_PROGRESS"}
MACHINE = "AWS::StepFunctions::StateMachine"
CANCELLED, TIMEOUT = "cancelled", "timeout"
REASONS = {
    (CREATE, CANCELLED): "Resource creation cancelled",
    (UPDATE, CANCELLED): "Resource update cancelled",
}
NO_RESPONSE = "CloudFormation did not receive a response from your custom resource."
POLL_SECONDS = 0.02

_invoke = custom_resource.invoke_custom_resource
_deliver_response = custom_resource.deliver_response
_execute = lambda_svc._execute_function_with_config_scope
_provision = stacks._provision_resource
_update = stacks._update_resource
_roll_back = stacks._roll_back_operation
_outputs = stacks._resolve_stack_outputs
_deploy = stacks._deploy_stack_async
_delete = stacks._delete_stack_async


class FailedResponseError(RuntimeError):
    """A custom resource answered FAILED."""

    def __init__(self, reason: str, physical_id: str) -> None:
        """Keep the response's physical id."""
        super().__init__(reason)
        self.physical_id = physical_id


class EndedError(RuntimeError):
    """CloudFormation no longer waits for a resource."""


@dataclass(frozen=True)
class Order:
    """An order to end a Create or Update in progress, once.

    It applies to the first operation that matches, now or later. Empty fields match anything. `after` is in
    seconds since the operation began: for a custom resource, since its event was sent. Its function may run
    for longer, beside that of the Delete. If `how` is a timeout, the operation's response is lost until then.
    """

    stack: str = ""
    logical_id: str = ""
    resource_type: str = ""
    operation: str = ""
    after: float = 0
    how: str = CANCELLED


@dataclass(frozen=True)
class Operation:
    """A Create or Update of a resource."""

    stack: str
    logical_id: str
    resource_type: str
    operation: str

    def matches(self, order: Order) -> bool:
        """Return whether an order is about this operation."""
        names = ("stack", "logical_id", "resource_type", "operation")
        return all(getattr(order, name) in ("", getattr(self, name)) for name in names)

    def is_current(self) -> bool:
        """Return whether the stack is being created or updated, rather than rolled back."""
        return _status(self.stack) == IN_PROGRESS[self.operation]

    def reason(self, how: str) -> str:
        """Return the reason in the stack's events."""
        return REASONS.get((self.operation, how), NO_RESPONSE)


class CloudFormation:
    """Replaces functions of MiniStack's CloudFormation: see `install`."""

    def __init__(self, placed: Callable[[str, Mapping[str, Any]], None]) -> None:
        """Call `placed` with the name and properties of each function that was created or updated."""
        self.deliveries = 1
        self._placed = placed
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._orders: list[Order] = []
        self._applied: list[dict[str, Any]] = []
        self._refused: dict[str, str] = {}
        self._deployments: dict[str, asyncio.Event] = {}
        self._deleted: set[str] = set()
        self._generation = 0

    def install(self) -> None:
        """Put these functions in place of MiniStack's."""
        custom_resource.invoke_custom_resource = self.invoke
        custom_resource.deliver_response = self.deliver_response
        lambda_svc._execute_function_with_config_scope = self.execute
        stacks._provision_resource = self.provision
        stacks._update_resource = self.update
        stacks._roll_back_operation = self.roll_back
        stacks._resolve_stack_outputs = self.outputs
        handlers._deploy_stack_async = changesets._deploy_stack_async = self.deploy
        stacks._delete_stack_async = handlers._delete_stack_async = self.delete

    def reset(self) -> None:
        """Forget all orders; operations in progress are no longer watched."""
        with self._lock:
            self._generation += 1
            self._orders.clear()
            self._applied.clear()
            self._refused.clear()
            self._deleted.clear()

    # Orders

    def order(self, order: Mapping[str, Any]) -> None:
        """Add an order to end an operation."""
        with self._lock:
            self._orders.append(Order(**order))

    def withdraw(self) -> None:
        """Withdraw the orders that did not apply, and forget those that did."""
        with self._lock:
            self._orders.clear()
            self._applied.clear()

    def orders(self) -> dict[str, Any]:
        """Return the waiting orders, and the operations that were ended, since the last withdrawal."""
        with self._lock:
            return {"waiting": [asdict(order) for order in self._orders], "applied": list(self._applied)}

    def _ended_by(self, operation: Operation, seconds: float) -> str | None:
        """Return why CloudFormation ends an operation, or None."""
        if not operation.is_current():
            return operation.reason(CANCELLED) if self._is_deleted(operation.stack) else None
        with self._lock:
            for order in self._orders:
                if operation.matches(order) and seconds >= order.after:
                    self._orders.remove(order)
                    self._applied.append({**asdict(operation), "how": order.how, "seconds": seconds})
                    return operation.reason(order.how)
        return None

    def _is_response_lost(self, operation: Operation) -> bool:
        with self._lock:
            return any(order.how == TIMEOUT and operation.matches(order) for order in self._orders)

    # Resources

    def provision(self, resource_type: str, logical_id: str, props: Mapping[str, Any], stack: str) -> Any:
        """Create a resource unless its stack is deleted meanwhile, or an order ends the operation."""
        operation = Operation(stack, logical_id, resource_type, CREATE)
        if self._is_deleted(stack):
            raise EndedError(operation.reason(CANCELLED))
        _check(resource_type, props)
        if resource_type == MACHINE:
            props = _named(logical_id, props)
            _check_machine(props["StateMachineName"])
        try:
            found = self._watch(operation, lambda: _provision(resource_type, logical_id, props, stack))
        except (FailedResponseError, EndedError, TimeoutError) as error:
            if _is_custom(resource_type):
                physical_id = getattr(error, "physical_id", "") or _invented(stack, logical_id)
                self._keep(operation, physical_id, props)
            raise
        if resource_type == functions.TYPE:
            self._placed(found[0], props)
        return found

    def update(self, resource_type: str, physical_id: str, old: Any, new: Any, stack: str, *more: Any) -> Any:
        """Update a resource unless an order ends the operation."""
        operation = Operation(stack, str(more[0] if more else physical_id), resource_type, UPDATE)
        _check(resource_type, new)
        if resource_type == MACHINE:
            old, new = (_named(operation.logical_id, props) for props in (old, new))
        found = self._watch(operation, lambda: _update(resource_type, physical_id, old, new, stack, *more))
        if resource_type == functions.TYPE:
            self._placed(found[0], new)
        return found

    def _watch(self, operation: Operation, work: Callable[[], Any]) -> Any:
        """Return the result of work; raise EndedError once CloudFormation stops waiting for it."""
        if not stacks._runs_on_worker_thread(operation.resource_type) or not operation.is_current():
            return work()
        result: Future[Any] = Future()
        # The moment when the operation began, once it is known.
        began: list[float] = [] if _is_custom(operation.resource_type) else [time.monotonic()]

        def run() -> None:
            self._thread.began = began
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)

        generation = self._generation
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run,), daemon=True).start()
        while generation == self._generation:
            is_done = bool(wait([result], POLL_SECONDS).done)
            if began and (reason := self._ended_by(operation, time.monotonic() - began[0])):
                raise EndedError(reason)
            if not is_done:
                continue
            if not began or not self._is_response_lost(operation):
                break
            time.sleep(POLL_SECONDS)
        return result.result()

    def _keep(self, operation: Operation, physical_id: str, props: Mapping[str, Any]) -> None:
        """Keep a resource whose Create failed in its stack, so that it is deleted."""
        _stack(operation.stack)["_resources"][operation.logical_id] = {
            "PhysicalResourceId": physical_id,
            "ResourceType": operation.resource_type,
            "ResourceStatus": "CREATE_FAILED",
            "LogicalResourceId": operation.logical_id,
            "Properties": dict(props),
            "Attributes": {},
            "Timestamp": stacks.now_iso(),
        }

    # Events of custom resources

    def invoke(self, *arguments: Any, **more: Any) -> Any:
        """Send an event as often as `deliveries` says, and wait for the response.

        Raises:
            FailedResponseError: the resource answered FAILED.
            TimeoutError: the resource did not respond.
        """
        self._thread.copies, self._thread.request_id = self.deliveries - 1, ""
        try:
            return _invoke(*arguments, **more)
        except RuntimeError as error:
            physical_id = self._refused.pop(self._thread.request_id, "")
            raise FailedResponseError(str(error), physical_id) from error

    def deliver_response(self, token: str, response: Mapping[str, Any]) -> bool:
        """Deliver a resource's response; if it failed, keep its physical id for the Delete."""
        if response.get("Status") == "FAILED":
            self._refused[str(response.get("RequestId"))] = str(response.get("PhysicalResourceId") or "")
        return bool(_deliver_response(token, response))

    def execute(self, function: Mapping[str, Any], event: Mapping[str, Any]) -> Any:
        """Run a function; an event from CloudFormation runs as often as `deliveries` says."""
        copies = getattr(self._thread, "copies", 0)
        self._thread.copies = 0
        if isinstance(event, Mapping):
            self._thread.request_id = str(event.get("RequestId", ""))
        getattr(self._thread, "began", []).append(time.monotonic())
        for _ in range(copies):
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(_execute, function, dict(event)), daemon=True).start()
        return _execute(function, event)

    # Stacks

    async def deploy(self, stack: str, stack_id: str, *arguments: Any, **more: Any) -> None:
        """Create or update a stack; forget resources whose deletion failed in the update's clean-up."""
        ended = self._deployments[stack_id] = asyncio.Event()
        try:
            await _deploy(stack, stack_id, *arguments, **more)
        finally:
            found = _stack(stack)
            if stack_id in self._deleted:
                found["StackStatus"] = "DELETE_IN_PROGRESS"
            elif found.get("StackStatus") == "UPDATE_COMPLETE":
                resources = found["_resources"]
                for name in [key for key in resources if _has_failed_to_delete(resources[key])]:
                    del resources[name]
            del self._deployments[stack_id]
            ended.set()

    async def delete(self, stack: str, stack_id: str, *arguments: Any, **more: Any) -> None:
        """Delete a stack; if it is being created, cancel that first."""
        ended = self._deployments.get(stack_id)
        if ended and _status(stack) in ("CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"):
            self._deleted.add(stack_id)
            _stack(stack)["StackStatus"] = "DELETE_IN_PROGRESS"
            await ended.wait()
        await _delete(stack, stack_id, *arguments, **more)

    def _is_deleted(self, stack: str) -> bool:
        return _stack(stack).get("StackId") in self._deleted

    async def roll_back(
        self, stack: str, stack_id: str, record: dict[str, Any], operation: dict[str, Any], *more: Any
    ) -> None:
        """Roll a stack back unless it is being deleted; delete also the resource whose Create failed."""
        if stack_id in self._deleted:
            return
        failed = operation.get("failed_logical_id")
        if record["_resources"].get(failed, {}).get("ResourceStatus") == "CREATE_FAILED":
            operation["created"].append(failed)
        await _roll_back(stack, stack_id, record, operation, *more)

    def outputs(self, *arguments: Any) -> Any:
        """Resolve a stack's outputs, which ends an update; what follows is its clean-up.

        Raises ValueError for an export that another stack has: names are unique in account and Region.
        """
        resolved = _outputs(*arguments)
        stack, stack_id = arguments[-2:]
        _check_exports(resolved[1], stack_id)
        if _status(stack) == IN_PROGRESS[UPDATE]:
            status = _stack(stack)["StackStatus"] = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
            stacks._add_event(
                stack_id, stack, stack, "AWS::CloudFormation::Stack", status, physical_id=stack_id
            )
        return resolved


def _stack(name: str) -> dict[str, Any]:
    """Return MiniStack's record of a stack; an empty one after a reset."""
    return cloudformation._stacks.get(name) or {"_resources": {}}


def _status(stack: str) -> str:
    return str(_stack(stack).get("StackStatus", ""))


def _check(resource_type: str, props: Mapping[str, Any]) -> None:
    """Raise ValueError for a function that Lambda refuses, or a stage that API Gateway refuses."""
    refused = ""
    if resource_type == functions.TYPE:
        refused = functions.refusal(props)
    if resource_type == "AWS::ApiGatewayV2::Stage":
        refused = _unknown_route(props)
    if refused:
        raise ValueError(f'Resource handler returned message: "{refused}"')


def _unknown_route(stage: Mapping[str, Any]) -> str:
    """Return API Gateway's error for a stage with settings of a route that does not exist yet; else empty.

    The text is as in aws/serverless-application-model#2479.
    """
    routes = apigateway._routes.get(stage["ApiId"], {}).values()
    known = {route["routeKey"] for route in routes}
    unknown = sorted((stage.get("RouteSettings") or {}).keys() - known)
    return f"Unable to find Route by key {unknown[0]} within the provided RouteSettings" if unknown else ""


def _named(logical_id: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state machine's properties with its name, or the one that CloudFormation generates.

    It has the logical id, and not the stack's name, as in aws-amplify/amplify-hosting#2597.
    """
    suffix = hashlib.sha256(logical_id.encode()).hexdigest()[:12]
    return {"StateMachineName": f"{logical_id[:67]}-{suffix}", **machine}


def _check_machine(name: str) -> None:
    """Raise ValueError for the name of a state machine that exists."""
    arns = [arn for arn, machine in stepfunctions._state_machines.items() if machine["name"] == name]
    if arns:
        raise ValueError(f"Resource handler returned message: \"State Machine Already Exists: '{arns[0]}'\"")


def _check_exports(exports: Mapping[str, Any], stack_id: str) -> None:
    for name in exports:
        owner = (cloudformation._exports.get(name) or {}).get("StackId", stack_id)
        if owner != stack_id:
            stack = owner.split("/")[1]
            raise ValueError(f"Export with name {name} is already exported by stack {stack}.")


def _is_custom(resource_type: str) -> bool:
    return resource_type.startswith("Custom::") or resource_type == "AWS::CloudFormation::CustomResource"


def _has_failed_to_delete(resource: Mapping[str, Any]) -> bool:
    return resource.get("ResourceStatus") == "DELETE_FAILED"


def _invented(stack: str, logical_id: str) -> str:
    """Return a physical id as CloudFormation invents it for a resource that gave none."""
    suffix = "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(12))
    return f"{stack}-{logical_id}-{suffix}"
