"""The digest of everything that decides a model, and the names derived from it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilled_router.bedrock.naming import attempt_name
from stacks.identity import Identity
from stacks.settings import Settings, SettingsError

Changed = Callable[[dict[str, Any]], Settings]
Digest = Callable[..., str]

TASK = "0" * 64

S3 = {
    "dataset.source": "s3",
    "dataset.training": "s3://examples/training.jsonl",
    "dataset.holdout": "s3://examples/holdout.jsonl",
    "dataset.training_version": "v1",
    "dataset.holdout_version": "v2",
}
RAW = {
    "dataset.labels": "teacher",
    "dataset.training": ...,
    "dataset.holdout": ...,
    "dataset.queries": "data/queries.txt",
}
FINE_TUNING = {"distillation.method": "fine_tuning", "distillation.max_response_length": ...}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "training.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "data" / "holdout.jsonl").write_text('{"b": 2}\n')
    (tmp_path / "data" / "queries.txt").write_text("a white van\n")
    return tmp_path


@pytest.fixture
def digest(changed: Changed, project: Path) -> Digest:
    def _digest(changes: dict[str, Any] | None = None, task: str = TASK) -> str:
        return Identity(changed(changes or {}), task, project).digest

    return _digest


def test_the_digest_of_an_example_stays(changed: Changed, project: Path) -> None:
    """A change here makes every deployed environment pay for its model again."""
    identity = Identity(changed({}), TASK, project)
    assert identity.dataset_digest == "8c99297e9e8aedea"
    assert identity.digest == "0ff10f575846"
    assert identity.holdout_digest == "031c9259a5f24d07"


def test_a_model_of_an_earlier_version_keeps_its_digest(changed: Changed, project: Path) -> None:
    """Its digest counted the hold-out set. The setting that keeps it also holds when another set follows."""
    identity = Identity(changed({}), TASK, project)
    assert identity.earlier_job_name == "video-router-test-f0b235c1d469"
    kept, holdout = {"dataset.holdout_in_digest": identity.holdout_setting}, identity.holdout_digest
    (project / "data" / "holdout.jsonl").write_text('{"another": "row"}\n')
    again = Identity(changed(kept), TASK, project)
    assert (again.dataset_digest, again.digest) == ("33fb4ad5ed281334", "f0b235c1d469")
    assert again.holdout_digest != holdout
    (project / "data" / "training.jsonl").write_text('{"another": "row"}\n')
    assert Identity(changed(kept), TASK, project).digest != "f0b235c1d469"


def test_a_model_of_an_earlier_version_from_s3_keeps_its_digest(changed: Changed, tmp_path: Path) -> None:
    identity = Identity(changed(S3), TASK, tmp_path)
    assert identity.holdout_setting == "s3://examples/holdout.jsonl?versionId=v2"
    kept = {**S3, "dataset.holdout_in_digest": identity.holdout_setting, "dataset.holdout_version": "v3"}
    assert Identity(changed(kept), TASK, tmp_path).job_name == identity.earlier_job_name


def test_names_end_in_the_digest(changed: Changed, project: Path) -> None:
    identity = Identity(changed({}), TASK, project)
    assert re.fullmatch(r"[0-9a-f]{16}", identity.dataset_digest)
    assert re.fullmatch(r"[0-9a-f]{12}", identity.digest)
    assert identity.job_name == f"video-router-test-{identity.digest}"


def test_throughput_is_named_by_what_can_not_be_changed(changed: Changed, project: Path) -> None:
    assert Identity(changed({}), TASK, project).throughput_name == ""
    bought = {
        "endpoint.kind": "provisioned",
        "endpoint.provisioned.model_units": 2,
        "endpoint.provisioned.hourly_price_usd": 20.0,
    }
    assert Identity(changed(bought), TASK, project).throughput_name == "video-router-test-2mu"
    committed = {
        **bought,
        "endpoint.provisioned.commitment": "SixMonths",
        "endpoint.provisioned.acknowledge_commitment": True,
    }
    assert Identity(changed(committed), TASK, project).throughput_name == "video-router-test-2mu-6m"


def test_the_longest_name_leaves_room_for_a_ninth_attempt(changed: Changed, project: Path) -> None:
    job_name = Identity(changed({"name": "n" * 43}), TASK, project).job_name
    assert len(attempt_name(job_name, 9)) == 63


@pytest.mark.parametrize(
    "changes",
    [
        {"distillation.teacher": "amazon.nova-pro-v1:0"},
        {"distillation.student": "amazon.nova-lite-v1:0:300k"},
        {"distillation.max_response_length": 999},
        {"distillation.nonce": "again"},
        {"encryption.model_key": True},
        FINE_TUNING,
    ],
    ids=["teacher", "student", "max_response_length", "nonce", "t6_model_key", "method"],
)
def test_what_decides_the_model_changes_the_digest(digest: Digest, changes: dict[str, Any]) -> None:
    assert digest(changes) != digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"distillation.hyperparameters.epoch_count": 3},
        {"distillation.hyperparameters.learning_rate": 2e-5},
        {"distillation.hyperparameters.learning_rate_warmup_steps": 5},
    ],
    ids=["epoch_count", "learning_rate", "learning_rate_warmup_steps"],
)
def test_each_hyperparameter_changes_the_digest(digest: Digest, changes: dict[str, Any]) -> None:
    plain = digest({**FINE_TUNING, "distillation.hyperparameters": {}})
    assert digest({**FINE_TUNING, **changes}) != plain
    assert digest(FINE_TUNING) != plain


def test_the_task_changes_the_digest(digest: Digest) -> None:
    assert digest(task="1" * 64) != digest()


def test_the_content_of_the_training_file_changes_the_digest(digest: Digest, project: Path) -> None:
    before = digest()
    (project / "data" / "training.jsonl").write_text('{"c": 3}\n')
    assert digest() != before


def test_the_holdout_set_decides_its_own_digest_only(changed: Changed, project: Path) -> None:
    """A mended reference, or one more row."""

    def found() -> tuple[str, str, str]:
        identity = Identity(changed({}), TASK, project)
        return identity.digest, identity.dataset_digest, identity.holdout_digest

    before = found()
    (project / "data" / "holdout.jsonl").write_text('{"b": 2}\n{"c": 3}\n')
    after = found()
    assert after[:2] == before[:2]
    assert after[2] != before[2]


def held_out(project: Path, *rows: tuple[str, str]) -> None:
    """Write a hold-out set of queries and answers."""
    lines = [
        json.dumps({"messages": [{"content": [{"text": query}]}, {"content": [{"text": answer}]}]})
        for query, answer in rows
    ]
    (project / "data" / "holdout.jsonl").write_text("\n".join(lines) + "\n")


def test_queries_that_training_rows_must_not_resemble_change_the_digest(
    changed: Changed, project: Path
) -> None:
    """Of a hold-out set beside raw queries. Its references and its order decide nothing of the model."""

    def found(changes: dict[str, Any]) -> tuple[str, str]:
        identity = Identity(changed({**RAW, **changes}), TASK, project, teacher_digest=TASK)
        return identity.digest, identity.holdout_digest

    given = {"dataset.holdout": "data/holdout.jsonl"}
    held_out(project, ("a red car", "0.5 0.5"), ("a blue boat", "1.0 0.0"))
    model, holdout = found(given)
    assert found({})[1] == ""
    held_out(project, ("a blue boat", "0.9 0.1"), ("a red car", "0.5 0.5"))
    mended = found(given)
    assert mended[0] == model
    assert mended[1] != holdout
    held_out(project, ("a blue boat", "0.9 0.1"), ("a red car", "0.5 0.5"), ("a green bus", "0.5 0.5"))
    assert found(given)[0] != model
    (project / "data" / "holdout.jsonl").write_text("no row\n")
    assert found(given)[0] != model  # the deployment says what is wrong


def test_holdout_share_of_raw_queries_changes_the_digest(changed: Changed, project: Path) -> None:
    digests = {
        Identity(
            changed({**RAW, "labelling.holdout_share": share}), TASK, project, teacher_digest=TASK
        ).digest
        for share in (0.1, 0.2)
    }
    assert len(digests) == 2


def test_counts_of_raw_queries_are_no_part_of_the_labels(changed: Changed, project: Path) -> None:
    """Labels are paid by query. A log that is exported again has other counts, and is sorted by them."""

    def labels(content: str) -> str:
        (project / "data" / "queries.csv").write_text(content)
        given = changed({**RAW, "dataset.queries": "data/queries.csv"})
        return Identity(given, TASK, project, teacher_digest=TASK).labels_digest

    before = labels("query,count\na red car,9\na blue boat,3\n")
    assert labels("Query;Searches\na blue boat;12\nA red car;11\n") == before
    assert labels("query,count\na red car,9\na blue boat,3\na dog,1\n") != before
    assert labels("query,count\na red car,9\na blue bus,3\n") != before


def test_raw_queries_without_counts_keep_their_digest(changed: Changed, project: Path) -> None:
    """A change here makes every environment with raw queries pay for its labels again."""
    identity = Identity(changed(RAW), TASK, project, teacher_digest=TASK)
    assert identity.labels_digest == "cf01fd792a8f908a"


def test_the_name_of_a_file_does_not_change_the_digest(digest: Digest, project: Path) -> None:
    before = digest()
    (project / "data" / "training.jsonl").rename(project / "renamed.jsonl")
    assert digest({"dataset.training": "renamed.jsonl"}) == before


def test_training_and_holdout_are_told_apart(digest: Digest) -> None:
    swapped = {"dataset.training": "data/holdout.jsonl", "dataset.holdout": "data/training.jsonl"}
    assert digest(swapped) != digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset.training": "s3://others/training.jsonl"},
        {"dataset.training_version": "v3"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_uri_and_version_of_an_object_change_the_digest(digest: Digest, changes: dict[str, Any]) -> None:
    assert digest({**S3, **changes}) != digest(S3)


@pytest.mark.parametrize(
    "changes",
    [{"dataset.holdout": "s3://others/holdout.jsonl"}, {"dataset.holdout_version": "v3"}],
    ids=lambda changes: next(iter(changes)),
)
def test_uri_and_version_of_a_holdout_set_change_its_own_digest_only(
    changed: Changed, tmp_path: Path, changes: dict[str, Any]
) -> None:
    before, after = (Identity(changed(given), TASK, tmp_path) for given in (S3, {**S3, **changes}))
    assert after.digest == before.digest
    assert after.holdout_digest != before.holdout_digest


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"account": "999999999999"},
        {"tags": {"team": "search"}},
        {"gate.minimum_examples": 7},
        {"rollout.dwell_seconds": 7},
        {"release.poll_seconds": 301},
        {"router.memory_mb": 2048},
        {"retention.log_days": 90},
        {"retention.throughput": "retain"},
        {"alarms.error_rate": 0.5},
        {"budget": {"monthly_usd": 5.0, "emails": ["a@example.com"]}},
        {"checks": {"packs": ["PCIDSS321"]}},
        {"distillation.allow_legacy": True},
        {
            "endpoint.kind": "provisioned",
            "endpoint.provisioned.model_units": 1,
            "endpoint.provisioned.hourly_price_usd": 20.0,
        },
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_decides_nothing_of_the_model_leaves_the_digest(digest: Digest, changes: dict[str, Any]) -> None:
    assert digest(changes) == digest()


def test_missing_files_are_told_at_once(changed: Changed, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Identity(changed({}), TASK, tmp_path)
    assert [problem.key for problem in caught.value.problems] == ["dataset.training", "dataset.holdout"]
    assert str(caught.value).startswith(
        'environments/test.toml: dataset.training: found "data/training.jsonl"; allowed: a file under '
    )


def test_a_folder_is_not_a_data_set(changed: Changed, project: Path) -> None:
    (project / "folder.jsonl").mkdir()
    with pytest.raises(SettingsError, match="Is a directory"):
        Identity(changed({"dataset.training": "folder.jsonl"}), TASK, project)


def test_a_link_out_of_the_project_is_no_data_set(
    changed: Changed, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It would publish whatever the person who deploys can read."""
    secret = tmp_path_factory.mktemp("elsewhere") / "credentials"
    secret.write_text('{"a": 1}\n')
    (project / "data" / "training.jsonl").unlink()
    (project / "data" / "training.jsonl").symlink_to(secret)
    (project / "linked").symlink_to(secret.parent)
    for location in ("data/training.jsonl", "linked/credentials.jsonl"):
        with pytest.raises(SettingsError, match=r"dataset\.training: .*a link leads out of"):
            Identity(changed({"dataset.training": location}), TASK, project)


def test_a_link_within_the_project_is_followed(digest: Digest, project: Path) -> None:
    before = digest()
    (project / "data" / "training.jsonl").rename(project / "kept.jsonl")
    (project / "data" / "training.jsonl").symlink_to("../kept.jsonl")
    assert digest() == before


def test_s3_needs_no_files(changed: Changed, tmp_path: Path) -> None:
    assert Identity(changed(S3), TASK, tmp_path).digest


def test_an_empty_task_digest_is_refused(changed: Changed, project: Path) -> None:
    with pytest.raises(ValueError, match="task_digest is empty"):
        Identity(changed({}), "", project)


def test_a_name_beyond_bedrock_s_limits_is_refused(changed: Changed, project: Path) -> None:
    # load refuses it too; settings that were not loaded must not get further.
    for name in ("n" * 44, "under_score", "two--hyphens"):
        settings = changed({}).model_copy(update={"name": name})
        with pytest.raises(SettingsError, match=r"name: found .*also with -9 appended for a ninth attempt"):
            Identity(settings, TASK, project)


def test_what_a_platform_asks_for_is_no_other_job(digest: Digest) -> None:
    """A change of VPC, runtime key or boundary doesn't pay for a job again."""
    before = digest({"encryption.model_key": True})
    for changes in (
        {"network.subnet_ids": ["subnet-01234567"], "network.security_group_ids": ["sg-01234567"]},
        {"security.permissions_boundary": "Boundary"},
        {"encryption.runtime_key": True},
        {"encryption.key_arn": "arn:aws:kms:us-east-1:444455556666:key/1c9f2d8e"},
    ):
        assert digest({"encryption.model_key": True, **changes}) == before
