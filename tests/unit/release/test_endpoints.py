"""A live release and its endpoint: from on demand to throughput, to other throughput, and back.

These tests combine CloudFormation's events, the release's last step and the sweeper. In any order, throughput
is bought once, and it is live or deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest

from distilled_router.aws.custom_resource import Event
from distilled_router.aws.errors import ResourceError
from distilled_router.aws.state_machine import StageResult
from distilled_router.bedrock import ownership, throughput
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags, release_name, throughput_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.env import ServeFromThroughputEnv
from distilled_router.release.table import FAILED, LIVE, ROLLING_OUT, WAITING
from provisioned_throughput.serve_from_throughput import serve
from release import handler as release_handler
from rollout.canary import CanaryAnalysis
from rollout.roll_out import advance
from tests.unit.local.bedrock.scenes import HOUR, MINUTE
from tests.unit.release_world import ANY, OWNER, RELEASE, A, B, World, live_share, named, rollout
from tests.unit.resource_scenes import logged

ONE, TWO = throughput_name(OWNER, 1, None), throughput_name(OWNER, 2, None)
MONTH = throughput_name(OWNER, 1, "OneMonth")
ON_DEMAND = "on_demand"
AT_ONCE = rollout(1.0, dwell_seconds=1)

# No requests, so that nothing speaks against a candidate.
QUIET = Mock(**{"get_metric_statistics.return_value": {"Datapoints": []}})

_numbers = count(1)


class System:
    """One owner's release stack, as last deployed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.endpoint, self.retain = ON_DEMAND, False
        self.digest = A

    def deploy(self, endpoint: str, digest: str = A, *, twice: bool = False) -> None:
        """Change the settings: CloudFormation updates the functions, then sends its events."""
        before, self.endpoint, self.digest = self.endpoint, endpoint, digest
        event = self.release_event("Update", before)
        for _ in range(2 if twice else 1):
            asked = release_handler.handle(Event.parse(event), self.services)
            asked = release_handler.check(Event.parse({**event, **asked}), self.services)
            assert asked == {"IsComplete": True}

    def refuses(self, endpoint: str, *, absence_seconds: float = 0) -> str:
        """Change the settings, and return why the Update is refused; it is rolled back then."""
        before, self.endpoint = self.endpoint, endpoint
        event = Event.parse(self.release_event("Update", before))
        event = replace(event, absence_seconds=absence_seconds)
        with pytest.raises(ResourceError) as refused:
            release_handler.handle(event, self.services)
        self.endpoint = before
        return str(refused.value)

    def delete(self) -> None:
        """Send the stack's Delete."""
        event = self.release_event("Delete")
        release_handler.handle(Event.parse(event), self.services)
        for _ in range(3):
            release_handler.check(Event.parse(event), self.services)

    def release_event(self, kind: str, before: str = "") -> dict[str, Any]:
        properties = {
            "Owner": OWNER,
            "Digest": self.digest,
            "Source": release_name(OWNER, self.digest),
            "StateMachineArn": self.world.machine,
            "Bucket": self.world.bucket,
            "Endpoint": self.endpoint,
            "RetainModels": "false",
            "RetainReports": "true",
            "RetainThroughput": str(self.retain).lower(),
            "HourlyPriceUsd": "50.0",
        }
        request = f"release-{next(_numbers)}"
        return {
            "RequestType": kind,
            "RequestId": request,
            "StackId": RELEASE.stack_id,
            "LogicalResourceId": RELEASE.logical_id,
            "PhysicalResourceId": OWNER,
            "ResourceProperties": properties,
            **({"OldResourceProperties": {**properties, "Endpoint": before}} if before else {}),
        }

    @property
    def services(self) -> release_handler.Services:
        world = self.world
        return release_handler.Services(world.bedrock, world.stepfunctions, world.s3, world.releases)

    def utc_now(self) -> datetime:
        return datetime.fromtimestamp(self.world.now, UTC)

    def roll_out(self, digest: str = A) -> None:
        """Run all of a release's steps except the last one."""
        world = self.world
        endpoint = f"{release_name(OWNER, digest)}"
        found = world.bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=endpoint)
        arn, model = found["customModelDeploymentArn"], found["modelArn"]
        assert world.releases.transition(digest, ROLLING_OUT, "…", endpoint=arn, model_arn=model)
        for _ in range(2):
            advance(digest, world.releases, CanaryAnalysis(QUIET, OWNER, AT_ONCE, ANY), now=world.now)
            world.advance(MINUTE)
        assert world.release(digest).state == LIVE

    def step(self, digest: str = A) -> StageResult:
        """Run the last step once, with the current settings."""
        env = ServeFromThroughputEnv(
            owner=OWNER,
            stack_id=RELEASE.stack_id,
            logical_id=RELEASE.logical_id,
            absence_seconds=0,
            table_name="releases",
            throughput_name=self.endpoint,
            model_units=2 if self.endpoint == TWO else 1,
            commitment="OneMonth" if self.endpoint == MONTH else "none",
            retain_throughput=self.retain,
            poll_seconds=300,
            tags={},
        )
        return serve(digest, self.world.bedrock, self.world.releases, env, now=self.utc_now)

    def last_step(self, digest: str = A) -> None:
        """Run the last step to its end, and end its execution."""
        for _ in range(9):
            result = self.step(digest)
            if result["outcome"] == "done":
                break
            assert result["outcome"] == "waiting", result["message"]
            self.sweep()
            self.world.advance(result["seconds"])
        assert result["outcome"] == "done"
        self.end(digest)

    def end(self, digest: str = A) -> None:
        """End the execution."""
        self.world.stepfunctions.stop_execution(executionArn=self.world.release(digest).execution)

    def sweep(self) -> None:
        """Run the hourly sweep."""
        wanted = "" if self.endpoint == ON_DEMAND else self.endpoint
        self.world.sweeper(throughput_name=wanted, retain_throughput=self.retain).sweep()

    @property
    def bought(self) -> set[str]:
        """Return the throughput that is billed by the hour."""
        return {found["name"] for found in self.world.server.state()["throughput"]}

    @property
    def endpoint_name(self) -> str:
        """Return the name of the live endpoint."""
        share = self.world.releases.route().live
        assert share is not None
        state = self.world.server.state()
        return str(
            next(e["name"] for e in state["throughput"] + state["deployments"] if e["arn"] == share.endpoint)
        )

    @property
    def purchases(self) -> int:
        return self.world.calls("CreateProvisionedModelThroughput")


@pytest.fixture
def system(world: World) -> System:
    """Return a system whose release A is live on demand, and whose execution has ended."""
    made = System(world)
    world.deploy(A, world.train(A))
    made.deploy(ON_DEMAND)
    made.roll_out()
    made.end()
    assert made.endpoint_name == release_name(OWNER, A)
    return made


@pytest.fixture
def served(system: System) -> System:
    """Return a system whose release A is live on one model unit."""
    system.deploy(ONE)
    system.roll_out()
    system.last_step()
    assert (system.endpoint_name, system.bought) == (ONE, {ONE})
    return system


def test_throughput_is_bought_by_another_attempt_of_the_live_release(served: System) -> None:
    assert served.world.release(A).attempt == 2
    assert served.purchases == 1
    served.deploy(ONE)
    assert (served.world.release(A).attempt, served.purchases) == (2, 1)


def test_other_units_reach_production_and_the_old_ones_go(served: System) -> None:
    """Case B24."""
    served.deploy(TWO)
    assert (served.endpoint_name, served.bought) == (ONE, {ONE})
    served.sweep()
    assert served.bought == {ONE}
    served.roll_out()
    served.last_step()
    assert (served.endpoint_name, served.bought, served.purchases) == (TWO, {TWO}, 2)
    served.deploy(TWO)
    assert (served.world.release(A).attempt, served.purchases) == (3, 2)


def test_units_that_are_refused_leave_the_release_on_demand_and_no_old_ones(served: System) -> None:
    """Case B24."""
    served.deploy(TWO)
    served.roll_out()
    served.world.server.fault("over_quota", operation="CreateProvisionedModelThroughput", count=None)
    assert served.step()["outcome"] == "failed"
    served.world.sweeper(throughput_name=TWO).sweep(failed=A)
    assert (served.endpoint_name, served.bought) == (release_name(OWNER, A), set())


def test_units_that_are_rolled_back_before_the_purchase_are_never_bought(served: System) -> None:
    """Case B24."""
    served.deploy(TWO)
    served.deploy(ONE)
    served.roll_out()
    served.last_step()
    assert (served.endpoint_name, served.bought, served.purchases) == (ONE, {ONE}, 1)


def test_back_to_on_demand_the_throughput_goes(served: System) -> None:
    served.deploy(ON_DEMAND)
    assert (served.endpoint_name, served.bought) == (ONE, {ONE})
    served.roll_out()
    served.sweep()
    assert (served.endpoint_name, served.bought) == (release_name(OWNER, A), set())


def test_retained_throughput_stays_when_the_settings_go_back_to_on_demand(served: System) -> None:
    """Case B22."""
    served.retain = True
    served.deploy(ON_DEMAND)
    served.roll_out()
    served.sweep()
    assert (served.endpoint_name, served.bought) == (release_name(OWNER, A), {ONE})


def test_last_step_that_buys_throughput_no_longer_configured_is_stopped(system: System) -> None:
    """Its old definition would move the requests to throughput that the settings no longer have."""
    system.deploy(ONE)
    system.roll_out()
    assert system.step()["outcome"] == "waiting"
    execution = system.world.release(A).execution
    system.deploy(ON_DEMAND)
    found = system.world.stepfunctions.describe_execution(executionArn=execution)
    assert (found["status"], system.world.release(A).throughput) == ("ABORTED", "")
    assert (system.world.release(A).attempt, system.world.release(A).state) == (2, LIVE)
    system.sweep()
    assert (system.endpoint_name, system.bought) == (release_name(OWNER, A), set())


def test_last_step_that_buys_other_units_than_are_asked_for_now_is_begun_anew(system: System) -> None:
    system.deploy(ONE)
    system.roll_out()
    system.step()
    first = system.world.release(A).execution
    system.deploy(TWO)
    found = system.world.stepfunctions.describe_execution(executionArn=first)
    release = system.world.release(A)
    assert (found["status"], release.attempt, release.state) == ("ABORTED", 3, WAITING)
    system.roll_out()
    system.last_step()
    assert (system.endpoint_name, system.bought) == (TWO, {TWO})


@pytest.mark.parametrize("twice", [False, True])
def test_last_step_that_moves_to_the_configured_endpoint_continues(system: System, twice: bool) -> None:
    system.deploy(ONE)
    system.roll_out()
    system.step()
    system.deploy(ONE, twice=twice)
    release = system.world.release(A)
    assert (release.attempt, release.state, release.throughput) == (2, LIVE, ONE)
    system.last_step()
    assert (system.endpoint_name, system.purchases) == (ONE, 1)


def test_event_that_comes_twice_does_not_stop_what_its_first_delivery_started(system: System) -> None:
    """The second one comes when the release is live again, and has not begun its last step yet."""
    before, system.endpoint = system.endpoint, ONE
    event = Event.parse(system.release_event("Update", before))
    release_handler.handle(event, system.services)
    system.roll_out()
    release_handler.handle(event, system.services)
    release = system.world.release(A)
    found = system.world.stepfunctions.describe_execution(executionArn=release.execution)
    assert (release.attempt, release.state, found["status"]) == (2, LIVE, "RUNNING")


def test_release_that_serves_as_asked_and_tidies_up_is_let_be(system: System) -> None:
    system.world.begin(A, 2, run=True)
    system.roll_out()
    system.deploy(ON_DEMAND)
    assert system.world.executions()[f"{A}-2"] == "RUNNING"
    assert system.world.release(A).attempt == 2


def test_successor_takes_over_the_throughput(served: System) -> None:
    world = served.world
    world.deploy(B, world.train(B))
    served.deploy(ONE, B)
    served.sweep()
    served.roll_out(B)
    served.sweep()
    assert (served.endpoint_name, served.bought) == (release_name(OWNER, B), {ONE})
    served.last_step(B)
    assert (served.endpoint_name, served.bought, served.purchases) == (ONE, {ONE}, 1)
    assert world.calls("UpdateProvisionedModelThroughput") == 1


def test_successor_that_the_throughput_does_not_move_to_serves_on_demand_and_it_goes_at_once(
    served: System,
) -> None:
    world = served.world
    world.deploy(B, world.train(B))
    served.deploy(ONE, B)
    served.roll_out(B)
    world.server.fault("throughput_update_failed", count=None)
    results = [served.step(B)["outcome"]]
    world.advance(30 * MINUTE)
    results.append(served.step(B)["outcome"])
    assert results == ["waiting", "failed"]
    world.sweeper(throughput_name=ONE).sweep(failed=B)
    assert (served.endpoint_name, served.bought) == (release_name(OWNER, B), set())
    assert named(B) <= world.models()


def test_step_of_an_attempt_that_was_begun_again_buys_nothing(system: System) -> None:
    """A function that is still running when its execution is stopped: the release is no longer live."""
    system.deploy(ONE)
    system.roll_out()
    system.deploy(TWO)
    assert system.world.release(A).state == WAITING
    assert system.step()["outcome"] == "failed"
    assert system.purchases == 0


def test_nothing_is_bought_for_a_stack_that_is_being_deleted(system: System) -> None:
    system.deploy(ONE)
    system.roll_out()
    system.world.close()
    assert system.step()["outcome"] == "failed"
    assert system.world.server.state()["throughput"] == []


def test_failed_attempt_leaves_the_live_release(served: System) -> None:
    served.deploy(TWO)
    served.world.releases.transition(A, FAILED, "refused by the gate")
    served.end()
    served.sweep()
    assert (served.endpoint_name, served.bought) == (ONE, {ONE})


@pytest.mark.parametrize("when", ["creating", "endpoint_name"])
def test_end_of_the_stack_leaves_nothing_that_is_paid(system: System, when: str) -> None:
    system.deploy(ONE)
    system.roll_out()
    if when == "endpoint_name":
        system.last_step()
    else:
        system.step()
    system.delete()
    assert (system.bought, system.world.deployments()) == (set(), set())


def test_rollback_by_hand_to_the_deployment_frees_the_throughput(served: System) -> None:
    """As in the runbook; the next deployment moves the release to throughput again."""
    world = served.world
    deployment = world.bedrock.get_custom_model_deployment(
        customModelDeploymentIdentifier=release_name(OWNER, A)
    )["customModelDeploymentArn"]
    world.settle(live_share(A, deployment))
    served.sweep()
    assert served.bought == set()
    served.deploy(ONE)
    assert world.release(A).attempt == 3


def test_throughput_carries_its_owners_tag(served: System) -> None:
    (found,) = served.world.server.state()["throughput"]
    assert found["tags"][OWNER_TAG] == OWNER


@pytest.fixture
def committed(system: System) -> System:
    """Return a system whose release A is live on a month's commitment."""
    system.deploy(MONTH)
    system.roll_out()
    system.last_step()
    assert (system.endpoint_name, system.bought) == (MONTH, {MONTH})
    return system


@pytest.mark.parametrize("endpoint", [ON_DEMAND, ONE, TWO])
def test_a_commitment_that_runs_is_not_left(committed: System, endpoint: str) -> None:
    """It would be billed and renew itself unseen."""
    before = committed.world.release(A)

    reason = committed.refuses(endpoint)

    for text in (
        f"{MONTH} is committed until",
        "hours of 1 model units are left",
        "USD at 50 USD",
        'retention.throughput = "retain"',
    ):
        assert text in reason
    assert committed.world.release(A) == before
    # CloudFormation rolls it back.
    committed.deploy(MONTH)
    committed.sweep()
    assert (committed.endpoint_name, committed.bought) == (MONTH, {MONTH})


def test_a_commitment_is_left_on_purpose(committed: System) -> None:
    committed.retain = True
    committed.deploy(ON_DEMAND)
    committed.roll_out()
    committed.sweep()

    assert (committed.endpoint_name, committed.bought) == (release_name(OWNER, A), {MONTH})


def test_a_commitment_whose_term_is_over_is_left_and_deleted(committed: System) -> None:
    committed.world.advance(31 * 24 * HOUR)
    committed.deploy(ON_DEMAND)
    committed.roll_out()
    committed.sweep()

    assert (committed.endpoint_name, committed.bought) == (release_name(OWNER, A), set())


def test_a_temporary_error_does_not_end_the_check_of_commitments(
    served: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    served.world.server.fault("throttled", operation="ListProvisionedModelThroughputs", count=2)
    served.deploy(ON_DEMAND)
    assert served.world.release(A).attempt == 3


def test_the_end_of_the_stack_is_refused_while_a_commitment_runs(committed: System) -> None:
    """Before anything has ended: the release serves on."""
    with pytest.raises(ResourceError, match="is committed until"):
        committed.delete()

    assert (committed.endpoint_name, committed.world.releases.declared()) == (MONTH, A)
    assert committed.world.executions()[f"{A}-2"] != "RUNNING"
    assert named(A) <= committed.world.deployments()
    committed.world.advance(31 * 24 * HOUR)
    committed.delete()
    assert committed.bought == set()


def test_throughput_that_the_stack_keeps_is_told_and_free_for_the_next_stack(committed: System) -> None:
    committed.retain = True
    with logged(throughput.logger) as lines:
        committed.delete()

    assert committed.bought == {MONTH}
    assert "is committed until" in lines.getvalue()
    (found,) = committed.world.server.state()["throughput"]
    assert (ownership.claims(found["tags"]), found["tags"][OWNER_TAG]) == ({}, OWNER)


def test_the_end_of_the_stack_leaves_throughput_of_other_resources(served: System) -> None:
    """A deployment bought it for the same owner."""
    other = Claimant(RELEASE.stack_id, "Throughput")
    made = served.world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=f"{OWNER}-router-1mu-1m",
        modelId=served.world.train(B),
        modelUnits=1,
        commitmentDuration="OneMonth",
        tags=bedrock_tags({OWNER_TAG: OWNER, **other.tag}),
    )
    served.delete()
    (left,) = served.world.server.state()["throughput"]
    assert left["arn"] == made["provisionedModelArn"]


def test_commitment_that_is_not_listed_yet_is_not_left(
    committed: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bedrock's lists lag behind a purchase."""
    listed, lists = throughput.listed, list[bool]()

    def late(bedrock: Any) -> Iterator[Mapping[str, Any]]:
        lists.append(True)
        return iter(()) if len(lists) == 1 else listed(bedrock)

    monkeypatch.setattr(throughput, "listed", late)
    assert f"{MONTH} is committed until" in committed.refuses(ON_DEMAND, absence_seconds=1)


def test_commitment_that_only_the_table_knows_yet_is_not_left_by_a_delete(
    committed: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "listed", lambda _: iter(()))
    with pytest.raises(ResourceError, match=f"{MONTH} is committed until"):
        committed.delete()
