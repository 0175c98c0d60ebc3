"""Classification heads in the route: each share has its own release's, whoever writes the route."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from distilled_router.release.route import HeadFile
from distilled_router.release.table import FAILED, LIVE, SUPERSEDED, Release, Releases
from rollout.canary import Analysis, CanaryAnalysis
from rollout.roll_out import advance
from tests.unit.release_world import ANY, A, B, C, rollout

DWELL = 600
ROLLOUT = rollout(0.25, 1.0, dwell_seconds=DWELL)
owners = count(1)


class Passing(CanaryAnalysis):
    """Finds nothing wrong."""

    def analyse(self, *_: Any) -> Analysis:
        return Analysis()


@dataclass
class Model:
    """The releases of one owner, with what their heads and the operator's switch must be."""

    releases: Releases
    heads: dict[str, HeadFile | None] = field(default_factory=dict)
    is_off: bool = False
    at: float = 1_800_000_000.0

    def begin(self, digest: str, *, has_head: bool) -> None:
        """Start an attempt, as the Release resource does, and train a head or none."""
        release = self.releases.get(digest) or Release(digest)
        attempt = release.attempt + 1
        new: dict[str, Any] = {"attempt": attempt, "execution": f"arn:{digest}-{attempt}", "request_id": "r"}
        if release.state == LIVE:
            self.releases.begin_again(digest, holdout_key=f"{attempt}", **new)
            return
        self.releases.transition(digest, SUPERSEDED, "superseded")
        self.releases.withdraw(digest, "superseded")
        self.releases.begin(digest, **new)
        self.heads[digest] = None
        head = {}
        if has_head:
            self.heads[digest] = HeadFile(f"releases/o/{digest}-{attempt}/head.bin", f"{attempt:064x}")
            head = {"head": f"releases/o/{digest}-{attempt}/head.bin", "head_sha256": f"{attempt:064x}"}
        self.releases.update(digest, endpoint=f"arn:{digest}", **head)

    def step(self, digest: str) -> None:
        """Take the next step of a rollout."""
        self.at += DWELL
        advance(digest, self.releases, Passing(None, "o", ROLLOUT, ANY), now=self.at)

    def fail(self, digest: str) -> None:
        """End a release as Fail does."""
        self.releases.transition(digest, FAILED, "failed")
        self.releases.withdraw(digest, "failed")

    def roll_back(self, digest: str) -> None:
        """Roll back to a release, if it is retired."""
        route = self.releases.route()
        live = [release for release in self.releases.all() if release.state == LIVE]
        retiring = [release for release in live if release.digest != digest]
        self.releases.roll_back(digest, f"arn:{digest}", after=route, reason="by hand", retiring=retiring)

    def move(self, digest: str) -> None:
        """Move a release to other throughput, if it is live."""
        self.releases.move_endpoint(digest, f"arn:{digest}-{self.at}", "moved")

    def switch(self, *, off: bool) -> None:
        """Switch heads off or on."""
        self.releases.switch_heads(off=off, after=self.releases.effective_route(), reason="by hand")
        self.is_off = off

    def damage(self, changes: dict[str, Any] | None) -> None:
        """Overwrite parts of the route item, or delete it."""
        key = {"id": self.releases.key("route")}
        item = self.releases.table.get_item(Key=key).get("Item")
        if changes is None:
            self.releases.table.delete_item(Key=key)
        elif item:
            self.releases.table.put_item(Item={**item, **changes})

    def check(self) -> None:
        """Check the route, unless it is still damaged."""
        route = self.releases.route()
        if route.problem or not route.version:
            return
        assert route.head_off == self.is_off
        for share in route.shares:
            assert share.head == self.heads[share.digest], share


DIGESTS = st.sampled_from([A, B, C])
DAMAGE = st.sampled_from([{"shares": "mine"}, {"version": "none"}, {"shares": [{"digest": A}]}, None])
EVENTS: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.just("begin"), DIGESTS, st.fixed_dictionaries({"has_head": st.booleans()})),
    st.tuples(st.sampled_from(["step", "step", "fail", "roll_back", "move"]), DIGESTS, st.just({})),
    st.tuples(st.just("switch"), st.none(), st.fixed_dictionaries({"off": st.booleans()})),
    st.tuples(st.just("damage"), DAMAGE, st.just({})),
)
# A release goes live in three steps. Heads are then off, so that each writer after that must keep the switch.
LIVE_FIRST = [
    ("begin", A, {"has_head": True}),
    *[("step", A, {})] * 3,
    ("switch", None, {"off": True}),
    ("begin", B, {"has_head": True}),
]


@settings(
    max_examples=15,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(EVENTS, min_size=3, max_size=12))
def test_each_share_has_its_releases_head_and_the_switch_stays(
    releases: Releases, events: list[tuple[str, Any, dict[str, Any]]]
) -> None:
    model = Model(Releases(releases.table, f"owner{next(owners)}", now=lambda: 1_800_000_000.0))
    for name, argument, more in [*LIVE_FIRST, *events, ("step", B, {}), ("roll_back", A, {})]:
        getattr(model, name)(*([] if name == "switch" else [argument]), **more)
        model.check()
    assert model.releases.route().version > len(LIVE_FIRST) - 2
