"""`python -m operate dataset-import`: the rows that it writes, what it tells, and what it refuses."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distilled_router.data.conversation import row
from distilled_router.task.task import Task
from operate import dataset_import
from operate.__main__ import main
from operate.import_forms import FORMS, Wanted
from tests.unit.hostile import HOSTILE, controls
from tests.unit.logged import TEACHER, packed, record

PROJECT = Path(__file__).parents[3]
TASK = Task.load()
SEEN = {"visual": 0.85, "audio": 0.0, "transcription": 0.05, "metadata": 0.1}
OUT = "rows.jsonl"

type Run = Callable[..., tuple[int, str]]
type Labelled = Sequence[tuple[str, dict[str, float]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Write a file, convert it in its folder; return the exit status and the output."""
    monkeypatch.chdir(tmp_path)

    def _run(form: str, content: bytes | str | Sequence[Any], *options: str) -> tuple[int, str]:
        if not isinstance(content, bytes | str):
            content = "".join(json.dumps(each) + "\n" for each in content)
        (tmp_path / "theirs").write_bytes(content.encode() if isinstance(content, str) else content)
        status = main(["dataset-import", "theirs", "--from", form, "--out", OUT, *options])
        captured = capsys.readouterr()
        told = captured.out + captured.err
        assert "--" not in told, "make knows no options, and docs/data.md names a variable for each"
        return status, told

    return _run


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], list[Any]]:
    """Return a function that reads what was written."""
    return lambda: [json.loads(line) for line in (tmp_path / OUT).read_text().splitlines()]


type Rows = Callable[[], list[Any]]


def written(tmp_path: Path) -> list[str]:
    """Return the names of all files except the one that was converted."""
    return sorted(path.name for path in tmp_path.iterdir() if path.name != "theirs")


def chat(query: Any, answer: Any = "85 0 5 10") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": query}, {"role": "assistant", "content": answer}]}


# The same rows after a way through each form


def as_openai(labelled: Labelled) -> bytes:
    system = {"role": "system", "content": "Weigh this."}
    found = ({"messages": [system, *chat(q, TASK.render(w))["messages"]]} for q, w in labelled)
    return as_lines(found)


def as_lines(found: Any) -> bytes:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in found).encode()


def as_pairs(labelled: Labelled) -> bytes:
    return as_lines({"prompt": q, "completion": TASK.render(w, "json")} for q, w in labelled)


def as_instructions(labelled: Labelled) -> bytes:
    return as_lines({"instruction": q, "context": "", "response": TASK.render(w)} for q, w in labelled)


def as_dialogs(labelled: Labelled) -> bytes:
    return as_lines({"dialog": chat(q, TASK.render(w))["messages"]} for q, w in labelled)


def as_logs(labelled: Labelled) -> bytes:
    return packed(record(q, TASK.render(w)) for q, w in labelled)


def as_csv(labelled: Labelled, delimiter: str = ",") -> bytes:
    """Return a table as a spreadsheet writes it: a byte order mark, CRLF, and a column for each label."""
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter)
    table.writerow(["id", "Query", *map(str.title, TASK.labels)])
    table.writerows(
        [number, q, *(w[label] for label in TASK.labels)] for number, (q, w) in enumerate(labelled)
    )
    return text.getvalue().encode("utf-8-sig")


def as_csv_of_answers(labelled: Labelled) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, delimiter=";", lineterminator="\n")
    table.writerow(["query", "answer"])
    table.writerows([q, TASK.render(w, "json")] for q, w in labelled)
    return text.getvalue().encode()


WAYS = (
    ("openai", as_openai),
    ("prompt-completion", as_pairs),
    ("sagemaker", as_instructions),
    ("sagemaker", as_dialogs),
    ("csv", as_csv),
    ("csv", as_csv_of_answers),
    ("invocation-logs", as_logs),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
# CRLF within a cell is read as LF, and a lone CR is no text of a table.
QUERIES = TEXTS.map(lambda text: text.replace("\r", "").replace("\0", "").strip()).filter(bool)
PERCENTS = st.lists(st.integers(0, 100), min_size=3, max_size=3).map(
    lambda cuts: [b - a for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 100], strict=True)]
)
LABELLED = st.lists(
    st.tuples(QUERIES, PERCENTS.map(lambda p: {x: n / 100 for x, n in zip(TASK.labels, p, strict=True)})),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize(("form", "exported"), WAYS, ids=[f"{f}-{e.__name__}" for f, e in WAYS])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(labelled=[('he said "yes"; then, \\"no\\"\nand left\t|', SEEN), ("sep=;", SEEN), ("#", SEEN)])
@given(labelled=LABELLED)
def test_rows_that_went_through_another_form_are_the_same(
    form: str, exported: Callable[[Labelled], bytes], tmp_path: Path, labelled: Labelled
) -> None:
    file, out = tmp_path / "theirs", tmp_path / OUT
    file.write_bytes(exported(labelled))
    wanted = Wanted(task=TASK, teacher=TEACHER if form == "invocation-logs" else "")
    found = dataset_import.convert([file], form, out, wanted, may_replace=True)
    assert found.dropped == {}
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]] == [
        row(TASK, query, weights) for query, weights in labelled
    ]


def test_every_form_is_tested() -> None:
    assert {form for form, _ in WAYS} == set(FORMS)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_columns_are_separated_as_the_header_is(run: Run, rows: Rows, delimiter: str) -> None:
    query = "cats, dogs; and | birds"
    status, told = run("csv", as_csv([(query, SEEN)], delimiter))
    assert status == 0
    assert rows() == [row(TASK, query, SEEN)]
    name = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}[delimiter]
    assert f"The columns are separated by {name}." in told


def test_written_rows_pass_the_check_of_a_deployment(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    labelled = [json.loads(line) for line in (PROJECT / "data/training.jsonl").read_text().splitlines()]
    # Rows in Bedrock's own format are conversations, too.
    assert run("openai", labelled)[0] == 0
    assert Path(OUT).read_bytes() == (PROJECT / "data/training.jsonl").read_bytes()
    assert main(["dataset-check", OUT]) == 0
    assert "Usable as rows" in capsys.readouterr().out


# What is told


def test_report_counts_by_reason_and_names_the_next_step(run: Run) -> None:
    several = {"messages": [*chat("one")["messages"], *chat("two")["messages"]]}
    content = [
        chat("a red car"),
        several,
        chat("x", "sorry"),
        several,
        chat("a red car"),
        chat("", "1 2 3 4"),
    ]
    assert run("openai", content) == (
        0,
        "1 row repeats an earlier query exactly; all are kept, and dataset-check judges them.\n"
        "Wrote 2 rows to rows.jsonl; dropped 4.\n"
        "Dropped:\n"
        "  2 conversations of other turns than the user's and its answer; the first in "
        "line 2 (user, assistant, user and assistant)\n"
        "  1 answers without the task's weights; line 3 (no 4 weights found: 'sorry')\n"
        "  1 empty queries; line 6\n"
        "Next:\n"
        "  make dataset-check FILE=rows.jsonl\n",
    )


def test_system_messages_are_replaced_and_told(run: Run, rows: Rows) -> None:
    prompts = [{"role": role, "content": text} for role, text in (("system", "A"), ("developer", "B"))]
    content = [{"messages": [prompt, *chat("a red car")["messages"]]} for prompt in prompts]
    told = run("openai", content)[1]
    assert "The rows' own prompts (2 texts) are replaced by the task's student prompt." in told
    assert {each["system"][0]["text"] for each in rows()} == {TASK.student_prompt}


@pytest.mark.parametrize(
    ("keys", "query", "answer"),
    [
        (("input", "output"), "input", "output"),
        (("instruction", "response"), "instruction", "response"),
        (("Prompt", "Completion"), "Prompt", "Completion"),
    ],
)
def test_taken_keys_are_told(run: Run, rows: Rows, keys: tuple[str, str], query: str, answer: str) -> None:
    told = run("prompt-completion", [dict(zip(keys, ("a red car", SEEN), strict=True)) | {"id": 7}])[1]
    assert f"The queries are in {query}.\nThe answers are in {answer}.\nNot used: id.\n" in told
    assert rows() == [row(TASK, "a red car", SEEN)]


def test_instruction_that_is_equal_in_all_rows_is_a_prompt(run: Run, rows: Rows) -> None:
    content = [{"instruction": "Weigh:", "context": q, "response": "85 0 5 10"} for q in ("a", "b")]
    told = run("sagemaker", content)[1]
    assert "The queries are in context." in told
    assert "The rows' own prompts (1 text) are replaced" in told
    assert rows() == [row(TASK, query, SEEN) for query in ("a", "b")]


def test_query_that_can_not_be_told_from_the_context_must_be_named(run: Run, rows: Rows) -> None:
    content = [{"instruction": x, "context": x + x, "response": "85 0 5 10"} for x in ("a", "b")]
    status, told = run("sagemaker", content)
    assert status == 1
    assert "theirs: Each of instruction and context may be the queries." in told
    assert "Name the queries with QUERY. Is it another form (FROM)?" in told
    told = run("sagemaker", content, "--query", "context")[1]
    assert "The queries are in context.\nThe answers are in response.\nNot used: instruction.\nWrote" in told
    assert rows() == [row(TASK, query, SEEN) for query in ("aa", "bb")]


def test_query_within_a_prompt_is_marked_by_a_template(run: Run, rows: Rows) -> None:
    content = [{"prompt": "Weigh this.\nQuery: a red car\n\n###\n\n", "completion": " 85 0 5 10"}]
    assert run("prompt-completion", content, "--template", r"Query: {query}\n\n###")[0] == 0
    assert rows() == [row(TASK, "a red car", SEEN)]
    content[0]["prompt"] = "Something else"
    told = run("prompt-completion", content, "--template", "Query: {query}", "--replace")[1]
    assert "user turns without the text of TEMPLATE before the query; line 1" in told
    content[0]["prompt"] = "word " * 200
    assert (
        "of more than 512 characters (set TEMPLATE to mark"
        in run("prompt-completion", content, "--replace")[1]
    )


# Tables


def test_label_column_is_used_only_if_it_is_named(run: Run, rows: Rows) -> None:
    content = "text,intent\na red car, Visual \na shout,audio\nx,video\ny,\n"
    status, told = run("csv", content)
    assert status == 1
    assert "Name the answers with ANSWER, or what has a label's name with LABEL" in told
    status, told = run("csv", content, "--label", "Intent")
    assert status == 0
    assert "A label in intent gets the weight 1, and the others 0." in told
    assert "1 labels that the task does not have; line 4 (video)" in told
    assert "1 rows without an answer; line 5" in told
    assert rows() == [
        row(TASK, query, {label: float(label == one) for label in TASK.labels})
        for query, one in (("a red car", "visual"), ("a shout", "audio"))
    ]


def test_cells_of_labels_may_be_percents_decimal_commas_or_empty_zeros(run: Run, rows: Rows) -> None:
    head = "query;visual;audio;transcription;metadata\n"
    content = f"{head}a;85;0;5;10\nb;0,85;0;0,05;0,1\nc;85 %;0 %;5 %;10 %\nd;0,85;;,05;,1\ne;;;;\nf;1;2;3;4\n"
    told = run("csv", content)[1]
    assert rows() == [row(TASK, query, SEEN) for query in "abcd"]
    assert "1 rows without an answer; line 6" in told
    assert "1 answers without the task's weights; line 7 (weights sum to 10 instead of" in told


def test_missing_column_of_a_label_is_named(run: Run) -> None:
    status, told = run("csv", "query,visual,audio\na,1,0\n")
    assert status == 1
    assert "only visual and audio of the labels: transcription and metadata are missing" in told


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("subject,answer\na,1\n", "None of the names subject and answer is query, text, prompt, question or"),
        ("text,question,answer\na,b,1\nc,d,1\n", "Each of text and question may be the queries."),
        ("query,answer,output\na,1,1\n", "Both answer and output may be the answers."),
        ("query,answer,Answer\na,1,1\n", "The header has answer more than once."),
    ],
)
def test_columns_that_can_not_be_told_are_refused(
    run: Run, tmp_path: Path, content: str, problem: str
) -> None:
    status, told = run("csv", content)
    assert status == 1
    assert f"Failed: theirs: {problem}" in told
    assert written(tmp_path) == []


def test_named_columns_decide(run: Run, rows: Rows) -> None:
    content = "sep=;\r\nSubject;query;note;answer\r\na red car;1;85 0 5 10;?\r\n"
    told = run("csv", content, "--query", "subject", "--answer", "note")[1]
    assert rows() == [row(TASK, "a red car", SEEN)]
    assert "Not used: answer." in told
    assert (
        "there is no such name, only Subject, query, note and"
        in run("csv", content, "--query", "x", "--replace")[1]
    )


def test_rows_that_are_no_rows_of_the_table_are_dropped(run: Run, rows: Rows) -> None:
    content = (
        b'query,answer\na,85 0 5 10,,\nb\n\n"c\nd",85 0 5 10\n"e"f,1\n\xff,85 0 5 10\n'
        b'"never ends,85 0 5 10\ng,85 0 5 10\n'
    )
    told = run("csv", content)[1]
    assert [each["messages"][0]["content"][0]["text"] for each in rows()] == ["a", "c\nd"]
    assert "1 rows with other columns than the header; line 3 (1 instead of 2)" in told
    # The quote took the line after it.
    assert "3 lines that are not CSV; the first in line 7" in told
    assert "1 text that is not UTF-8; line 8" in told


# Invocation logs


def test_answers_of_the_only_model_count(run: Run, rows: Rows) -> None:
    status, told = run(
        "invocation-logs", packed([record("a red car"), record("b", "no"), record(errorCode="X")])
    )
    assert status == 0
    assert "The answers are those of amazon.nova-pro-v1:0, the only model" in told
    assert "1 failed calls; line 3 (X)" in told
    assert rows() == [row(TASK, "a red car", SEEN)]


def test_log_of_several_models_needs_the_teacher(run: Run, rows: Rows) -> None:
    content = packed([record("a red car"), record("a blue car", modelId="amazon.nova-micro-v1:0")])
    status, told = run("invocation-logs", content)
    assert status == 1
    assert "of 2 models: amazon.nova-micro-v1:0 and amazon.nova-pro-v1:0" in told
    assert run("invocation-logs", content, "--teacher", TEACHER)[0] == 0
    assert rows() == [row(TASK, "a red car", SEEN)]
    filtered = ("--teacher", TEACHER, "--log-filter", "service=other", "--replace")
    assert "2 other request metadata" in run("invocation-logs", content, *filtered)[1]
    told = run("invocation-logs", content, "--without-answers", "--replace")[1]
    assert "No answer is used, since the records are of several models" in told
    assert rows() == [row(TASK, query, None) for query in ("a red car", "a blue car")]


def test_logs_of_a_folder_are_read_one_after_another(run: Run, rows: Rows, tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "2026" / "11"
    (folder / "data").mkdir(parents=True)
    (folder / "b.json.gz").write_bytes(packed([record("b"), record("c", "no"), record("d", "no")]))
    (folder / "a.json.gz").write_bytes(packed([record("a")]))
    (folder / "c.json.gz").write_bytes(packed([]))
    (folder / "data" / "body.json.gz").write_bytes(b"not a record")
    (folder / "permission-check").touch()
    assert run("invocation-logs", b"")[0] == 1  # "theirs", which is empty
    assert main(["dataset-import", "logs", "--from", "invocation-logs", "--out", OUT]) == 0
    assert rows() == [row(TASK, query, SEEN) for query in "ab"]


def test_places_in_several_logs_have_the_name_of_the_file(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("invocation-logs", packed([record("a"), record("b")]))
    (tmp_path / "more.json.gz").write_bytes(packed([record("c"), record("d", "no")]))
    (tmp_path / "none").touch()
    names = ("theirs", "none", "more.json.gz")
    assert main(["dataset-import", *names, "--from", "invocation-logs", "--out", OUT, "--replace"]) == 0
    told = capsys.readouterr().out
    assert "In none: found no line; is it the right file?" in told
    assert "Wrote 3 rows to rows.jsonl; dropped 1." in told
    assert "1 answers without the task's weights; line 2 of more.json.gz" in told


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (("empty",), "empty is a folder without a file .gz, .json or .jsonl."),
        (("theirs", "utf16"), "utf16: found UTF-16 text, expected plain UTF-8"),
        (("theirs", "half.gz"), "half.gz can't be converted to rows.jsonl: Compressed file ended"),
        (("theirs", "nothing"), "nothing doesn't exist."),
    ],
)
def test_log_that_can_not_be_read_writes_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], files: Sequence[str], problem: str
) -> None:
    run("invocation-logs", packed([record("a", "no")]))
    (tmp_path / "empty").mkdir()
    (tmp_path / "utf16").write_bytes("a".encode("utf-16"))
    (tmp_path / "half.gz").write_bytes(packed([record(os.urandom(99).hex())])[:60])
    assert main(["dataset-import", *files, "--from", "invocation-logs", "--out", OUT]) == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / OUT).exists()


# Answers by a tool, in OpenAI's form


def called(*arguments: Any, **changes: Any) -> dict[str, Any]:
    """Return a conversation whose answer calls a function for each of the arguments."""
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": "route", "arguments": one}}
        for number, one in enumerate(arguments)
    ]
    answer = {"role": "assistant", "content": None, "tool_calls": calls, **changes}
    return {"messages": [chat("a red car")["messages"][0], answer], "tools": [{"type": "function"}]}


@pytest.mark.parametrize(
    "content",
    [
        called(json.dumps(SEEN)),
        called(json.dumps(SEEN), content="I'll weigh this."),
        called(tool_calls=None, function_call={"name": "route", "arguments": json.dumps(SEEN)}),
        called(tool_calls=[], content="85 0 5 10"),
    ],
)
def test_answer_that_calls_a_tool_is_read(run: Run, rows: Rows, content: dict[str, Any]) -> None:
    assert run("openai", [content])[0] == 0
    assert rows() == [row(TASK, "a red car", SEEN)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (called(json.dumps(SEEN), json.dumps(SEEN)), "1 answers that call several tools; line 2 (2 calls)"),
        (called("{}"), "1 answers without the task's weights; line 2"),
        (called(None), "1 answers that call a tool without arguments; line 2 (null)"),
        (called(tool_calls=[7]), "1 answers that call a tool without arguments; line 2 (a number)"),
        (called(tool_calls=7), "1 answers that call a tool without arguments; line 2 (a number)"),
    ],
)
def test_call_that_is_no_answer_is_dropped(
    run: Run, rows: Rows, content: dict[str, Any], reason: str
) -> None:
    told = run("openai", [chat("b"), content])[1]
    assert reason in told
    assert rows() == [row(TASK, "b", SEEN)]


# Traffic


def test_traffic_is_carried_on_request(run: Run, rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    content = "query;answer;Hits\na;85 0 5 10;1,200\nb;85 0 5 10;1\nc;85 0 5 10;\nd;85 0 5 10;0\n"
    told = run("csv", content)[1]
    assert "Not used: Hits.\nHits may be the traffic, which hold-out rows may have (COUNT)." in told
    assert rows() == [row(TASK, query, SEEN) for query in "abcd"]
    told = run("csv", content, "--count", "hits", "--replace")[1]
    assert "The queries' traffic is in Hits; only hold-out rows may have it." in told
    assert rows() == [row(TASK, "a", SEEN, 1200), row(TASK, "b", SEEN)]
    assert "2 counts that are no numbers above 0; the first in line 4 (Hits: found ''," in told
    assert "  make dataset-check FILE=... HOLDOUT=rows.jsonl\n" in told
    assert main(["dataset-check", str(PROJECT / "data/training.jsonl"), "--holdout", OUT]) == 0


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("openai", [chat("a") | {"count": 7}, chat("b"), chat("c") | {"count": True}]),
        (
            "prompt-completion",
            [{"prompt": q, "completion": SEEN, "count": c} for q, c in (("a", 7), ("b", None), ("c", []))],
        ),
    ],
)
def test_traffic_may_be_a_key(run: Run, rows: Rows, form: str, content: list[Any]) -> None:
    told = run(form, content, "--count", "count")[1]
    assert rows() == [row(TASK, "a", SEEN, 7)]
    assert "2 counts that are no numbers above 0; the first in line 2" in told


def test_log_has_no_traffic(run: Run) -> None:
    status, told = run("invocation-logs", packed([record("a")]), "--count", "count")
    assert status == 1
    assert "A log has no counts" in told


# Rows without answers


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("openai", as_lines([chat("a"), chat("b", "no"), {"messages": chat("c")["messages"][:1]}])),
        (
            "prompt-completion",
            as_lines(
                {"prompt": x, "completion": y} for x, y in {"a": "85 0 5 10", "b": 1, "c": None}.items()
            ),
        ),
        ("csv", "query,answer\na,85 0 5 10\nb,no\nc,\n"),
        ("invocation-logs", packed([record("a"), record("b", "no"), record("c", output=None)])),
    ],
)
def test_rows_without_answers_are_kept_on_request(
    run: Run, rows: Rows, form: str, content: bytes | str
) -> None:
    run(form, content)
    assert rows() == [row(TASK, "a", SEEN)]
    status, told = run(form, content, "--without-answers", "--replace")
    assert status == 0
    assert "Wrote 3 rows to rows.jsonl, 2 of them without an answer; dropped 0." in told
    assert "Without an answer:\n  1 " in told
    assert rows() == [row(TASK, "a", SEEN), row(TASK, "b", None), row(TASK, "c", None)]


def test_queries_alone_are_rows_for_the_teacher(run: Run, rows: Rows) -> None:
    told = run("csv", "utterance\na\nb\n", "--without-answers")[1]
    assert "There are no answers." in told
    assert rows() == [row(TASK, "a", None), row(TASK, "b", None)]


# The documents


def test_example_of_the_documents_is_what_is_printed(run: Run) -> None:
    text = (PROJECT / "docs/data.md").read_text(encoding="utf-8")
    table, _, rest = text.partition("$ cat tickets.csv\n")[2].partition("$ make dataset-import")
    output = rest.partition("TASK=examples/helpdesk\n")[2].partition("```")[0]
    folder = str(PROJECT / "examples/helpdesk")
    found = run("csv", table, "--query", "subject", "--label", "team", "--task", folder)[1]
    assert found.replace(folder, "examples/helpdesk") == output


# The output


def test_file_that_appears_meanwhile_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def appears(*given: Any) -> dict[str, Any]:
        (tmp_path / OUT).write_text("mine")
        return row(*given)

    monkeypatch.setattr(dataset_import, "row", appears)
    assert run("openai", [chat("a")])[0] == 1
    assert (tmp_path / OUT).read_text() == "mine"
    assert written(tmp_path) == [OUT]


def test_existing_file_is_replaced_only_on_request(run: Run, tmp_path: Path, rows: Rows) -> None:
    (tmp_path / OUT).write_text("mine")
    status, told = run("openai", [chat("a")])
    assert status == 1
    assert "rows.jsonl exists already." in told
    assert "overwrite it with REPLACE=1" in told
    assert (tmp_path / OUT).read_text() == "mine"
    assert run("openai", [chat("a")], "--replace")[0] == 0
    assert len(rows()) == 1


def test_file_is_kept_if_no_row_can_be_used(run: Run, tmp_path: Path) -> None:
    (tmp_path / OUT).write_text("mine")
    status, told = run("openai", [chat("a", "?"), {"prompt": "b"}], "--replace")
    assert status == 1
    assert "None of the 2 rows of theirs can be used; nothing was written." in told
    assert "1 rows without messages; line 2" in told
    assert "Next" not in told
    assert (tmp_path / OUT).read_text() == "mine"
    assert written(tmp_path) == [OUT]


def test_fault_in_the_middle_writes_nothing(run: Run, tmp_path: Path) -> None:
    whole = gzip.compress(as_lines(chat(os.urandom(8).hex()) for _ in range(5_000)))
    status, told = run("openai", whole[: len(whole) // 2])
    assert status == 1
    assert "theirs can't be converted to rows.jsonl: Compressed file ended before" in told
    assert written(tmp_path) == []


def test_interruption_writes_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        assert len(written(tmp_path)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_import, "row", interrupt)
    assert run("openai", [chat("a")])[0] == 130
    assert written(tmp_path) == []


def test_file_is_kept_if_the_new_one_can_not_take_its_place(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / OUT).write_text("mine")
    monkeypatch.setattr(Path, "replace", full)
    status, told = run("openai", [chat("a")], "--replace")
    assert status == 1
    assert "theirs can't be converted to rows.jsonl: No space left on device." in told
    assert (tmp_path / OUT).read_text() == "mine"
    assert written(tmp_path) == [OUT]


def test_output_has_the_permissions_of_a_new_file(run: Run, tmp_path: Path) -> None:
    run("openai", [chat("a")])
    (tmp_path / "new").touch()
    assert (tmp_path / OUT).stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("theirs", "--out", "theirs", "--replace"), "theirs is a file to convert."),
        (("theirs", "--out", "no/rows.jsonl"), "no/rows.jsonl is in a folder that doesn't exist."),
        (("theirs", "--out", "."), ". is a folder."),
        ((".", "--out", OUT), "Of the form openai one file is converted at a time, found ., a folder."),
        (("nothing", "--out", OUT), "nothing doesn't exist."),
        (("theirs", "--out", OUT, "--task", "nowhere"), "nowhere/task.toml: No such file"),
        (("theirs", "--out", OUT, "--query", "text"), "theirs: Rows of this form have no names for QUERY."),
        (("theirs", "--out", OUT, "--teacher", TEACHER), "TEACHER or FILTERS with another form"),
        (("theirs", "--out", OUT, "--label", "a", "--answer", "b"), "LABEL with ANSWER"),
    ],
)
def test_arguments_that_can_not_be_used_are_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], problem: str
) -> None:
    run("openai", [chat("a", "?")])
    assert main(["dataset-import", "--from", "openai", *arguments]) == 1
    told = capsys.readouterr().err
    assert problem in told
    assert "--" not in told
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--from", "opnai"), "FROM: found opnai, expected openai, prompt-completion, csv, sagemaker or"),
        (("--template", "Query:"), "TEMPLATE: found Query:, expected text with {query} once."),
        (("--log-filter", "service"), "FILTERS: found service, expected KEY=VALUE."),
    ],
)
def test_value_that_is_none_of_its_kind_is_refused(
    run: Run, tmp_path: Path, arguments: Sequence[str], problem: str
) -> None:
    status, told = run("invocation-logs", [record("a")], *arguments)
    assert (status, told[:8]) == (2, "Failed: ")
    assert problem in told
    assert written(tmp_path) == []


# The input


@pytest.mark.parametrize(
    ("form", "content", "problem"),
    [
        ("openai", b"", "theirs: found no line; is it the right file?"),
        ("openai", json.dumps([chat("a")]), "theirs: The file has a JSON array, expected JSON Lines"),
        ("openai", "\n \n", "theirs has no row; nothing was written."),
        ("prompt-completion", "\n", "theirs has no row; nothing was written."),
        ("prompt-completion", "a\nb\n", "theirs: None of the first 2 rows can be used. Line 1: lines that"),
        ("csv", "query,answer\n", "theirs has no row; nothing was written."),
        ("csv", "query,answer\na,1\n".encode("utf-16"), "theirs: found UTF-16 text, expected plain UTF-8"),
        ("csv", "query,answer\ra,1\r", "theirs: found CR as line end (old Macintosh)"),
        ("invocation-logs", as_lines([chat("a")]), "1 lines that are not of the type ModelInvocationLog;"),
    ],
)
def test_file_of_another_kind_is_told(
    run: Run, tmp_path: Path, form: str, content: bytes | str, problem: str
) -> None:
    status, told = run(form, content)
    assert status == 1
    assert problem in told
    assert written(tmp_path) == []


def test_faulty_lines_are_dropped_and_counted(run: Run, rows: Rows) -> None:
    good = json.dumps(chat("a")).encode()
    parts = json.dumps(chat([{"type": "text", "text": "b"}])).encode()
    image = json.dumps(chat([{"type": "image_url", "image_url": {}}])).encode()
    half = json.dumps(chat("\ud800")).encode()
    content = b"\r\n".join(
        [b"\xef\xbb\xbf" + good, b"{", b"7", b"\xff", b"", image, parts, half, b"[1", b" " * 140_000 + good]
    )
    told = run("openai", content)[1]
    assert [each["messages"][0]["content"][0]["text"] for each in rows()] == ["a", "b"]
    for part in (
        "In the file: found a byte order mark; it is left out.",
        "In the file: found CRLF in 9 lines; it is read as LF.",
        "2 lines that are not JSON; the first in line 2",
        "1 lines that are no object; line 3 (a number)",
        "2 text that is not UTF-8; the first in line 4",
        "1 messages with more than text; line 6",
        "1 lines of more than 131,072 bytes; line 10",
    ):
        assert part in told


def test_no_row_controls_the_terminal(run: Run) -> None:
    content = [
        {HOSTILE: HOSTILE, "prompt": "a", "completion": HOSTILE},
        {"prompt": "b", "completion": "85 0 5 10"},
    ]
    assert not controls(run("prompt-completion", content)[1])


def test_other_task_is_in_the_next_step(run: Run, rows: Rows) -> None:
    folder = str(PROJECT / "examples/helpdesk")
    told = run("prompt-completion", [{"prompt": "my bill", "completion": "70 20 10"}], "--task", folder)[1]
    assert f"  make dataset-check FILE=rows.jsonl TASK={folder}\n" in told
    assert rows()[0]["messages"][1]["content"][0]["text"] == "70 20 10"


def test_rows_are_read_one_by_one(tmp_path: Path) -> None:
    """A file of any length is converted in a few megabytes."""
    file = tmp_path / "theirs"
    system = {"role": "system", "content": "word " * 10_000}
    found = ({"messages": [system, *chat(str(number))["messages"]]} for number in range(400))
    file.write_bytes(as_lines(found))
    tracemalloc.start()
    converted = dataset_import.convert([file], "openai", tmp_path / OUT, Wanted(task=TASK))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert converted.written == 400
    assert most < file.stat().st_size / 4
