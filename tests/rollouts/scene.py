"""The whole system on the emulator, from one release to the next."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import count
from typing import Any

from distilled_router.bedrock.naming import release_name
from distilled_router.env import METRICS_NAMESPACE
from distilled_router.release.table import FAILED, LIVE, ROLLING_OUT, Release, Releases
from local.bedrock.faults import CALL_EFFECTS, CALL_ERRORS
from operate.deployed import Deployed
from tests.engine.engine import Engine, until
from tests.engine.system import LATE_SECONDS, STACKS, System, Traffic, Variant
from tests.rollouts.candidates import STANDING, Candidate

# Answers that show who is asked, and as many in a row as one of two would hardly get by chance.
SOME, MANY = 5, 20
# Seconds after which a query must have its answer; `Traffic.prompt` has no later ones.
ON_ITS_WAY_SECONDS = LATE_SECONDS


class Scene:
    """Deploys candidates, orders their faults, and reads the state."""

    def __init__(self, engine: Engine, good: Variant, worse: Variant) -> None:
        """Deploy the system for the first time, and wait until its first release is live."""
        self.engine, self.system = engine, System(engine, good)
        self._good, self._worse = good, worse
        self._numbers = count(1)
        self._deployed: dict[str, Mapping[str, Any]] = {}
        self._good_digests: set[str] = set()
        for variant in (good, worse):
            engine.publish(variant.assembly)
        self.release_good()

    # Actions

    def candidate(
        self,
        *,
        worse: bool = False,
        gate: Mapping[str, Any] | None = None,
        rollout: Mapping[str, Any] | None = None,
    ) -> Candidate:
        """Return a version that was never deployed; `gate` and `rollout` override its release's settings."""
        variant = self._worse if worse else self._good
        made = Candidate(variant, f"release {next(self._numbers)}", gate or {}, rollout or {})
        if not worse:
            self._good_digests.add(made.digest)
        return made

    def deploy(self, candidate: Candidate, *stacks: str) -> None:
        """Deploy a version: only the stacks that differ, of these or of all."""
        for stack in stacks or STACKS:
            template = candidate.templates[stack]
            if self._deployed.get(stack) != template:
                outcome = self.engine.deploy(f"{candidate.variant.owner}-{stack}", template)
                assert outcome.succeeded, outcome
                self._deployed[stack] = template

    def good_release(self) -> str:
        """Return the digest of a good release that serves all requests, deploying one if there is none."""
        self.engine.bedrock("/_faults", delete=True)
        if not self._is_settled():
            self.release_good()
        live = self.releases.route().live
        assert live is not None
        return live.digest

    def release_good(self) -> Candidate:
        """Deploy a good version and wait until it serves all requests."""
        candidate = self.candidate()
        self.deploy(candidate)
        self.goes_live(candidate.digest)
        return candidate

    def order(self, kind: str, candidate: Candidate, **more: Any) -> None:
        """Order a fault of a candidate's endpoint, which need not exist yet."""
        of_calls = kind in CALL_ERRORS or kind in CALL_EFFECTS
        fault = {"kind": kind, "modelId": candidate.name, "count": None, **more}
        self.engine.bedrock("/_faults", {**fault, **({"operation": "Converse"} if of_calls else {})})

    def pass_step(self, digest: str) -> None:
        """Let the dwell time of the current rollout step pass, by moving its start into the past."""
        self.table.update_item(
            Key={"id": self.releases.key(f"release@{digest}")},
            UpdateExpression="SET step_at = :then",
            ExpressionAttributeValues={":then": int(time.time()) - STANDING["dwell_seconds"]},
        )

    def stop(self, digest: str) -> None:
        """Stop a release's execution by hand."""
        execution = self.release(digest).execution
        self.engine.aws("stepfunctions").stop_execution(executionArn=execution)
        self.until(lambda: not self.running(digest), f"the execution of {digest} ends")

    # State

    @cached_property
    def releases(self) -> Releases:
        """Return the releases table."""
        return Releases(self.table, self._good.owner)

    @cached_property
    def table(self) -> Any:
        """Return the releases table as a DynamoDB resource."""
        return self.system.table()

    @property
    def deployed(self) -> Deployed:
        """Return the environment as the release commands see it."""
        bedrock, stepfunctions = self.engine.aws("bedrock"), self.engine.aws("stepfunctions")
        return Deployed("local", self._good.owner, 1, bedrock, stepfunctions, self.table)

    def release(self, digest: str) -> Release:
        """Return one release; before its first step, a release without details."""
        return self.releases.get(digest) or Release(digest=digest)

    def shares(self) -> dict[str, float]:
        """Return the share of the requests by digest, for every release in the route."""
        return {share.digest: share.share for share in self.releases.route().shares}

    def gets_share(self, digest: str) -> Release:
        """Wait until a release has a share of the requests."""
        self._reaches(digest, ROLLING_OUT)
        return self.release(digest)

    def goes_live(self, digest: str) -> Release:
        """Wait until a release is live and its execution has ended."""
        self._reaches(digest, LIVE)
        self.until(lambda: not self.running(digest), f"the execution of {digest} ends")
        return self.release(digest)

    def fails(self, digest: str) -> Release:
        """Wait until a release has failed and its execution has ended."""
        self._reaches(digest, FAILED)
        self.until(lambda: not self.running(digest), f"the execution of {digest} ends")
        return self.release(digest)

    def counted(self, digest: str, metric: str) -> float:
        """Return a metric that routers counted for a release in the last minutes, from CloudWatch."""
        now = datetime.now(UTC)
        points = self.engine.aws("cloudwatch").get_metric_statistics(
            Namespace=METRICS_NAMESPACE,
            MetricName=metric,
            Dimensions=[
                {"Name": "service", "Value": self._good.owner},
                {"Name": "release", "Value": digest},
            ],
            StartTime=now - timedelta(minutes=5),
            EndTime=now + timedelta(minutes=1),
            Period=60,
            Statistics=["Sum"],
        )["Datapoints"]
        return float(sum(point["Sum"] for point in points))

    def running(self, digest: str) -> list[str]:
        """Return a release's running executions."""
        return [arn for arn in self.engine.running() if f":{digest}-" in arn]

    def name(self, digest: str) -> str:
        """Return the name of a release's deployment."""
        return release_name(self._good.owner, digest)

    def deployments(self) -> dict[str, str]:
        """Return the ARNs of Bedrock's deployments by name."""
        return {name: str(item["arn"]) for name, item in self.engine.held("deployments").items()}

    def has_left(self, candidate: Candidate) -> None:
        """Wait until a candidate's job, execution and deployment have ended or are deleted."""
        self.until(lambda: not self._left(candidate), f"nothing is left of {candidate.digest}")

    def answers_come(self, traffic: Traffic, *digests: str | None) -> None:
        """Wait until each of these releases has answered some of the queries sent from now on; None stands
        for answers without a release."""
        began = time.monotonic()

        def has_come() -> bool:
            found = Counter(answer.release for answer in traffic.since(began))
            return all(found[digest] >= SOME for digest in digests)

        self.until(has_come, f"answers of {', '.join(map(str, digests))}")

    def answers_settle(self, traffic: Traffic, digest: str | None) -> float:
        """Wait until one release, or none, answers all queries, which takes routers up to a second; return
        the moment."""
        began = time.monotonic()

        def only_one() -> bool:
            last = traffic.since(began)[-MANY:]
            return len(last) == MANY and {answer.release for answer in last} == {digest}

        self.until(only_one, f"only {digest} answers")
        return time.monotonic()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds; on timeout, fail with a description of the state."""
        until(condition, lambda: f"{what}\n{self.told()}")

    def told(self) -> str:
        """Return a description of the state that explains a failure."""
        lines = [f"route: {self.releases.route()}", *(f"release: {found}" for found in self.releases.all())]
        lines += [f"runs: {arn}" for arn in self.engine.running()]
        for kind in ("jobs", "models", "deployments"):
            lines += [f"{kind}: {item}" for item in self.engine.held(kind).values()]
        return "\n".join(lines)

    def _reaches(self, digest: str, state: str) -> None:
        def has_come() -> bool:
            found = self.release(digest)
            assert found.state == state or not found.is_final, f"{found.state}: {found.message}"
            return found.state == state

        self.until(has_come, f"release {digest} is {state}")

    def _left(self, candidate: Candidate) -> list[str]:
        job = self.engine.held("jobs").get(candidate.name, {})
        deployed = [name for name in self.deployments() if name == candidate.name]
        jobs = [candidate.name] if job.get("status") in ("InProgress", "Stopping") else []
        return [*jobs, *deployed, *self.running(candidate.digest)]

    def _is_settled(self) -> bool:
        """Return whether a good release has the whole route and no other release is in progress."""
        route = self.releases.route()
        live = route.live
        return (
            live is not None
            and len(route.shares) == 1
            and route.problem is None
            and live.digest in self._good_digests
            and self.release(live.digest).state == LIVE
            and live.endpoint in self.deployments().values()
            and not any(self.engine.running())
        )


def check_stand_in(traffic: Traffic, since: float, until: float) -> None:
    """Check that distilled models answered, except just after a candidate was taken out of the route.

    Its deployment may be deleted before routers have read the new route: the base model answers in its place.
    """
    for answer in traffic.prompt:
        if answer.source != "distilled":
            assert answer.source == "base"
            assert since - ON_ITS_WAY_SECONDS < answer.asked_at < until
