"""Another team's CDK app with a release in it, and what that team sees of it: stack, releases and Bedrock."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
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
from tests.engine.apps import BUCKET, CONTEXT, DELETE_MODEL, OWNER, ROWS, STUDENT, TEACHER
from tests.engine.engine import Engine, Outcome
from tests.stacks.assembly import unhashed

HOLDOUT = "rows/holdout.jsonl"
BAD_DATA = "Record 7 of rows/training.jsonl holds 'User:', which is reserved and may not be in a prompt."
# Enough for the stand-in's student to pass the gate below, and few enough to be over in a moment.
TRAINING_ROWS, HOLDOUT_ROWS = 400, 60
GATE = GateProps(
    minimum_valid_output=0.9,
    minimum_dominant_accuracy=0.5,
    maximum_mean_absolute_error=0.2,
    minimum_examples=50,
)
# Half of the requests, then all of them; nobody asks here, so nothing speaks against it.
ROLLOUT = RolloutProps(
    steps=[0.5, 1.0],
    dwell_seconds=1,
    minimum_requests=200,
    maximum_error_rate=1.0,
    maximum_fallback_rate=0.03,
    maximum_invalid_output_rate=1.0,
    probes=0,
)
TIMING = TimingProps(poll_seconds=1, timeout_hours=0.5, stall_hours=0.5, wait_hours=0)
# As long as the harness waits for a stack.
SECONDS = 120.0
_numbers = count(1)


class ReleaseStack(cdk.Stack):
    """Everything of one team: a job, or somebody else's model, and its way into production."""

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
        """`adopted` is the ARN of a model that is there, `wait` the seconds that the stack waits and those of
        one window; `timing` changes the release's own."""
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
        )
        if own_job:
            # What costs is begun last: a stack that can't be made has nothing to stop.
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
        )

    def _throughput(self, model_units: int) -> tuple[ProvisionedThroughput, dynamodb.ITable]:
        """Bought by releases, which tell it from the table what they are."""
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
        )
        return throughput, table


@dataclass(frozen=True)
class Declared:
    """One version of the app, synthesised."""

    assembly: Path

    @cached_property
    def template(self) -> Mapping[str, Any]:
        """The stack's template."""
        template: Mapping[str, Any] = json.loads((self.assembly / f"{OWNER}.template.json").read_text())
        return template

    @cached_property
    def digest(self) -> str:
        """The digest of the release that it declares."""
        return next(
            str(resource["Properties"]["Digest"])
            for resource in self.template["Resources"].values()
            if resource["Type"] == "Custom::BedrockRelease"
        )

    def logical_id(self, name: str) -> str:
        """The logical id of a resource, which is its name and the CDK's hash."""
        return str(next(key for key in self.template["Resources"] if unhashed(key) == name))

    def of_type(self, kind: str, having: str = "") -> str:
        """The logical id of the one resource of a type, with a property of that name."""
        found = (
            key
            for key, resource in self.template["Resources"].items()
            if resource["Type"] == kind and (not having or having in resource["Properties"])
        )
        return str(next(found))


def declare(folder: Path, **options: Any) -> Declared:
    """Synthesise a version of the app; each version only once in a folder."""
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
    """Deploys its app, and looks at what becomes of it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        """Begin with a bucket that holds the rows, and nothing else."""
        self.engine = engine
        # Each in a stack of another name: what goes on of one that a test has left finds nothing of the next.
        self._stack, self._folder = f"{OWNER}-{next(_numbers)}", folder
        self._declared: Declared | None = None
        self._outcomes: list[Outcome] = []
        self._ids: dict[str, str] = {}
        self._known_table: Any = None
        self._seen: dict[str, Release] = {}
        engine.aws("s3").create_bucket(Bucket=BUCKET)
        for key, name, rows in ((ROWS, "training", TRAINING_ROWS), (HOLDOUT, "holdout", HOLDOUT_ROWS)):
            lines = (PROJECT / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            engine.aws("s3").put_object(Bucket=BUCKET, Key=key, Body="".join(lines[:rows]).encode())

    # What it does

    def begin(self, **options: Any) -> str:
        """Begin to deploy a version of the app; returns the digest of its release."""
        self._declared = declare(self._folder, **options)
        self.engine.publish(self._declared.assembly)
        self.engine.begin(self._stack, self._declared.template)
        return self._declared.digest

    def status(self) -> str | None:
        """The stack's status."""
        return self.engine.status(self._stack)

    def is_busy(self) -> bool:
        """Whether CloudFormation is at work on the stack."""
        return "IN_PROGRESS" in (self.status() or "")

    def wait(self) -> Outcome:
        """Wait for the end of what was begun."""
        outcome = self.engine.wait(self._stack)
        self._outcomes.append(outcome)
        return outcome

    def deploy(self, **options: Any) -> str:
        """Deploy a version of the app, which must succeed; returns the digest of its release."""
        digest = self.begin(**options)
        outcome = self.wait()
        assert outcome.succeeded, outcome
        return digest

    def destroy(self) -> Outcome:
        """Delete the stack and wait for the end of that."""
        self.begin_to_destroy()
        return self.wait()

    def begin_to_destroy(self) -> str:
        """Ask for the stack's end; returns the ARN of the execution that was begun last."""
        last = max(self.releases().values(), key=lambda release: release.started_at, default=None)
        self.engine.aws("cloudformation").delete_stack(StackName=self._stack)
        return last.execution if last else ""

    def order(self, kind: str, **more: Any) -> None:
        """Order a fault of the Bedrock stand-in."""
        self.engine.bedrock("/_faults", {"kind": kind, **more})

    def call(self, function: str) -> None:
        """Call a function of the stack, as a rule of EventBridge does; its name is without the CDK's hash."""
        name = self._physical_id(self._current.logical_id(function))
        self.engine.aws("lambda").invoke(FunctionName=name, Payload=b"{}")

    # What it sees

    def releases(self) -> dict[str, Release]:
        """All releases, by digest; once the table is gone, as they were when last looked at."""
        if self._table:
            with contextlib.suppress(ClientError):
                self._seen = {release.digest: release for release in self._table.all()}
        return self._seen

    def release(self, digest: str) -> Release:
        """One release; before its first step as a release that nothing is known of."""
        return self.releases().get(digest) or Release(digest=digest)

    def item(self, digest: str) -> Mapping[str, Any]:
        """A release's item as the table holds it."""
        found: Mapping[str, Any] = self._dynamodb_table.get_item(Key={"id": f"release@{digest}"})["Item"]
        return found

    def served(self) -> tuple[str, ...]:
        """The digests of the releases that the route names, the settled one last."""
        assert self._table is not None
        return tuple(share.digest for share in self._table.route().shares)

    def settled(self) -> str | None:
        """The digest of the release that serves whatever no candidate serves."""
        assert self._table is not None
        settled = self._table.route().live
        return settled.digest if settled else None

    def settled_until(self, condition: Callable[[], object], what: str) -> set[str | None]:
        """Wait until something holds; returns all that was settled meanwhile."""
        seen: set[str | None] = set()

        def holds() -> object:
            found = condition()
            seen.add(self.settled())
            return found

        self.until(holds, what)
        return seen

    def declared(self) -> str | None:
        """The digest that the deployed stack asks for."""
        assert self._table is not None
        return self._table.declared()

    def windows(self) -> list[int]:
        """The numbers of the windows in which the stack waits."""
        table = self._dynamodb_table
        return sorted(window.number for window in WaitConditions(table).windows()) if table else []

    def physical_ids(self, kind: str) -> set[str]:
        """The physical ids of the stack's resources of a type."""
        declared = self._current.template["Resources"]
        found = self.engine.resources(self._stack).items()
        return {id_ for name, id_ in found if declared[name]["Type"] == kind}

    def goes_live(self, digest: str) -> Release:
        """Wait until a release is live and its execution has ended; anything else that is final fails."""
        self.until(lambda: self.release(digest).is_final, f"release {digest} is final")
        assert self.release(digest).state == LIVE, self.told()
        self.until(lambda: not self.running(), f"the execution of {digest} ends")
        return self.release(digest)

    def fails(self, digest: str) -> Release:
        """Wait until a release has failed and its execution has ended; anything else that is final fails."""
        self.until(lambda: self.release(digest).is_final, f"release {digest} is final")
        assert self.release(digest).state == FAILED, self.told()
        self.until(lambda: not self.running(), f"the execution of {digest} ends")
        return self.release(digest)

    def executions(self, status: str | None = None) -> list[str]:
        """Names of all executions of the release state machine, or of those with a status."""
        machine = self._physical_id(
            self._current.of_type("AWS::StepFunctions::StateMachine", "StateMachineName")
        )
        chosen = {"statusFilter": status} if status else {}
        found = self.engine.aws("stepfunctions").list_executions(stateMachineArn=machine, **chosen)
        return sorted(item["name"] for item in found["executions"])

    def running(self) -> list[str]:
        """Names of the executions that run."""
        return self.executions("RUNNING")

    def execution_status(self, arn: str) -> str:
        """The status of an execution; "gone" once its state machine is."""
        machines = self.engine.aws("stepfunctions")
        try:
            return str(machines.describe_execution(executionArn=arn)["status"])
        except machines.exceptions.ExecutionDoesNotExist:
            return "gone"

    def states(self) -> list[str]:
        """The states that releases are in."""
        return sorted({release.state for release in self.releases().values()})

    def held(self, kind: str) -> dict[str, str]:
        """Name to status, of a kind of what Bedrock holds: `jobs`, `models`, `deployments`, `throughput`,
        `evaluations`."""
        return {name: str(item.get("status", "")) for name, item in self.engine.held(kind).items()}

    def left(self) -> list[str]:
        """What would cost, or go on, after the stack is gone."""
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
        """Wait until something holds. What never comes fails with all that is known."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}\n{self.told()}"
            time.sleep(0.05)

    def told(self) -> str:
        """All that explains a failure."""
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
        """Why resources of the stack failed, in all its operations."""
        try:
            events = self.engine.aws("cloudformation").describe_stack_events(StackName=self._stack)[
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
        """The releases table, while there is one."""
        table = self._dynamodb_table
        return Releases(table) if table else None

    @property
    def _dynamodb_table(self) -> Any:
        if self._known_table is None and self._declared:
            name = self._physical_id(self._declared.of_type("AWS::DynamoDB::Table"))
            self._known_table = self.engine.table(name) if name else None
        return self._known_table

    def _physical_id(self, logical_id: str) -> str | None:
        """A resource's physical id, asked for until there is one: nothing that is looked at is replaced."""
        if logical_id not in self._ids and self.status():
            self._ids |= self.engine.resources(self._stack)
        return self._ids.get(logical_id)
