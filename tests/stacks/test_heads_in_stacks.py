"""The classification head in the stacks: its step, its variables, and nothing of it where it is off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.stacks.assembly import Assembly

FIELDS = {"HEAD_MODE", "HEAD_BUCKET", "EXPLORE_SHARE"}


def states(assembly: Assembly) -> Mapping[str, Any]:
    machine = assembly.one("AWS::StepFunctions::StateMachine", "ReleaseStateMachine")
    found: Mapping[str, Any] = assembly.definition(machine)["States"]
    return found


def test_release_goes_on_however_the_step_ends(assembly: Assembly) -> None:
    if assembly.settings.head.is_off:
        pytest.skip("there is no head")
    found = states(assembly)
    outcome = found["TrainHead: outcome"]
    (done,) = (one["Next"] for one in outcome["Choices"] if one["StringEquals"] == "done")
    (broken,) = (catch["Next"] for catch in found["TrainHead"]["Catch"])
    following = "GradeAnswers" if assembly.settings.evaluation.judge else "ScoreAndGate"
    assert {done, broken, outcome["Default"]} == {f"{following}: begin"}
    assert found["TrainHead"]["Catch"][0]["ErrorEquals"] == ["States.ALL"]


def test_step_has_the_evaluations_variables_and_the_margins(assembly: Assembly) -> None:
    head = assembly.settings.head
    if head.is_off:
        pytest.skip("there is no head")
    trains, scores = (
        assembly.one("AWS::Lambda::Function", f"Release{name}").properties
        for name in ("TrainHead", "ScoreAndGate")
    )
    given, others = (one["Environment"]["Variables"] for one in (trains, scores))
    margins = {"MARGIN_ERROR": f"{head.margin_error:g}", "MARGIN_DOMINANT": f"{head.margin_dominant:g}"}
    assert {name: given[name] for name in given.keys() - others.keys()} == margins
    assert trains["Role"] == scores["Role"]


def test_router_reads_heads_of_its_owner_and_no_other_object(assembly: Assembly) -> None:
    settings = assembly.settings
    statements = assembly.role_statements(assembly.one("AWS::IAM::Role", "RouterRole"))
    reads = [one for one in statements if any(action.startswith("s3:") for action in one.actions)]
    variables = assembly.one("AWS::Lambda::Function", "RouterFunction").properties["Environment"]["Variables"]
    if settings.head.is_off:
        assert not reads
        assert FIELDS.isdisjoint(variables)
        return
    (read,) = reads
    assert read.actions == {"s3:GetObject"}
    assert read.resources == {f"<Data.Arn>/releases/{settings.owner}/*/head.bin"}
    assert variables["HEAD_MODE"] == settings.head.mode
    assert assembly.plain(variables["HEAD_BUCKET"]) == "<Data>"


@pytest.mark.slow
def test_templates_without_a_head_have_nothing_of_it(assemblies: Mapping[str, Assembly]) -> None:
    assert "head" not in str(assemblies["without-head"].templates).lower().replace("-without-head", "")


@pytest.mark.slow
def test_margins_of_the_head_start_no_release_again(assemblies: Mapping[str, Assembly]) -> None:
    """A custom resource gets an Update, and a failed release another attempt, if a property changes."""
    properties = [
        assembly.one("Custom::BedrockRelease").properties
        for assembly in (assemblies["dev"], assemblies["without-head"])
    ]
    assert properties[0].keys() == properties[1].keys()
    assert "head" not in str(properties[0]).lower()
