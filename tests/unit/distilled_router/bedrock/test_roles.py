"""A new role is waited for, for minutes, by every call that hands one to Bedrock."""

from __future__ import annotations

import pytest

from distilled_router.bedrock import roles
from local.bedrock.faults import ROLE_TEXTS
from tests.unit.resource_scenes import refusal


@pytest.mark.parametrize("text", ROLE_TEXTS)
@pytest.mark.parametrize("code", ["ValidationException", "AccessDeniedException"])
def test_texts_of_a_role_that_is_not_ready_are_known(code: str, text: str) -> None:
    assert roles.is_not_ready(refusal(code, text))


def test_other_refusals_are_final() -> None:
    assert not roles.is_not_ready(refusal("ValidationException", "The request is invalid."))
    assert not roles.is_not_ready(refusal("InternalServerException", ROLE_TEXTS[0]))
    assert not roles.is_not_ready(ConnectionError(ROLE_TEXTS[0]))


def test_error_names_the_role_the_text_and_the_next_step() -> None:
    text = str(roles.RoleNotReadyError(f"Bedrock did not create x: {ROLE_TEXTS[1]}", "arn:role/job"))
    assert ROLE_TEXTS[1] in text
    assert "policy of arn:role/job must name bedrock.amazonaws.com" in text
    assert "correct the role and deploy again" in text
