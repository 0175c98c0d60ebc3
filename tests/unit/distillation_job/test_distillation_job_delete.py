"""DistillationJob, Delete: running jobs stop, foreign resources stay, and only retained data is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from distillation_job import handler
from distilled_router.aws.errors import ResourceError
from distilled_router.bedrock import ownership
from tests.unit import framework, requests_table
from tests.unit.resource_scenes import (
    CREATE,
    HOUR,
    NAME,
    NEXT,
    OWNER,
    POLL,
    STOP,
    Meddled,
    World,
    job_properties,
    logged,
    refusal,
    times,
)

Client = Callable[[str], Any]


def test_a_running_job_is_stopped_and_its_end_awaited(world: World) -> None:
    """Cases T10, B8."""
    world.jobs().send(framework.create(job_properties()))

    response = world.jobs().send(framework.delete(NAME, job_properties()))

    assert response.succeeded
    assert response.polls > 1
    assert world.job()["status"] == "Stopped"


def test_a_job_that_still_shows_in_progress_after_stop_is_polled(world: World) -> None:
    """Case B8."""
    world.jobs().send(framework.create(job_properties()))
    job = world.bedrock.get_model_customization_job(jobIdentifier=NAME)
    stale = Stale(world.bedrock, job, answers=6)

    assert world.jobs(stale).send(framework.delete(NAME, job_properties())).succeeded
    assert world.job()["status"] == "Stopped"


class Stale:
    """A client whose first reads of the job return an old state."""

    def __init__(self, client: Any, old: dict[str, Any], answers: int) -> None:
        self._client, self._old, self._left = client, old, answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_model_customization_job(self, **parameters: Any) -> Any:
        """Return the old state a few times, then the current one."""
        if parameters["jobIdentifier"] == NAME:
            self._left -= 1
            if self._left >= 0:
                return self._old
        return self._client.get_model_customization_job(**parameters)


def test_a_job_that_is_stopping_is_awaited_without_another_stop(world: World) -> None:
    """Case B8."""
    world.jobs().send(framework.create(job_properties()))
    world.bedrock.stop_model_customization_job(jobIdentifier=NAME)

    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert len(world.server.calls(STOP)) == 1


def test_a_second_delete_changes_nothing(world: World) -> None:
    """Case T10."""
    world.jobs().send(framework.create(job_properties()))
    event = framework.delete(NAME, job_properties())
    world.jobs().send(event)
    before = world.written()

    assert world.jobs().send(event).succeeded
    assert world.written() == before


@pytest.mark.parametrize("code", ["ConflictException", "ValidationException"])
def test_a_job_that_completes_before_the_stop_loses_its_model(world: World, code: str) -> None:
    """Case B9."""
    world.jobs().send(framework.create(job_properties()))

    def completes() -> None:
        world.server.advance(3 * HOUR)
        raise refusal(code, "The job can't be stopped.")

    late = Meddled(world.bedrock, before={"stop_model_customization_job": completes})
    response = world.jobs(late).send(framework.delete(NAME, job_properties()))

    assert response.succeeded
    assert world.job()["status"] == "Completed"
    assert world.server.state()["models"] == []


INVENTED = f"{NAME}-JobResource-1ABCDEFGHIJKL"


def test_a_delete_with_an_invented_id_stops_the_job(world: World) -> None:
    """CloudFormation invents an id for a Create that it cancelled before an answer. Case B10."""
    world.jobs().send(framework.create(job_properties()))

    response = world.jobs().send(framework.delete(INVENTED, job_properties()))

    assert (response.succeeded, response.physical_id) == (True, INVENTED)
    assert world.running() == []
    assert world.count(STOP) == 1


def test_a_delete_with_an_invented_id_deletes_the_model(world: World) -> None:
    """Case B10."""
    world.jobs().send(framework.create(job_properties()))
    world.server.advance(3 * HOUR)

    assert world.jobs().send(framework.delete(INVENTED, job_properties())).succeeded
    assert world.server.state()["models"] == []


def test_a_delete_of_another_job_of_the_owner_has_no_effects(world: World) -> None:
    """Case B10."""
    world.jobs().send(framework.create(job_properties()))
    before = world.written()

    response = world.jobs().send(framework.delete(f"{OWNER}-{NEXT}", job_properties()))

    assert response.succeeded
    assert world.written() == before
    assert world.running() == [NAME]


def other_resource(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event for the same job under another logical id."""
    return {**event, "LogicalResourceId": "RenamedResource9E8D7C6B"}


def test_a_renamed_construct_keeps_its_job_and_model(world: World) -> None:
    """The new logical id adopts the job; the Delete of the old one finds another claim. Case B10."""
    world.jobs().send(framework.create(job_properties()))
    assert world.jobs().send(other_resource(framework.create(job_properties()))).succeeded
    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert world.running() == [NAME]
    world.server.advance(3 * HOUR)
    assert len(world.server.state()["models"]) == 1

    assert world.jobs().send(other_resource(framework.delete(NAME, job_properties()))).succeeded
    assert world.server.state()["models"] == []
    assert world.count(CREATE) == 1


def test_a_renaming_that_is_rolled_back_keeps_the_job(world: World) -> None:
    """Case B10."""
    world.jobs().send(framework.create(job_properties()))
    world.jobs().send(other_resource(framework.create(job_properties())))
    assert world.jobs().send(other_resource(framework.delete(NAME, job_properties()))).succeeded
    assert world.running() == [NAME]

    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert world.running() == []


def test_a_waiter_whose_create_was_cancelled_creates_nothing(world: World) -> None:
    """The framework's state machine keeps polling after CloudFormation's Delete. Case C1."""
    jobs, event = world.jobs(), framework.create(job_properties())
    abandoned = {**event, **jobs.on_event(event)}
    assert world.jobs().send(framework.delete(INVENTED, job_properties())).succeeded

    assert jobs.is_complete
    with pytest.raises(ResourceError, match="superseded"):
        jobs.is_complete(abandoned)
    assert world.count(CREATE) == 0


def test_a_job_created_while_its_request_is_superseded_is_stopped(world: World) -> None:
    """The Delete looked before the job was there."""
    event = framework.create(job_properties())
    late = Meddled(
        world.bedrock,
        after={
            "create_model_customization_job": lambda: requests_table.register(
                world.requests, framework.delete(INVENTED, job_properties())
            )
        },
    )
    response = world.jobs(late).send(event)

    assert "superseded" in response.reason
    assert world.running() == []


def test_a_job_that_completes_between_two_polls_loses_its_model(world: World) -> None:
    """Case B9."""
    world.jobs().send(framework.create(job_properties()))
    late = Meddled(
        world.bedrock,
        before={"stop_model_customization_job": times(2, refusal("ConflictException"))},
    )
    jobs = world.jobs(late)
    # isComplete's first read still shows the job as running.
    jobs.tick = lambda: world.server.advance(3 * HOUR)

    response = jobs.send(framework.delete(NAME, job_properties()))

    assert (response.succeeded, response.polls) == (True, 2)
    assert world.server.state()["models"] == []


def test_a_job_that_never_was_is_a_success_without_effects(world: World) -> None:
    """Case B10."""
    never = job_properties(RetainOutput="false")

    response = world.jobs().send(framework.delete(NAME, never))

    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert {call["operation"] for call in world.server.calls()} == {"GetModelCustomizationJob"}


def test_a_foreign_job_of_the_name_is_only_read(world: World) -> None:
    """Case B10."""
    world.foreign_job()
    before = world.written()

    assert world.jobs().send(framework.delete(NAME, job_properties(RetainOutput="false"))).succeeded
    assert world.written() == before
    assert world.running() == [NAME]


def test_a_rollback_leaves_nothing_running(world: World) -> None:
    """Case B11."""
    created = world.jobs().send(framework.create(job_properties()))
    # A sibling fails, and CloudFormation rolls the whole stack back.
    world.jobs().send(framework.delete(created.physical_id, job_properties()))

    assert world.running() == []
    assert world.server.state()["models"] == []


def test_abandoned_update_decides_nothing_about_what_a_delete_retains(world: World) -> None:
    """The template in force says so, not one that CloudFormation gave up."""
    kept, given_up = job_properties(RetainModel="true"), job_properties(RetainModel="false")
    assert world.jobs().send(framework.create(kept)).succeeded
    world.server.advance(3 * HOUR)
    world.jobs().begin(framework.update(NAME, given_up, kept))

    assert world.jobs().send(framework.delete(NAME, kept)).succeeded
    assert len(world.server.state()["models"]) == 1


@pytest.mark.parametrize("what", ["deployment", "throughput"])
def test_a_model_in_use_is_kept(world: World, what: str) -> None:
    """Case B13."""
    world.jobs().send(framework.create(job_properties()))
    world.server.advance(3 * HOUR)
    model = str(world.job()["model"])
    if what == "deployment":
        world.deploy(model)
    else:
        world.bedrock.create_provisioned_model_throughput(
            provisionedModelName="units", modelId=model, modelUnits=1
        )

    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert [found["arn"] for found in world.server.state()["models"]] == [model]
    assert world.count("DeleteCustomModel") == 0
    # Without a claim of the job's resource, its release deletes it; declaring the job again claims it again.
    assert not ownership.claims(world.tags(model))
    assert world.jobs().send(framework.create(job_properties())).succeeded
    assert ownership.claims(world.tags(model))


def test_a_model_that_comes_into_use_is_deleted_by_a_later_poll(world: World) -> None:
    """Case B13."""
    world.model()
    conflict = times(1, refusal("ConflictException", "The model is used."))
    busy = Meddled(world.bedrock, before={"delete_custom_model": conflict})

    response = world.jobs(busy).send(framework.delete(NAME, job_properties()))

    assert (response.succeeded, response.polls) == (True, 2)
    assert world.server.state()["models"] == []


@pytest.mark.parametrize(("retain", "left"), [("true", 1), ("false", 0)])
def test_the_model_stays_where_it_is_retained(world: World, retain: str, left: int) -> None:
    """Case B15."""
    world.model()

    assert world.jobs().send(framework.delete(NAME, job_properties(RetainModel=retain))).succeeded
    assert len(world.server.state()["models"]) == left


def test_a_running_job_is_stopped_even_where_models_are_retained(world: World) -> None:
    """Case B15."""
    world.jobs().send(framework.create(job_properties()))

    world.jobs().send(framework.delete(NAME, job_properties(RetainModel="true")))

    assert world.running() == []


def test_a_model_deleted_before_is_no_problem(world: World) -> None:
    """Case B15."""
    world.model()
    world.bedrock.delete_custom_model(modelIdentifier=NAME)

    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded


@pytest.mark.parametrize(("retain", "left"), [("true", 2), ("false", 0)])
def test_the_jobs_output_goes_with_it_unless_it_is_retained(
    world: World, aws: Client, bucket: str, retain: str, left: int
) -> None:
    """Case B15."""
    s3, uri = aws("s3"), f"s3://{bucket}/jobs/{NAME}/"
    world.jobs().send(framework.create(job_properties(OutputDataUri=uri)))
    world.s3 = s3
    for key in (f"jobs/{NAME}/metrics.csv", f"jobs/{NAME}/metrics.csv", f"jobs/{NAME}-other/metrics.csv"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"step_number\n")

    properties = job_properties(OutputDataUri=uri, RetainOutput=retain)
    assert world.jobs().send(framework.delete(NAME, properties)).succeeded

    found = [item["Key"] for item in s3.list_object_versions(Bucket=bucket)["Versions"]]
    assert found.count(f"jobs/{NAME}/metrics.csv") == left
    assert found.count(f"jobs/{NAME}-other/metrics.csv") == 1


def test_throttling_during_a_delete_is_awaited(world: World) -> None:
    """Case B16."""
    world.model()
    world.server.fault("throttled", operation="DeleteCustomModel", count=5)

    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert world.server.state()["models"] == []


def test_a_denied_stop_is_reported_and_not_awaited(world: World) -> None:
    world.jobs().send(framework.create(job_properties()))
    world.server.fault(
        "denied", operation=STOP, count=None, message="not authorized to perform: bedrock:Stop"
    )

    response = world.jobs().send(framework.delete(NAME, job_properties()))

    assert not response.succeeded
    assert "bedrock:Stop" in response.reason


def test_the_entry_points_use_the_functions_own_clients(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests_table.provide(monkeypatch)
    clients = {"bedrock": world.bedrock, "s3": world.s3}
    monkeypatch.setattr(handler, "client", clients.__getitem__)
    jobs = framework.Framework(
        partial(_called, handler.on_event),
        partial(_called, handler.is_complete),
        tick=lambda: world.server.advance(POLL),
    )

    with logged(handler.logger) as lines:
        assert jobs.send(framework.create(job_properties())).succeeded
        assert jobs.send(framework.delete(f"{OWNER}-{NEXT}", job_properties())).succeeded
        assert jobs.send(framework.delete(NAME, job_properties())).succeeded

    assert world.count(CREATE) == 1
    # The URL in the event must not be logged: anyone who has it can respond for us.
    assert "nothing to delete" in lines.getvalue()
    assert "Signature" not in lines.getvalue()


def _called(entry: Callable[..., dict[str, Any]], event: Any) -> dict[str, Any]:
    return entry(event, None)


def test_an_update_of_a_job_that_never_was_says_so(world: World) -> None:
    """Case T4."""
    response = world.jobs().send(framework.update(NAME, job_properties(), job_properties()))

    assert not response.succeeded
    assert NAME in response.reason
    assert world.server.calls(CREATE) == []
