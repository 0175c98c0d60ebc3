"""The catalogue of cases that the custom resources have to handle, each of which has a test named after it.

T are the acceptance tests that others have for the same resources, B what others get wrong, C the contract of
the CDK's Provider framework. A test that shows case B7 has `_b7_` in its name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

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
    # the account's invocation logging, which is not ours to manage
    "T30": "the account's logging configuration is put",
    "T31": "its switches are turned off in place",
    "T32": "it is put back after somebody deleted it",
    "T33": "a delete keeps a configuration that others made",
    "T34": "an upgrade leaves it as it is",
    # prompt routers, which take no custom model
    "T40": "a prompt router of two models and a fallback is made",
    "T41": "one that was deleted by hand is told",
    "T42": "its description is set",
    "T43": "its tags are set",
    # the customization job, where others fall short
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
    "B19": "filters on invocation logs are joined as Bedrock takes them, and counted",
    # provisioned throughput, where others fall short
    "B20": "without an acknowledged commitment, throughput is billed by the hour",
    "B21": "throughput that fails, or comes late, is never forgotten",
    "B22": "a commitment can't be deleted before its term, and that is said with its date",
    "B23": "another model moves in under the same ARN",
    "B24": "other units or another commitment are a replacement, and guarded",
    "B25": "a delete waits until the throughput is gone",
    "B26": "throughput of a model at its end is refused",
    # on-demand deployments, which nobody has
    "B30": "a deployment is made once, waited for, and is what a model is invoked by",
    "B31": "a deployment that fails is told with its reason and removed",
    "B32": "a new model takes over the requests",
    "B33": "a take-over that fails leaves the old model serving",
    "B34": "a delete waits until the deployment is gone, before its model goes",
    "B35": "a deployment's name in use is ours, foreign, or held for a while",
    "B36": "a logging configuration with other targets is not overwritten",
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

_ID = re.compile(r"[tbc][1-9]\d?")


def names_in(sources: Iterable[str]) -> set[str]:
    """The names of all test functions in some sources."""
    return {
        node.name
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def ids(name: str) -> set[str]:
    """The cases after which a test is named."""
    return {part.upper() for part in name.split("_")[1:] if _ID.fullmatch(part)}


def all_names() -> set[str]:
    """The names of all tests of this project."""
    return names_in(path.read_text(encoding="utf-8") for path in sorted(TESTS.rglob("test_*.py")))


def test_every_case_has_a_test_that_is_named_after_it() -> None:
    shown = set[str]().union(*map(ids, all_names()))
    missing = {case: text for case, text in CASES.items() if case not in shown}
    assert not missing, "\n".join(f"{case}: {text}" for case, text in missing.items())


def test_no_test_is_named_after_a_case_that_is_not_there() -> None:
    unknown = {name for name in all_names() if not ids(name) <= CASES.keys()}
    assert not unknown


def test_names_are_read_as_they_are_meant() -> None:
    source = "class A:\n    def test_t5_b16_x(self): ...\ndef helper_b7_(): ...\ndef test_c_t0_b100_(): ...\n"
    assert names_in([source]) == {"test_t5_b16_x", "test_c_t0_b100_"}
    assert ids("test_t5_b16_x") == {"T5", "B16"}
    assert ids("test_c_t0_b100_") == set()
