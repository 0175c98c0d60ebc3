"""Queries, and the table of their answers."""

import io
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from rich.console import Console

from local import servers
from local.state import State
from operate import route, web
from operate.errors import LocalError

ANSWER = {
    "weights": {"visual": 0.85, "audio": 0.0, "transcription": 0.05, "metadata": 0.1},
    "intent": "visual",
    "source": "distilled",
    "reason": None,
    "release": "0123456789ab",
    "latency_ms": 12.4,
    "cached": False,
}


def test_comments_and_empty_lines_are_no_queries(tmp_path: Path) -> None:
    file = tmp_path / "queries.txt"
    file.write_text("# samples\n\nred car\n  a dog barks  \n")
    assert route.read(file) == ["red car", "a dog barks"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"none\.txt"):
        route.read(tmp_path / "none.txt")


def test_the_table_shows_query_weights_source_and_latency() -> None:
    out = io.StringIO()
    table = route.table([("[red] car", ANSWER), ("a dog barks", {**ANSWER, "source": "base"})])
    Console(file=out, width=80).print(table)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["query", "visual", "audio", "transcription", "metadata", "source", "latency"] in lines
    assert ["[red]", "car", "0.85", "0.00", "0.05", "0.10", "distilled", "12", "ms"] in lines
    assert ["a", "dog", "barks", "0.85", "0.00", "0.05", "0.10", "base", "12", "ms"] in lines


def test_no_answers_make_an_empty_table() -> None:
    assert route.table([]).row_count == 0


class Response:
    def __init__(self, status: int, text: str) -> None:
        self.status_code, self.text, self.content = status, text, text.encode()


def router() -> route.Router:
    return route.Router("https://127.0.0.1:1/$default/route", "us-east-1", Credentials("k", "s"))


def test_a_query_is_signed_as_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[AWSRequest] = []

    def send(request: AWSRequest, **_: Any) -> Response:
        sent.append(request)
        return Response(200, '{"source": "base"}')

    monkeypatch.setattr(web, "send", send)
    assert router().ask('say "hi"') == {"source": "base"}
    assert sent[0].data == '{"query": "say \\"hi\\""}'
    assert "/us-east-1/execute-api/aws4_request" in sent[0].headers["Authorization"]


def test_a_refusal_is_shown_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "send", lambda *_, **__: Response(400, '{"message": "The query is empty."}'))
    with pytest.raises(LocalError, match=r"400.*The query is empty"):
        router().ask("")


def test_a_system_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="does not run") as caught:
        route.local_router(State(tmp_path))
    assert "make local" in caught.value.advice


def test_a_system_whose_deployment_failed_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "running", lambda _: object())
    with pytest.raises(LocalError, match="not deployed") as caught:
        route.local_router(State(tmp_path))
    assert "make local" in caught.value.advice
