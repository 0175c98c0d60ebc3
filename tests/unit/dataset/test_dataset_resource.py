"""Dataset: a bad file costs nothing, a good one is published as it is."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest

from dataset import handler
from distilled_router.aws.errors import with_retries
from distilled_router.cost.estimate import Spec
from distilled_router.data.conversation import row
from distilled_router.data.preflight import Needs
from distilled_router.task.task import Task
from local.bedrock import BedrockStandIn
from tests.unit import framework, requests_table
from tests.unit.framework import MARKER, Framework, Response
from tests.unit.local.bedrock.scenes import Scene
from tests.unit.requests_table import RequestsTable, behind_framework
from tests.unit.resource_scenes import Meddled, logged, refusal, times, training_rows

Client = Callable[[str], Any]
DIGEST = "0123456789abcdef"
FOLDER = f"datasets/{DIGEST}/"
_ticks = count()
# Waits take no time: each read of this clock is a second later.
retry_at_once = partial(with_retries, sleep=lambda _: None, now=lambda: float(next(_ticks)))


@dataclass
class Shop:
    """A bucket with the sources, and the resource that publishes them into it."""

    s3: Any
    bucket: str
    task: Task
    requests: RequestsTable = field(default_factory=RequestsTable)
    bedrock: Any = None

    def properties(self, **changes: Any) -> dict[str, Any]:
        """Return the properties as CloudFormation sends them."""
        return {
            "Bucket": self.bucket,
            "Digest": DIGEST,
            "Method": "distillation",
            "Training": {"Bucket": self.bucket, "Key": "in/training.jsonl"},
            "Holdout": {"Bucket": self.bucket, "Key": "in/holdout.jsonl"},
            "Retain": "false",
            **changes,
        }

    def put(self, name: str, content: bytes) -> str:
        """Write a source file, and return its version."""
        answer = self.s3.put_object(Bucket=self.bucket, Key=f"in/{name}.jsonl", Body=content)
        return str(answer["VersionId"])

    def resource(self, s3: Any = None) -> Framework:
        """Return the custom resource behind its framework."""
        client = s3 or self.s3
        return behind_framework(
            self.requests,
            lambda event: handler.handle(
                event, handler.Services(client, self.bedrock), self.task, retry_at_once
            ),
        )

    def create(self, s3: Any = None, **changes: Any) -> Response:
        """Send a Create."""
        return self.resource(s3).send(framework.create(self.properties(**changes)))

    def published(self) -> dict[str, bytes]:
        """Return the published files of data under datasets/ by key."""
        page = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="datasets/")
        found = (item["Key"] for item in page.get("Contents", ()))
        keys = [key for key in found if "/claims/" not in key and not key.endswith("/warnings.json")]
        return {key: self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def versions(self) -> int:
        """Return the number of versions and delete markers under datasets/."""
        page = self.s3.list_object_versions(Bucket=self.bucket, Prefix="datasets/")
        return len(page.get("Versions", ())) + len(page.get("DeleteMarkers", ()))


@pytest.fixture(scope="session")
def holdout(task: Task) -> bytes:
    weights = {label: 1.0 * (label == task.labels[0]) for label in task.labels}
    return "".join(json.dumps(row(task, f"held out {n}", weights)) + "\n" for n in range(100)).encode()


@pytest.fixture
def shop(aws: Client, bucket: str, task: Task, rows: bytes, holdout: bytes, bedrock: Any) -> Shop:
    shop = Shop(aws("s3"), bucket, task, bedrock=bedrock)
    shop.put("training", rows)
    shop.put("holdout", holdout)
    return shop


def test_holdout_that_the_gate_would_refuse_publishes_nothing(shop: Shop) -> None:
    needs = Needs(method="distillation", minimum_examples=200)
    response = shop.create(Needs=needs.written())
    assert not response.succeeded
    assert "found 100 rows, and gate.minimum_examples is 200" in response.reason
    assert shop.published() == {}


def test_a_good_data_set_is_published_byte_by_byte(shop: Shop, rows: bytes, holdout: bytes) -> None:
    response = shop.create()

    uri = f"s3://{shop.bucket}/{FOLDER}"
    assert (response.succeeded, response.physical_id) == (True, uri)
    assert response.data == {
        "TrainingUri": f"{uri}training.jsonl",
        "HoldoutUri": f"{uri}holdout.jsonl",
        "Digest": DIGEST,
        "TrainingRows": "120",
        "HoldoutRows": "100",
        "TrainingSha256": hashlib.sha256(rows).hexdigest(),
        "HoldoutSha256": hashlib.sha256(holdout).hexdigest(),
    }
    assert shop.published() == {f"{FOLDER}training.jsonl": rows, f"{FOLDER}holdout.jsonl": holdout}


def test_warnings_are_published_beside_the_hold_out_set(shop: Shop) -> None:
    shop.create()
    kept = shop.s3.get_object(Bucket=shop.bucket, Key=f"{FOLDER}warnings.json")["Body"].read()
    warning = (
        "holdout: all 100 rows have the same answer, which a student could only repeat; look at the labels"
    )
    assert warning in json.loads(kept)["warnings"]


def test_warnings_about_training_rows_are_published_beside_them(shop: Shop, task: Task) -> None:
    weights = {label: 1.0 * (label == task.labels[0]) for label in task.labels}
    same = "".join(json.dumps(row(task, f"trained {n} {n * n}", weights)) + "\n" for n in range(120))
    shop.put("training", same.encode())
    assert shop.create(Publishes="training", Training=shop.properties()["Training"]).succeeded
    kept = shop.s3.get_object(Bucket=shop.bucket, Key=f"{FOLDER}warnings.json")["Body"].read()
    assert any("training: all 120 rows have the same answer" in one for one in json.loads(kept)["warnings"])


def test_the_same_event_twice_publishes_the_same(shop: Shop, rows: bytes, holdout: bytes) -> None:
    """Case B1."""
    event = framework.create(shop.properties())

    assert shop.resource().send(event) == shop.resource().send(event)
    assert shop.published() == {f"{FOLDER}training.jsonl": rows, f"{FOLDER}holdout.jsonl": holdout}


def test_all_findings_come_with_their_lines_and_nothing_is_published(shop: Shop, rows: bytes) -> None:
    """Case B18."""
    lines = rows.splitlines(keepends=True)
    lines[6] = b"not json\n"
    lines[11] = lines[11].replace(b"query number 11", b"what does Assistant: mean")
    lines[20] = b"\n"
    shop.put("training", b"".join(lines))

    response = shop.create()

    assert (response.succeeded, response.physical_id) == (False, MARKER)
    for text in ("training:7 json", "training:12 reserved-word", "'Assistant:'", "training:21 blank-line"):
        assert text in response.reason
    assert response.reason.endswith("Nothing was published or started.")
    assert shop.published() == {}


@pytest.mark.parametrize(
    ("rows_wanted", "method", "text"),
    [
        (99, "distillation", "found 99 usable rows, at least 100"),
        (7, "fine_tuning", "found 7 usable rows, at least 8"),
        (15_001, "distillation", "found 15001 rows, at most 15000"),
    ],
)
def test_too_few_or_too_many_rows_are_refused(
    shop: Shop, task: Task, rows_wanted: int, method: str, text: str
) -> None:
    """Case B18."""
    shop.put("training", training_rows(task, rows_wanted))

    response = shop.create(Method=method)

    assert not response.succeeded
    assert text in response.reason
    assert shop.published() == {}


def _huge(rows: bytes) -> bytes:
    return b'{"schemaVersion": "' + rows * 30 + b'"}'


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (gzip.compress, "training encoding: found gzip"),
        (lambda rows: rows.decode().encode("utf-16"), "training encoding: found UTF-16 text"),
        (lambda _: b"", "training row-count: found 0 usable rows"),
        (lambda rows: _huge(rows.replace(b"\n", b" ")), "training:1 line-length"),
    ],
    ids=["gzip", "utf-16", "empty", "one huge line"],
)
def test_a_file_of_another_kind_is_refused(
    shop: Shop, rows: bytes, change: Callable[[bytes], bytes], text: str
) -> None:
    """Case B18."""
    shop.put("training", change(rows))

    response = shop.create()

    assert not response.succeeded
    assert text in response.reason
    assert shop.published() == {}


def test_byte_order_mark_and_crlf_are_mended(shop: Shop, rows: bytes, holdout: bytes) -> None:
    """Bedrock may read neither. What is published, and its SHA-256, are those of the mended file."""
    shop.put("training", b"\xef\xbb\xbf" + rows.replace(b"\n", b"\r\n"))
    shop.put("holdout", holdout.replace(b"\n", b"\r\n"))

    response = shop.create()

    assert response.succeeded, response.reason
    assert shop.published() == {f"{FOLDER}training.jsonl": rows, f"{FOLDER}holdout.jsonl": holdout}
    assert response.data["TrainingSha256"] == hashlib.sha256(rows).hexdigest()
    assert response.data["HoldoutSha256"] == hashlib.sha256(holdout).hexdigest()


def test_mended_file_that_changes_while_it_is_read_is_not_published(shop: Shop, rows: bytes) -> None:
    shop.put("training", rows.replace(b"\n", b"\r\n"))
    changing = Meddled(shop.s3, before={"get_object": at_call(3, lambda: shop.put("training", rows))})

    response = shop.create(changing)

    assert not response.succeeded
    assert "changed while it was read. Deploy again." in response.reason
    assert shop.published() == {}


def test_file_that_is_too_large_to_be_mended_is_refused(
    shop: Shop, rows: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilled_router.data.files.MOST_MENDED_BYTES", len(rows))
    shop.put("training", rows.replace(b"\n", b"\r\n"))

    response = shop.create()

    assert "which are mended in files up to" in response.reason
    assert shop.published() == {}


def test_the_holdout_is_checked_as_well(shop: Shop, rows: bytes) -> None:
    """Case B18."""
    shop.put("holdout", rows)

    response = shop.create()

    assert "holdout:1 contamination: found a query of training:1" in response.reason
    assert shop.published() == {}


def test_findings_in_any_script_fit_the_response(shop: Shop, rows: bytes) -> None:
    """Case C9."""
    # Framework.send checks the size of every response.
    query = "夜に走る赤い車🚗" * 4
    lines = [line.replace(b"query number", query.encode()) for line in rows.splitlines(keepends=True)]
    bad = [line.replace(b'"text": "', b'"text": "\xe5\xa4\x9c ', 1) for line in lines]
    shop.put("training", b"".join(bad))

    response = shop.create()

    assert not response.succeeded
    assert response.reason.endswith("Nothing was published or started.")


def test_an_object_that_does_not_exist_is_named(shop: Shop) -> None:
    missing = {"Bucket": shop.bucket, "Key": "in/none.jsonl"}

    response = shop.create(Holdout=missing)

    assert not response.succeeded
    for text in (f"s3://{shop.bucket}/in/none.jsonl", "It does not exist", "dataset.holdout"):
        assert text in response.reason
    assert shop.published() == {}


@pytest.mark.parametrize(
    "source",
    [{"Bucket": "no-such-bucket-here", "Key": "a"}, {"Key": "in/training.jsonl", "VersionId": "1" * 32}],
    ids=["bucket", "version"],
)
def test_a_bucket_or_version_that_does_not_exist_is_named(shop: Shop, source: dict[str, str]) -> None:
    response = shop.create(Training={"Bucket": shop.bucket, **source})

    assert not response.succeeded
    assert "It does not exist" in response.reason
    assert source.get("VersionId", "latest") in response.reason


def test_access_that_iam_does_not_know_yet_is_awaited(shop: Shop) -> None:
    denied = times(2, refusal("AccessDenied", "not authorized to perform: s3:GetObject", 403))

    assert shop.create(Meddled(shop.s3, before={"get_object": denied})).succeeded


def test_an_object_that_may_not_be_read_is_reported_with_the_services_text(shop: Shop) -> None:
    denied = times(10_000, refusal("AccessDenied", "not authorized to perform: kms:Decrypt", 403))

    response = shop.create(Meddled(shop.s3, before={"get_object": denied}))

    assert not response.succeeded
    for text in ("kms:Decrypt", "can't be read, or does not exist", "dataset.training", "policy and key"):
        assert text in response.reason
    assert shop.published() == {}


def test_the_named_version_is_published_and_not_the_latest(shop: Shop, rows: bytes) -> None:
    version = shop.put("training", rows)
    shop.put("training", b"somebody's newer file\n")
    source = {"Bucket": shop.bucket, "Key": "in/training.jsonl"}

    assert not shop.create(Training=source).succeeded
    assert shop.create(Training={**source, "VersionId": version}).succeeded
    assert shop.published()[f"{FOLDER}training.jsonl"] == rows


def test_a_file_that_changes_while_it_is_read_is_not_published(shop: Shop) -> None:
    changing = Meddled(shop.s3, before={"copy_object": lambda: shop.put("training", b"unseen\n")})

    response = shop.create(changing)

    assert not response.succeeded
    assert "changed while it was read" in response.reason
    assert shop.published() == {}


def test_a_copy_that_is_refused_names_both_ends(shop: Shop) -> None:
    denied = times(1, refusal("AccessDenied", "not authorized to perform: s3:PutObject", 403))

    response = shop.create(Meddled(shop.s3, before={"copy_object": denied}))

    assert not response.succeeded
    for text in ("in/training.jsonl", f"s3://{shop.bucket}/{FOLDER}training.jsonl", "s3:PutObject"):
        assert text in response.reason


def test_publishing_needs_no_permission_on_tags(shop: Shop) -> None:
    tags = {"TagSet": [{"Key": "team", "Value": "search"}]}
    shop.s3.put_object_tagging(Bucket=shop.bucket, Key="in/training.jsonl", Tagging=tags)

    shop.create()

    published = shop.s3.get_object_tagging(Bucket=shop.bucket, Key=f"{FOLDER}training.jsonl")
    assert published["TagSet"] == []


@pytest.mark.parametrize("retain", ["true", "false"])
def test_published_files_stay_where_they_are_retained(shop: Shop, retain: str) -> None:
    """Case B15."""
    properties = shop.properties(Retain=retain)
    physical_id = shop.resource().send(framework.create(properties)).physical_id

    for _ in range(2):
        response = shop.resource().send(framework.delete(physical_id, properties))
        assert (response.succeeded, response.physical_id) == (True, physical_id)
    assert (len(shop.published()), shop.versions() > 0) == ((2, True) if retain == "true" else (0, False))


def test_delete_with_an_invented_id_removes_what_the_create_published(shop: Shop) -> None:
    """Case B10."""
    shop.create()

    response = shop.resource().send(framework.delete("stack-Dataset-1ABC", shop.properties()))

    assert (response.succeeded, response.physical_id) == (True, "stack-Dataset-1ABC")
    assert shop.versions() == 0


def test_delete_with_an_invented_id_leaves_files_that_an_earlier_stack_retained(shop: Shop) -> None:
    retained = shop.properties(Retain="true")
    physical_id = shop.resource().send(framework.create(retained)).physical_id
    shop.resource().send(framework.delete(physical_id, retained))

    shop.resource().send(framework.delete("stack-Dataset-1ABC", shop.properties()))

    assert len(shop.published()) == 2


MOVED = {"LogicalResourceId": "MovedResource0A1B2C3D"}
ANOTHER_STACK = {"StackId": framework.STACK.replace("prod", "dev")}


@pytest.mark.parametrize("other", [MOVED, ANOTHER_STACK], ids=["moved", "another stack"])
@pytest.mark.parametrize("is_first_deleted_first", [True, False])
def test_files_stay_until_their_last_resource_is_deleted(
    shop: Shop, other: dict[str, str], is_first_deleted_first: bool
) -> None:
    """A construct moved, its move rolled back, or two data sets with the same content."""
    properties = shop.properties()
    physical_id = shop.create().physical_id
    shop.resource().send({**framework.create(properties), **other})
    deletes = [
        framework.delete(physical_id, properties),
        {**framework.delete(physical_id, properties), **other},
    ]

    for left, event in zip((2, 0), deletes if is_first_deleted_first else deletes[::-1], strict=True):
        assert shop.resource().send(event).succeeded
        assert len(shop.published()) == left
    assert shop.versions() == 0


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        *(("list_object_versions", number) for number in (1, 2, 3)),
        *(("delete_objects", number) for number in (1, 2)),
    ],
)
def test_files_that_are_published_while_they_are_purged_stay(shop: Shop, operation: str, call: int) -> None:
    physical_id = shop.create().physical_id
    other = {**framework.create(shop.properties()), **MOVED}
    published = at_call(call, lambda: shop.resource().send(other))
    meddled = Meddled(shop.s3, before={operation: published})

    shop.resource(meddled).send(framework.delete(physical_id, shop.properties()))

    assert len(shop.published()) == 2


def test_files_that_are_published_while_the_create_is_deleted_do_not_stay(shop: Shop) -> None:
    deleted = at_call(
        1, lambda: shop.resource().send(framework.delete("stack-Dataset-1ABC", shop.properties()))
    )

    response = shop.create(Meddled(shop.s3, before={"copy_object": deleted}))

    assert not response.succeeded
    assert "superseded" in response.reason
    assert shop.versions() == 0


def test_nothing_is_published_if_the_create_is_deleted_while_the_files_are_read(shop: Shop) -> None:
    deleted = at_call(
        1, lambda: shop.resource().send(framework.delete("stack-Dataset-1ABC", shop.properties()))
    )
    written = list[str]()
    hooks = {
        "get_object": deleted,
        "put_object": lambda: written.append("claim"),
        "copy_object": lambda: written.append("file"),
    }

    response = shop.create(Meddled(shop.s3, before=hooks))

    assert "superseded" in response.reason
    assert written == []


def test_request_that_is_superseded_leaves_what_a_newer_one_published(shop: Shop) -> None:
    properties = shop.properties()

    def renewed() -> None:
        shop.resource().send(framework.delete("stack-Dataset-1ABC", properties))
        shop.resource().send(framework.create(properties))

    response = shop.create(Meddled(shop.s3, before={"copy_object": at_call(1, renewed)}))

    assert not response.succeeded
    assert len(shop.published()) == 2


def test_copy_that_fails_leaves_nothing(shop: Shop) -> None:
    """CloudFormation sends no Delete for it."""
    denied = times(1, refusal("AccessDenied", "not authorized to perform: s3:PutObject", 403))
    assert not shop.create(Meddled(shop.s3, before={"copy_object": at_call(2, denied)})).succeeded
    assert shop.versions() == 0


def at_call(number: int, action: Callable[[], object]) -> Callable[[], None]:
    """Return a function that does something at one of its calls."""
    calls = count(1)

    def call() -> None:
        if next(calls) == number:
            action()

    return call


def test_rollback_of_an_update_without_an_answer_removes_the_other_folder(shop: Shop) -> None:
    old, new = shop.properties(), shop.properties(Digest="f" * 16)
    before = shop.resource().send(framework.create(old)).physical_id
    shop.resource().send(framework.update(before, new, old))

    shop.resource().send(framework.update(before, old, new))

    assert {key.split("/")[1] for key in shop.published()} == {DIGEST}
    page = shop.s3.list_object_versions(Bucket=shop.bucket, Prefix=f"datasets/{'f' * 16}/")
    assert "Versions" not in page


def test_another_digest_is_another_folder_and_the_old_one_goes_after(shop: Shop) -> None:
    """Case B14."""
    old, new = shop.properties(), shop.properties(Digest="f" * 16)
    before = shop.resource().send(framework.create(old)).physical_id

    after = shop.resource().send(framework.update(before, new, old))
    assert after.physical_id == f"s3://{shop.bucket}/datasets/{'f' * 16}/"
    assert len(shop.published()) == 4

    shop.resource().send(framework.delete(before, old))
    assert set(shop.published()) == {
        f"datasets/{'f' * 16}/training.jsonl",
        f"datasets/{'f' * 16}/holdout.jsonl",
    }


def test_a_bucket_that_is_gone_does_not_hold_the_stack(shop: Shop) -> None:
    properties = shop.properties(Bucket="data-that-was-deleted")
    response = shop.resource().send(framework.delete(f"s3://data-that-was-deleted/{FOLDER}", properties))

    assert response.succeeded


def test_the_entry_point_logs_no_response_url(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    requests_table.provide(monkeypatch)
    monkeypatch.setattr(handler, "client", {"s3": shop.s3, "bedrock": shop.bedrock}.__getitem__)
    with logged(handler.logger) as lines:
        answer = handler.on_event(framework.create(shop.properties()), None)

    assert answer["PhysicalResourceId"] == f"s3://{shop.bucket}/{FOLDER}"
    assert "data set passed" in lines.getvalue()
    assert "Signature" not in lines.getvalue()


def test_bucket_of_another_region_is_refused(shop: Shop) -> None:
    elsewhere = Mock(wraps=shop.s3, head_bucket=Mock(return_value={"BucketRegion": "eu-west-1"}))
    response = shop.resource(elsewhere).send(framework.create(shop.properties()))
    assert not response.succeeded
    assert "is in eu-west-1, and this stack in us-east-1" in response.reason
    assert "Copy it to a bucket in us-east-1" in response.reason


def test_region_is_reported_even_if_access_to_the_bucket_is_denied(shop: Shop) -> None:
    denied = refusal("AccessDenied")
    denied.response["ResponseMetadata"]["HTTPHeaders"] = {"x-amz-bucket-region": "eu-west-1"}
    elsewhere = Mock(wraps=shop.s3, head_bucket=Mock(side_effect=denied))
    response = shop.resource(elsewhere).send(framework.create(shop.properties()))
    assert "is in eu-west-1" in response.reason


COST = Spec(
    method="distillation",
    teacher="us.amazon.nova-pro-v1:0",
    student="amazon.nova-micro-v1:0:128k",
    base_model="us.amazon.nova-micro-v1:0",
    max_response_length=1000,
    synthesis=True,
)


def test_estimate_above_the_limit_publishes_nothing(shop: Shop) -> None:
    limited = shop.properties(Cost=json.dumps(asdict(COST)), MaximumCostUsd="1")
    response = shop.resource().send(framework.create(limited))
    assert not response.succeeded
    assert "distillation.maximum_cost_usd = 1" in response.reason
    assert shop.published() == {}
    raised = shop.resource().send(framework.create({**limited, "MaximumCostUsd": "500"}))
    assert raised.succeeded
    # Data that passed once is not refused under a lower limit: nothing new is paid.
    lowered = shop.resource().send(framework.update(raised.physical_id, limited, limited))
    assert lowered.succeeded


def limited(shop: Shop, job: str, **changes: Any) -> dict[str, Any]:
    """Return the properties of a job that may cost about 125 USD, under a limit for one of them."""
    cost = json.dumps(asdict(replace(COST, job=f"video-router-dev-{job * 12}", **changes)))
    return shop.properties(Cost=cost, MaximumCostUsd="200", MaximumCostDays="30")


def test_deployments_of_several_jobs_share_the_limit(shop: Shop) -> None:
    first = limited(shop, "a")
    created = framework.create(first)
    assert shop.resource().send(created).succeeded
    assert shop.resource().send(created).succeeded  # delivered twice
    update = framework.update(f"s3://{shop.bucket}/{FOLDER}", limited(shop, "b"), first)
    refused = shop.resource().send(update)
    assert not refused.succeeded
    assert "more than distillation.maximum_cost_usd = 200" in refused.reason
    assert "video-router-dev-aaaaaaaaaaaa" in refused.reason
    # CloudFormation rolls back.
    assert (
        shop.resource()
        .send(framework.update(update["PhysicalResourceId"], first, limited(shop, "b")))
        .succeeded
    )


def test_job_that_is_committed_or_exists_is_not_refused_alone(
    shop: Shop, bedrock_server: BedrockStandIn
) -> None:
    """An upgrade, or another setting, changes `Cost`; under a lower limit the estimate alone exceeds it."""
    first = limited(shop, "a")
    assert shop.resource().send(framework.create(first)).succeeded
    place = f"s3://{shop.bucket}/{FOLDER}"
    lower = {**limited(shop, "a", kept_models=3), "MaximumCostUsd": "100"}
    assert shop.resource().send(framework.update(place, lower, first)).succeeded
    dearer = {**limited(shop, "a", retries=1), "MaximumCostUsd": "100"}
    assert not shop.resource().send(framework.update(place, dearer, lower)).succeeded

    Scene(bedrock_server).create_job("video-router-dev-" + "a" * 12)
    assert shop.resource().send(framework.update(place, dearer, lower)).succeeded
    # What its retries may cost counts for other jobs.
    (entry,) = json.loads(shop.requests.committed["video-router-dev/spending"]).values()
    assert entry["usd"] > 200


def test_refusal_by_the_limit_says_what_keeps_an_earlier_job(
    shop: Shop, bedrock_server: BedrockStandIn
) -> None:
    """An upgrade that counts something else in the digest would pay for the same model again."""
    name, keep = "video-router-dev-" + "a" * 12, 'To keep it, set dataset.holdout_in_digest = "0a1b"'
    first, renamed = limited(shop, "a"), limited(shop, "b", earlier_job=name, keep=keep)
    assert shop.resource().send(framework.create(first)).succeeded
    place = f"s3://{shop.bucket}/{FOLDER}"
    assert keep not in shop.resource().send(framework.update(place, renamed, first)).reason

    Scene(bedrock_server).create_job(name)
    refused = shop.resource().send(framework.update(place, renamed, first))
    assert "more than distillation.maximum_cost_usd = 200" in refused.reason
    assert refused.reason.endswith(f"created {name} for the same model. {keep}.")


def test_retries_that_the_settings_allow_count(shop: Shop) -> None:
    refused = shop.resource().send(framework.create(limited(shop, "a", retries=1)))
    assert not refused.succeeded
    assert "2 attempts x" in refused.reason
    assert shop.published() == {}


def test_job_that_learns_from_logs_needs_a_holdout_only(shop: Shop) -> None:
    properties = shop.properties()
    del properties["Training"]
    response = shop.resource().send(framework.create(properties))
    assert response.succeeded
    assert response.data["TrainingUri"] == ""
    assert list(shop.published()) == [f"{FOLDER}holdout.jsonl"]


def test_each_resource_publishes_its_own_file(shop: Shop, rows: bytes, holdout: bytes) -> None:
    """And the training file's resource checks it against the hold-out set."""
    data = {published: shop.create(Publishes=published).data for published in ("training", "holdout")}
    assert [data["training"][name] for name in ("TrainingUri", "HoldoutUri")] == [
        f"s3://{shop.bucket}/{FOLDER}training.jsonl",
        "",
    ]
    assert data["holdout"]["HoldoutUri"] == f"s3://{shop.bucket}/{FOLDER}holdout.jsonl"
    assert shop.published() == {f"{FOLDER}training.jsonl": rows, f"{FOLDER}holdout.jsonl": holdout}
    shop.put("holdout", b"no row\n")
    refused = shop.create(Publishes="training")
    assert not refused.succeeded
    assert "holdout:1" in refused.reason


@pytest.mark.parametrize("rolled_back", [False, True])
def test_another_holdout_set_leaves_the_training_file_and_its_claim_alone(
    shop: Shop, rows: bytes, holdout: bytes, rolled_back: bool
) -> None:
    """A running job reads it. CloudFormation updates both resources, and deletes the replaced one last."""
    training = {"Publishes": "training"}
    holdouts = [shop.properties(Publishes="holdout", Digest=letter * 16) for letter in "ab"]
    for properties in holdouts:
        del properties["Training"]
    old = shop.properties(**training)
    own = shop.resource().send(framework.create(old)).physical_id
    before = shop.resource().send({**framework.create(holdouts[0]), **BESIDE}).physical_id
    version = shop.s3.head_object(Bucket=shop.bucket, Key=f"{FOLDER}training.jsonl")["ETag"]

    new = shop.properties(**training, Holdout={"Bucket": shop.bucket, "Key": "in/another.jsonl"})
    shop.put("another", holdout[: holdout.rindex(b"{")])
    assert shop.resource().send(framework.update(own, new, old)).physical_id == own
    after = shop.resource().send({**framework.update(before, holdouts[1], holdouts[0]), **BESIDE}).physical_id
    if rolled_back:
        assert shop.resource().send(framework.update(own, old, new)).physical_id == own
        back = {**framework.update(before, holdouts[0], holdouts[1]), **BESIDE}
        assert shop.resource().send(back).physical_id == before
    else:
        shop.resource().send({**framework.delete(before, holdouts[0]), **BESIDE})
        assert after != before
    kept = "a" if rolled_back else "b"
    assert set(shop.published()) == {f"{FOLDER}training.jsonl", f"datasets/{kept * 16}/holdout.jsonl"}
    assert shop.published()[f"{FOLDER}training.jsonl"] == rows
    assert shop.s3.head_object(Bucket=shop.bucket, Key=f"{FOLDER}training.jsonl")["ETag"] == version
    shop.resource().send(framework.delete(own, old))
    assert set(shop.published()) == {f"datasets/{kept * 16}/holdout.jsonl"}


# The resource of the hold-out set, beside that of the training file.
BESIDE = {"LogicalResourceId": "DatasetHoldout4D5E6F7A"}
