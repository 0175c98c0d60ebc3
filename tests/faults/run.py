"""Run one schedule on the local CloudFormation and check its invariants: see `Run`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.bedrock.naming import attempt_name, digest_of, release_name
from distilled_router.release.route import Route
from distilled_router.release.table import LIVE, RETIRED, Release
from tests.engine.engine import SECONDS, Engine, Outcome
from tests.engine.system import STACKS, System, Traffic, Variant
from tests.faults.schedule import DESTROY, TOUR, Early, Schedule, Step
from tests.permissions.calls import check

QUIET_SECONDS = 25.0
# A job that has run for so long stalls: it takes 1.4 s.
STALL_SECONDS = 6.0
POLL_SECONDS = 0.25
QUERY_SECONDS = 0.3
MOST_ATTEMPTS = 9
DELETES = ("DeleteCustomModelDeployment", "DeleteProvisionedModelThroughput")


class Run:
    """One schedule. `problems` lists violations, `story` the events with seconds since the start.

    - A digest is paid once: one job, and one more for each internal error that the settings allow.
    - Everything that runs in Bedrock belongs to a deployed stack; nothing is left once all are destroyed.
    - Endpoints in the route are not deleted.
    - The router answers every query, from its deployment to its deletion.
    - No operation hangs, and after a fault has passed, the stacks can be deployed or destroyed.
    - No role makes a call that it may not make, or that is missing from `tests/permissions/calls.json`.
    """

    def __init__(self, engine: Engine, variants: Mapping[str, Variant], schedule: Schedule) -> None:
        """Prepare the run; `run` carries it out."""
        self.problems: list[str] = []
        self.story: list[str] = []
        self.answers = 0
        self._engine, self._variants, self._schedule = engine, variants, schedule
        self._system = System(engine, next(iter(variants.values())))
        self._random = Random(schedule.seed)
        self._asked: dict[str, Variant] = {}
        self._deployed: dict[str, Variant] = {}
        self._meddled: set[str] = set()
        self._internal_errors = 0
        self._began = time.monotonic()
        self._traffic: Traffic | None = None

    @property
    def _owner(self) -> str:
        return self._system.variant.owner

    def run(self) -> None:
        """Carry out the steps, then destroy everything."""
        self._engine.reset()
        for variant in self._variants.values():
            self._engine.publish(variant.assembly)
        try:
            for step in self._schedule.steps:
                self._step(step)
            self._end()
        except TimeoutError as error:
            self._problem(f"hangs: {error}")
            self._tell_what_there_is()
        finally:
            self._silence()
        for problem in check(self._engine.asked_of_iam()):
            self._problem(problem)

    def _step(self, step: Step) -> None:
        self._tell(str(step))
        self._order(step)
        if step.action == DESTROY:
            self._destroy()
        else:
            self._deploy(self._variants[step.variant], step.early)
        for ended in self._engine.withdraw_cancellations():
            self._tell(f"  {ended['operation']} of {ended['logical_id']} {ended['how']}")
        if step.meddling:
            time.sleep(self._random.uniform(0, 1.5))
            self._meddle(step.meddling)
        if step.pause is not None:
            time.sleep(step.pause)
        elif self._quiet():
            self._engine.bedrock("/_faults", delete=True)
            self._sweep()
            self._check_owned()
        self._engine.bedrock("/_faults", delete=True)
        self._engine.bedrock("/_lag", delete=True)

    def _order(self, step: Step) -> None:
        self._engine.deliver(step.deliveries)
        if step.cancellation:
            self._engine.cancel(**step.cancellation)
        if step.lag:
            self._engine.bedrock("/_lag", step.lag)
        for fault in step.faults:
            self._engine.bedrock("/_faults", fault)
            if fault["kind"] == "job_failed":
                self._internal_errors += int(fault.get("count", 1))

    def _end(self) -> None:
        """Destroy everything, in at most two tries, and check that nothing is left."""
        for attempt in (1, 2):
            if self._destroy():
                break
            if attempt == 2:
                self._problem("can't be destroyed although no fault is left")
        self._check_jobs()
        left = self._engine.bedrock("/_state")
        for kind in ("deployments", "throughput", "models"):
            for item in left[kind]:
                self._problem(f"left behind after the end: {kind} {item['name']}")
        for job in left["jobs"]:
            if job["status"] in ("InProgress", "Stopping"):
                self._problem(f"job {job['name']} is {job['status']} after the end")

    def _deploy(self, variant: Variant, early: Early | None) -> None:
        for stack, template in variant.templates.items():
            if not self._mend(stack):
                return
            if stack == "distillation":
                self._asked[variant.digest] = variant
            if early and early.stack == stack and self._delete_early(stack, template, early.after):
                return
            outcome = self._engine.deploy(f"{self._owner}-{stack}", template)
            self._note(outcome)
            if not outcome.succeeded:
                return
            self._deployed[stack] = variant
            if stack == "router" and self._traffic is None:
                self._traffic = Traffic(self._system.router(), QUERY_SECONDS)

    def _delete_early(self, stack: str, template: Mapping[str, Any], after: float) -> bool:
        """Begin to create a stack and delete it; return whether the stack did not exist before."""
        name = f"{self._owner}-{stack}"
        if self._engine.status(name) is not None:
            return False
        self._engine.begin(name, template)
        time.sleep(after)
        self._tell(f"  {name} {self._engine.status(name)}, is deleted")
        self._delete(stack)
        return True

    def _mend(self, stack: str) -> bool:
        """Do what the CDK does, or asks for, before it deploys a stack whose last operation failed."""
        name = f"{self._owner}-{stack}"
        match self._engine.status(name):
            case "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "DELETE_FAILED" | "CREATE_FAILED":
                outcome = self._delete(stack)
            case "UPDATE_ROLLBACK_FAILED":
                outcome = self._engine.continue_rollback(name)
                self._note(outcome)
                return outcome.status == "UPDATE_ROLLBACK_COMPLETE"
            case _:
                return True
        return outcome.succeeded

    def _destroy(self) -> bool:
        self._silence()
        return all(self._delete(stack).succeeded for stack in reversed(STACKS))

    def _delete(self, stack: str) -> Outcome:
        lease = self._lease() if stack == "release" else 0.0
        outcome = self._engine.delete(f"{self._owner}-{stack}", seconds=SECONDS + lease)
        if outcome.succeeded:
            self._deployed.pop(stack, None)
        self._note(outcome)
        return outcome

    def _lease(self) -> float:
        """Return how long a delete waits for a dead step that was creating something: its longest lifetime.

        The emulator also ends running functions when CloudFormation updates them.
        """
        with contextlib.suppress(ClientError, LookupError):
            until = max((release.creating_until for release in self._system.releases().all()), default=0)
            return max(until - time.time(), 0.0)
        return 0.0

    def _silence(self) -> None:
        if self._traffic:
            self._traffic.end()
            self.answers += len(self._traffic.answers)
            for failure in self._traffic.failures:
                self._problem(f"a query went unanswered: {failure}")
        self._traffic = None

    # Interventions

    def _meddle(self, how: str) -> None:
        # The call may meet an ordered fault itself.
        with contextlib.suppress(ClientError, BotoCoreError):
            match how:
                case "stop the execution":
                    for execution in self._executions():
                        self._engine.aws("stepfunctions").stop_execution(executionArn=execution)
                case "stop the job":
                    for name in self._running_jobs():
                        self._engine.aws("bedrock").stop_model_customization_job(jobIdentifier=name)
                case "delete the deployment":
                    for item in self._engine.bedrock("/_state")["deployments"]:
                        self._meddled.add(item["arn"])
                        self._engine.aws("bedrock").delete_custom_model_deployment(
                            customModelDeploymentIdentifier=item["arn"]
                        )
                case "break the route":
                    if "release" in self._deployed:
                        broken = {"id": f"{self._owner}/route", "version": "none", "shares": "all of them"}
                        self._system.table().put_item(Item=broken)
                case _:
                    self._kill_a_function()

    def _kill_a_function(self) -> None:
        """Kill a function's process in the middle of an invocation."""
        workers = list(_functions(self._engine.emulator_pid))
        if workers:
            if self._traffic:
                self._traffic.killed_at = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(workers), signal.SIGKILL)

    # Invariants

    def _quiet(self) -> bool:
        """Wait for the release's end, except that of a stalled job; return whether it has ended."""
        if self._schedule.seed == TOUR:
            self._engine.settle()  # nothing stalls
        began = time.monotonic()
        running = set(self._running_jobs())
        while self._executions():
            seconds = time.monotonic() - began
            if seconds > QUIET_SECONDS or (seconds > STALL_SECONDS and running & {*self._running_jobs()}):
                return False
            time.sleep(POLL_SECONDS)
        time.sleep(0.3)  # started by the end of an execution
        return True

    def _sweep(self) -> None:
        """Run the hourly sweep now."""
        if "release" not in self._deployed:
            return
        for _ in range(2):
            self._system.sweep()

    def _check_owned(self) -> None:
        self._check_jobs()
        state = self._engine.bedrock("/_state")
        job = self._job_of_the_stack()
        for name in self._running_jobs():
            if name not in {attempt_name(job, n) for n in range(1, MOST_ATTEMPTS + 1)}:
                self._problem(f"job {name} runs, and the stack's is {job or 'none'}")
        if "release" not in self._deployed:
            for kind in ("deployments", "throughput"):
                for item in state[kind]:
                    self._problem(f"{kind} {item['name']} exist, without a release stack")
            return
        releases = self._system.releases()
        known = {release.digest: release for release in releases.all()}
        route = releases.route()
        self._check_deployments(state, known, route)
        self._check_throughput(state, known, route)
        self._check_route(state, route)

    def _check_deployments(
        self, state: Mapping[str, Any], known: Mapping[str, Release], route: Route
    ) -> None:
        for item in state["deployments"]:
            digest = digest_of(self._owner, item["name"]) or ""
            release = known.get(digest)
            wanted = release and (not release.is_final or release.state in (LIVE, RETIRED))
            if not wanted and digest not in route.digests():
                found = release.state if release else "unknown"
                self._problem(f"deployment {item['name']} exists, and its release is {found}")

    def _check_throughput(self, state: Mapping[str, Any], known: Mapping[str, Release], route: Route) -> None:
        routed = {share.endpoint for share in route.shares}
        for item in state["throughput"]:
            on_its_way = any(not release.is_final for release in known.values())
            last = {release.endpoint for release in known.values() if release.state == LIVE}
            if item["arn"] not in routed | last and not on_its_way:
                self._problem(f"throughput {item['name']} is paid, and nothing is routed to it")

    def _check_route(self, state: Mapping[str, Any], route: Route) -> None:
        there = {item["arn"] for kind in ("deployments", "throughput") for item in state[kind]}
        for share in route.shares:
            if share.endpoint not in there | self._meddled:
                self._problem(f"the route names {share.endpoint}, which is gone")
            if share.head and hashlib.sha256(self._content(share.head.key)).hexdigest() != share.head.sha256:
                self._problem(f"the route names {share.head.key}, which is another file")
        history = self._route_history()
        for share in (share for route in history for share in route.shares):
            if share.head and f"/{share.digest}-" not in share.head.key:
                self._problem(f"release {share.digest} was routed with the head {share.head.key}")
        for call in self._engine.bedrock("/_calls"):
            gone = next(iter(call["parameters"].values()), None) if call["operation"] in DELETES else None
            if call["outcome"] != "ok" or gone is None or gone in self._meddled:
                continue
            # In whole seconds: the route's endpoints a while after the call.
            later = [r for r in history if r.updated_at <= call["wall_time"] + 2]
            if later and any(s.endpoint == gone and s.counts(call["wall_time"]) for s in later[-1].shares):
                self._problem(f"{gone} was deleted while the route named it")

    def _content(self, key: str) -> bytes:
        """Return a file of the data bucket; nothing if it is gone."""
        bucket = self._system.physical("data", "Data")
        with contextlib.suppress(ClientError):
            content: bytes = self._engine.aws("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
            return content
        return b""

    def _route_history(self) -> list[Route]:
        pages = self._system.table().scan(ConsistentRead=True)["Items"]
        kept = sorted(
            (item for item in pages if str(item["id"]).startswith(f"{self._owner}/route@")),
            key=lambda i: i["id"],
        )
        return [Route.from_item(item) for item in kept]

    def _check_jobs(self) -> None:
        allowed: set[str] = set()
        for digest, variant in self._asked.items():
            attempts = 1 + min(variant.retries, self._internal_errors)
            allowed |= {attempt_name(release_name(self._owner, digest), n + 1) for n in range(attempts)}
        for job in self._engine.bedrock("/_state")["jobs"]:
            if job["name"] not in allowed:
                self._problem(f"job {job['name']} was paid without being requested")
        made = {job["name"] for job in self._engine.bedrock("/_state")["jobs"]}
        declared = self._deployed.get("distillation")
        if declared and release_name(self._owner, declared.digest) not in made:
            self._problem(f"the stack was deployed, and its job of {declared.digest} was never made")

    # State

    def _executions(self) -> list[str]:
        if self._engine.status(f"{self._owner}-release") is None:
            return []
        with contextlib.suppress(ClientError, LookupError):
            machine = self._system.physical("release", "ReleaseStateMachine")
            found = self._engine.aws("stepfunctions").list_executions(
                stateMachineArn=machine, statusFilter="RUNNING"
            )
            return [item["executionArn"] for item in found["executions"]]
        return []

    def _running_jobs(self) -> list[str]:
        jobs = self._engine.bedrock("/_state")["jobs"]
        return [job["name"] for job in jobs if job["status"] == "InProgress"]

    def _job_of_the_stack(self) -> str:
        if self._engine.status(f"{self._owner}-distillation") is None:
            return ""
        with contextlib.suppress(LookupError):
            return self._system.physical("distillation", "Job")
        return ""

    def _note(self, outcome: Outcome) -> None:
        because = f": {'; '.join(outcome.reasons)[:400]}" if outcome.reasons else ""
        self._tell(f"  {outcome.stack} {outcome.status}{because}")

    def _tell_what_there_is(self) -> None:
        """Record the state of everything, to find the cause of a hang."""
        for stack in STACKS:
            with contextlib.suppress(ClientError):
                for resource, status in self._engine.under_way(f"{self._owner}-{stack}").items():
                    self._tell(f"  {stack} {resource} {status}")
        for execution in self._engine.running():
            self._tell(f"  runs: {execution}")
        with contextlib.suppress(ClientError, LookupError):
            for release in self._system.releases().all():
                lease = max(release.creating_until - time.time(), 0)
                self._tell(f"  release {release.digest} {release.state}, lease {lease:.0f} s")
        for kind, items in self._engine.bedrock("/_state").items():
            for item in items if isinstance(items, list) else ():
                self._tell(f"  {kind} {item.get('name')} {item.get('status', '')}")
        for call in self._engine.bedrock("/_calls")[-8:]:
            self._tell(f"  called {call['operation']} {call['outcome']}")

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        self._tell(f"  PROBLEM {text}")

    def _tell(self, text: str) -> None:
        self.story.append(f"{time.monotonic() - self._began:6.1f} {text}")


def _functions(pid: int) -> Iterator[int]:
    """Return the emulator's Python functions, forked by its zygote; not AWS's own framework functions on
    Node.js."""
    for zygote in _children(pid):
        with contextlib.suppress(OSError):
            if b"zygote.py" in Path(f"/proc/{zygote}/cmdline").read_bytes():
                yield from _children(zygote)


def _children(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, child.read_text().split())
