"""`make local-down` finds resources that would still cost money."""

from typing import Any

import pytest

from local.leftovers import leftovers

PAGES: dict[str, Any] = {
    "list_model_customization_jobs": {"modelCustomizationJobSummaries": []},
    "list_model_invocation_jobs": {"invocationJobSummaries": []},
    "list_evaluation_jobs": {"jobSummaries": []},
    "list_custom_model_deployments": {"modelDeploymentSummaries": []},
    "list_provisioned_model_throughputs": {"provisionedModelSummaries": []},
    "list_custom_models": {"modelSummaries": []},
}
FOUND: list[tuple[str, dict[str, Any], str]] = [
    (
        "list_model_customization_jobs",
        {"modelCustomizationJobSummaries": [{"jobName": "j", "status": "InProgress"}]},
        "job j (InProgress)",
    ),
    (
        "list_model_invocation_jobs",
        {"invocationJobSummaries": [{"jobName": "b", "status": "Scheduled"}]},
        "batch job b (Scheduled)",
    ),
    (
        "list_evaluation_jobs",
        {"jobSummaries": [{"jobName": "e", "status": "Stopping"}]},
        "evaluation job e (Stopping)",
    ),
    (
        "list_custom_model_deployments",
        {"modelDeploymentSummaries": [{"customModelDeploymentName": "d"}]},
        "deployment d",
    ),
    (
        "list_provisioned_model_throughputs",
        {"provisionedModelSummaries": [{"provisionedModelName": "p"}]},
        "provisioned throughput p",
    ),
    ("list_custom_models", {"modelSummaries": [{"modelName": "m"}]}, "model m"),
]


class Bedrock:
    def __init__(self, **answers: Any) -> None:
        self._answers = {**PAGES, **answers}

    def get_paginator(self, operation: str) -> Any:
        return type("Pages", (), {"paginate": lambda _, **__: [self._answers[operation]]})()


def test_empty_account_has_no_leftovers() -> None:
    client: Any = Bedrock()
    assert leftovers(client, keep_models=False) == []


@pytest.mark.parametrize(("operation", "answer", "shown"), FOUND)
def test_each_kind_of_leftover_is_found(operation: str, answer: dict[str, Any], shown: str) -> None:
    client: Any = Bedrock(**{operation: answer})
    assert leftovers(client, keep_models=False) == [shown]


def test_ended_jobs_are_not_leftovers() -> None:
    jobs = [{"jobName": name, "status": name} for name in ("Completed", "Stopped", "Failed")]
    client: Any = Bedrock(list_model_customization_jobs={"modelCustomizationJobSummaries": jobs})
    assert leftovers(client, keep_models=False) == []


def test_retained_models_are_not_leftovers() -> None:
    client: Any = Bedrock(list_custom_models={"modelSummaries": [{"modelName": "m"}]})
    assert leftovers(client, keep_models=True) == []
