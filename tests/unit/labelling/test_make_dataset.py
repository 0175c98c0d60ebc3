"""The stage after all shards publishes a data set only if it keeps all rules."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from distilled_router.aws.errors import ReplacedError
from distilled_router.aws.objects import Folder, json_lines
from distilled_router.data.conversation import examples
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.data.preflight import Needs
from distilled_router.env import LabellingEnv
from labelling import handler
from labelling.handler import curated
from stacks.settings import PROJECT
from tests.unit.labelling.scenes import BUCKET, CREATE, FIRST, SECOND, TASK, Scene, replaced
from tests.unit.requests_table import RequestsTable

QUERIES = (PROJECT / "data" / "queries.txt").read_text(encoding="utf-8").splitlines()


def label(scene: Scene, queries: list[str], **row: Any) -> None:
    """Label one shard: each query gets another label than the one before."""
    rows = []
    for number, query in enumerate(queries):
        weights = {name: 1.0 * (name == TASK.labels[number % 4]) for name in TASK.labels}
        answers = [{"weights": weights}, {"weights": weights}]
        rows.append(
            {
                "number": number,
                "query": query,
                "answers": answers,
                "input_tokens": 9,
                "output_tokens": 1,
                **row,
            }
        )
    scene.folder.write_rows("queries/00000.jsonl", rows)
    scene.folder.write_rows("labelled/00000.jsonl", rows)


def files(scene: Scene) -> Folder:
    return Folder(scene.server.s3, BUCKET, scene.plan.dataset_folder, scene.seal)


def make(scene: Scene, needs: Needs | None = None) -> Any:
    return curated(scene.plan, scene.server.s3, BUCKET, TASK, FIRST, scene.seal, needs)


def test_what_is_published_keeps_the_rules_of_every_data_set(scene: Scene) -> None:
    label(scene, QUERIES)
    result = make(scene)
    assert result["outcome"] == "done", result
    assert "440 of 440 queries kept" in result["message"]
    target = files(scene)
    names = ["training", "holdout", "traffic"]
    assert target.names() == sorted(
        [
            "curation.json",
            "rejects.jsonl",
            "warnings.json",
            *(f"{name}.jsonl" for name in [*names, "samples"]),
        ]
    )
    training, holdout, traffic = (list(target.rows(f"{name}.jsonl")) for name in names)
    assert len(training) + len(holdout) + len(traffic) == 440
    assert result["files"].keys() == {"training", "holdout"}
    report = check_dataset(json_lines(training), json_lines(holdout), TASK, scene.plan.method)
    assert report.ok


def test_teacher_that_always_says_the_same_is_a_warning(scene: Scene) -> None:
    weights = dict.fromkeys(TASK.labels, 0.25)
    label(scene, QUERIES, answers=[{"weights": weights}, {"weights": weights}])
    assert make(scene)["outcome"] == "done"
    for name in ("curation.json", "warnings.json"):
        warnings = files(scene).read(name)["warnings"]  # type: ignore[index]
        assert any("rows have the same answer, which a student could only repeat" in one for one in warnings)


def test_samples_of_each_training_query_are_beside_it(scene: Scene) -> None:
    given = [
        {"weights": dict(zip(TASK.labels, weights, strict=True))}
        for weights in ((0.7, 0.1, 0.1, 0.1), (0.65, 0.15, 0.1, 0.1), (0.1, 0.7, 0.1, 0.1))
    ]
    label(scene, QUERIES, answers=[given[0], {"reason": "empty answer"}, *given[1:]])
    assert make(scene.with_plan(minimum_agreement=0.5))["outcome"] == "done"
    target = files(scene)
    lines = [line.decode() for line in json_lines(target.rows("training.jsonl"))]
    rows = list(target.rows("samples.jsonl"))
    assert [row["query"] for row in rows] == [example.query for example in examples(lines, TASK)]
    assert {tuple(row) for row in rows} == {("query", "samples")}
    assert all(row["samples"] == [answer["weights"] for answer in given] for row in rows)


def test_samples_decide_nothing(scene: Scene) -> None:
    """A data set of one sample has the same files with the same hashes, and no further one."""
    label(scene, QUERIES)
    several = make(scene)["files"]
    other = scene.with_plan(dataset="2" * 16, samples=1)
    weights = [
        {name: 1.0 * (name == TASK.labels[n % 4]) for name in TASK.labels} for n in range(len(QUERIES))
    ]
    rows = [
        {
            "number": n,
            "query": query,
            "answers": [{"weights": weights[n]}],
            "input_tokens": 9,
            "output_tokens": 1,
        }
        for n, query in enumerate(QUERIES)
    ]
    scene.folder.write_rows("labelled/00000.jsonl", rows)
    assert make(other)["files"] == several
    assert "samples.jsonl" in files(scene).names()
    assert set(files(scene).names()) - set(files(other).names()) == {"samples.jsonl"}


def test_traffic_of_a_query_is_kept_in_the_holdout_and_nowhere_else(scene: Scene) -> None:
    """Bedrock takes no further key in the training rows."""
    label(scene, QUERIES, count=12)
    result = make(scene)
    assert result["outcome"] == "done", result
    target = files(scene)
    training, holdout = (list(target.rows(f"{name}.jsonl")) for name in ("training", "holdout"))
    assert {row["count"] for row in holdout} == {12}
    assert all("count" not in row for row in training)
    lines = [line.decode() for line in json_lines(holdout)]
    assert {example.count for example in examples(lines, TASK)} == {12}


def test_new_counts_reach_a_holdout_of_older_labels(scene: Scene) -> None:
    label(scene, QUERIES, count=12)
    queries = [{"number": number, "query": query, "count": 7} for number, query in enumerate(QUERIES)]
    scene.folder.write_rows("queries/00000.jsonl", queries)
    assert make(scene)["outcome"] == "done"
    assert {row["count"] for row in files(scene).rows("holdout.jsonl")} == {7}


def test_data_set_that_breaks_a_rule_is_not_published_and_its_report_is(scene: Scene) -> None:
    label(scene, QUERIES, answers=[{"reason": "empty answer"}])
    result = make(scene)
    assert result["outcome"] == "failed"
    assert "row-count" in result["message"]
    assert "no valid answer" in result["message"]
    assert files(scene).names() == ["curation.json", "rejects.jsonl"]
    assert len(list(files(scene).rows("rejects.jsonl"))) == 440


def test_what_the_holdout_stands_for_goes_with_the_data_set(scene: Scene) -> None:
    """The sample queries are of templates, whose families are too large to be held out."""
    label(scene, QUERIES)
    message = make(scene)["message"]
    document = files(scene).read("warnings.json")
    assert document is not None
    (kept,) = (text for text in document["warnings"] if "stands for" in text)
    assert "of the queries are in families of more than 4 similar ones, which are only trained on" in kept
    assert kept in message


def test_holdout_that_the_gate_would_refuse_pays_for_no_job(scene: Scene) -> None:
    """The teacher leaves out more than anybody knew before it was asked."""
    label(scene, QUERIES)
    result = make(scene, Needs(method=scene.plan.method, minimum_examples=200))
    assert result["outcome"] == "failed"
    assert "gate.minimum_examples is 200: the gate would refuse every candidate" in result["message"]
    assert "training.jsonl" not in files(scene).names()


def test_validation_share_that_leaves_no_row_is_reported(scene: Scene) -> None:
    wanted = scene.with_plan(method="fine_tuning", validation_share=0.0001)
    label(wanted, QUERIES)
    result = make(wanted)
    assert result["outcome"] == "failed"
    assert "labelling.validation_share" in result["message"]


def test_shard_that_is_not_labelled_stops_the_curation(scene: Scene) -> None:
    label(scene, QUERIES)
    for number in range(1, 8):
        scene.publish(20, f"{number:05d}")
    result = make(scene)
    assert result["outcome"] == "failed"
    assert "7 of 8 shards are not labelled, without a reason: 00001, 00002, " in result["message"]
    assert "00005 and 2 more" in result["message"]
    assert files(scene).names() == []


def stage(scene: Scene, monkeypatch: pytest.MonkeyPatch, needs: dict[str, Any]) -> Any:
    """Return the step of the state machine, with these needs in its variables."""
    env = LabellingEnv(
        owner="search",
        stack_id="arn:stack",
        logical_id="LabellingResource",
        absence_seconds=0,
        bucket=BUCKET,
        requests_table="requests",
        batch_role_arn="arn:role",
        tags={},
        network={},
        needs=needs,
    )
    for name, value in env.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(handler, "client", lambda _: scene.server.s3)
    requests = RequestsTable()
    requests.seals[scene.plan.folder] = {"seal": scene.seal.key, "since": 0}
    monkeypatch.setattr(handler, "table", lambda _: requests)
    plan = {name: getattr(scene.plan, name) for name in scene.plan.__dataclass_fields__}
    return lambda execution: handler.curate_dataset({"plan": plan, "execution": execution}, None)


def test_needs_of_the_gate_reach_the_step(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    step = stage(scene, monkeypatch, {"method": "distillation", "minimum_examples": 200})
    label(scene, QUERIES)
    result = step(FIRST)
    assert result["outcome"] == "failed"
    assert "gate.minimum_examples is 200" in result["message"]


def test_failed_shard_is_reported_with_its_reason(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    step = stage(scene, monkeypatch, {"method": "distillation"})
    label(scene, QUERIES)
    scene.publish(60, "00001")
    scene.server.fault("denied", operation=CREATE, count=None)
    assert scene.shard("00001").label()["outcome"] == "failed"

    result = step(FIRST)

    assert result["outcome"] == "failed"
    assert result["message"].startswith("1 of 2 shards failed: shard 00001: Bedrock did not create batch job")
    assert "AccessDeniedException" in result["message"]
    assert files(scene).names() == []
    other = step(SECOND)
    assert "without a reason: 00001" in other["message"]


def test_crash_of_a_shards_function_is_its_reason(scene: Scene) -> None:
    label(scene, QUERIES)
    scene.folder.write_rows("queries/00001.jsonl", [{"query": "a query without a number"}])
    with pytest.raises(KeyError):
        scene.shard("00001").label()
    assert make(scene)["message"] == "1 of 2 shards failed: KeyError: 'number'"


# Somebody else writes to the bucket


def test_files_of_the_data_set_are_told_with_their_hashes(scene: Scene) -> None:
    label(scene, QUERIES)
    result = make(scene)
    for name in ("training", "holdout"):
        key = f"{scene.plan.dataset_folder}{name}.jsonl"
        body = scene.server.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert result["files"][name] == hashlib.sha256(body).hexdigest()


def test_labels_that_were_replaced_make_no_data_set(scene: Scene) -> None:
    label(scene, QUERIES)
    replaced(scene, "labelled/00000.jsonl", ("1.0", "0.5"))
    with pytest.raises(ReplacedError, match=r"labelled/00000.jsonl was not written by these functions"):
        make(scene)
    assert files(scene).names() == []


def given_holdout(scene: Scene, rows: str) -> Scene:
    """Publish a supplied hold-out set; return the scene with its hash in the plan."""
    body = rows.encode()
    scene.server.s3.put_object(Bucket=BUCKET, Key=HOLDOUT, Body=body)
    return scene.with_plan(holdout_key=HOLDOUT, holdout_sha256=hashlib.sha256(body).hexdigest())


HOLDOUT = "datasets/1111111111111111/holdout.jsonl"
ROWS = (PROJECT / "data" / "holdout.jsonl").read_text(encoding="utf-8")


def test_supplied_hold_out_set_stays_where_it_was_published(scene: Scene) -> None:
    label(scene, QUERIES)
    result = make(given_holdout(scene, ROWS))
    assert result["outcome"] == "done"
    assert set(result["files"]) == {"training"}
    assert "holdout.jsonl" not in files(scene).names()


def test_supplied_hold_out_set_that_was_replaced_is_not_used(scene: Scene) -> None:
    label(scene, QUERIES)
    wanted = given_holdout(scene, ROWS)
    given_holdout(scene, "\n".join(ROWS.splitlines()[:100]))
    with pytest.raises(ReplacedError, match=f"expected {wanted.plan.holdout_sha256}"):
        make(wanted)
    scene.server.s3.objects.pop((BUCKET, HOLDOUT))
    with pytest.raises(ReplacedError, match="does not exist any more"):
        make(wanted)


def test_shard_that_is_gone_with_its_labels_is_missed(scene: Scene) -> None:
    label(scene, QUERIES)
    with pytest.raises(ReplacedError, match=r"missing \['00001'\], unknown \[\]"):
        make(scene.with_plan(shards=2))
    scene.publish(1, shard="00002")
    with pytest.raises(ReplacedError, match=r"missing \['00001'\], unknown \['00002'\]"):
        make(scene.with_plan(shards=2))
    scene.server.s3.objects.pop((BUCKET, f"{scene.plan.folder}queries/00002.jsonl"))
    assert make(scene.with_plan(shards=1))["outcome"] == "done"


def test_hold_out_set_that_nobody_supplied_is_not_used(scene: Scene) -> None:
    label(scene, QUERIES)
    planted = f"{scene.plan.dataset_folder}given-holdout.jsonl"
    scene.server.s3.put_object(Bucket=BUCKET, Key=planted, Body=ROWS.encode())
    result = make(scene)
    assert set(result["files"]) >= {"training", "holdout"}
    held = {row["messages"][0]["content"][0]["text"] for row in files(scene).rows("holdout.jsonl")}
    assert held
    assert held <= set(QUERIES)
