"""The local system knows every model that settings accept."""

from __future__ import annotations

import time

import pytest

from cdk_distilled_router.catalogue import FALLBACKS, JUDGES, STUDENTS, servable, teacher_identifiers
from local.bedrock.catalogue import TUNED, Catalogue

CATALOGUE = Catalogue("us-west-2", "000000000000")


@pytest.mark.parametrize("student", servable(tuple(STUDENTS)))
def test_every_student_can_be_customized(student: str) -> None:
    assert TUNED[0] in CATALOGUE.usable(student, time.time()).customizations


@pytest.mark.parametrize("model", sorted({*FALLBACKS, *teacher_identifiers()}))
def test_every_fallback_and_teacher_can_be_asked_by_its_id(model: str) -> None:
    profile = CATALOGUE.profile_model(model)
    assert profile or CATALOGUE.usable(model, time.time()).inference == ("ON_DEMAND",)


@pytest.mark.parametrize("judge", JUDGES)
def test_every_judge_can_grade(judge: str) -> None:
    assert CATALOGUE.judge(judge, time.time())
