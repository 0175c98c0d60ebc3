"""The functions' environment variables: what a template writes is what its handler reads."""

from __future__ import annotations

import json

import aws_cdk as cdk
import pytest
from aws_cdk import assertions

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import MACHINE
from cdk_distilled_router.common.functions import (
    MOST_BYTES,
    UNKNOWN_BYTES,
    Function,
    VariablesError,
    variables_size,
)
from cdk_distilled_router.common.hosting import DEFAULT
from distilled_router import env
from distilled_router.env import Env, LabellingEnv
from stacks.application import declare
from stacks.settings import PROJECT
from tests.stacks import variables
from tests.stacks.assembly import Assembly
from tests.stacks.environments import settings_of


def test_every_function_has_exactly_the_variables_that_its_handler_reads(assembly: Assembly) -> None:
    for function in assembly.functions():
        handler, given = function.properties["Handler"], function.properties["Environment"]["Variables"]
        folder, _, entry = handler.partition(".handler.")
        assert variables.problems(handler, given) == [], function.name
        # The values fit their fields, too.
        variables.env_class(folder, entry).read(assembly.plain(given))


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        ("dataset.on_event", "ResourceEnv"),
        ("evaluation.ask_models", "EvaluationEnv"),
        ("evaluation.grade_answers", "GradeAnswersEnv"),
        ("evaluation.train_head", "TrainHeadEnv"),
        ("labelling.is_complete", "ResourceEnv"),
        ("labelling.label_queries", "LabellingEnv"),
        ("provisioned_throughput.on_event", "ResourceEnv"),
        ("provisioned_throughput.serve_from_throughput", "ServeFromThroughputEnv"),
        ("release_wait.tick", "ReleaseWaitEnv"),
        ("router.handler", "RouterEnv"),
    ],
)
def test_class_of_an_entry_point_is_found_in_its_code(handler: str, expected: str) -> None:
    assert variables.env_class(*handler.split(".")).__name__ == expected


class BrokenStack(cdk.Stack):
    """A stack with a step of the labelling that gets variables of another class."""

    def __init__(self, environment: Env) -> None:
        super().__init__(cdk.App(analytics_reporting=False), "Broken")
        Function(
            self,
            "Label",
            handler="labelling.label_queries",
            role=may.function_role(self, "Role"),
            environment=environment,
            hosting=DEFAULT,
            description="Broken on purpose",
            caller=MACHINE,
        )

    def problems(self) -> list[str]:
        """Return the problems of the function's variables."""
        found = assertions.Template.from_stack(self).find_resources("AWS::Lambda::Function")
        (properties,) = (each["Properties"] for each in found.values())
        return variables.problems(properties["Handler"], properties["Environment"]["Variables"])


def test_construct_that_passes_another_class_is_found() -> None:
    broken = BrokenStack(env.ReleaseWaitEnv(owner="search", table_name="releases", margin_seconds=9))
    assert broken.problems() == [
        "ABSENCE_SECONDS is missing",
        "BATCH_ROLE_ARN is missing",
        "BUCKET is missing",
        "LOGICAL_ID is missing",
        "NEEDS is missing",
        "NETWORK is missing",
        "REQUESTS_TABLE is missing",
        "STACK_ID is missing",
        "TAGS is missing",
        "MARGIN_SECONDS is no field of LabellingEnv",
        "TABLE_NAME is no field of LabellingEnv",
    ]


def test_field_that_nothing_reads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class LongerEnv(LabellingEnv):
        judge: str

    LongerEnv.__name__ = "LabellingEnv"
    monkeypatch.setattr(env, "LabellingEnv", LongerEnv)
    variables.env_class.cache_clear()
    broken = BrokenStack(
        LongerEnv(
            owner="search",
            stack_id="arn:stack",
            logical_id="Resource",
            absence_seconds=0,
            bucket="data",
            requests_table="requests",
            batch_role_arn="",
            tags={},
            network={},
            needs={},
            judge="",
        )
    )
    try:
        assert broken.problems() == ["LabellingEnv.judge is never read"]
    finally:
        variables.env_class.cache_clear()


def test_module_that_reads_the_environment_by_itself_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(variables, "READ_BESIDES", variables.READ_BESIDES - {"router/xray.py"})
    assert "router/xray.py reads os.environ" in variables.problems("router.handler.handler", {})


def test_tags_that_do_not_fit_into_the_variables_are_refused_by_name() -> None:
    """Lambda takes 4,096 bytes of variables for a function, and refuses more only when it is deployed."""
    long = {f"cost-centre-{number:02d}": "x" * 120 for number in range(30)}
    settings = settings_of("raw-queries").model_copy(update={"tags": long})
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    with pytest.raises(VariablesError, match=r"LabelQueries: .* 5,\d+ bytes.* largest is TAGS with 4,\d+"):
        declare(cdk.App(context=context), settings)


def test_variables_are_measured_as_json_as_lambda_does() -> None:
    variables = {"NAME": "search", "TAGS": json.dumps({"team": "search"}), "TABLE": "${Token[Table.7]}"}
    measured = {**variables, "TABLE": "x" * UNKNOWN_BYTES}
    assert sum(variables_size(variables).values()) + 1 == len(json.dumps(measured, separators=(",", ":")))


def test_quotes_inside_a_value_count_twice() -> None:
    """40 short tags fit as text, but not as the JSON in JSON that Lambda measures."""
    tags = {f"t{number:02d}": "x" * 90 for number in range(40)}
    plain = len("TAGS") + len(json.dumps(tags, separators=(",", ":")))
    assert plain < MOST_BYTES < variables_size({"TAGS": json.dumps(tags, separators=(",", ":"))})["TAGS"]
