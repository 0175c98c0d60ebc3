"""Cases that the custom resources must handle: each has a test whose docstring names it.

T are acceptance tests of other implementations, B are their defects, C is the contract of the CDK's Provider
framework. The docstring of a test for case B7 contains "Case B7." or, with others, "Cases B7, T4.".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

CASES = {
    # the customization job
    "T1": "a create starts exactly one job, with the arguments given, and does not wait for it",
    "T2": "a distillation names its teacher, and no hyperparameters",
    "T3": "a job that is there already is adopted and not paid again",
    "T4": "a model deleted by hand is told, and not trained again in silence",
    "T5": "tags follow, on the job and on its model, without a new job",
    "T6": "the model's own key is passed on; another key is another job",
    "T7": "validation data is passed on, within Bedrock's limit on their number",
    "T8": "once the job is done, its model and its metrics are to be had",
    "T9": "subnets and security groups are passed on, within Bedrock's limits",
    "T10": "nothing runs after a delete, and a second delete changes nothing",
    "T11": "one model is looked up by its id, all of them page by page",
    "T12": "a deployment that changes nothing calls nothing that changes",
    "T13": "the job's role trusts Bedrock for this account's jobs only",
    # provisioned throughput
    "T20": "throughput is bought with the request as set, or adopted by its ARN",
    "T21": "throughput deleted by hand is told, and its delete succeeds",
    "T22": "tags of throughput follow in place",
    # the account's invocation logging, which this project does not manage
    "T33": "a delete keeps a logging configuration that others made",
    # the customization job: defects of other implementations
    "B1": "an event that arrives twice makes one job",
    "B2": "a role that can't be assumed yet is waited for",
    "B3": "a role that can never be assumed is told with its ARN, in time",
    "B4": "a name in use by our own job means that job",
    "B5": "a name in use by a foreign job is an error, and no reason for another name",
    "B6": "a failed job is told with its reason and its phases",
    "B7": "a job that was stopped by hand is not paid again",
    "B8": "a stopped job may show as running for a while",
    "B9": "a job may complete just before it is stopped",
    "B10": "a delete for what never was succeeds, without effects",
    "B11": "a rollback after another resource failed stops the job",
    "B12": "a create that fails after Bedrock took the job leaves nothing unknown behind",
    "B13": "a model in use is not deleted, or its users are named",
    "B14": "a replacement runs before the replaced job goes",
    "B15": "what is to be retained is retained",
    "B16": "throttling is waited for, a full quota is named",
    "B17": "a teacher or student at its end is refused before anything is paid",
    "B18": "bad training data is refused with its line before anything is paid",
    "B19": "all filters on invocation logs hold together, and their number is limited",
    # provisioned throughput: defects of other implementations
    "B20": "without an acknowledged commitment, throughput is billed by the hour",
    "B21": "throughput that fails, or comes late, is never forgotten",
    "B22": "a commitment can't be deleted before its term, and that is said with its date",
    "B23": "another model moves in under the same ARN",
    "B24": "other units or another commitment are a replacement, and guarded",
    "B25": "a delete waits until the throughput is gone",
    "B26": "throughput of a model at its end is refused",
    # on-demand deployments, which no other implementation has
    "B30": "a deployment is made once, waited for, and is what a model is invoked by",
    "B31": "a deployment that fails is told with its reason and removed",
    "B32": "a new model takes over the requests",
    "B33": "a take-over that fails leaves the old model serving",
    "B34": "a delete waits until the deployment is gone, before its model goes",
    "B35": "a deployment's name in use is ours, foreign, or held for a while",
    # the Provider framework
    "C1": "what onEvent answers reaches isComplete, which is asked until it is done",
    "C2": "what a handler raises becomes the reason, with its log group",
    "C3": "every answer carries an id of our own",
    "C4": "an update may change the id, a delete never does",
    "C5": "data comes with the end only",
    "C6": "a timeout is told to CloudFormation, and never to the handler",
    "C7": "a create that failed in onEvent is marked, and its delete never arrives",
    "C8": "waits fit into CloudFormation's hour",
    "C9": "a response fits into 4,096 bytes and holds no secret",
}

_NAMED = re.compile(r"\bCases? ((?:[TBC][1-9]\d?(?:, |\b))+)")


def docstrings(sources: Iterable[str]) -> dict[str, str]:
    """Return the docstrings of all test functions in some sources, by the function's name."""
    return {
        node.name: ast.get_docstring(node) or ""
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def ids(docstring: str) -> set[str]:
    """Return the cases that a docstring names."""
    return {case for found in _NAMED.findall(docstring) for case in found.strip(", ").split(", ")}


@pytest.fixture(scope="module")
def named() -> dict[str, set[str]]:
    """Return the cases that each test of this project covers."""
    sources = (path.read_text(encoding="utf-8") for path in sorted(TESTS.rglob("test_*.py")))
    return {name: found for name, text in docstrings(sources).items() if (found := ids(text))}


def test_every_case_has_a_test_that_names_it(named: dict[str, set[str]]) -> None:
    shown = set[str]().union(*named.values())
    missing = {case: text for case, text in CASES.items() if case not in shown}
    assert not missing, "\n".join(f"{case}: {text}" for case, text in missing.items())


def test_no_test_names_a_case_that_is_not_there(named: dict[str, set[str]]) -> None:
    assert {name: unknown for name, cases in named.items() if (unknown := cases - CASES.keys())} == {}


def test_docstrings_are_read_as_they_are_meant() -> None:
    source = (
        'class A:\n    def test_x(self):\n        """It does. Cases T5, B16."""\n'
        'def helper():\n    """Case B7."""\n'
    )
    assert {name: ids(text) for name, text in docstrings([source]).items()} == {"test_x": {"T5", "B16"}}
    assert ids("In case B16, T5 is no case of its own; Case of T0.") == set()
