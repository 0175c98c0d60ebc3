"""Invocation logs as raw queries: what is read of them, how much, and that it is read once."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError

from distilled_router.aws.errors import ResourceError, with_retries
from distilled_router.aws.objects import Folder
from distilled_router.data.findings import Report
from distilled_router.data.invocation_logs import Selection
from distilled_router.data.preflight import Needs
from labelling import logs
from labelling.logs import KEPT, READ_SECONDS, LoggedQuery, Logs
from local.bedrock.memory_s3 import MemoryS3
from tests.unit.different import different
from tests.unit.labelling.scenes import PLAN, SEAL, TASK, failing
from tests.unit.logged import FOLDER, TEACHER, answered, key, packed, record, turn

BUCKET = "logs"
SELECTION = Selection(task=TASK, teacher=TEACHER)


@pytest.fixture
def s3() -> MemoryS3:
    return MemoryS3()


def put(s3: MemoryS3, *records: object, at: str = key(), under: str = "") -> None:
    s3.put_object(Bucket=BUCKET, Key=f"{under}{at}", Body=packed(records))


def opened(s3: Any, **changes: Any) -> Logs:
    known: dict[str, Any] = {
        "s3": s3,
        "bucket": BUCKET,
        "prefix": "",
        "selection": SELECTION,
        "retry": lambda call, **_: call(),
        **changes,
    }
    return Logs(**known)


def counted(s3: MemoryS3) -> tuple[Any, list[str]]:
    """Return a client, and the keys of the objects that it has read."""
    read: list[str] = []

    def get_object(**given: Any) -> dict[str, Any]:
        read.append(given["Key"])
        return s3.get_object(**given)

    return failing(s3, get_object=get_object), read


def queries(found: logs.Found) -> dict[str, int]:
    return {one.query: one.count for one in found.queries.values()}


def test_equal_queries_are_one_with_its_count_and_its_answers(s3: MemoryS3) -> None:
    put(s3, record("a red car"), record("A red car!", "80 0 10 10"), record("a dog"))
    found = list(opened(s3).read().queries.values())
    assert [(one.query, one.count) for one in found] == [("a red car", 2), ("a dog", 1)]
    assert found[0].answers == [(0.85, 0.0, 0.05, 0.1), (0.8, 0.0, 0.1, 0.1)]


def test_of_a_query_that_is_asked_all_day_ten_answers_are_kept(s3: MemoryS3) -> None:
    put(s3, *[record("a red car")] * 30)
    put(s3, *[record("a red car")] * 30, at=key("2026/11/03/13"))
    (found,) = opened(s3).read().queries.values()
    assert (found.count, len(found.answers)) == (60, logs.MOST_ANSWERS)


@pytest.mark.parametrize("prefix", ["", "bedrock/", f"bedrock/{FOLDER}", "bedrock/AWSLogs/"])
def test_logs_are_found_wherever_the_folder_begins(s3: MemoryS3, prefix: str) -> None:
    put(s3, record(), under="bedrock/" if prefix else "")
    for other in ("AWSLogs/111122223333/CloudTrail/us-east-1/2026/11/03/x.json.gz", "other/2026/1.gz"):
        s3.put_object(
            Bucket=BUCKET, Key=f"{'bedrock/' if prefix else ''}{other}", Body=packed([record("no")])
        )
    assert queries(opened(s3, prefix=prefix).read()) == {"a red car": 1}


def test_bodies_and_marker_files_are_no_log_objects(s3: MemoryS3) -> None:
    put(s3, record())
    put(s3, record("no"), at=key(name="data/1_input.json.gz"))
    put(s3, record("no"), at=f"{FOLDER}data/1_input.json.gz")
    s3.put_object(Bucket=BUCKET, Key=f"{FOLDER}amazon-bedrock-logs-permission-check", Body=b"")
    found = opened(s3).read()
    assert (queries(found), found.objects) == ({"a red car": 1}, 1)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("", "", {"one", "two", "three", "four"}),
        ("2026-11-01", "2026-11-01", {"two", "three"}),
        ("2026-11-01", "", {"two", "three", "four"}),
        ("", "2026-10-31", {"one"}),
    ],
)
def test_only_the_days_of_the_window_are_read(
    s3: MemoryS3, first: str, last: str, expected: set[str]
) -> None:
    hours = {
        "one": "2026/10/31/23",
        "two": "2026/11/01/00",
        "three": "2026/11/01/23",
        "four": "2026/11/02/00",
    }
    for query, hour in hours.items():
        put(s3, record(query), at=key(hour))
    counting, read = counted(s3)
    assert set(queries(opened(counting, first=first, last=last).read())) == expected
    assert len(read) == len(expected)


def test_a_window_is_listed_from_its_first_day_and_not_beyond_its_last(s3: MemoryS3) -> None:
    """Logs may be millions of objects, of which S3 lists a thousand a call."""
    for day in range(1, 29):
        put(s3, record(), at=key(f"2026/11/{day:02}/12"))
    taken: list[str] = []

    class Pages:
        """Keys one by one, so that what is taken shows."""

        def paginate(self, **given: Any) -> Iterable[dict[str, Any]]:
            page = s3.list_objects_v2(**given)
            if given.get("Delimiter"):
                yield page
                return
            for item in page["Contents"]:
                taken.append(item["Key"])
                yield {"Contents": [item]}

    opened(failing(s3, get_paginator=lambda _: Pages()), first="2026-11-03", last="2026-11-04").read()
    assert [name.removeprefix(FOLDER)[:10] for name in taken] == ["2026/11/03", "2026/11/04", "2026/11/05"]


def test_what_is_left_out_is_counted_by_reason_and_told(s3: MemoryS3) -> None:
    others = [record(modelId="amazon.nova-micro-v1:0")] * 3
    put(s3, record(), *others, record(errorCode="ThrottlingException"), "no record")
    report = Report()
    opened(s3).read().report(report)
    (finding,) = report.findings
    assert (report.ok, finding.severity) == (True, "warning")
    assert "left out of 6 logged requests: 3 answers of other models" in finding.message
    assert "(such as amazon.nova-micro-v1:0)" in finding.message
    assert "1 failed calls (such as ThrottlingException)" in finding.message


@pytest.mark.parametrize("body", [b"plain text", packed([record("lost")])[:-20], b""])
def test_an_object_that_is_no_gzip_stops_nothing(s3: MemoryS3, body: bytes) -> None:
    put(s3, record())
    s3.put_object(Bucket=BUCKET, Key=key(name="broken.json.gz"), Body=body)
    found = opened(s3).read()
    assert "a red car" in queries(found)
    assert found.objects == 2


def test_an_object_that_expires_between_list_and_read_stops_nothing(s3: MemoryS3) -> None:
    put(s3, record())
    gone = ClientError({"Error": {"Code": "NoSuchKey", "Message": "gone"}}, "GetObject")

    def get_object(**given: Any) -> Any:
        raise gone

    found = opened(failing(s3, get_object=get_object)).read()
    assert found.left_out == {"objects that expired meanwhile": 1}


class Breaking(io.BytesIO):
    """A body whose connection breaks after some bytes."""

    def __init__(self, content: bytes, error: Exception, after: int = 40) -> None:
        super().__init__(content)
        self.error, self.after = error, after

    def read(self, size: int | None = -1) -> bytes:
        """Read up to the break."""
        if self.tell() >= self.after:
            raise self.error
        return super().read(min(size or 0, self.after) if size and size > 0 else self.after)


BREAKS = [
    ReadTimeoutError(endpoint_url="https://s3"),
    ResponseStreamingError(error="connection broken"),
    IncompleteReadError(actual_bytes=40, expected_bytes=400),
]


def breaking(s3: MemoryS3, error: Exception, times: int, name: str = "json.gz") -> Any:
    """Return a client whose objects of that name break so often, at first."""
    left = [times]

    def get_object(**given: Any) -> dict[str, Any]:
        found = s3.get_object(**given)
        if given["Key"].endswith(name) and left[0]:
            left[0] -= 1
            found["Body"] = Breaking(found["Body"].read(), error)
        return found

    return failing(s3, get_object=get_object)


@pytest.mark.parametrize("error", BREAKS, ids=lambda error: type(error).__name__)
def test_an_object_whose_connection_breaks_is_read_again(s3: MemoryS3, error: Exception) -> None:
    """What is kept stands for its digest for ever, so a network must not decide what is in it."""
    put(s3, *[record(f"query {number}") for number in range(50)])
    found = opened(breaking(s3, error, 2)).read()
    assert queries(found) == {f"query {number}": 1 for number in range(50)}
    assert (found.left_out, found.objects, found.records) == ({}, 1, 50)


@pytest.mark.parametrize("error", BREAKS, ids=lambda error: type(error).__name__)
def test_an_object_that_breaks_each_time_ends_the_reading(s3: MemoryS3, error: Exception) -> None:
    put(s3, record())
    with pytest.raises(ResourceError, match=r"can't be read: AWSLogs/.*Nothing was published. Deploy again"):
        opened(breaking(s3, error, 9)).read()


@pytest.mark.parametrize("error", BREAKS, ids=lambda error: type(error).__name__)
def test_a_body_whose_connection_breaks_is_read_again(s3: MemoryS3, error: Exception) -> None:
    put_body(s3, turns("a red car"))
    found = with_bodies(breaking(s3, error, 1, "input.json.gz"))
    assert (queries(found), found.left_out) == ({"a red car": 1}, {})


def test_a_role_that_is_new_is_refused_at_first(s3: MemoryS3) -> None:
    """IAM is eventually consistent, for the objects as for the list."""
    put(s3, record())
    refusals = iter([True, False])

    def get_object(**given: Any) -> dict[str, Any]:
        if next(refusals):
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not yet"}}, "GetObject")
        return s3.get_object(**given)

    def retry(call: Callable[[], Any], **given: Any) -> Any:
        return with_retries(call, **given, sleep=lambda _: None)

    assert queries(opened(failing(s3, get_object=get_object), retry=retry).read()) == {"a red car": 1}


def turns(text: str) -> bytes:
    return json.dumps({"messages": [turn(text)]}).encode()


def put_body(s3: MemoryS3, content: bytes, *, packs: bool = True) -> None:
    """Put a record whose input is an object of its own."""
    place = key(name="data/1_input.json.gz")
    s3.put_object(Bucket=BUCKET, Key=place, Body=gzip.compress(content) if packs else content)
    put(s3, record(input={"inputBodyS3Path": f"s3://{BUCKET}/{place}"}))


def with_bodies(s3: Any) -> logs.Found:
    """Read all logs as the custom resource does."""
    properties = {"Bucket": BUCKET, "Prefix": "", "Query": "{query}"}
    return Logs.of(properties, PLAN, TASK, s3, lambda call, **_: call()).read()


@pytest.mark.parametrize("packs", [True, False])
def test_bodies_of_their_own_are_json_or_gzip(s3: MemoryS3, packs: bool) -> None:
    put_body(s3, turns("a red car"), packs=packs)
    assert queries(with_bodies(s3)) == {"a red car": 1}


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"\x1f\x8bbroken", gzip.compress(turns("a"))[:-9]],
    ids=["empty", "text", "broken gzip", "cut off"],
)
def test_a_body_that_is_no_json_stops_nothing(s3: MemoryS3, content: bytes) -> None:
    put_body(s3, content, packs=False)
    assert with_bodies(s3).left_out == {"bodies that are no JSON": 1}


def test_a_body_that_is_missing_stops_nothing(s3: MemoryS3) -> None:
    """Bedrock writes it up to a minute after its record, and it may expire before."""
    put(s3, record(), record(input={"inputBodyS3Path": f"s3://{BUCKET}/{key(name='data/1.json')}"}))
    found = with_bodies(s3)
    assert (queries(found), found.left_out) == ({"a red car": 1}, {"bodies that are missing": 1})


def test_bodies_that_may_not_be_read_end_the_reading(s3: MemoryS3) -> None:
    """Leaving them out would keep a part of the logs for ever."""
    put_body(s3, turns("a red car"))

    def get_object(**given: Any) -> dict[str, Any]:
        if "/data/" in given["Key"]:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "kms:Decrypt"}}, "GetObject")
        return s3.get_object(**given)

    with pytest.raises(ResourceError, match=r"AccessDenied: kms:Decrypt.*dataset\.source_key"):
        with_bodies(failing(s3, get_object=get_object))


def test_large_bodies_are_read_from_the_folder_of_the_logs_only(s3: MemoryS3) -> None:
    body = gzip.compress(b'{"messages": [{"role": "user", "content": [{"text": "a red car"}]}]}')
    for bucket in (BUCKET, "secrets"):
        s3.put_object(Bucket=bucket, Key=key(name="data/1_input.json.gz"), Body=body)
    inside, outside = (f"s3://{bucket}/{key(name='data/1_input.json.gz')}" for bucket in (BUCKET, "secrets"))
    properties = {"Bucket": BUCKET, "Prefix": "", "Query": "{query}"}
    reader = Logs.of(properties, PLAN, TASK, s3, lambda call, **_: call())
    put(s3, record(input={"inputBodyS3Path": inside}), record(input={"inputBodyS3Path": outside}))
    found = reader.read()
    assert queries(found) == {"a red car": 1}
    assert found.left_out == {"bodies outside the folder of the logs": 1}


def test_a_record_that_unpacks_to_too_much_takes_no_memory(s3: MemoryS3) -> None:
    put(s3, record())
    s3.put_object(Bucket=BUCKET, Key=key(name="bomb.json.gz"), Body=gzip.compress(b"x" * 2**26))
    tracemalloc.start()
    try:
        found = opened(s3).read()
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert queries(found) == {"a red car": 1}
    assert found.left_out == {"records of more than 2,097,152 bytes": 1}


def test_a_body_that_unpacks_to_too_much_is_left_out(s3: MemoryS3) -> None:
    s3.put_object(Bucket=BUCKET, Key="data/bomb.gz", Body=gzip.compress(b" " * 2**24))
    put(s3, record(input={"inputBodyS3Path": f"s3://{BUCKET}/data/bomb.gz"}))
    properties = {"Bucket": BUCKET, "Prefix": "", "Query": "{query}"}
    found = Logs.of(properties, PLAN, TASK, s3, lambda call, **_: call()).read()
    assert found.left_out == {"bodies of more than 1,048,576 bytes": 1}


def test_more_logs_than_time_end_with_the_hour_and_what_to_narrow(s3: MemoryS3) -> None:
    for number in range(40):
        put(s3, record(f"query {number}"), at=key(name=f"{number:03}.json.gz"))
    # Read before each key and after each record; the time is over once 16 objects are read.
    times = iter([0.0] * 33 + [READ_SECONDS + 1] * 1_000)
    with pytest.raises(ResourceError) as caught:
        opened(s3, now=lambda: next(times)).read()
    text = str(caught.value)
    assert "more logs than can be read in 600 s: 16 objects with 16 requests, up to" in text
    assert "2026/11/03/12" in text
    assert "Narrow dataset.logs_from and dataset.logs_until" in text


def test_the_time_also_ends_a_listing_without_log_objects(s3: MemoryS3) -> None:
    """Of requests with long prompts, two bodies are listed for each record."""
    put(s3, record())
    for number in range(2_500):
        s3.put_object(Bucket=BUCKET, Key=key(name=f"data/{number:05}_input.json.gz"), Body=b"")
    times = iter([0.0] * 1_200 + [READ_SECONDS + 1] * 5)
    with pytest.raises(ResourceError, match="more logs than can be read in 600 s: 1 objects with 1 requests"):
        opened(s3, now=lambda: next(times)).read()


def test_logs_of_more_than_a_page_are_read_whole(s3: MemoryS3) -> None:
    for number in range(1_100):
        put(s3, record(f"query {number}"), at=key(name=f"{number:05}.json.gz"))
    assert len(queries(opened(s3).read())) == 1_100


@pytest.mark.parametrize("below", ["2026/", "2026/11/03/"])
def test_a_folder_below_the_regions_is_told(s3: MemoryS3, below: str) -> None:
    put(s3, record())
    with pytest.raises(ResourceError, match=r"has no log objects.*or one in it down to the Region's"):
        opened(s3, prefix=f"{FOLDER}{below}").read()


def test_more_queries_than_can_be_labelled_end_the_reading(
    s3: MemoryS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_QUERIES", 20)
    for number in range(200):
        put(s3, record(f"query {number}"), at=key(name=f"{number:03}.json.gz"))
    counting, read = counted(s3)
    with pytest.raises(ResourceError, match=r"more than 20 different queries, up to .*032?.*\. Narrow"):
        opened(counting).read()
    assert len(read) == 32


def test_no_logs_are_told_with_the_keys_that_are_expected(s3: MemoryS3) -> None:
    s3.put_object(Bucket=BUCKET, Key="bedrock/queries.txt", Body=b"a red car")
    with pytest.raises(ResourceError, match=r"has no log objects.*bedrock/AWSLogs/<account>.*logs_from"):
        opened(s3, prefix="bedrock/").read()


@pytest.mark.parametrize("operation", ["get_paginator", "get_object"])
def test_a_folder_that_may_not_be_read_is_told_with_the_settings(s3: MemoryS3, operation: str) -> None:
    put(s3, record())

    def refuse(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not yours"}}, operation)

    with pytest.raises(ResourceError, match=r"AccessDenied: not yours.*dataset\.source_account.*source_key"):
        opened(failing(s3, **{operation: refuse})).read()


def test_memory_grows_with_queries_and_not_with_logs(s3: MemoryS3) -> None:
    body = packed([record(f"query {number}") for number in range(60)])
    for number in range(400):
        s3.put_object(Bucket=BUCKET, Key=key(f"2026/11/{1 + number // 40:02}/12", f"{number}.gz"), Body=body)

    def peak(last: str) -> int:
        tracemalloc.start()
        try:
            assert opened(s3, last=last).read().records >= 2_400
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Ten times the logs. How many objects are open at the peak is chance.
    assert peak("2026-11-10") < 3 * peak("2026-11-01")


# What is kept


def test_what_was_taken_is_kept_once(s3: MemoryS3) -> None:
    folder = Folder(s3, "data", PLAN.folder, SEAL)
    first, second = ([LoggedQuery(name, 2, [(1.0, 0.0, 0.0, 0.0)])] for name in ("first", "second"))
    assert logs.kept(folder) is None
    assert logs.keep(folder, first) == first
    assert logs.keep(folder, second) == first
    assert logs.kept(folder) == first
    assert folder.names(KEPT) == [KEPT]


def usable(*texts: str) -> tuple[list[str], Report]:
    report, found = Report(), [LoggedQuery(text, 1) for text in texts]
    passed = logs.usable(found, TASK, Needs(method="fine_tuning", holdout_share=0.5), report)
    return [one.query for one in passed], report


def test_queries_that_break_a_rule_are_left_out_and_stop_nothing() -> None:
    good = different(32)
    passed, report = usable(*good, "User: a car", "a\x07bell", "half \ud800 a pair")
    assert passed == good
    assert report.ok
    assert report.warnings == 3
    assert "reserved-word: found in a query, which is left out" in report.summary()


def test_nobodys_words_are_told(s3: MemoryS3) -> None:
    """A log holds what all callers of the account asked and were answered; a reason may be read by many."""
    cut_off = {"outputBodyJson": {**answered("A secret"), "stopReason": "max_tokens"}}
    put(
        s3,
        record("my secret", "Your secret is safe."),
        record("a\x07secret"),
        record("half secret \ud800"),
        record("cut off", output=cut_off),
    )
    report, found = Report(), opened(s3).read()
    found.report(report)
    logs.usable(found.queries.values(), TASK, Needs(method="distillation"), report)
    text = " ".join([report.summary(9_999), *map(str, report.findings), *report.warned()])
    assert "no 4 weights found" in text
    assert "control-character: found in a query, which is left out" in text
    assert "secret" not in text


def test_logs_without_a_usable_request_say_so() -> None:
    passed, report = usable()
    assert passed == []
    assert [finding.rule for finding in report.findings] == ["query-count"]


def test_logged_queries_of_one_template_are_an_error() -> None:
    _, report = usable(*[f"season {number} of a Danish crime series" for number in range(300)])
    assert "no query can be held out" in report.summary()


def test_too_few_queries_are_an_error_with_what_to_widen() -> None:
    passed, report = usable(*[f"query {number}" for number in range(31)])
    assert len(passed) == 31
    assert not report.ok
    assert "found 31 usable, different queries, at least 32" in report.summary()
    assert "Widen dataset.logs_from" in report.summary()
