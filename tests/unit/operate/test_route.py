"""Queries to a router, and the table of their answers."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError

from operate import route, web
from operate.__main__ import main
from operate.aws import Aws
from operate.console import Terminal
from operate.environment import Environment
from operate.errors import OperateError, guarded
from stacks.settings import load
from tests.unit.hostile import HOSTILE, controls

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
    with pytest.raises(OperateError, match=r"none\.txt"):
        route.read(tmp_path / "none.txt")


def test_the_table_shows_query_weights_source_and_latency() -> None:
    out = io.StringIO()
    table = route.table([("[red] car", ANSWER), ("a dog barks", {**ANSWER, "source": "base"})])
    Terminal(file=out, width=80).print(table)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["query", "visual", "audio", "transcription", "metadata", "source", "latency"] in lines
    assert ["[red]", "car", "0.85", "0.00", "0.05", "0.10", "distilled", "12", "ms"] in lines
    assert ["a", "dog", "barks", "0.85", "0.00", "0.05", "0.10", "base", "12", "ms"] in lines


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("terminal", [True, False])
def test_narrow_table_shortens_queries_and_nothing_else(width: int, terminal: bool) -> None:
    out = io.StringIO()
    query = "a street musician playing the violin while a tram passes by the old opera house"
    Terminal(file=out, width=width, force_terminal=terminal).print(route.table([(query, ANSWER)] * 2))
    lines = [line for line in out.getvalue().splitlines() if "a street" in line]
    assert len(lines) == 2
    for line in lines:
        assert "\N{HORIZONTAL ELLIPSIS}" in line
        assert line.split()[-7:] == ["0.85", "0.00", "0.05", "0.10", "distilled", "12", "ms"]
    assert all(
        name in out.getvalue()
        for name in ("visual", "audio", "transcription", "metadata", "source", "latency")
    )


def test_no_answer_controls_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {**ANSWER, "reason": HOSTILE, "intent": "visual\x7f"}
    monkeypatch.setattr(route, "router", lambda _: type("Router", (), {"ask": lambda *_: answer})())
    monkeypatch.setattr("operate.environment.reach", lambda _: None)
    assert main(["route", "red car"]) == 0
    printed = capsys.readouterr().out
    assert controls(printed) == []
    assert json.loads(printed) == answer
    out = io.StringIO()
    Terminal(file=out, width=400).print(route.table([(HOSTILE, {**ANSWER, "source": HOSTILE})]))
    assert controls(out.getvalue()) == []
    assert "\\u001b]0;title" in out.getvalue()


def test_no_refusal_controls_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web, "send", lambda *_, **__: Response(502, HOSTILE.replace("\ud800", "")))
    assert guarded(lambda: len(router().ask(HOSTILE.replace("\ud800", "")))) == 1
    printed = capsys.readouterr().err
    assert controls(printed) == []
    assert "502" in printed


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
    with pytest.raises(OperateError, match=r"400.*The query is empty"):
        router().ask("")


class CloudFormation:
    """A stack with these outputs, or an error."""

    def __init__(self, outputs: Any) -> None:
        self.outputs = outputs

    def describe_stacks(self, **_: str) -> Any:
        if isinstance(self.outputs, Exception):
            raise self.outputs
        outputs = [{"OutputKey": key, "OutputValue": value} for key, value in self.outputs.items()]
        return {"Stacks": [{"Outputs": outputs}]}


def environment(monkeypatch: pytest.MonkeyPatch, outputs: Any, **variables: str) -> Environment:
    monkeypatch.setattr(Aws, "cloudformation", CloudFormation(outputs))
    return Environment("dev", load("dev"), variables)


def test_a_router_is_found_by_the_outputs_of_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    found = route.router(environment(monkeypatch, {"ApiId": "abc", "ApiUrl": "https://abc.example/"}))
    assert (found.url, found.region, found.verify) == ("https://abc.example/route", "us-east-1", None)


def test_variables_replace_the_address_of_the_api_and_the_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = {
        "EXECUTE_API_URL": "https://127.0.0.1:1/{api}/$default",
        "AWS_CA_BUNDLE": "/bundle.pem",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
    }
    at = environment(monkeypatch, {"ApiId": "abc", "ApiUrl": "https://abc.example/"}, **variables)
    found = route.router(at)
    assert (found.url, found.verify) == ("https://127.0.0.1:1/abc/$default/route", "/bundle.pem")
    assert (found.credentials.access_key, found.credentials.secret_key) == ("id", "key")


@pytest.mark.parametrize("outputs", [{}, NoCredentialsError()])
def test_a_stack_that_can_not_be_read_says_what_to_do(monkeypatch: pytest.MonkeyPatch, outputs: Any) -> None:
    with pytest.raises(OperateError, match="video-router-dev-router can't be read in us-east-1") as caught:
        route.router(environment(monkeypatch, outputs))
    assert "make deploy ENV=dev" in caught.value.advice


def test_a_local_system_whose_deployment_failed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    at = environment(monkeypatch, {}, AWS_ENDPOINT_URL="https://127.0.0.1:1")
    with pytest.raises(OperateError) as caught:
        route.router(at)
    assert caught.value.advice == "Check that `make local` was run."
