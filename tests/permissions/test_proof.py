"""Every permission is used, and every call is allowed: see docs/permissions.md."""

from __future__ import annotations

import re

from tests.permissions import document
from tests.permissions.proof import Proof, explained
from tests.permissions.reasons import NEIGHBOURS, SHARED, UNUSED

RENEW = "renew it by `make permissions`"


def test_every_call_is_allowed_on_its_resource(proof: Proof) -> None:
    assert proof.denied() == []


def test_lambda_takes_every_function_with_its_role(proof: Proof) -> None:
    assert proof.refused() == []


def test_the_service_authorization_reference_knows_every_action_resource_and_condition(proof: Proof) -> None:
    assert proof.against_the_reference() == []


def test_every_permission_is_used_or_has_a_reason(proof: Proof) -> None:
    assert [str(grant) for grant in proof.unused()] == []


def test_no_neighbour_of_a_call_is_allowed_without_a_reason(proof: Proof) -> None:
    assert proof.too_wide() == []


def test_no_policy_reaches_another_environment_of_the_account(proof: Proof) -> None:
    assert proof.shared() == []


def test_every_reason_is_needed(proof: Proof) -> None:
    used = {explained(UNUSED, grant) for grant, calls in proof.users.items() if not calls}
    used |= {reason for _, reason in proof.allowed_neighbours()}
    used |= {reason for _, reason in proof.reached}
    assert [reason for reason in (*UNUSED, *NEIGHBOURS, *SHARED) if reason not in used] == []


def test_the_record_knows_the_roles_of_the_stacks_and_no_others(proof: Proof) -> None:
    """Roles that look up existing resources are an exception: only another team's app has them."""
    roles = {role for environment in proof.environments for role in environment.roles}
    others = {call.role for call in proof.recorded} - roles
    assert [role for role in others if not re.fullmatch(document.ELSEWHERE, role)] == []


def test_every_role_is_described(proof: Proof) -> None:
    roles = {role for environment in proof.environments for role in environment.roles}
    assert all(document.belongs_to(role) for role in roles)
    assert roles >= document.ROLES.keys()


def test_the_page_is_current(proof: Proof) -> None:
    assert document.read() == document.text(proof), f"docs/permissions.md is not up to date: {RENEW}"
