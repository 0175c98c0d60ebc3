"""The whole system on the emulator, from one release to the next, and what becomes of each."""

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
from tests.engine.engine import Engine
from tests.engine.system import STACKS, System, Traffic, Variant
from tests.rollouts.candidates import STANDING, Candidate

SECONDS = 60.0
# Answers that tell who is asked, and as many in a row as luck does not give to one of two.
SOME, MANY = 5, 20
# A query may be on its way so long.
ON_ITS_WAY_SECONDS = 2.0


class Scene:
    """Deploys candidates, orders what goes wrong with them, and looks at what is there."""

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

    # What it does

    def candidate(
        self,
        *,
        worse: bool = False,
        gate: Mapping[str, Any] | None = None,
        rollout: Mapping[str, Any] | None = None,
    ) -> Candidate:
        """A version that was never deployed. `gate` and `rollout` change what its release is given."""
        variant = self._worse if worse else self._good
        made = Candidate(variant, f"release {next(self._numbers)}", gate or {}, rollout or {})
        if not worse:
            self._good_digests.add(made.digest)
        return made

    def deploy(self, candidate: Candidate) -> None:
        """Deploy a version: the stacks that it changes."""
        for stack in STACKS:
            template = candidate.templates[stack]
            if self._deployed.get(stack) != template:
                outcome = self.engine.deploy(f"{candidate.variant.owner}-{stack}", template)
                assert outcome.succeeded, outcome
                self._deployed[stack] = template

    def good_release(self) -> str:
        """The digest of a good release that serves all requests; one is deployed where none does."""
        self.engine.bedrock("/_faults", delete=True)
        if not self._is_settled():
            self.release_good()
        settled = self.releases.route().live
        assert settled is not None
        return settled.digest

    def release_good(self) -> Candidate:
        """Deploy a good version, and wait until it serves all requests."""
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
        """Let the dwell time of the present step of a rise pass: it began long ago, from now on."""
        self.table.update_item(
            Key={"id": f"release@{digest}"},
            UpdateExpression="SET step_at = :then",
            ExpressionAttributeValues={":then": int(time.time()) - STANDING["dwell_seconds"]},
        )

    def stop(self, digest: str) -> None:
        """Stop the execution of a release, by hand."""
        execution = self.release(digest).execution
        self.engine.aws("stepfunctions").stop_execution(executionArn=execution)
        self.until(lambda: not self.running(digest), f"the execution of {digest} ends")

    # What it sees

    @cached_property
    def releases(self) -> Releases:
        """The releases table."""
        return Releases(self.table)

    @cached_property
    def table(self) -> Any:
        """The same as a resource of DynamoDB."""
        return self.system.table()

    @property
    def deployed(self) -> Deployed:
        """What the commands for releases work on."""
        bedrock, stepfunctions = self.engine.aws("bedrock"), self.engine.aws("stepfunctions")
        return Deployed("local", self._good.owner, 1, bedrock, stepfunctions, self.table)

    def release(self, digest: str) -> Release:
        """One release; before its first step as a release that nothing is known of."""
        return self.releases.get(digest) or Release(digest=digest)

    def shares(self) -> dict[str, float]:
        """Digest to share of the requests, of all that the route names."""
        return {share.digest: share.share for share in self.releases.route().shares}

    def is_promoted(self, digest: str) -> Release:
        """Wait until a release has a part of the requests."""
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
        """What routers have counted for a release in the last minutes, as CloudWatch has it."""
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
        """The executions of a release that run."""
        return [arn for arn in self.engine.running() if f":{digest}-" in arn]

    def name(self, digest: str) -> str:
        """The name of a release's deployment."""
        return release_name(self._good.owner, digest)

    def deployments(self) -> dict[str, str]:
        """The deployments that Bedrock holds: name to ARN."""
        return {name: str(item["arn"]) for name, item in self.engine.held("deployments").items()}

    def has_left(self, candidate: Candidate) -> None:
        """Wait until nothing of a candidate runs any more: job, execution, deployment."""
        self.until(lambda: not self._left(candidate), f"nothing is left of {candidate.digest}")

    def answers_come(self, traffic: Traffic, *digests: str | None) -> None:
        """Wait until each of these has answered some queries asked from now on; None is no release."""
        began = time.monotonic()

        def has_come() -> bool:
            found = Counter(answer.release for answer in traffic.since(began))
            return all(found[digest] >= SOME for digest in digests)

        self.until(has_come, f"answers of {', '.join(map(str, digests))}")

    def answers_settle(self, traffic: Traffic, digest: str | None) -> float:
        """Wait until one release, or none at all, answers everything; routers follow within a second. Returns
        the moment."""
        began = time.monotonic()

        def settled() -> bool:
            last = traffic.since(began)[-MANY:]
            return len(last) == MANY and {answer.release for answer in last} == {digest}

        self.until(settled, f"only {digest} answers")
        return time.monotonic()

    def until(self, condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
        """Wait until something holds. What never comes fails with all that is known."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}\n{self.told()}"
            time.sleep(0.05)

    def told(self) -> str:
        """All that explains a failure."""
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
        """Whether a good release, and nothing else, serves and is on its way."""
        route = self.releases.route()
        settled = route.live
        return (
            settled is not None
            and len(route.shares) == 1
            and route.problem is None
            and settled.digest in self._good_digests
            and self.release(settled.digest).state == LIVE
            and settled.endpoint in self.deployments().values()
            and not any(self.engine.running())
        )


def check_stand_in(traffic: Traffic, since: float, until: float) -> None:
    """Distilled models have answered, but for a moment after a candidate was taken out of the route.

    Its deployment may be gone before routers have read that: the base model answers in its place then.
    """
    for answer in traffic.answers:
        if answer.source != "distilled":
            assert answer.source == "base"
            assert since - ON_ITS_WAY_SECONDS < answer.asked_at < until
