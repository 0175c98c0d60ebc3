"""A labelling from invocation logs: rows under the student's prompt, labels that cost nothing, read once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from distilled_router.aws.custom_resource import answer_event
from distilled_router.aws.errors import ResourceError
from distilled_router.aws.objects import Folder, Seal
from distilled_router.cost.estimate import Spec
from distilled_router.cost.limit import Limit, Spending
from distilled_router.data.labelling_plan import Plan
from distilled_router.data.preflight import Needs
from distilled_router.task.converse import Prompt, ask, request
from labelling import logs, resource, seals, sources
from labelling.cost_check import CostCheck
from labelling.handler import curated
from labelling.resource import Services
from stacks.settings import PROJECT
from tests.unit import framework
from tests.unit.labelling.scenes import BUCKET, FIRST, OWNER, PLAN, SEAL, TASK, Scene
from tests.unit.local.bedrock.scenes import Scene as BedrockScene
from tests.unit.logged import TEACHER, key, packed, record
from tests.unit.requests_table import RequestsTable

LOGS = "search-logs"
ANSWERED = replace(PLAN, samples=0)
QUERIES = (PROJECT / "data" / "queries.txt").read_text(encoding="utf-8").splitlines()[:300]
SPEC = Spec(
    method="distillation",
    teacher=PLAN.teacher,
    student="amazon.nova-micro-v1:0:128k",
    base_model="us.amazon.nova-micro-v1:0",
    max_response_length=100,
    job=f"{OWNER}-{PLAN.digest}",
)


def told(number: int) -> str:
    """Return an answer as a full prompt makes it, which names another label than the one before."""
    weights = {name: 0.7 if name == TASK.labels[number % 4] else 0.1 for name in TASK.labels}
    return json.dumps({**weights, "reasoning": "The query names what is seen."})


class Logged:
    """One owner's labelling whose queries are in logs."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.requests = scene, RequestsTable()

    def log(self, queries: Sequence[str] = QUERIES, hour: str = "2026/11/03/12", **changes: Any) -> None:
        records = [record(query, **{"answer": told(n), **changes}) for n, query in enumerate(queries)]
        self.scene.server.s3.put_object(Bucket=LOGS, Key=f"bedrock/{key(hour)}", Body=packed(records))

    def properties(self, plan: Plan, **changes: Any) -> dict[str, Any]:
        given = {"Bucket": LOGS, "Prefix": "bedrock/", "Query": "{query}", "Metadata": {"service": "search"}}
        return {
            "Bucket": BUCKET,
            "StateMachineArn": "arn:aws:states:us-east-1:000000000000:stateMachine:m",
            "JobName": f"{OWNER}-{plan.digest}",
            "Plan": json.dumps(asdict(plan)),
            "Logs": given if plan.samples else {**given, "UseAnswers": "true"},
            "QueriesPerShard": "100",
            "Retain": "true",
            **changes,
        }

    def deploy(self, plan: Plan = ANSWERED, **changes: Any) -> dict[str, Any]:
        """Return onEvent's answer to a Create."""
        event = self.requests.event(framework.request("Create", self.properties(plan, **changes)))
        aws = Services(self.scene.bedrock, None, self.scene.server.s3, self.requests)
        return answer_event(event, lambda each: resource.handle(each, aws, TASK, lambda call, **_: call()))

    @property
    def seal(self) -> Seal:
        return seals.read(self.requests, PLAN.folder) or SEAL

    @property
    def folder(self) -> Folder:
        return Folder(self.scene.server.s3, BUCKET, PLAN.folder, self.seal)

    def rows(self, under: str) -> list[dict[str, Any]]:
        return [row for name in self.folder.names(under) for row in self.folder.rows(name)]

    def curate(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of the data set by file."""
        result = curated(ANSWERED, self.scene.server.s3, BUCKET, TASK, FIRST, self.seal)
        assert result["outcome"] == "done", result
        target = Folder(self.scene.server.s3, BUCKET, PLAN.dataset_folder, self.seal)
        return {
            name: list(target.rows(f"{name}.jsonl")) for name in ("training", "holdout", "traffic", "rejects")
        }


@pytest.fixture
def logged(scene: Scene) -> Logged:
    return Logged(scene)


def test_rows_are_asked_as_the_router_asks_and_answered_in_the_tasks_format(logged: Logged) -> None:
    logged.log()
    logged.deploy()
    rows = logged.curate()
    assert rows.pop("rejects") == []
    assert sum(map(len, rows.values())) == len(QUERIES)
    for row in (row for part in rows.values() for row in part):
        assert row["system"] == [{"text": TASK.student_prompt}]
        asked, answered = (message["content"][0]["text"] for message in row["messages"])
        assert asked in QUERIES
        assert TASK.written_as_asked(answered)
        assert TASK.parse(answered) == TASK.parse(told(QUERIES.index(asked)))
    assert rows["holdout"]


def test_a_student_of_logs_answers_the_router_in_its_format(logged: Logged) -> None:
    """From calls that the stand-in logs, to a student that is asked as the router asks."""
    account = BedrockScene(logged.scene.server)
    account.control.put_model_invocation_logging_configuration(
        loggingConfig={"s3Config": {"bucketName": LOGS, "keyPrefix": "bedrock"}}
    )
    full, service = Prompt.base(TASK), {"service": "search"}
    for query in QUERIES:
        account.runtime.converse(modelId=TEACHER, **request(full, query), requestMetadata=service)
    account.control.delete_model_invocation_logging_configuration()
    logged.deploy()
    rows = logged.curate()
    asked = [row["messages"][0]["content"][0]["text"] for row in rows["holdout"]]

    def valid(training: list[dict[str, Any]], name: str) -> float:
        student = account.deploy(account.train(name, training), f"{name}-endpoint")
        answers = [ask(account.runtime, student, Prompt.student(TASK), query).text for query in asked]
        return sum(map(TASK.written_as_asked, answers)) / len(answers)

    assert len(asked) > 20
    assert valid(rows["training"], "ours") == 1.0
    # As the logs have them: under the prompt that was logged.
    as_logged = [{**row, "system": [{"text": full.text}]} for row in rows["training"]]
    assert valid(as_logged, "logs") < 0.9


def test_query_that_was_logged_often_keeps_its_traffic(logged: Logged) -> None:
    logged.log()
    logged.log(QUERIES[:1] * 2, hour="2026/11/03/13")
    logged.deploy()
    for under in ("queries/", "labelled/"):
        assert [row.get("count", 1) for row in logged.rows(under)] == [3, *[1] * (len(QUERIES) - 1)]


def test_queries_with_logged_answers_are_labelled_and_nobody_is_asked(logged: Logged) -> None:
    logged.log()
    answered = logged.deploy()
    assert answered["Data"]["Queries"] == str(len(QUERIES))
    assert answered["Shards"] == 1
    labelled = logged.rows("labelled/")
    assert [row["query"] for row in labelled] == QUERIES
    assert labelled[0]["answers"] == [{"weights": TASK.parse(told(0))}]
    assert {row.get("count", 1) for row in [*labelled, *logged.rows("queries/")]} == {1}
    assert replace(logged.scene, plan=ANSWERED, seal=logged.seal).label()["outcome"] == "done"
    assert (logged.scene.asked(), logged.scene.jobs()) == (0, [])


def test_equal_queries_with_different_answers_must_agree_like_samples(logged: Logged) -> None:
    logged.log()
    other = json.dumps({name: 0.7 if name == TASK.labels[3] else 0.1 for name in TASK.labels})
    logged.log(QUERIES[:1], "2026/11/03/13", answer=other)
    logged.deploy()
    rows = logged.curate()
    disagreed = [row["query"] for row in rows["rejects"] if row["reason"] == "the samples disagree"]
    assert disagreed == QUERIES[:1]


def test_logged_answers_to_equal_queries_are_samples(logged: Logged) -> None:
    logged.log()
    logged.log(hour="2026/11/03/13")
    logged.deploy()
    trained = logged.curate()["training"]
    target = Folder(logged.scene.server.s3, BUCKET, PLAN.dataset_folder, logged.seal)
    samples = {row["query"]: row["samples"] for row in target.rows("samples.jsonl")}
    assert samples.keys() == {row["messages"][0]["content"][0]["text"] for row in trained}
    for query, found in samples.items():
        assert found == [TASK.parse(told(QUERIES.index(query)))] * 2


def test_without_logged_answers_the_teacher_is_asked_for_the_logged_queries(logged: Logged) -> None:
    logged.log(modelId="amazon.nova-micro-v1:0", answer="nothing of use")
    answered = logged.deploy(PLAN)
    assert answered["Shards"] == 3
    assert [row["query"] for row in logged.rows("queries/")] == QUERIES
    assert logged.folder.names("labelled/") == []


def test_new_logs_do_not_change_what_a_digest_means(logged: Logged) -> None:
    """The answers are stored by the number of their query."""
    logged.log()
    logged.deploy(PLAN)
    before = logged.rows("queries/")
    logged.log(["an older query that comes first"], "2026/10/01/12")
    assert logged.deploy(PLAN)["Data"]["Queries"] == str(len(QUERIES))
    assert logged.rows("queries/") == before


def test_error_about_what_was_kept_says_that_newer_logs_were_not_read(logged: Logged) -> None:
    """The needs may have grown since, and so may the logs."""
    logged.log(QUERIES[:200])
    logged.deploy()
    logged.log(QUERIES[200:], "2026/11/03/13")
    needs = Needs(method="distillation", holdout_share=0.1, minimum_examples=25).written()
    with pytest.raises(ResourceError, match=r"gate.minimum_examples is 25") as caught:
        logged.deploy(Needs=needs)
    assert "newer requests don't count: set another window" in str(caught.value)
    assert "Widen" not in str(caught.value)


def test_expired_logs_are_not_needed_again(logged: Logged) -> None:
    logged.log()
    first = logged.deploy()
    logged.scene.server.s3.objects.pop((LOGS, f"bedrock/{key()}"))
    assert logged.deploy()["Data"] == first["Data"]


def test_what_another_deployment_kept_first_is_published(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged.log()
    logged.deploy()
    # This one looked before the other had written.
    logged.log(QUERIES[::-1])
    real, seen = logs.kept, iter([None])
    monkeypatch.setattr(logs, "kept", lambda folder: next(seen, real(folder)))
    logged.deploy()
    assert [row["query"] for row in logged.rows("queries/")] == QUERIES
    assert [row["query"] for row in logged.rows("labelled/")] == QUERIES


def test_a_kept_object_that_somebody_replaced_is_not_used(logged: Logged) -> None:
    logged.log()
    logged.deploy()
    place = {"Bucket": BUCKET, "Key": f"{PLAN.folder}{logs.KEPT}"}
    content = logged.scene.server.s3.get_object(**place)["Body"].read()
    logged.scene.server.s3.put_object(**place, Body=content.replace(b"0.7", b"0.1"))
    with pytest.raises(ResourceError, match="was not written by these functions, or was replaced"):
        logged.deploy()


def test_the_size_of_shards_decides_nothing_about_logged_answers(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LOGGED_PER_SHARD", 200)
    logged.log()
    assert logged.deploy()["Shards"] == 2
    assert logged.deploy(QueriesPerShard="20")["Shards"] == 2
    assert len(logged.folder.names("queries/")) == 2


def test_too_few_usable_requests_publish_nothing_and_keep_nothing(logged: Logged) -> None:
    logged.log(QUERIES[:20])
    logged.log(QUERIES[20:], "2026/11/03/13", requestMetadata={"service": "ads"})
    with pytest.raises(ResourceError, match="found 20 usable") as caught:
        logged.deploy()
    assert "280 other request metadata" in str(caught.value)
    assert logged.folder.names() == []
    logged.log(QUERIES[20:], "2026/11/03/13")
    assert logged.deploy()["Data"]["Queries"] == str(len(QUERIES))


def test_answers_of_other_models_are_no_labels(logged: Logged) -> None:
    """The account's logs also hold what the student and the base model answered."""
    logged.log()
    logged.log(QUERIES, "2026/11/03/13", modelId="us.amazon.nova-micro-v1:0", answer="100 0 0 0")
    logged.deploy()
    assert all(
        row["answers"] == [{"weights": TASK.parse(told(n))}] for n, row in enumerate(logged.rows("labelled/"))
    )


def test_logged_answers_cost_the_job_only(logged: Logged) -> None:
    logged.log()
    cost: dict[str, Any] = {
        "Cost": json.dumps(asdict(SPEC)),
        "MaximumCostUsd": "200",
        "MaximumCostDays": "30",
    }
    logged.deploy(**cost)
    committed = json.loads(logged.requests.committed[f"{OWNER}/spending"])
    assert list(committed) == [SPEC.job]
    check = CostCheck(
        plan=ANSWERED,
        spec=SPEC,
        limit=Limit(200, 30),
        folder=logged.folder,
        task=TASK,
        execution=FIRST,
        spending=Spending(logged.requests, logged.scene.bedrock, OWNER),
    )
    assert check.commit()["message"] == "nothing is left to ask, and the job is committed"
    logged.requests.committed.clear()
    with pytest.raises(ResourceError, match=r"distillation\.maximum_cost_usd = 0\.01"):
        logged.deploy(**{**cost, "MaximumCostUsd": "0.01"})


def test_the_teacher_of_the_plan_is_the_one_whose_answers_count(logged: Logged) -> None:
    logged.log()
    with pytest.raises(ResourceError, match="300 answers of other models than the teacher"):
        logged.deploy(replace(ANSWERED, teacher="us.amazon.nova-premier-v1:0"))
