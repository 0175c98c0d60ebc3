"""Estimate what AWS bills for a month: what is deployed, and a number of queries.

All prices are those of the first tier, without free tiers. Every query is answered by the student, none from
the cache, and requests are spread evenly over the month.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import exp

from distilled_router.cost.lines import Amount, Case
from distilled_router.cost.prices import HOURS_A_MONTH, Prices
from operate import router_lines
from stacks.costs import Deployed
from stacks.settings import Settings

SECONDS_A_MONTH = HOURS_A_MONTH * 3_600
DAYS_A_MONTH = HOURS_A_MONTH / 24
GB = 1_000_000_000
# Of a fine-tuned Nova Micro: to the first token, and tokens a second (AWS Machine Learning Blog, custom
# text-to-SQL with Nova Micro, 2026-04). The same is assumed of other models.
FIRST_TOKEN_MS, TOKENS_A_SECOND = 380, 183
# The router's own part of a query's time, at 20 queries a second (benchmarks/README.md).
ROUTER_MS = 3
# Lambda's default sampling, which can't be changed (Lambda developer guide, services-xray).
SAMPLED = 0.05
# Assumed: execution environments that read the route, seconds of a sweep, GB of data, reports and versions of
# objects, bytes of an answer with its HTTP headers, and the part of a log's bytes that gzip leaves.
ENVIRONMENTS, SWEEP_SECONDS, STORED_GB, ANSWER_BYTES, LOG_STORED = 3, 5, 0.1, 700, 0.2
# Assumed: hours of a job, states in each poll of it, and all other states of a release.
JOB_HOURS, POLL_STATES, STATES = 24, 3, 200
# Memory of the release's functions; the table's default in `FunctionProps`.
SWEEP_GB = 0.25
# DynamoDB asks KMS for a table's key once in five minutes at most (DynamoDB developer guide, encryption at
# rest).
KEY_SECONDS = 300
NOTHING = Amount(0.0, "")


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What a month costs: idle, and with the queries. `cited` says where the price is from."""

    name: str
    idle: Amount
    busy: Amount
    cited: str = ""


@dataclass(frozen=True)
class Month:
    """Computes the charges of a month with so many queries. Raises PriceError if a price is unknown."""

    settings: Settings
    deployed: Deployed
    case: Case
    queries: int

    def charges(self) -> Iterator[Charge]:
        """Yield all charges, the model's first."""
        spec = self.case.spec
        tokens = self.case.answers("tokens", spec.student, full=False, number=self.queries)
        yield Charge(name="tokens", idle=NOTHING, busy=tokens.expected, cited=tokens.cited)
        yield from self._kept()
        yield from self._functions()
        yield self._of("HTTP API", "http_api", self.queries / 1_000_000, f"{self.queries:,} requests")
        out = self.queries * ANSWER_BYTES / GB
        yield self._of("data out", "data_out", out, f"{self.queries:,} answers x {ANSWER_BYTES} bytes")
        yield from self._logs()
        yield self._metrics()
        yield self._traces()
        yield self._fixed(
            "alarms", "alarm", self.deployed.alarms, f"{self.deployed.alarms} metrics of alarms"
        )
        yield self._fixed("dashboard", "dashboard", self.deployed.dashboards, "1")
        yield from self._data()
        if number := self.deployed.interface_endpoints:
            how = f"{number} endpoints in subnets x {HOURS_A_MONTH} hours"
            yield self._fixed("VPC endpoints", "vpc_endpoint", number * HOURS_A_MONTH, how)

    def with_model(self, model: str, *, full: bool) -> float:
        """Return the whole month in US dollars if another model answered, without a model of our own."""
        own = {"tokens", "model storage", "model hosting", "Lambda time"}
        rest = sum(one.busy.usd for one in self.charges() if one.name not in own)
        tokens = self.case.answers("", model, full=full, number=self.queries).expected
        return rest + tokens.usd + self._time(self._seconds(full=full)).usd

    def rollout(self, hours: int) -> Amount:
        """Return what the metrics cost that routers write besides during a rollout of so many hours."""
        normal, rolling = (
            router_lines.query(self.settings, in_rollout=in_rollout).series for in_rollout in (False, True)
        )
        # Of the candidate and of the live release.
        number, price = 2 * len(rolling - normal), self.prices.service("metric")
        how = f"{number} series x {hours} of {HOURS_A_MONTH} hours at {price.shown}"
        return Amount(number * hours / HOURS_A_MONTH * price.usd, how)

    def steps(self) -> Amount:
        """Return what the state machine's steps cost, most of which poll the job."""
        price, seconds = self.prices.service("transitions"), self.settings.release.poll_seconds
        number = int(JOB_HOURS * 3_600 / seconds * POLL_STATES) + STATES
        how = f"{number:,} steps, most of them polls of a job of {JOB_HOURS} hours, at {price.shown}"
        return Amount(number / 1_000 * price.usd, how)

    @property
    def prices(self) -> Prices:
        """Return the price table."""
        return self.case.prices

    @cached_property
    def series(self) -> int:
        """Return the series of metrics of each hour with queries; without queries there are none."""
        return len(router_lines.query(self.settings).series)

    def _kept(self) -> Iterator[Charge]:
        storage, hosting = self.case.storage("model storage"), self.case.hosting("model hosting")
        how = f"{storage.expected.how}; at most {storage.at_most.how}"
        kept = Amount(storage.expected.usd, how)
        yield Charge(name=storage.name, idle=kept, busy=kept, cited=storage.cited)
        yield Charge(name=hosting.name, idle=hosting.expected, busy=hosting.expected)

    def _functions(self) -> Iterator[Charge]:
        requests = self.queries + HOURS_A_MONTH
        how = f"{self.queries:,} requests, {HOURS_A_MONTH} sweeps"
        yield self._of(
            "Lambda requests", "lambda_requests", requests / 1_000_000, how, idle=HOURS_A_MONTH / 1_000_000
        )
        idle = self._sweeps()
        busy = self._time(self._seconds(full=False))
        cited = self.prices.service("lambda_gb_seconds").cited
        yield Charge(name="Lambda time", idle=idle, busy=busy, cited=cited)

    def _seconds(self, *, full: bool) -> float:
        """Return the billed duration of a query."""
        tokens = self.case.answer_tokens(full=full)
        return (FIRST_TOKEN_MS + tokens * 1_000 / TOKENS_A_SECOND + ROUTER_MS) / 1_000

    def _time(self, seconds: float) -> Amount:
        price, memory = self.prices.service("lambda_gb_seconds"), self.settings.router.memory_mb
        how = f"{self.queries:,} x {seconds:.3f} s x {memory:,} MB at {price.shown}; and the sweeps"
        return Amount(self.queries * seconds * memory / 1_024 * price.usd + self._sweeps().usd, how)

    def _sweeps(self) -> Amount:
        price = self.prices.service("lambda_gb_seconds")
        how = f"{HOURS_A_MONTH} sweeps x {SWEEP_SECONDS} s"
        return Amount(HOURS_A_MONTH * SWEEP_SECONDS * SWEEP_GB * price.usd, how)

    def _logs(self) -> Iterator[Charge]:
        router, platform = router_lines.query(self.settings).size, router_lines.invocation(self.settings)
        access = router_lines.access()
        each = router + platform + access
        size = self.queries * each
        how = f"{self.queries:,} x {each:,} bytes: router {router:,}, Lambda {platform:,}, API {access:,}"
        yield self._of("log ingestion", "log_ingestion", size / GB, how)
        days = self.settings.retention.log_days
        stored = size / GB * LOG_STORED * days / DAYS_A_MONTH
        how = f"{stored:.2f} GB: {days} days, compressed to {LOG_STORED:.0%}"
        yield self._of("log storage", "log_storage", stored, how)

    def _metrics(self) -> Charge:
        return self._of("metrics", "metric", self.series, f"{self.series} series, written in each hour")

    def _traces(self) -> Charge:
        if not self.settings.router.tracing:
            return Charge(name="X-Ray traces", idle=NOTHING, busy=Amount(0.0, "router.tracing is off"))
        # The first request of each second, and a part of the others.
        first = SECONDS_A_MONTH * (1 - exp(-self.queries / SECONDS_A_MONTH))
        traces = first + SAMPLED * (self.queries - first)
        how = f"{traces:,.0f} traces: the first of each second, {SAMPLED:.0%} of the others"
        return self._of("X-Ray traces", "trace", traces / 1_000_000, how)

    def _data(self) -> Iterator[Charge]:
        yield self._fixed("KMS key", "key", self.deployed.keys, f"{self.deployed.keys}")
        calls = min(self._reads, SECONDS_A_MONTH // KEY_SECONDS)
        yield self._of("KMS requests", "key_requests", calls / 10_000, f"{calls:,} for the table")
        reads = self._reads
        how = f"{reads:,} reads of the route at half a unit"
        yield self._of("DynamoDB reads", "table_reads", reads / 2 / 1_000_000, how)
        yield self._fixed("S3 storage", "object_storage", STORED_GB, f"{STORED_GB:g} GB")

    @property
    def _reads(self) -> int:
        """Return the number of reads of the route: a request reads it if it is too old."""
        return min(self.queries, int(ENVIRONMENTS * SECONDS_A_MONTH / self.settings.router.route_seconds))

    def _of(self, name: str, price: str, amount: float, how: str, *, idle: float = 0.0) -> Charge:
        found = self.prices.service(price)
        return Charge(
            name=name,
            idle=Amount(idle * found.usd, how),
            busy=Amount(amount * found.usd, f"{how}, at {found.shown}"),
            cited=found.cited,
        )

    def _fixed(self, name: str, price: str, amount: float, how: str) -> Charge:
        return self._of(name, price, amount, how, idle=amount)
