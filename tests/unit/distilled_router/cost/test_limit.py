"""The limit counts all that an owner has committed within the period, on the emulator's DynamoDB."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from distilled_router.aws.custom_resource import REASON_BYTES
from distilled_router.aws.errors import ResourceError
from distilled_router.cost.limit import Limit, Spending
from distilled_router.release.table import Releases
from local.bedrock import BedrockStandIn
from tests.unit.local.bedrock.scenes import Scene

OWNER = "video-router-dev"
A, B, C = (f"{OWNER}-{digit * 12}" for digit in "abc")
DAY = 86_400
LIMIT = Limit(usd=200, days=30)


@dataclass
class Account:
    """An owner's ledger, and an account with jobs."""

    scene: Scene
    table: Any
    owner: str = OWNER

    @property
    def spending(self) -> Spending:
        return Spending(self.table, self.scene.control, self.owner, lambda: self.now)

    @property
    def now(self) -> float:
        return self.scene.bedrock.clock.now()

    def commit(self, job: str, usd: float = 90, limit: Limit = LIMIT) -> None:
        self.spending.commit({job: usd}, limit, unknown_usd=usd)

    def ledger(self) -> str:
        item = self.table.get_item(Key={"id": f"{self.owner}/spending"})["Item"]
        return str(item["committed"])

    def write(self, content: object) -> None:
        self.table.put_item(Item={"id": f"{self.owner}/spending", "committed": content})


@pytest.fixture
def account(bedrock_server: BedrockStandIn, releases: Releases) -> Account:
    return Account(Scene(bedrock_server), releases.table)


def test_jobs_that_pass_alone_are_refused_together(account: Account) -> None:
    account.commit(A)
    account.commit(B)
    with pytest.raises(ResourceError) as caught:
        account.commit(C)
    said = str(caught.value)
    assert f"This may cost 90.00 USD ({C} 90.00)" in said
    assert f"{OWNER} committed 180.00 USD: {A} 90.00 on " in said
    assert "distillation.maximum_cost_usd = 200 in distillation.maximum_cost_days = 30" in said
    assert "nothing was paid" in said
    assert "Wait until" in said
    assert "raise the limit" in said
    assert C not in account.ledger()


def test_same_job_asked_twice_counts_once(account: Account) -> None:
    """Lambda may deliver an event twice, and a deployment may be repeated."""
    for _ in range(5):
        account.commit(A, 110.3456)
    assert json.loads(account.ledger())[A]["usd"] == 110.35
    account.commit(B, 89.65)


def test_job_that_is_committed_is_not_refused_under_a_lower_limit(account: Account) -> None:
    """A rollback returns to it."""
    account.commit(A)
    account.commit(B)
    account.commit(A, limit=Limit(50, 30))
    assert account.spending.covers(A, 90, Limit(50, 30))


def test_more_retries_of_a_committed_job_count(account: Account) -> None:
    account.commit(A)
    account.commit(B)
    assert not account.spending.covers(A, 180, LIMIT)
    with pytest.raises(ResourceError, match=rf"180\.00 USD \({A} 180\.00\).*committed 90\.00 USD: {B}"):
        account.commit(A, 180)


def test_amount_counts_for_the_period_only(account: Account) -> None:
    account.commit(A, 200)
    account.scene.advance(30 * DAY - 60)
    with pytest.raises(ResourceError):
        account.commit(B)
    account.scene.advance(61)
    account.commit(B)
    # A longer period counts the old amount again.
    with pytest.raises(ResourceError, match="committed 290"):
        account.commit(C, limit=Limit(300, 60))


def test_other_owners_have_limits_of_their_own(account: Account) -> None:
    account.commit(A, 200)
    other = replace(account, owner="video-router")
    other.commit("video-router-aaaaaaaaaaaa", 200)
    account.scene.create_job(A)
    replace(account, owner="video-router-dev-eu").commit("video-router-dev-eu-aaaaaaaaaaaa", 200)


def test_two_deployments_at_once_do_not_both_take_the_rest(account: Account) -> None:
    """The second one's write finds a changed ledger and decides again."""
    account.commit(A)
    spending = account.spending
    real = account.table

    class Overtaken:
        def __init__(self) -> None:
            self.reads = 0

        def get_item(self, **request: Any) -> Any:
            found = real.get_item(**request)
            self.reads += 1
            if self.reads == 1:
                account.commit(B)
            return found

        def update_item(self, **request: Any) -> Any:
            return real.update_item(**request)

    table = Overtaken()
    with pytest.raises(ResourceError, match="committed 180"):
        replace(spending, table=table).commit({C: 90}, LIMIT, unknown_usd=90)
    assert table.reads == 2
    assert sorted(json.loads(account.ledger())) == [A, B]


def test_jobs_in_bedrock_count_where_the_ledger_is_gone(account: Account) -> None:
    """The table is deleted with its stack, and an older version writes no ledger. The jobs stay."""
    account.scene.create_job(A)
    account.scene.create_job(f"{A}-2")
    with pytest.raises(ResourceError, match=rf"committed 110\.00 USD: {A} 110\.00"):
        account.commit(B, 110)
    account.scene.advance(31 * DAY)
    account.commit(B, 110)


@pytest.mark.parametrize("days", [0, 40])
def test_job_that_exists_costs_nothing_more(account: Account, days: int) -> None:
    """An update is rolled back to a job, perhaps one that is older than the period."""
    account.scene.create_job(A)
    account.scene.advance(days * DAY)
    assert account.spending.covers(A, 110, LIMIT)
    assert not account.spending.covers(B, 110, LIMIT)


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        7,
        {"a": "map"},
        json.dumps({A: {"usd": "much", "at": 1}}),
        json.dumps({A: {"usd": 1e400, "at": 1}}),
        json.dumps({A: {"usd": -5, "at": 1}}),
        json.dumps({A: 5}),
    ],
)
def test_what_a_person_damaged_counts_by_bedrocks_own_list(account: Account, content: object) -> None:
    account.scene.create_job(A)
    account.write(content)
    with pytest.raises(ResourceError, match="committed 110"):
        account.commit(B, 110)
    account.commit(B, 100)
    assert B in account.ledger()


def test_time_in_the_future_is_damage(account: Account) -> None:
    account.write(json.dumps({A: {"usd": 200, "at": account.now + 400 * DAY}}))
    account.commit(B, 200)


def test_job_that_the_list_does_not_show_yet_counts_by_the_ledger(
    bedrock_server: BedrockStandIn, account: Account
) -> None:
    bedrock_server.lag(list_seconds=300)
    account.commit(A, 110)
    account.scene.create_job(A)
    with pytest.raises(ResourceError, match="committed 110"):
        account.commit(B, 110)
    account.scene.advance(301)
    with pytest.raises(ResourceError, match="committed 110"):
        account.commit(B, 110)


def test_message_of_many_amounts_fits_a_response(account: Account) -> None:
    for number in range(40):
        account.commit(f"{OWNER}-{number:012d}", 5)
    with pytest.raises(ResourceError, match="35 more") as caught:
        account.commit(A, 100)
    assert len(str(caught.value).encode()) < REASON_BYTES


def test_other_writers_that_never_stop_are_named(account: Account) -> None:
    numbers = iter(range(1_000))
    real = account.table

    class Busy:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            method: Callable[..., Any] = getattr(real, name)
            return method

        def get_item(self, **request: Any) -> Any:
            found = real.get_item(**request)
            account.write(json.dumps({"labels": {"usd": 0.01, "at": next(numbers)}}))
            return found

    with pytest.raises(ResourceError, match="Deploy again"):
        replace(account.spending, table=Busy()).commit({A: 1}, LIMIT, unknown_usd=1)


def test_limit_is_read_from_properties_of_earlier_versions() -> None:
    """CloudFormation rolls back to properties without a period."""
    assert Limit.of({"MaximumCostUsd": "200"}) == Limit(200, 30)
    assert Limit.of({"MaximumCostUsd": "5.5", "MaximumCostDays": "7"}) == Limit(5.5, 7)
