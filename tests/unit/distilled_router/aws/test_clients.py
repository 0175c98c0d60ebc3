"""The clients that every function calls AWS with: they wait out throttling, with jitter, never for long."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from distilled_router.aws import clients
from local.bedrock import BedrockStandIn

LIST = "ListCustomModels"
# Of throttling: botocore waits a part of 1, 2, 4, 8 and 16 seconds (botocore.retries.standard).
BOUNDS = [1, 2, 4, 8, 16]
TRIES = len(BOUNDS) + 1

Ask = Callable[[], Any]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that botocore would have slept, with a generator of random numbers that starts anew."""
    slept: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=slept.append))
    random.seed(7)
    return slept


@pytest.fixture
def ask(bedrock_server: BedrockStandIn) -> Ask:
    """One call by a client of the functions' own configuration."""
    client = boto3.client("bedrock", endpoint_url=bedrock_server.endpoint, config=clients.CONFIG)
    return lambda: client.list_custom_models()


@pytest.mark.parametrize("service", ["bedrock", "s3", "stepfunctions", "cloudwatch"])
def test_every_client_retries_and_is_kept(service: str) -> None:
    client = clients.client(service)

    assert client is clients.client(service)
    _check(client)


def test_a_tables_client_retries_and_is_kept() -> None:
    table = clients.table("releases")

    assert table is clients.table("releases")
    _check(table.meta.client)


def _check(client: Any) -> None:
    """`max_attempts` of 5 counts the tries after the first."""
    assert client.meta.config.retries == {"mode": "standard", "total_max_attempts": TRIES}
    assert client.meta.config.connect_timeout <= 5
    assert client.meta.config.read_timeout <= 20


@pytest.mark.parametrize("throttles", [1, 4, 5])
def test_throttling_is_waited_for_a_little_longer_each_time(
    bedrock_server: BedrockStandIn, ask: Ask, pauses: list[float], throttles: int
) -> None:
    """Case B16."""
    bedrock_server.fault("throttled", operation=LIST, count=throttles)

    assert ask()["modelSummaries"] == []

    assert len(pauses) == throttles
    assert all(0 <= pause <= bound for pause, bound in zip(pauses, BOUNDS, strict=False))


def test_throttling_that_does_not_end_is_raised_after_half_a_minute(
    bedrock_server: BedrockStandIn, ask: Ask, pauses: list[float]
) -> None:
    """Case B16."""
    bedrock_server.fault("throttled", operation=LIST, count=None)

    with pytest.raises(ClientError, match="ThrottlingException"):
        ask()

    assert len(bedrock_server.calls(LIST)) == TRIES
    assert sum(pauses) <= sum(BOUNDS)


def test_the_pauses_are_jittered_over_their_whole_range_and_grow(
    bedrock_server: BedrockStandIn, ask: Ask, pauses: list[float]
) -> None:
    """Functions that were throttled together must not come back together. Case B16."""
    rounds = 20
    for _ in range(rounds):
        bedrock_server.fault("throttled", operation=LIST, count=TRIES - 1)
        ask()

    by_try = [pauses[number :: TRIES - 1] for number in range(TRIES - 1)]
    for drawn, bound in zip(by_try, BOUNDS, strict=True):
        assert len(set(drawn)) == rounds
        assert min(drawn) < bound / 3 < bound * 2 / 3 < max(drawn) <= bound
    means = [sum(drawn) / rounds for drawn in by_try]
    assert means == sorted(means)


@pytest.mark.parametrize("kind", ["failed", "unavailable"])
def test_a_broken_service_is_asked_again_as_well(
    bedrock_server: BedrockStandIn, ask: Ask, pauses: list[float], kind: str
) -> None:
    bedrock_server.fault(kind, operation=LIST, count=3)

    assert ask()["modelSummaries"] == []
    assert len(pauses) == 3


@pytest.mark.parametrize("kind", ["denied", "validation", "conflict", "over_quota", "not_found"])
def test_a_refusal_is_final(bedrock_server: BedrockStandIn, ask: Ask, pauses: list[float], kind: str) -> None:
    bedrock_server.fault(kind, operation=LIST)

    with pytest.raises(ClientError):
        ask()
    assert pauses == []
