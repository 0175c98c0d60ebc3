"""A system that a recorded version deployed, with a live release and queries that never stop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilled_router.release.table import Release, Releases
from stacks.settings import STACKS
from tests.engine.engine import Engine, Outcome
from tests.engine.system import LATE_SECONDS, Answer, Traffic
from tests.permissions.calls import observed
from tests.stacks.assembly import unhashed
from tests.upgrade.versions import OWNER, STATEFUL, templates

PAUSE_SECONDS = 0.05
# The first deployment waits for job, evaluation, head and rollout.
SECONDS = 1200.0
# Answers of a live release: its model's, and its head's.
SOURCES = {"distilled", "head"}


class Scene:
    """Deploys assemblies one after another, and tells what they did to Bedrock, stacks and queries."""

    def __init__(self, engine: Engine, assembly: Path) -> None:
        """Deploy a version for the first time. Its settings let the deployment wait for the live release."""
        self.engine = engine
        self.deploy(assembly)
        self.digest = self.live.digest
        self.traffic = Traffic(engine.router(engine.outputs(f"{OWNER}-router")["ApiId"]), PAUSE_SECONDS)

    def deploy(self, assembly: Path) -> None:
        """Deploy all stacks in order, as `cdk deploy --all` does."""
        outcome = self.try_to_deploy(assembly)
        assert outcome.succeeded, outcome

    def try_to_deploy(self, assembly: Path) -> Outcome:
        """Deploy stacks in order until one fails; return the last one's outcome."""
        self.engine.publish(assembly)
        found = templates(assembly)
        for stack in STACKS:
            outcome = self.deploy_stack(stack, found[stack])
            if not outcome.succeeded:
                break
        return outcome

    def deploy_stack(self, stack: str, template: Mapping[str, Any]) -> Outcome:
        """Deploy one stack and return how that ended."""
        name = f"{OWNER}-{stack}"
        self.engine.begin(name, template)
        return self.engine.wait(name, SECONDS)

    @property
    def live(self) -> Release:
        """Return the release that serves all requests."""
        physical_ids = self.engine.resources(f"{OWNER}-release")
        name = next(value for key, value in physical_ids.items() if unhashed(key) == "Releases")
        releases = Releases(self.engine.table(name), OWNER)
        route = releases.route()
        assert [share.share for share in route.shares] == [1.0], route
        found = releases.get(route.shares[0].digest)
        assert found is not None
        return found

    def created(self) -> list[str]:
        """Return the Create calls that Bedrock got, also refused ones, oldest first."""
        calls = self.engine.bedrock("/_calls")
        return [call["operation"] for call in calls if call["operation"].startswith("Create")]

    def held(self) -> Mapping[str, list[str]]:
        """Return the names of everything in Bedrock by kind: jobs, models, deployments and so on."""
        state = self.engine.bedrock("/_state")
        return {kind: sorted(item["name"] for item in items) for kind, items in state.items() if items}

    def denied(self) -> set[str]:
        """Return the calls of the stacks' roles that IAM denied."""
        return observed(self.engine.asked_of_iam())[1]

    def physical_ids(self) -> Mapping[str, str]:
        """Return the physical ids of the resources with state, by stack and logical id."""
        found = {}
        for stack in STACKS:
            answer = self.engine.aws("cloudformation").describe_stack_resources(StackName=f"{OWNER}-{stack}")
            for item in answer["StackResources"]:
                if item["ResourceType"] in STATEFUL:
                    found[f"{stack}/{item['LogicalResourceId']}"] = item["PhysicalResourceId"]
        return found

    def others_answers(self) -> list[Answer]:
        """Return the answers that are not the live release's; fail if a query had none.

        Answers that took long are left out: a machine that stands still exceeds the router's time budget.
        """
        assert self.traffic.failures == []
        assert self.traffic.answers
        wanted = {(source, self.digest) for source in SOURCES}
        prompt = [answer for answer in self.traffic.answers if answer.seconds < LATE_SECONDS]
        return [answer for answer in prompt if (answer.source, answer.release) not in wanted]
