"""Bedrock may call the name of an unknown resource invalid: it is absent all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distilled_router.aws.errors import is_missing
from distilled_router.bedrock import deployments, jobs, models, throughput
from local.bedrock import BedrockStandIn, Settings
from tests.unit import framework
from tests.unit.resource_scenes import CREATE, NAME, OWNER, World, job_properties, refusal


@pytest.fixture
def blunt(world: World) -> Iterator[World]:
    """Return an account that calls unknown names invalid."""
    with BedrockStandIn(settings=Settings(unknown_name="ValidationException"), s3=world.server.s3) as server:
        yield World(server, server.client("bedrock", attempts=1), world.s3)


@pytest.mark.parametrize("find", [jobs.find, models.find, deployments.find, throughput.find])
def test_unknown_name_is_absent(blunt: World, find: Callable[..., Any]) -> None:
    assert find(blunt.bedrock, f"{OWNER}-0123456789ab") is None


def test_job_is_created_and_deleted_although_its_name_is_unknown_at_first(blunt: World) -> None:
    response = blunt.jobs().send(framework.create(job_properties()))
    assert response.succeeded, response.reason
    assert blunt.count(CREATE) == 1
    assert blunt.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert blunt.jobs().send(framework.delete(f"{OWNER}-ba9876543210", job_properties())).succeeded


def test_only_an_identifier_is_absent_if_it_is_invalid() -> None:
    assert is_missing(refusal("ValidationException", "The provided model identifier is invalid."))
    assert not is_missing(refusal("ValidationException", "The request is invalid."))
