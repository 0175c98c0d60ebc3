"""The proof: policies allow each call but not its neighbours, and each grant is used or has a reason."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from tests.permissions import other_environments, reference
from tests.permissions.calls import Call
from tests.permissions.derived import derived
from tests.permissions.grants import Environment, Grant, allowed
from tests.permissions.neighbours import neighbours
from tests.permissions.reasons import NEIGHBOURS, SHARED, UNUSED, Reason


@dataclass(frozen=True)
class Proof:
    """All environments and the recorded calls."""

    environments: tuple[Environment, ...]
    recorded: frozenset[Call]

    @cached_property
    def derived(self) -> frozenset[Call]:
        """Return the calls that follow from the templates."""
        return frozenset(call for _, calls in self._derived.items() for call in calls)

    @cached_property
    def _derived(self) -> Mapping[str, frozenset[Call]]:
        return {
            environment.name: frozenset(derived(environment, self._made_in(environment)))
            for environment in self.environments
        }

    def _made_in(self, environment: Environment) -> Iterator[Call]:
        """The recorded calls that an environment's roles make: of actions that the role has at all."""
        actions = {role: {g.action for g in grants} for role, grants in environment.grants.items()}
        return (call for call in self.recorded if call.action in actions.get(call.role, ()))

    @cached_property
    def grants(self) -> Mapping[Grant, tuple[str, ...]]:
        """Return all grants, with the environments that have them."""
        found: dict[Grant, list[str]] = defaultdict(list)
        for environment in self.environments:
            for grants in environment.grants.values():
                for grant in grants:
                    if grant.effect == "Allow":
                        found[grant].append(environment.name)
        return {grant: tuple(names) for grant, names in sorted(found.items())}

    @cached_property
    def users(self) -> Mapping[Grant, tuple[Call, ...]]:
        """Return the calls that each grant allows."""
        by_action: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in sorted({*self.recorded, *self.derived}):
            by_action[call.role, call.action].append(call)
        return {
            grant: tuple(call for call in by_action[grant.role, grant.action] if grant.allows(call))
            for grant in self.grants
        }

    def problems(self) -> list[str]:
        """Return all problems."""
        return [
            *(f"denied {told}" for told in self.denied()),
            *(f"refused by Lambda {told}" for told in self.refused()),
            *self.against_the_reference(),
            *(f"unused {grant}" for grant in self.unused()),
            *(f"too wide, {told}" for told in self.too_wide()),
            *(f"reaches another environment, {told}" for told in self.shared()),
        ]

    def denied(self) -> list[str]:
        """Return the calls that no policy allows: derived ones in their environment, recorded ones in any."""
        problems = [
            f"{environment.name}: {call}"
            for environment in self.environments
            for call in self._derived[environment.name]
            if not allowed(environment.grants.get(call.role, ()), call)
        ]
        known = {role for environment in self.environments for role in environment.roles}
        for call in self.recorded:
            if call.role in known and not any(
                allowed(environment.grants.get(call.role, ()), call) for environment in self.environments
            ):
                problems.append(f"anywhere: {call}")
        return sorted(problems)

    def refused(self) -> list[str]:
        """Return the functions that Lambda would refuse with their roles."""
        return [told for environment in self.environments for told in environment.refused()]

    def against_the_reference(self) -> list[str]:
        """Return the grants that contradict the Service Authorization Reference."""
        return [problem for grant in self.grants for problem in reference.problems(grant)]

    def unused(self) -> list[Grant]:
        """Return the grants that no call uses and no reason explains."""
        return [g for g, calls in self.users.items() if not calls and not explained(UNUSED, g)]

    def too_wide(self) -> list[str]:
        """Return the neighbours that are allowed without a reason."""
        return sorted({told for told, reason in self.allowed_neighbours() if reason is None})

    def shared(self) -> list[str]:
        """Return what policies allow across environments without a reason."""
        return sorted({told for told, reason in self.reached if reason is None})

    @cached_property
    def reached(self) -> list[tuple[str, Reason | None]]:
        """Return what policies allow across environments."""
        found = {
            grant
            for environment in self.environments
            for policy in other_environments.policies(environment)
            for grant in other_environments.reached(policy, environment.assembly.settings)
        }
        return [(str(grant), explained(SHARED, grant)) for grant in sorted(found)]

    def allowed_neighbours(self) -> Iterator[tuple[str, Reason | None]]:
        """Neighbours of calls that are allowed, unless they are calls of the role themselves."""
        for environment in self.environments:
            made = {*self._made_in(environment), *self._derived[environment.name]}
            for call in made:
                grants = environment.grants.get(call.role, frozenset())
                for what, neighbour in neighbours(call):
                    if neighbour not in made and allowed(grants, neighbour):
                        granted = Grant(call.role, call.action, call.resource)
                        reason = explained(NEIGHBOURS, granted, what)
                        yield f"{what}: {neighbour}", reason


def explained(reasons: Iterable[Reason], grant: Grant, what: str = "") -> Reason | None:
    """Return the reason for a grant; None if there is none."""
    return next(
        (
            reason
            for reason in reasons
            if re.fullmatch(reason.role, grant.role)
            and re.fullmatch(reason.action, grant.action)
            and re.search(reason.resource, grant.resource)
            and re.search(reason.conditions, grant.conditions)
            and (not what or re.search(reason.what, what))
        ),
        None,
    )
