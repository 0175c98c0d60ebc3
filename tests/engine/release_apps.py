"""Another team's CDK app with a release, and that team's view of it: stack, releases and Bedrock."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from botocore.exceptions import ClientError

from cdk_distilled_router import (
    DistillationJob,
    JobData,
    JobOptions,
    ProvisionedThroughput,
    ReleaseProps,
    ReleaseStores,
    ReleaseWait,
    ThroughputOptions,
)
from cdk_distilled_router import Release as ReleaseConstruct
from cdk_distilled_router.props import (
    EvaluationProps,
    GateProps,
    JobProps,
    RolloutProps,
    ThroughputProps,
    TimingProps,
)
from distilled_router.release.table import FAILED, LIVE, Release, Releases
from distilled_router.release.wait_conditions import WaitConditions
from stacks.settings import PROJECT
from tests.engine import layers
from tests.engine.apps import BUCKET, CONTEXT, DELETE_MODEL, OWNER, QUICK, ROWS, STUDENT, TEACHER
from tests.engine.engine import SECONDS, Engine, Outcome, until
from tests.stacks.assembly import unhashed

TABLE = "AWS::DynamoDB::Table"
HOLDOUT = "rows/holdout.jsonl"
BAD_DATA = "Record 7 of rows/training.jsonl holds 'User:', which is reserved and may not be in a prompt."
# Enough rows for the stand-in's student to pass the gate below, and few enough to be quick.
TRAINING_ROWS, HOLDOUT_ROWS = 400, 60
GATE = GateProps(
    minimum_valid_output=0.9,
    minimum_dominant_accuracy=0.5,
    maximum_mean_absolute_error=0.2,
    minimum_examples=50,
    # So few rows can't show less.
    non_inferiority_margin=0.2,
)
# Half of the requests, then all of them. There is no traffic here, so no check can fail.
ROLLOUT = RolloutProps(
    steps=[0.5, 1.0],
    dwell_seconds=1,
    maximum_error_rate=1.0,
    maximum_fallback_rate=0.03,
    maximum_invalid_output_rate=1.0,
    probes=0,
)
TIMING = TimingProps(poll_seconds=1, timeout_hours=0.5, stall_hours=0.5, wait_hours=0)
_numbers = count(1)


class ReleaseStack(cdk.Stack):
    """One team's stack: a job, or an adopted model, and its release."""

    def __init__(
        self,
        app: cdk.App,
        construct_id: str,
        *,
        nonce: str = "",
        adopted: str = "",
        model_units: int = 0,
        dwell_seconds: int = 1,
        judge: str | None = None,
        minimum_judge_score: float | None = None,
        wait: tuple[int, int] | None = None,
        **timing: Any,
    ) -> None:
        """Declare the stack.

        `adopted` is the ARN of an existing model. `wait` holds the seconds that the stack waits and the
        seconds of one window. `timing` overrides the release's defaults.
        """
        super().__init__(app, construct_id)
        bucket = s3.Bucket.from_bucket_name(self, "Bucket", BUCKET)
        own_job = None if adopted else self._job(bucket, nonce)
        source = own_job or DistillationJob.from_model_arn(self, "ExistingModel", adopted)
        throughput, table = self._throughput(model_units) if model_units else (None, None)
        release = ReleaseConstruct(
            self,
            "Release",
            owner=OWNER,
            job=source,
            bucket=bucket,
            holdout_key=HOLDOUT,
            props=ReleaseProps(
                gate=GATE.model_copy(update={"minimum_judge_score": minimum_judge_score}),
                evaluation=EvaluationProps(judge=judge),
                rollout=ROLLOUT.model_copy(update={"dwell_seconds": dwell_seconds}),
                timing=TIMING.model_copy(update=timing),
                retention=DELETE_MODEL,
                throughput=throughput,
            ),
            stores=ReleaseStores(table=table),
            hosting=QUICK,
        )
        if own_job:
            # What costs money is created last: if the stack fails before, there is nothing to stop.
            own_job.resource.node.add_dependency(release.machine)
        if wait:
            seconds, longest = wait
            ReleaseWait(self, "Wait", release=release, hours=seconds / 3600, longest_window_seconds=longest)

    def _job(self, bucket: s3.IBucket, nonce: str) -> DistillationJob:
        return DistillationJob(
            self,
            "Job",
            owner=OWNER,
            bucket=bucket,
            data=JobData(training_key=ROWS),
            props=JobProps(teacher=TEACHER, student=STUDENT, nonce=nonce),
            options=JobOptions(retention=DELETE_MODEL),
            hosting=QUICK,
        )

    def _throughput(self, model_units: int) -> tuple[ProvisionedThroughput, dynamodb.ITable]:
        """Declare throughput that releases buy, and their table."""
        table = dynamodb.Table(
            self,
            "Releases",
            partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING),
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        throughput = ProvisionedThroughput(
            self,
            "Throughput",
            owner=OWNER,
            props=ThroughputProps(model_units=model_units),
            table=table,
            options=ThroughputOptions(student=STUDENT, retention=DELETE_MODEL, poll_seconds=1),
            hosting=QUICK,
        )
        return throughput, table


@dataclass(frozen=True)
class Declared:
    """One synthesized version of the app."""

    assembly: Path

    @cached_property
    def template(self) -> Mapping[str, Any]:
        """Return the stack's template."""
        template: Mapping[str, Any] = json.loads((self.assembly / f"{OWNER}.template.json").read_text())
        return template

    @cached_property
    def digest(self) -> str:
        """Return the digest of the release that it declares."""
        return next(
            str(resource["Properties"]["Digest"])
            for resource in self.template["Resources"].values()
            if resource["Type"] == "Custom::BedrockRelease"
        )

    def logical_id(self, name: str) -> str:
        """Return the logical id of a resource: its name and the CDK's hash."""
        return str(next(key for key in self.template["Resources"] if unhashed(key) == name))

    @property
    def releases_table(self) -> str:
        """Return the logical id of the releases table; the stack also has a table of requests."""
        tables = [key for key, each in self.template["Resources"].items() if each["Type"] == TABLE]
        (found,) = [key for key in tables if not unhashed(key).startswith("ResourceRequests")]
        return str(found)


def declare(folder: Path, **options: Any) -> Declared:
    """Synthesize a version of the app, once for each folder."""
    version = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]
    assembly = folder / version
    if not assembly.exists():
        context = json.loads(CONTEXT.read_text(encoding="utf-8"))["context"]
        app = cdk.App(context=context, outdir=str(assembly), analytics_reporting=False)
        ReleaseStack(app, OWNER, **options)
        app.synth()
        layers.empty(assembly)
    return Declared(assembly)


class Scene:
    """Deploys its app and reads its state."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        """Start with a bucket that holds the training rows."""
        self.engine = engine
        # Each test uses another stack name, so that leftovers of one test don't disturb the next.
        self.stack, self._folder = f"{OWNER}-{next(_numbers)}", folder
        self._declared: Declared | None = None
        self._outcomes: list[Outcome] = []
        self._ids: dict[str, str] = {}
        self._known_table: Any = None
        self._seen: dict[str, Release] = {}
        engine.aws("s3").create_bucket(Bucket=BUCKET)
        for key, name, rows in ((ROWS, "training", TRAINING_ROWS), (HOLDOUT, "holdout", HOLDOUT_ROWS)):
            lines = (PROJECT / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            engine.aws("s3").put_object(Bucket=BUCKET, Key=key, Body="".join(lines[:rows]).encode())

    # Actions

    def begin(self, **options: Any) -> str:
        """Start to deploy a version of the app; return the digest of its release."""
        self._declared = declare(self._folder, **options)
        self.engine.publish(self._declared.assembly)
        self.engine.begin(self.stack, self._declared.template)
        return self._declared.digest

    def sweep(self) -> None:
        """Run the hourly sweep now."""
        found = {unhashed(key): each for key, each in self.engine.resources(self.stack).items()}
        self.engine.aws("lambda").invoke(FunctionName=found["ReleaseSweep"], Payload=b"{}")

    def status(self) -> str | None:
        """Return the stack's status."""
        return self.engine.status(self.stack)

    def is_busy(self) -> bool:
        """Return whether CloudFormation is working on the stack."""
        return "IN_PROGRESS" in (self.status() or "")

    def wait(self) -> Outcome:
        """Wait for the end of the started operation."""
        outcome = self.engine.wait(self.stack)
        self._outcomes.append(outcome)
        return outcome

    def deploy(self, **options: Any) -> str:
        """Deploy a version of the app and check that it succeeds; return the digest of its release."""
        digest = self.begin(**options)
        outcome = self.wait()
        assert outcome.succeeded, outcome
        return digest

    def destroy(self) -> Outcome:
        """Delete the stack and wait until it is deleted."""
        self.begin_to_destroy()
        return self.wait()

    def begin_to_destroy(self) -> str:
        """Start to delete the stack; return the ARN of the latest execution."""
        last = max(self.releases().values(), key=lambda release: release.started_at, default=None)
        self.engine.aws("cloudformation").delete_stack(StackName=self.stack)
        return last.execution if last else ""

    def order(self, kind: str, **more: Any) -> None:
        """Order a fault of the Bedrock stand-in."""
        self.engine.bedrock("/_faults", {"kind": kind, **more})

    def call(self, function: str) -> None:
        """Invoke a function of the stack as an EventBridge rule does; its name is without the CDK's hash."""
        name = self._physical_id(self._current.logical_id(function))
        self.engine.aws("lambda").invoke(FunctionName=name, Payload=b"{}")

    # State

    def releases(self) -> dict[str, Release]:
        """Return all releases by digest; after the table's deletion, those that were last read."""
        if self._table:
            with contextlib.suppress(ClientError):
                self._seen = {release.digest: release for release in self._table.all()}
        return self._seen

    def release(self, digest: str) -> Release:
        """Return one release; before its first step, a release without details."""
        return self.releases().get(digest) or Release(digest=digest)

    def item(self, digest: str) -> Mapping[str, Any]:
        """Return a release's item in the table."""
        found: Mapping[str, Any] = self._dynamodb_table.get_item(Key={"id": f"{OWNER}/release@{digest}"})[
            "Item"
        ]
        return found

    def served(self) -> tuple[str, ...]:
        """Return the digests of the releases in the route, the live one last; none without a table."""
        return tuple(share.digest for share in self._table.route().shares) if self._table else ()

    def live(self) -> str | None:
        """Return the digest of the live release in the route, if any."""
        assert self._table is not None
        live = self._table.route().live
        return live.digest if live else None

    def live_until(self, condition: Callable[[], object], what: str) -> set[str | None]:
        """Wait until a condition holds; return every live digest that was seen meanwhile."""
        seen: set[str | None] = set()

        def holds() -> object:
            found = condition()
            seen.add(self.live())
            return found

        self.until(holds, what)
        return seen

    def declared(self) -> str | None:
        """Return the digest that the deployed stack declares."""
        assert self._table is not None
        return self._table.declared()

    def windows(self) -> list[int]:
        """Return the numbers of the windows in which the stack waits."""
        table = self._dynamodb_table
        return sorted(window.number for window in WaitConditions(table, OWNER).windows()) if table else []

    def physical_ids(self, kind: str) -> set[str]:
        """Return the physical ids of the stack's resources of a type."""
        declared = self._current.template["Resources"]
        found = self.engine.resources(self.stack).items()
        return {id_ for name, id_ in found if declared[name]["Type"] == kind}

    def goes_live(self, digest: str) -> Release:
        """Wait until a release is live and its execution has ended; fail on any other final state."""
        self.until(lambda: self.release(digest).is_final, f"release {digest} is final")
        assert self.release(digest).state == LIVE, self.told()
        self.until(lambda: not self.running(), f"the execution of {digest} ends")
        return self.release(digest)

    def fails(self, digest: str) -> Release:
        """Wait until a release has failed and its execution has ended; fail on any other final state."""
        self.until(lambda: self.release(digest).is_final, f"release {digest} is final")
        assert self.release(digest).state == FAILED, self.told()
        self.until(lambda: not self.running(), f"the execution of {digest} ends")
        return self.release(digest)

    def executions(self, status: str | None = None) -> list[str]:
        """Return the names of the release state machine's executions, or of those with a status."""
        machines, chosen = self.engine.aws("stepfunctions"), {"statusFilter": status} if status else {}
        (machine,) = (
            item["stateMachineArn"]
            for item in machines.list_state_machines()["stateMachines"]
            if item["name"] == f"{OWNER}-release"
        )
        found = machines.list_executions(stateMachineArn=machine, **chosen)
        return sorted(item["name"] for item in found["executions"])

    def running(self) -> list[str]:
        """Return the names of the running executions."""
        return self.executions("RUNNING")

    def execution_status(self, arn: str) -> str:
        """Return the status of an execution, or "gone" if its state machine is deleted."""
        machines = self.engine.aws("stepfunctions")
        try:
            return str(machines.describe_execution(executionArn=arn)["status"])
        except machines.exceptions.ExecutionDoesNotExist:
            return "gone"

    def states(self) -> list[str]:
        """Return the states of the releases."""
        return sorted({release.state for release in self.releases().values()})

    def held(self, kind: str) -> dict[str, str]:
        """Return Bedrock's resources of a kind, name to status: `jobs`, `models`, `deployments`, `throughput`
        or `evaluations`."""
        return {name: str(item.get("status", "")) for name, item in self.engine.held(kind).items()}

    def left(self) -> list[str]:
        """Return what still runs or costs money after the stack is deleted."""
        found = [
            f"{kind} {name} {s}"
            for kind in ("jobs", "evaluations")
            for name, s in self.held(kind).items()
            if s in ("InProgress", "Stopping")
        ]
        for kind in ("deployments", "throughput", "models"):
            found += [f"{kind} {name} {status}" for name, status in self.held(kind).items()]
        machines = self.engine.aws("stepfunctions").list_state_machines()["stateMachines"]
        return found + [f"state machine {machine['name']}" for machine in machines]

    def until(self, condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
        """Wait until a condition holds; on timeout, fail with a description of the state."""
        until(condition, lambda: f"{what}\n{self.told()}", seconds)

    def told(self) -> str:
        """Return a description of the state that explains a failure."""
        lines = [f"stack: {self.status()}", *(f"  {outcome}" for outcome in self._outcomes)]
        lines += [f"  {reason}" for reason in self._failures()]
        lines += [f"release: {release}" for release in self.releases().values()]
        if self._table:
            with contextlib.suppress(ClientError):
                lines.append(f"route: {self._table.route()}")
        for kind in ("jobs", "models", "deployments", "throughput", "evaluations"):
            lines += [f"{kind}: {item}" for item in self.engine.held(kind).values()]
        return "\n".join(lines)

    def _failures(self) -> Iterator[str]:
        """Return why resources of the stack failed, over all its operations."""
        try:
            events = self.engine.aws("cloudformation").describe_stack_events(StackName=self.stack)[
                "StackEvents"
            ]
        except ClientError:
            return
        for event in reversed(events):
            if event["ResourceStatus"].endswith("FAILED"):
                reason = event.get("ResourceStatusReason", "")
                yield f"{event['LogicalResourceId']} {event['ResourceStatus']}: {reason}"

    @property
    def _current(self) -> Declared:
        assert self._declared is not None
        return self._declared

    @property
    def _table(self) -> Releases | None:
        """Return the releases table, or None if it does not exist."""
        table = self._dynamodb_table
        return Releases(table, OWNER) if table else None

    @property
    def _dynamodb_table(self) -> Any:
        if self._known_table is None and self._declared:
            name = self._physical_id(self._declared.releases_table)
            self._known_table = self.engine.table(name) if name else None
        return self._known_table

    def _physical_id(self, logical_id: str) -> str | None:
        """Return a resource's physical id, reading until it exists; resources here are never replaced."""
        if logical_id not in self._ids and self.status():
            self._ids |= self.engine.resources(self.stack)
        return self._ids.get(logical_id)
