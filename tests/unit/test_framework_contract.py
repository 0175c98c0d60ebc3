"""All custom resources and the Provider framework: ids, timeouts, and creates that fail at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import framework
from tests.unit.distilled_router.aws.throttling_scenes import (
    all_made,
    declared,
    ended,
    labelling,
    released,
)
from tests.unit.entry_points import POLLS, Play, Theatre, entries
from tests.unit.framework import MARKER, Framework
from tests.unit.release_world import OWNER, A, B
from tests.unit.resource_scenes import CREATE, DIGEST, NAME, NEXT, ROLE, STOP, job_properties
from tests.unit.resource_scenes import OWNER as JOBS_OWNER

RESOURCES = sorted(name.partition(".")[0] for name in entries() if name.endswith(".on_event"))
INVENTED = "video-router-prod-Resource-1ABCDEFGHIJKL"


def everything(play: Play) -> dict[str, Any]:
    """Return the properties of all resources together."""
    wait = {"Window": "1", "Last": "true", "Seconds": "60", "Handle": "https://wait", "Retain": "false"}
    throughput = {"ProvisionedModelName": f"{OWNER}-1mu", "Arn": "arn:aws:bedrock:us-east-1::custom-model/x"}
    return {**labelling(play), **job_properties(), **declared(play, A), **wait, **throughput}


def test_all_resources_are_looked_at() -> None:
    assert {"dataset", "distillation_job", "provisioned_throughput", "release", "release_wait"} <= set(
        RESOURCES
    )


@pytest.mark.parametrize("folder", RESOURCES)
def test_a_delete_keeps_the_id_that_cloudformation_made_up(theatre: Theatre, folder: str) -> None:
    """Cases C4, B10."""
    with theatre.play() as play:
        response = play.resource(folder).send(framework.delete(INVENTED, everything(play)))

        assert (response.succeeded, response.physical_id) == (True, INVENTED), response.reason
        assert [
            call for call in theatre.server.calls() if not call["operation"].startswith(("Get", "List"))
        ] == []


def test_a_job_has_another_id_only_where_it_is_another_job(theatre: Theatre) -> None:
    """Case C4."""
    with theatre.play() as play:
        jobs, old, new = play.resource("distillation_job"), job_properties(), job_properties(NEXT)
        jobs.send(framework.create(old))

        same = jobs.send(framework.update(NAME, {**old, "RetainModel": "true"}, old))
        other = jobs.send(framework.update(NAME, new, old))

        assert (same.physical_id, other.physical_id) == (NAME, f"{JOBS_OWNER}-{NEXT}")
        # CloudFormation then deletes the old one by its id, which Delete must return.
        assert jobs.send(framework.delete(NAME, old)).physical_id == NAME


def test_a_release_keeps_its_id_whatever_is_released(theatre: Theatre) -> None:
    """Case C4."""
    with theatre.play(released) as play:
        event = framework.update(OWNER, declared(play, B), declared(play, A))
        assert play.resource("release").send(event).physical_id == OWNER


def test_a_delete_that_timed_out_is_taken_up_by_the_next_one(theatre: Theatre) -> None:
    """The handler is not told of the timeout, so nothing may depend on it. Case C6."""
    with theatre.play(_job_made) as play:
        theatre.server.fault("conflict", operation=STOP, count=None)
        counted = Counted(play, "distillation_job")
        timed_out = counted.framework.send(framework.delete(NAME, job_properties()))

        assert (timed_out.succeeded, timed_out.reason) == (False, "Operation timed out")
        assert timed_out.physical_id == NAME
        assert counted.calls == ["on_event", *["is_complete"] * len(POLLS)]

        theatre.server.clear_faults()
        again = counted.framework.send(framework.delete(NAME, job_properties()))
        assert again.succeeded
        assert play.picture()["running"] == []


def test_a_create_is_given_up_before_the_framework_gives_up(theatre: Theatre) -> None:
    """The framework would only report a timeout, without Bedrock's reason.

    Case C6.
    """
    with theatre.play() as play:
        theatre.server.fault("throttled", operation=CREATE, count=None)
        response = play.resource("distillation_job").send(framework.create(job_properties()))

        assert response.polls < len(POLLS)
        assert "Too many requests" in response.reason


@pytest.mark.parametrize("folder", RESOURCES)
def test_a_create_that_fails_at_once_has_made_nothing(theatre: Theatre, folder: str) -> None:
    """The framework marks the id, and its Delete never reaches the handler. Case C7."""
    with theatre.play() as play:
        counted = Counted(play, folder)
        response = counted.framework.send(framework.create({"Digest": DIGEST}))
        assert (response.succeeded, response.physical_id) == (False, MARKER)

        assert counted.framework.send(framework.delete(response.physical_id, {})).succeeded
        assert counted.calls == ["on_event"]
        assert theatre.server.calls() == []
        assert play.world.releases.table.scan()["Items"] == []


def test_the_accounts_logging_configuration_outlives_every_resource(theatre: Theatre) -> None:
    """Case T33."""
    theirs = {
        "cloudWatchConfig": {"logGroupName": "/audit", "roleArn": ROLE},
        "textDataDeliveryEnabled": False,
    }
    with theatre.play(all_made) as play:
        theatre.plain.put_model_invocation_logging_configuration(loggingConfig=theirs)
        before = theatre.plain.get_model_invocation_logging_configuration()["loggingConfig"]
        _job_made(play)

        assert play.resource("distillation_job").send(framework.delete(NAME, job_properties())).succeeded
        assert ended(play)

        after = theatre.plain.get_model_invocation_logging_configuration()["loggingConfig"]
        assert before == after
        assert (after["textDataDeliveryEnabled"], after["imageDataDeliveryEnabled"]) == (False, True)


class Counted:
    """A resource behind the framework, which records the calls of its entry points."""

    def __init__(self, play: Play, folder: str) -> None:
        self.calls: list[str] = []
        inner = play.resource(folder)

        def on_event(event: Any) -> Any:
            self.calls.append("on_event")
            return inner.on_event(event)

        def is_complete(event: Any) -> Any:
            self.calls.append("is_complete")
            assert inner.is_complete is not None
            return inner.is_complete(event)

        polled = is_complete if inner.is_complete else None
        self.framework = Framework(on_event, polled, inner.tick, inner.most_polls)


def _job_made(play: Play) -> None:
    assert play.resource("distillation_job").send(framework.create(job_properties())).succeeded
