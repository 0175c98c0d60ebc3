"""Switch classification heads off or on: write the route once more with its `head_off` changed."""

from __future__ import annotations

import argparse

from distilled_router.release.route import Route
from distilled_router.release.table import RouteChangedError
from operate import environment
from operate.console import console, say
from operate.deployed import Deployed, deployed, duration
from operate.errors import OperateError
from operate.rollback_target import retry_advice

# A step of a rollout may change the route between our read and our write, a few times at most.
TRIES = 5


def run(options: argparse.Namespace, *, off: bool) -> int:
    """Switch the heads of an environment and print what was done."""
    say(console(), *switch(deployed(environment.reach(options.environment)), off=off))
    return 0


def switch(at: Deployed, *, off: bool) -> list[str]:
    """Switch heads off or on; return what was done, and who follows when.

    A broken route item is replaced by the route that routers still use: they would not read the switch.

    Raises:
        OperateError: Someone else kept changing the route.
    """
    state = _state(off=off)
    for _ in range(TRIES):
        route = at.releases.effective_route()
        if route.head_off == off and route.problem is None:
            since = f", {duration(at.now() - route.updated_at)} ago" if route.updated_at else ""
            last = f"route version {route.version}{since}: {route.reason or 'no reason given'}."
            return [f"Classification heads are already {state}. Nothing was changed.", f"Last change: {last}"]
        try:
            route = at.releases.switch_heads(off=off, after=route, reason=f"heads {state} by hand")
        except RouteChangedError:
            continue
        return [
            f"Classification heads are {state}, by version {route.version} of the route. {_heads(route)}",
            "Routers follow within router.route_seconds.",
            *([f"No rollout, rollback or deployment switches them on: {on_again(at)} does."] if off else []),
        ]
    raise OperateError("The route keeps changing.", advice=retry_advice(at))


def on_again(at: Deployed) -> str:
    """Return the command that switches heads on."""
    return f"`make head-on ENV={at.environment}`"


def _state(*, off: bool) -> str:
    return "switched off" if off else "switched on"


def _heads(route: Route) -> str:
    """Return a sentence about the releases in the route that have a head."""
    found = [share.digest for share in route.shares if share.head]
    if not found:
        return "No release in the route has one."
    releases = f"Release {found[0]}" if len(found) == 1 else f"Releases {' and '.join(found)}"
    return f"{releases} {'has' if len(found) == 1 else 'have'} one."
