"""The emulator's CloudFormation, driven as `cdk deploy` drives it but without the CDK's process.

Templates and assets come from an assembly that the CDK synthesized. CloudFormation, Lambda, Step Functions,
IAM, DynamoDB and S3 are the emulator's; Bedrock is the stand-in. Both are test doubles, see `local/`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from local import control, servers
from local.servers import Servers
from local.state import ACCOUNT, REGION, State
from operate.route import Router

STAGING = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
# What takes longer hangs, on a slow and busy machine too.
SECONDS = 600.0
BEGUN = ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
DONE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE")


@dataclass(frozen=True)
class Outcome:
    """How a stack operation ended, and why."""

    stack: str
    status: str
    reasons: tuple[str, ...]

    @property
    def succeeded(self) -> bool:
        """Return whether the operation did what it should."""
        return self.status in DONE


def until[Found](
    condition: Callable[[], Found], told: Callable[[], object] = str, seconds: float = SECONDS
) -> Found:
    """Wait until a condition holds and return what it found.

    Raises TimeoutError with what `told` returns if it does not hold in time.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s: {told()}")
        time.sleep(0.05)
    return found


class Engine:
    """CloudFormation on this machine, with the Bedrock that its functions call."""

    def __init__(self, state: State, *, time_scale: float, wait_scale: float) -> None:
        """Start the servers; `close` stops them."""
        self.state = state
        self._servers: Servers = servers.start(
            state, time_scale=time_scale, wait_scale=wait_scale, preload=True
        )
        keys = self._servers.keys
        self._session = boto3.Session(keys.access_key, keys.secret_key, None, REGION)
        self._published: set[str] = set()
        self._archives: dict[str, Path] = {}
        self._clients: dict[str, Any] = {}
        self._bootstrap()

    @property
    def emulator_pid(self) -> int:
        """Return the process id of the emulator, whose child processes run the functions."""
        return self._servers.emulator.pid

    def reset(self) -> None:
        """Delete everything that was deployed, in both doubles."""
        self._emulator("/_ministack/reset", "POST")
        self.bedrock("/_reset", {})
        self.deliver(1)
        self._bootstrap()

    def _bootstrap(self) -> None:
        """Create what `cdk bootstrap` creates."""
        self._published.clear()
        self.aws("s3").create_bucket(Bucket=STAGING)
        self.aws("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")

    def close(self) -> None:
        """Stop the servers."""
        servers.stop(self.state)

    def aws(self, service: str) -> Any:
        """Return a client of the emulator, or of the Bedrock stand-in."""
        if service not in self._clients:
            self._clients[service] = self._client(service)
        return self._clients[service]

    def _client(self, service: str) -> Any:
        ours = self._servers.bedrock.url if service.startswith("bedrock") else self._servers.emulator.url
        return self._session.client(  # type: ignore[call-overload]  # any service's name
            service,
            endpoint_url=ours,
            verify=str(self.state.certificate),
            config=Config(
                retries={"total_max_attempts": 1},
                signature_version="v4" if service != "s3" else "s3v4",  # also of pre-signed URLs
                s3={"addressing_style": "path"},
                proxies={},
                read_timeout=SECONDS,
            ),
        )

    def publish(self, assembly: Path) -> None:
        """Upload the file assets of every stack to where the templates expect them."""
        for manifest in sorted(assembly.glob("*.assets.json")):
            for file in json.loads(manifest.read_text())["files"].values():
                for destination in file["destinations"].values():
                    self._put(assembly / file["source"]["path"], destination["objectKey"])

    def _put(self, source: Path, key: str) -> None:
        if key in self._published:
            return
        if source.is_dir():
            if key not in self._archives:
                base = self.state.tmp / key.removesuffix(".zip")
                self._archives[key] = Path(shutil.make_archive(str(base), "zip", source))
            source = self._archives[key]
        self.aws("s3").put_object(Bucket=STAGING, Key=key, Body=source.read_bytes())
        self._published.add(key)

    def begin(self, stack: str, template: Mapping[str, Any]) -> None:
        """Start to create or update a stack. Raises ClientError if CloudFormation rejects the request."""
        key = f"{stack}.template.json"
        self.aws("s3").put_object(Bucket=STAGING, Key=key, Body=json.dumps(template).encode())
        wanted = {
            "StackName": stack,
            "TemplateURL": f"{self._servers.emulator.url}/{STAGING}/{key}",
            "Capabilities": ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        }
        if self.status(stack) is None:
            self.aws("cloudformation").create_stack(**wanted)
            return
        try:
            self.aws("cloudformation").update_stack(**wanted)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise

    def deploy(self, stack: str, template: Mapping[str, Any]) -> Outcome:
        """Create or update a stack and wait for its end."""
        self.begin(stack, template)
        return self.wait(stack)

    def delete(self, stack: str, retain: Sequence[str] = (), *, seconds: float = SECONDS) -> Outcome:
        """Delete a stack and wait for the end, at most this long; succeed if the stack does not exist.

        `retain` are logical ids to keep, which CloudFormation accepts only after DELETE_FAILED.
        """
        self.aws("cloudformation").delete_stack(StackName=stack, RetainResources=list(retain))
        return self.wait(stack, seconds)

    def continue_rollback(self, stack: str, skip: Sequence[str] = ()) -> Outcome:
        """Continue an update's rollback that failed, as `cdk rollback` does.

        `skip` are logical ids that CloudFormation is to regard as rolled back (`cdk rollback --orphan`).
        """
        self.aws("cloudformation").continue_update_rollback(StackName=stack, ResourcesToSkip=list(skip))
        return self.wait(stack)

    def status(self, stack: str) -> str | None:
        """Return a stack's status, or None if it does not exist."""
        try:
            found = self.aws("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        except ClientError as error:
            if "does not exist" not in str(error):
                raise
            return None
        status: str = found[0]["StackStatus"]
        return None if status == "DELETE_COMPLETE" else status

    def wait(self, stack: str, seconds: float = SECONDS) -> Outcome:
        """Wait until CloudFormation has finished with a stack.

        Raises TimeoutError if it hangs.
        """

        def ended() -> str:
            status = self.status(stack) or "DELETE_COMPLETE"
            return "" if status.endswith("IN_PROGRESS") else status

        status = until(ended, lambda: f"{stack} ends", seconds)
        reasons = () if status in DONE else tuple(self._reasons(stack))
        return Outcome(stack, status, reasons)

    def _reasons(self, stack: str) -> Iterator[str]:
        """Return why resources failed in the last operation, latest first."""
        pages = self.aws("cloudformation").get_paginator("describe_stack_events").paginate(StackName=stack)
        for event in (event for page in pages for event in page["StackEvents"]):
            if event["ResourceStatus"].endswith("FAILED") and event.get("ResourceStatusReason"):
                yield f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
            if event["LogicalResourceId"] == stack and event["ResourceStatus"] in BEGUN:
                return

    def settle(self, seconds: float = SECONDS) -> None:
        """Wait until all executions have ended: the waiter of a repeated event polls once more.

        Raises TimeoutError if they don't end.
        """
        until(lambda: not any(self.running()), lambda: "state machines end", seconds)

    def running(self) -> Iterator[str]:
        """Return the ARNs of all running executions."""
        machines = self.aws("stepfunctions")
        for machine in machines.list_state_machines()["stateMachines"]:
            found = machines.list_executions(
                stateMachineArn=machine["stateMachineArn"], statusFilter="RUNNING"
            )
            yield from (execution["executionArn"] for execution in found["executions"])

    def under_way(self, stack: str) -> dict[str, str]:
        """Return the status of each resource that CloudFormation is working on, by logical id."""
        found = self.aws("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        states = {item["LogicalResourceId"]: item["ResourceStatus"] for item in found}
        return {name: status for name, status in states.items() if status.endswith("IN_PROGRESS")}

    def resources(self, stack: str) -> dict[str, str]:
        """Return physical ids by logical id."""
        found = self.aws("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        return {item["LogicalResourceId"]: item["PhysicalResourceId"] for item in found}

    def outputs(self, stack: str) -> dict[str, str]:
        """Return a stack's outputs."""
        found = self.aws("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}

    def table(self, name: str) -> Any:
        """Return a DynamoDB table resource."""
        return self._session.resource(
            "dynamodb", endpoint_url=self._servers.emulator.url, verify=str(self.state.certificate)
        ).Table(name)

    def router(self, api_id: str) -> Router:
        """Send signed queries to a deployed router through its HTTP API."""
        return Router(
            url=f"{self._servers.emulator.url}/_aws/execute-api/{api_id}/$default/route",
            region=REGION,
            credentials=Credentials(self._servers.keys.access_key, self._servers.keys.secret_key),
            # Loaded for each query: importing it with this module would be slow.
            verify=str(self.state.certificate),
        )

    def deliver(self, times: int) -> None:
        """Set how often CloudFormation delivers each event of a custom resource."""
        self._emulator(f"/_cloudformation/deliveries/{times}", "POST")

    def cancel(self, stack: str = "", **order: Any) -> None:
        """Let CloudFormation stop waiting for a Create or Update, the first that matches, now or later.

        `order` has fields of `Order` in `local/emulator/cloudformation.py`.
        """
        self._cancellations("POST", {"stack": stack, **order})

    def lose_response(self, stack: str = "", *, after: float = 3600, **order: Any) -> None:
        """Let CloudFormation get no response to a Create or Update, and stop waiting after these seconds.

        With the default, the operation remains in progress until it is cancelled or its stack is deleted.
        """
        self.cancel(stack, after=after, how="timeout", **order)

    def withdraw_cancellations(self) -> list[Mapping[str, Any]]:
        """Withdraw the cancellations that have not applied; return the operations that were ended."""
        applied = self.cancelled()
        self._cancellations("DELETE")
        return applied

    def cancelled(self) -> list[Mapping[str, Any]]:
        """Return the operations that CloudFormation stopped waiting for, since the last withdrawal."""
        applied: list[Mapping[str, Any]] = self._cancellations("GET")["applied"]
        return applied

    def _cancellations(self, method: str, order: Mapping[str, Any] | None = None) -> Any:
        return self._emulator("/_cloudformation/cancellations", method, order)

    def begin_to_delete(self, stack: str) -> None:
        """Start to delete a stack, whatever CloudFormation is doing with it."""
        self.aws("cloudformation").delete_stack(StackName=stack)

    def bedrock(self, path: str, order: Mapping[str, Any] | None = None, *, delete: bool = False) -> Any:
        """Call one of the stand-in's own endpoints, e.g. `/_state`: by GET, DELETE, or POST with an order."""
        method = "DELETE" if delete else "GET" if order is None else "POST"
        return self._call(f"{self._servers.bedrock.url}{path}", method, order)

    def somebodys_role(self, name: str) -> str:
        """Create a role that Bedrock may assume and that allows everything; return its ARN."""
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": "bedrock.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        anything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        iam = self.aws("iam")
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy(trust))["Role"]
        iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=_policy(anything))
        return str(role["Arn"])

    def asked_of_iam(self) -> Mapping[str, Any]:
        """Return the roles' requests to IAM since the last reset; see `local/emulator/access.py`."""
        asked: Mapping[str, Any] = self._emulator("/_iam/calls")
        return asked

    def denied(self, role: str, action: str, resource: str) -> bool:
        """Return whether IAM denies a call that Bedrock makes with a role."""
        asked = {"caller": role, "calls": [{"action": action, "resource": resource, "context": {}}]}
        return bool(self._emulator("/_iam/calls", "POST", asked))

    def interfaces(self) -> Mapping[str, list[str]]:
        """Return the functions with network interfaces; see `local/emulator/functions.py`."""
        found: Mapping[str, list[str]] = self._emulator("/_lambda/interfaces")
        return found

    def calls(self, operation: str | None = None) -> list[Mapping[str, Any]]:
        """Return the successful Bedrock calls of one operation or of all, oldest first."""
        calls = self.bedrock("/_calls" if operation is None else f"/_calls?operation={operation}")
        return [call for call in calls if call["outcome"] in ("ok", "lost")]

    def written(self) -> list[str]:
        """Return the operations that changed something in Bedrock except tags, in order."""
        ignored = ("Get", "List", "TagResource", "UntagResource")
        return [call["operation"] for call in self.calls() if not call["operation"].startswith(ignored)]

    def held(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """Return Bedrock's resources of a kind (`jobs`, `models`, `throughput`) by name."""
        return {item["name"]: item for item in self.bedrock("/_state")[kind]}

    def send(self, function: str, event: Mapping[str, Any], seconds: float = SECONDS) -> Mapping[str, Any]:
        """Send an unsolicited event to a custom resource's function and return its response.

        As with CloudFormation's own events, the response goes to a signed S3 URL. Raises TimeoutError without
        a response.
        """
        where = {"Bucket": STAGING, "Key": f"answers/{uuid4()}"}
        url = self.aws("s3").generate_presigned_url("put_object", Params=where)
        payload = {"RequestId": str(uuid4()), "ResponseURL": url, **event}
        self.aws("lambda").invoke(FunctionName=function, Payload=json.dumps(payload).encode())
        until(
            lambda: self.aws("s3").list_objects_v2(Bucket=STAGING, Prefix=where["Key"]).get("KeyCount"),
            lambda: f"{function} answers",
            seconds,
        )
        answer: Mapping[str, Any] = json.loads(self.aws("s3").get_object(**where)["Body"].read())
        return answer

    def _emulator(self, path: str, method: str = "GET", order: Mapping[str, Any] | None = None) -> Any:
        return self._call(f"{self._servers.emulator.url}{path}", method, order)

    def _call(self, url: str, method: str, order: Mapping[str, Any] | None) -> Any:
        token = self._servers.keys.token
        return control.call(url, token, verify=self.state.certificate, method=method, body=order)


def _policy(statement: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
