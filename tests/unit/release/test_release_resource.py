"""The custom resource Release: what CloudFormation's events start, stop and remove."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from distillation_job import handler as job_handler
from distilled_router.aws.custom_resource import Event
from distilled_router.aws.errors import ResourceError
from distilled_router.aws.fence import SupersededError
from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, bedrock_tags, release_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.release.declarations import Declaration, Declarations
from distilled_router.release.route import HeadFile, Share
from distilled_router.release.table import (
    FAILED,
    LIVE,
    RETIRED,
    SUPERSEDED,
    WAITING,
    Releases,
    RouteChangedError,
)
from release.handler import Services, check, handle, is_complete
from tests.unit import requests_table
from tests.unit.candidate.polls import TWICE, all_jobs, poll
from tests.unit.framework import Framework, Response, delete
from tests.unit.local.bedrock.scenes import HOUR, MINUTE
from tests.unit.release_world import JOB, OWNER, PASSING, RELEASE, A, B, C, Proxy, World, live_share, named
from tests.unit.resource_scenes import job_properties

UNITS = f"{OWNER}-1mu"


class Resource:
    """CloudFormation's side: sends events as the Provider framework does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests = 0
        self.claimant = RELEASE

    def services(self, **clients: Any) -> Services:
        chosen = {"bedrock": self.world.bedrock, "stepfunctions": self.world.stepfunctions, **clients}
        return Services(s3=self.world.s3, releases=self.world.releases, **chosen)

    def event(self, kind: str, digest: str, physical_id: str | None = OWNER, **changes: Any) -> Event:
        self.requests += 1
        properties = {
            "Owner": OWNER,
            "Digest": digest,
            "Source": release_name(OWNER, digest),
            "StateMachineArn": self.world.machine,
            "Bucket": self.world.bucket,
            "RetainModels": "false",
            "RetainReports": "false",
            **changes,
        }
        return Event.parse(
            {
                "RequestType": kind,
                "RequestId": f"request-{self.requests}",
                "StackId": self.claimant.stack_id,
                "LogicalResourceId": self.claimant.logical_id,
                "PhysicalResourceId": None if kind == "Create" else physical_id,
                "ResourceProperties": properties,
            }
        )

    def send(self, event: Event, **clients: Any) -> dict[str, Any]:
        """Run onEvent; return the event for isComplete."""
        answer = handle(event, self.services(**clients))
        return {**event.raw, **answer}

    def deploy(self, digest: str, kind: str = "Update") -> None:
        """Run a whole Create or Update."""
        asked = self.send(self.event(kind, digest))
        assert asked["PhysicalResourceId"] == OWNER
        assert check(Event.parse(asked), self.services()) == {"IsComplete": True}

    def delete(self, digest: str, polls: int = 1, **changes: Any) -> bool:
        """Send a Delete and poll this often; return whether it completed."""
        asked = Event.parse(self.send(self.event("Delete", digest, **changes)))
        return any(check(asked, self.services())["IsComplete"] for _ in range(polls))


@pytest.fixture
def resource(world: World) -> Resource:
    return Resource(world)


def test_create_starts_one_execution_and_waits_for_nothing(world: World, resource: Resource) -> None:
    resource.deploy(A, "Create")
    assert world.executions() == {f"{A}-1": "RUNNING"}
    found = world.stepfunctions.describe_execution(executionArn=world.execution(A))
    whose = f'"resource": "{RELEASE.logical_id}", "stack": "{RELEASE.stack_id}"'
    assert found["input"] == f'{{"release": "{A}", {whose}}}'
    assert (world.release(A).state, world.release(A).execution) == (WAITING, world.execution(A))
    assert world.releases.declared() == A


def test_same_event_twice_is_one_execution(world: World, resource: Resource) -> None:
    """Case B1."""
    event = resource.event("Create", A)
    first, second = resource.send(event), resource.send(event)
    assert first == second
    assert first["StartError"] is None
    assert world.executions() == {f"{A}-1": "RUNNING"}


@pytest.mark.parametrize("state", [FAILED, LIVE, RETIRED])
def test_event_that_comes_again_after_its_execution_ended_starts_nothing(
    world: World, resource: Resource, state: str
) -> None:
    """Case B1."""
    world.change_machine(PASSING)
    event = resource.event("Create", A)
    resource.send(event)
    world.releases.transition(A, state, "ended")
    assert resource.send(event)["StartError"] is None
    assert list(world.executions()) == [f"{A}-1"]
    assert world.release(A).state == state


def test_event_that_comes_again_after_a_crash_before_the_start_starts_its_own_attempt(
    world: World, resource: Resource
) -> None:
    crash = Proxy(world.stepfunctions, start_execution=Mock(side_effect=KeyboardInterrupt))
    event = resource.event("Create", A)
    with pytest.raises(KeyboardInterrupt):
        resource.send(event, stepfunctions=crash)
    resource.send(event)
    assert world.executions() == {f"{A}-1": "RUNNING"}


def test_the_release_knows_where_its_model_comes_from(world: World, resource: Resource) -> None:
    model = "arn:aws:bedrock:us-east-1:000000000000:custom-model/x/0a1b2c3d4e5f"
    resource.send(resource.event("Create", A))
    resource.send(resource.event("Update", B, Source=model))
    assert (world.release(A).source, world.release(A).is_adopted) == (f"{OWNER}-{A}", False)
    assert (world.release(B).source, world.release(B).is_adopted) == (model, True)


def test_redeploy_while_the_job_runs_changes_nothing(world: World, resource: Resource) -> None:
    """It changes neither job nor release nor route, whichever property differs. Case T12."""
    resource.deploy(A, "Create")
    world.start_job(A)
    assert poll(world)["outcome"] == "waiting"
    before, calls = world.release(A), len(world.server.calls())
    resource.deploy(A)
    resource.send(resource.event("Update", A, Gate='{"minimum_examples": 1}'))
    assert world.executions() == {f"{A}-1": "RUNNING"}
    assert (world.release(A), world.releases.route().version) == (before, 0)
    assert len(world.server.calls()) == calls
    assert poll(world)["outcome"] == "waiting"
    assert all_jobs(world) == {f"{OWNER}-{A}": "InProgress"}


def test_new_digest_ends_the_release_in_progress_and_its_candidate_is_removed(
    world: World, resource: Resource
) -> None:
    """The live release stays live, and the old job belongs to its own resource."""
    resource.deploy(A, "Create")
    live = world.deploy(A, claimed(world, A))
    world.releases.update(A, state=LIVE)
    world.settle(live_share(A, live))
    resource.deploy(B)
    world.deploy(B, claimed(world, B))
    resource.deploy(C)
    world.start_job(C)
    assert world.executions() == {f"{A}-1": "RUNNING", f"{B}-1": "ABORTED", f"{C}-1": "RUNNING"}
    # As at the end of an execution.
    world.sweeper(keep=1).sweep()
    assert world.deployments() == named(A)
    assert world.models() == named(A)
    assert world.releases.route().shares == (live_share(A, live),)
    assert (world.release(B).state, world.release(C).state) == (SUPERSEDED, WAITING)
    assert poll(world, B)["outcome"] == "failed"
    assert poll(world, C)["outcome"] == "waiting"


def test_new_digest_supersedes_the_release_in_progress_and_leaves_the_live_release(
    world: World, resource: Resource
) -> None:
    resource.deploy(A, "Create")
    world.releases.transition(A, LIVE, "serves")
    resource.deploy(B)
    world.settle(Share(B, "arn:b", 0.25, expires_at=int(world.now) + 60), Share(A, "arn:a", 0.75))
    resource.deploy(C)
    assert world.executions() == {f"{A}-1": "RUNNING", f"{B}-1": "ABORTED", f"{C}-1": "RUNNING"}
    assert (world.release(A).state, world.release(B).state) == (LIVE, SUPERSEDED)
    assert C in world.release(B).message
    assert world.releases.route().shares == (Share(A, "arn:a", 1.0),)
    assert world.releases.declared() == C


def test_superseding_that_died_halfway_is_finished_by_the_same_event(
    world: World, resource: Resource
) -> None:
    resource.deploy(A, "Create")
    event = resource.event("Update", B)
    crash = Proxy(world.stepfunctions, stop_execution=Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        resource.send(event, stepfunctions=crash)
    assert world.release(A).state == SUPERSEDED
    resource.send(event)
    assert world.executions() == {f"{A}-1": "ABORTED", f"{B}-1": "RUNNING"}


def test_superseded_release_retries_no_job_after_its_own_is_deleted(world: World, resource: Resource) -> None:
    """Stacks are updated in order, the job's first: until then the old release still waits."""
    resource.deploy(A, "Create")
    failed_job(world)
    assert delete_job(world, A).succeeded
    result = poll(world, **TWICE)
    assert (result["outcome"], "was deleted from its stack" in result["message"]) == ("failed", True)
    resource.deploy(B)
    assert all_jobs(world) == {f"{OWNER}-{A}": "Failed"}


def test_delete_of_the_stacks_ends_the_job_that_a_release_retried(world: World, resource: Resource) -> None:
    """Case T10."""
    resource.deploy(A, "Create")
    failed_job(world)
    assert poll(world, **TWICE)["outcome"] == "waiting"
    second = f"{OWNER}-{A}-2"
    assert all_jobs(world)[second] == "InProgress"
    assert resource.delete(A, polls=2)
    # A release stack that is created again must not cost another training.
    assert all_jobs(world)[second] == "InProgress"
    # A release step that is still running creates nothing any more.
    assert poll(world, **TWICE)["outcome"] == "failed"
    assert delete_job(world, A).succeeded
    assert all_jobs(world) == {f"{OWNER}-{A}": "Failed", second: "Stopped"}
    assert world.models() == set()


def failed_job(world: World) -> None:
    """Return A's job after an internal error of Bedrock."""
    world.server.fault("job_failed")
    world.start_job(A)
    world.advance(HOUR)
    assert all_jobs(world) == {f"{OWNER}-{A}": "Failed"}


def delete_job(world: World, digest: str) -> Response:
    """Delete the job as its own resource does."""
    name, now = release_name(OWNER, digest), world.server.clock.now
    properties = job_properties(
        JobName=name,
        CustomModelName=name,
        TrainingDataUri=f"s3://data/{name}.jsonl",
        OutputDataUri="s3://data/output/",
        Tags={OWNER_TAG: OWNER, DIGEST_TAG: digest},
    )
    framework = Framework(
        lambda e: job_handler.handle(Event.parse(e), now),
        lambda e: job_handler.check(Event.parse(e), world.bedrock, world.s3, now),
        tick=lambda: world.advance(5 * MINUTE),
    )
    return framework.send(delete(name, properties))


def test_execution_that_ends_as_it_is_stopped_is_no_error(world: World, resource: Resource) -> None:
    resource.deploy(A, "Create")
    refusal = ClientError({"Error": {"Code": "ValidationException"}}, "StopExecution")
    ended = Proxy(world.stepfunctions, stop_execution=Mock(side_effect=refusal))
    asked = resource.send(resource.event("Update", B), stepfunctions=ended)
    assert asked["StartError"] is None


@pytest.mark.parametrize(
    ("serves", "wanted", "starts"),
    [
        ("custom-model-deployment/1", "on_demand", False),
        ("provisioned-model/1", UNITS, False),
        ("provisioned-model/1", f"{OWNER}-2mu", True),
        ("provisioned-model/1", "on_demand", True),
        ("custom-model-deployment/1", UNITS, True),
    ],
)
def test_live_digest_is_released_again_only_for_another_endpoint(
    world: World, resource: Resource, serves: str, wanted: str, starts: bool
) -> None:
    named_in_route = UNITS if "provisioned" in serves else ""
    world.begin(A, attempt=7, state=LIVE, throughput=named_in_route)
    world.settle(live_share(A, f"arn:aws:bedrock:us-east-1:000000000000:{serves}"))
    resource.send(resource.event("Update", A, Endpoint=wanted))
    assert list(world.executions()) == ([f"{A}-8"] if starts else [])
    assert world.releases.route().live is not None


def test_rollback_to_the_live_digest_starts_nothing_and_ends_its_successor(
    world: World, resource: Resource
) -> None:
    resource.deploy(A, "Create")
    world.releases.transition(A, LIVE, "serves")
    world.settle(live_share(A))
    resource.deploy(B)
    resource.deploy(A)
    assert world.executions() == {f"{A}-1": "RUNNING", f"{B}-1": "ABORTED"}
    assert world.releases.declared() == A
    assert world.releases.route().shares == (live_share(A),)


def test_rollback_to_a_retired_digest_takes_it_through_the_gate_again(
    world: World, resource: Resource
) -> None:
    resource.deploy(A, "Create")
    world.releases.transition(A, RETIRED, "replaced")
    world.begin(B)
    world.releases.transition(B, LIVE, "serves")
    world.settle(live_share(B))
    resource.deploy(A)
    assert (world.release(A).attempt, world.release(A).state) == (2, WAITING)
    assert world.releases.route().shares == (live_share(B),)


def test_failed_digest_that_is_deployed_again_is_tried_again(world: World, resource: Resource) -> None:
    world.change_machine(PASSING)
    resource.deploy(A, "Create")
    world.releases.transition(A, FAILED, "refused by the gate")
    resource.deploy(A)
    assert sorted(world.executions()) == [f"{A}-1", f"{A}-2"]
    assert (world.release(A).attempt, world.release(A).state) == (2, WAITING)


def test_release_whose_execution_was_stopped_by_hand_is_tried_again(world: World, resource: Resource) -> None:
    resource.deploy(A, "Create")
    world.stepfunctions.stop_execution(executionArn=world.execution(A))
    resource.deploy(A)
    assert world.executions() == {f"{A}-1": "ABORTED", f"{A}-2": "RUNNING"}


def test_execution_name_of_an_earlier_life_is_passed_over(world: World, resource: Resource) -> None:
    """The table is new, but names of closed executions stay taken for 90 days."""
    world.stepfunctions.start_execution(stateMachineArn=world.machine, name=f"{A}-1")
    world.stepfunctions.stop_execution(executionArn=world.execution(A))
    event = resource.event("Create", A)
    assert resource.send(event)["StartError"] is None
    assert resource.send(event)["StartError"] is None
    assert world.executions() == {f"{A}-1": "ABORTED", f"{A}-2": "RUNNING"}
    assert world.release(A).execution == world.execution(A, 2)


def test_failed_start_leaves_the_resource_incomplete(world: World, resource: Resource) -> None:
    """After an error, the framework drops the Delete that follows, and with it the clean-up. Case B12."""
    event = resource.event("Create", A, StateMachineArn=f"{world.machine}-of-nobody")
    asked = resource.send(event)
    assert asked["PhysicalResourceId"] == OWNER
    with pytest.raises(ResourceError, match=f"Release {A} could not be started: .*StateMachineDoesNotExist"):
        check(Event.parse(asked), resource.services())
    assert resource.delete(A)
    assert world.release(A).state == SUPERSEDED


def test_execution_whose_start_was_not_confirmed_is_stopped_by_the_delete(
    world: World, resource: Resource
) -> None:
    """Case B12."""

    def lost(**parameters: Any) -> None:
        world.stepfunctions.start_execution(**parameters)
        raise ReadTimeoutError(endpoint_url="https://states")

    asked = resource.send(
        resource.event("Create", A), stepfunctions=Proxy(world.stepfunctions, start_execution=lost)
    )
    with pytest.raises(ResourceError, match="did not confirm"):
        check(Event.parse(asked), resource.services())
    assert world.executions() == {f"{A}-1": "RUNNING"}
    assert resource.delete(A, polls=2)
    assert world.executions() == {f"{A}-1": "ABORTED"}


def claimed(world: World, digest: str) -> str:
    """The model of a release whose job's resource is gone."""
    model = world.train(digest)
    world.claim(model)
    world.unclaim(model)
    return model


def serving(world: World, resource: Resource) -> None:
    """Return a resource where A is live and B is declared and has 25 %; both have model, deployment and
    report."""
    resource.deploy(A, "Create")
    a, b = claimed(world, A), world.train(B)
    world.claim(b)
    world.releases.transition(A, LIVE, "serves")
    resource.deploy(B)
    world.settle(
        Share(B, world.deploy(B, b), 0.25, expires_at=int(world.now) + 60),
        Share(A, world.deploy(A, a), 0.75),
    )
    for digest in (A, B):
        for _ in range(2):
            key = f"releases/{OWNER}/{digest}-1/report.json"
            world.s3.put_object(Bucket=world.bucket, Key=key, Body=b"{}")
    world.s3.put_object(Bucket=world.bucket, Key=f"releases/other/{A}-1/report.json", Body=b"{}")
    world.s3.put_object(Bucket=world.bucket, Key="datasets/kept.jsonl", Body=b"{}")


def versions(world: World) -> list[str]:
    found = world.s3.list_object_versions(Bucket=world.bucket)
    return [item["Key"] for item in (*found.get("Versions", []), *found.get("DeleteMarkers", []))]


def test_delete_ends_all_but_the_model_that_its_job_claims(world: World, resource: Resource) -> None:
    """The declared model is deleted with its job's resource: a new release stack must not pay again."""
    serving(world, resource)
    assert resource.delete(B, polls=3)
    assert set(world.executions().values()) == {"ABORTED"}
    assert world.releases.route().shares == ()
    assert world.releases.declared() is None
    assert world.deployments() == set()
    assert world.models() == named(B)
    assert versions(world) == ["datasets/kept.jsonl", f"releases/other/{A}-1/report.json"]


def test_files_that_the_route_names_are_deleted_after_it_is_emptied(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router could not load the head of a release that still answers."""
    serving(world, resource)
    head = HeadFile(f"releases/{OWNER}/{A}-1/head.bin", "0" * 64)
    world.s3.put_object(Bucket=world.bucket, Key=head.key, Body=b"head")
    world.settle(Share(A, "arn:a", 1.0, head=head))
    with monkeypatch.context() as patched:
        patched.setattr(Releases, "set_route", Mock(side_effect=RouteChangedError("...")))
        assert not resource.delete(B, polls=3)
    assert head.key in versions(world)
    assert resource.delete(B, polls=3)
    assert head.key not in versions(world)


def test_second_delete_changes_nothing(world: World, resource: Resource) -> None:
    """Case B10."""
    serving(world, resource)
    resource.delete(B, polls=3)
    version, calls = world.releases.route().version, len(world.server.calls())
    assert resource.delete(B)
    assert world.releases.route().version == version
    assert {call["operation"] for call in world.server.calls()[calls:]} == {
        "GetCustomModelDeployment",
        "ListCustomModelDeployments",
        "ListCustomModels",
        "ListEvaluationJobs",
        "ListProvisionedModelThroughputs",
        "ListTagsForResource",
    }


def test_retained_models_and_reports_stay(world: World, resource: Resource) -> None:
    """Case B15."""
    serving(world, resource)
    assert resource.delete(B, polls=3, RetainModels="true", RetainReports="true")
    assert world.deployments() == set()
    assert world.models() == named(A, B)
    assert len(versions(world)) == 6


def test_invented_physical_id_ends_what_the_resource_claims(world: World, resource: Resource) -> None:
    """Case B10: CloudFormation got no answer to the Create, and made an id up."""
    serving(world, resource)
    assert resource.delete(B, polls=3, physical_id="stack-Release-1ABCDEF")
    assert set(world.executions().values()) == {"ABORTED"}
    assert (world.deployments(), world.releases.route().shares) == (set(), ())


def moved(resource: Resource, logical_id: str = "ReleaseMoved") -> Resource:
    """The same construct under another logical id."""
    other = Resource(resource.world)
    other.claimant, other.requests = Claimant(RELEASE.stack_id, logical_id), 100
    return other


def claims_of(world: World) -> set[str]:
    """The logical ids that claim any deployment, model or throughput."""
    state = world.server.state()
    things = [*state["deployments"], *state["models"], *state["throughput"]]
    claims = [ownership.claims(ownership.read_tags(world.bedrock, one["arn"]) or {}) for one in things]
    return {text.rpartition(" ")[2] for found in claims for text in found.values()}


def test_moved_construct_keeps_route_declaration_and_all_that_is_paid_for(
    world: World, resource: Resource
) -> None:
    serving(world, resource)
    before, deployments = world.releases.route(), world.deployments()
    new = moved(resource)
    new.deploy(B, "Create")
    assert claims_of(world) == {JOB.logical_id, RELEASE.logical_id, "ReleaseMoved"}
    assert resource.delete(B)
    assert world.executions()[f"{B}-1"] == "RUNNING"
    assert (world.releases.route(), world.deployments()) == (before, deployments)
    assert len(versions(world)) == 6
    assert (world.models(), world.releases.declared()) == (named(A, B), B)
    assert claims_of(world) == {JOB.logical_id, "ReleaseMoved"}
    assert new.delete(B, polls=3)
    assert (world.deployments(), world.models()) == (set(), named(B))


def test_step_that_runs_while_a_construct_is_moved_leaves_nothing_to_the_old_name(
    world: World, resource: Resource
) -> None:
    """Nobody would ever remove what is claimed by a logical id that no longer exists."""
    resource.deploy(A, "Create")
    model = world.train(A)
    new = moved(resource)
    with world.releases.creating(A, RELEASE) as allowed:
        assert allowed
        new.deploy(B, "Create")
        assert not resource.delete(A, polls=3)
        world.claim(model)
        world.deploy(A, model)
    assert resource.delete(A)
    assert claims_of(world) == {JOB.logical_id, "ReleaseMoved"}
    world.unclaim(model)
    assert new.delete(B, polls=3)
    assert (world.deployments(), world.models()) == (set(), set())


def test_new_name_sweeps_while_a_construct_is_moved(world: World, resource: Resource) -> None:
    """What the old name claims, too, it keeps, although no release needs it."""
    serving(world, resource)
    for model in world.server.state()["models"]:
        world.unclaim(model["arn"])
    new = moved(resource)
    new.deploy(B, "Create")
    swept = set[str]()

    def tag(**parameters: Any) -> Any:
        answer = world.bedrock.tag_resource(**parameters)
        arn = parameters["resourceARN"]
        if arn not in swept:
            swept.add(arn)
            world.sweeper(keep=0, claimant=new.claimant).sweep()
        return answer

    asked = Event.parse(resource.send(resource.event("Delete", B)))
    check(asked, resource.services(bedrock=Proxy(world.bedrock, tag_resource=tag)))
    assert swept
    assert claims_of(world) == {"ReleaseMoved"}
    assert new.delete(B, polls=3)
    assert (world.deployments(), world.models()) == (set(), set())


def test_refusal_while_a_construct_is_moved_leaves_the_rest_to_its_new_name(
    world: World, resource: Resource
) -> None:
    """CloudFormation abandons a Delete that fails in clean-up, so the new name must be able to end all."""
    serving(world, resource)
    new = moved(resource)
    new.deploy(B, "Create")
    (denied, *_) = (one["arn"] for one in world.server.state()["deployments"])

    def untag(**parameters: Any) -> Any:
        if parameters["resourceARN"] == denied:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "UntagResource")
        return world.bedrock.untag_resource(**parameters)

    asked = Event.parse(resource.send(resource.event("Delete", B)))
    with pytest.raises(ResourceError, match="AccessDeniedException: no"):
        check(asked, resource.services(bedrock=Proxy(world.bedrock, untag_resource=untag)))
    assert [one.claimant for one in world.releases.declarations.all()] == [new.claimant]
    ownership.remove_tags(world.bedrock, denied, [RELEASE.key])
    assert claims_of(world) == {JOB.logical_id, "ReleaseMoved"}
    assert new.delete(B, polls=3)
    assert (world.deployments(), world.releases.route().shares) == (set(), ())


def test_move_that_is_rolled_back_leaves_the_first_resource_as_it_was(
    world: World, resource: Resource
) -> None:
    serving(world, resource)
    new = moved(resource)
    new.deploy(C, "Create")
    assert world.releases.declared() == C
    assert new.delete(C, physical_id="stack-ReleaseMoved-1ABCDEF")
    assert world.releases.declared() == B
    assert claims_of(world) == {JOB.logical_id, RELEASE.logical_id}
    live = world.releases.route().live
    assert live is not None
    assert (live.digest, live.endpoint in {one["arn"] for one in world.server.state()["deployments"]}) == (
        A,
        True,
    )


def test_another_owner_is_refused_before_anything_changes(world: World, resource: Resource) -> None:
    """The roles could not delete what has the old owner's tag."""
    serving(world, resource)
    raw = dict(resource.event("Update", B).raw)
    raw["ResourceProperties"] = {**raw["ResourceProperties"], "Owner": "movies"}
    raw["OldResourceProperties"] = {**raw["ResourceProperties"], "Owner": OWNER}
    other = Releases(world.releases.table, "movies", world.releases.now)
    services = replace(resource.services(), releases=other)
    with pytest.raises(ResourceError, match=f"can't change from {OWNER} to movies"):
        handle(Event.parse(raw), services)
    assert (other.declared(), world.releases.declared()) == (None, B)


def test_rollback_of_a_refused_owner_is_not_refused(world: World, resource: Resource) -> None:
    """CloudFormation rolls back the refused Update by another one, from the new owner to the old one."""
    serving(world, resource)
    raw = dict(resource.event("Update", B).raw)
    raw["OldResourceProperties"] = {**raw["ResourceProperties"], "Owner": "movies"}
    asked = {**raw, **handle(Event.parse(raw), resource.services())}
    assert (asked["PhysicalResourceId"], asked["StartError"]) == (OWNER, None)
    assert check(Event.parse(asked), resource.services()) == {"IsComplete": True}


def test_delete_of_one_owner_leaves_another_owners_route_and_declaration(
    world: World, resource: Resource
) -> None:
    """Two standalone releases share a table."""
    serving(world, resource)
    other = Releases(world.releases.table, "movies", world.releases.now)
    other.declarations.declare(Claimant(RELEASE.stack_id, "Movies"), C)
    other.set_route((live_share(C),), after=other.route(), reason="live")
    assert resource.delete(B, polls=3)
    assert (other.declared(), other.route().shares) == (C, (live_share(C),))


def test_create_that_a_newer_request_superseded_starts_nothing(world: World, resource: Resource) -> None:
    raw = resource.event("Create", A).raw
    requests_table.register(world.requests, raw)
    late = world.requests.event(raw)
    requests_table.register(world.requests, resource.event("Delete", A).raw)
    with pytest.raises(SupersededError):
        handle(late, resource.services())
    assert (world.executions(), world.releases.table.scan()["Items"]) == ({}, [])


def test_declaration_that_a_newer_request_overtakes_is_undone(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource.deploy(A, "Create")
    raw = resource.event("Update", B).raw
    requests_table.register(world.requests, raw)
    late = world.requests.event(raw)
    real = Declarations.declare

    def declare(self: Declarations, *given: Any) -> list[Declaration]:
        before = real(self, *given)
        requests_table.register(world.requests, resource.event("Update", A).raw)
        return before

    monkeypatch.setattr(Declarations, "declare", declare)
    with pytest.raises(SupersededError):
        handle(late, resource.services())
    assert (world.executions(), world.releases.declared()) == ({f"{A}-1": "RUNNING"}, A)


def test_execution_that_was_started_while_a_newer_request_arrived_is_stopped(
    world: World, resource: Resource
) -> None:
    raw = resource.event("Create", A).raw
    requests_table.register(world.requests, raw)
    late = world.requests.event(raw)

    def start(**parameters: Any) -> Any:
        requests_table.register(world.requests, resource.event("Delete", A).raw)
        return world.stepfunctions.start_execution(**parameters)

    with pytest.raises(SupersededError):
        handle(late, resource.services(stepfunctions=Proxy(world.stepfunctions, start_execution=start)))
    assert world.executions() == {f"{A}-1": "ABORTED"}


def test_delete_removes_what_the_lists_do_not_show_yet(world: World, resource: Resource) -> None:
    """The table knows it by name or ARN."""
    serving(world, resource)
    model = world.bedrock.get_custom_model(modelIdentifier=f"{OWNER}-{A}")
    world.releases.update(A, model_arn=model["modelArn"])
    assert deleted_with_empty_lists(resource)
    assert (world.deployments(), world.models()) == (set(), named(B))


@pytest.mark.parametrize("known_by", ["name", "ARN"])
def test_delete_removes_throughput_that_the_list_does_not_show_yet(
    world: World, resource: Resource, known_by: str
) -> None:
    """A release knows the name from before the purchase, and the ARN once it has moved there."""
    serving(world, resource)
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=UNITS if known_by == "name" else "renamed-by-hand",
        modelId=f"{OWNER}-{A}",
        modelUnits=1,
        tags=bedrock_tags(RELEASE.tags(OWNER, request="request-1", digest=A)),
    )
    world.advance(HOUR)
    world.releases.update(A, throughput=UNITS)
    if known_by == "ARN":
        world.releases.update(A, endpoint=made["provisionedModelArn"])
    assert deleted_with_empty_lists(resource)
    assert world.server.state()["throughput"] == []


def deleted_with_empty_lists(resource: Resource) -> bool:
    """Delete the resource while Bedrock's lists show nothing; return whether that completed."""
    pages = Proxy(None, paginate=lambda **_: [])
    lagging = Proxy(resource.world.bedrock, get_paginator=lambda _: pages)
    asked = Event.parse(resource.send(resource.event("Delete", B)))
    return any(check(asked, resource.services(bedrock=lagging))["IsComplete"] for _ in range(3))


def test_delete_waits_for_a_deployment_that_is_being_created(world: World, resource: Resource) -> None:
    """Case B34."""
    resource.deploy(A, "Create")
    world.deploy(A, claimed(world, A), wait=False)
    assert not resource.delete(B, polls=2)
    assert world.deployments() == named(A)
    assert world.models() == named(A)
    world.advance(10 * MINUTE)
    assert resource.delete(B)
    assert (world.deployments(), world.models()) == (set(), set())


def test_delete_waits_for_a_step_that_runs_although_its_execution_was_stopped(
    world: World, resource: Resource
) -> None:
    """A running function continues after its execution was stopped, and may still create a resource."""
    resource.deploy(A, "Create")
    model = world.train(A)
    with world.releases.creating(A, RELEASE) as allowed:
        assert allowed
        assert not resource.delete(A, polls=3)
        world.deploy(A, model)
    assert resource.delete(A)
    assert (world.deployments(), world.models()) == (set(), named(A))


def test_delete_removes_what_a_route_named_that_a_human_broke(world: World, resource: Resource) -> None:
    resource.deploy(A, "Create")
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=UNITS,
        modelId=world.train(A),
        modelUnits=1,
        tags=bedrock_tags({OWNER_TAG: OWNER, **RELEASE.tag}),
    )
    world.advance(30 * MINUTE)
    world.settle(live_share(A, made["provisionedModelArn"]))
    world.releases.table.put_item(
        Item={"id": world.releases.key("route"), "version": "none", "shares": "all of them"}
    )
    assert resource.delete(A, polls=2)
    assert world.server.state()["throughput"] == []


def test_delete_waits_for_a_deployment_that_is_being_updated(world: World, resource: Resource) -> None:
    """Case B34."""
    resource.deploy(A, "Create")
    arn = world.deploy(A, world.train(A))
    world.bedrock.update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=world.train(B))
    assert not resource.delete(A, polls=3)
    world.advance(10 * MINUTE)
    assert resource.delete(A)


def test_delete_leaves_a_model_under_throughput_to_the_throughputs_own_end(
    world: World, resource: Resource
) -> None:
    """Case B13."""
    resource.deploy(A, "Create")
    model = world.train(A)
    world.bedrock.create_provisioned_model_throughput(provisionedModelName=OWNER, modelId=model, modelUnits=1)
    assert resource.delete(B, polls=2)
    assert world.models() == named(A)
    assert world.calls("DeleteCustomModel") == 0


def test_model_whose_release_is_not_deployed_yet_outlives_the_serving_stack(
    world: World, resource: Resource
) -> None:
    resource.deploy(A, "Create")
    world.train(B)
    assert resource.delete(A, polls=2)
    assert world.models() == named(B)


def test_route_written_by_a_step_that_still_ran_is_emptied_by_the_next_poll(
    world: World, resource: Resource
) -> None:
    resource.deploy(A, "Create")
    asked = Event.parse(resource.send(resource.event("Delete", A)))
    check(asked, resource.services())
    world.settle(Share(A, "arn:a", 0.25, expires_at=int(world.now) + 60))
    assert check(asked, resource.services())["IsComplete"]
    assert world.releases.route().shares == ()


def test_delete_leaves_heads_switched_off(world: World, resource: Resource) -> None:
    resource.deploy(A, "Create")
    world.settle(Share(A, "arn:a", 1.0, head=HeadFile("head.bin", "0" * 64)))
    world.releases.switch_heads(off=True, after=world.releases.route(), reason="by hand")
    assert resource.delete(A, polls=2)
    assert (world.releases.route().shares, world.releases.route().head_off) == ((), True)


@pytest.mark.parametrize("operation", ["ListCustomModelDeployments", "ListCustomModels"])
def test_throttled_delete_continues_later(
    world: World, resource: Resource, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource.deploy(A, "Create")
    asked = resource.send(resource.event("Delete", A))
    monkeypatch.setattr("release.handler.services", lambda _: resource.services())
    monkeypatch.setenv("TABLE_NAME", "releases")
    requests_table.register(requests_table.provide(monkeypatch), asked)
    world.server.fault("throttled", operation=operation)
    answers = [is_complete(asked, None)["IsComplete"] for _ in range(3)]
    assert answers == [False, False, True]


def test_delete_that_bedrock_denies_fails_and_says_so(world: World, resource: Resource) -> None:
    asked = Event.parse(resource.send(resource.event("Delete", A)))
    world.server.fault("denied", operation="ListCustomModelDeployments")
    with pytest.raises(ResourceError, match="AccessDenied"):
        check(asked, resource.services())


def test_delete_writes_no_release_that_has_ended(world: World, resource: Resource) -> None:
    """Each was written at each poll, however many there had ever been."""
    resource.deploy(A, "Create")
    ended = [f"{number:012d}" for number in range(5)]
    for digest in ended:
        world.releases.begin(digest, attempt=1, execution=world.execution(A), request_id="r")
        world.releases.transition(digest, FAILED, "refused")
    before = {digest: world.release(digest) for digest in ended}
    written: list[str] = []
    events = world.releases.table.meta.client.meta.events

    def note(params: dict[str, Any], **_: Any) -> None:
        written.append(str((params.get("Key") or params["Item"])["id"]))

    for operation in ("UpdateItem", "PutItem"):
        events.register(f"provide-client-params.dynamodb.{operation}", note, unique_id=operation)
    try:
        assert resource.delete(A, polls=3)
    finally:
        for operation in ("UpdateItem", "PutItem"):
            events.unregister(f"provide-client-params.dynamodb.{operation}", unique_id=operation)
    assert {name for name in written if "/release@" in name} == {f"{OWNER}/release@{A}"}
    assert {digest: world.release(digest) for digest in ended} == before
    assert world.release(A).state == SUPERSEDED
