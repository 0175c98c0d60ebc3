"""Nested time limits: of a retry, its call, the function, and the Provider framework's polling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from distillation_job.handler import CREATE_WAIT_SECONDS
from distilled_router.aws.clients import client
from distilled_router.release.table import CREATING_SECONDS
from tests.stacks.assembly import Assembly, Resource
from tests.unit.entry_points import asks_bedrock

CONFIG = client("bedrock").meta.config
TRIES = int(CONFIG.retries["total_max_attempts"])
# The longest time that an attempt can hang, and the sum of pauses between attempts, in seconds.
TRY, PAUSES = int(CONFIG.connect_timeout + CONFIG.read_timeout), 2 ** (TRIES - 1) - 1


def callers(assembly: Assembly) -> Iterator[tuple[Resource, int]]:
    """Yield the functions that call Bedrock's control plane, with their timeouts in seconds."""
    for function in assembly.functions():
        if asks_bedrock(str(function.properties["Handler"]).partition(".")[0]):
            yield function, int(function.properties["Timeout"])


def test_the_functions_that_call_bedrock_are_found(assembly: Assembly) -> None:
    names = {function.name for function, _ in callers(assembly)}
    assert len(names) >= 8, names


def test_a_function_outlives_several_calls_that_are_throttled_to_the_end(assembly: Assembly) -> None:
    """Case B16."""
    for function, timeout in callers(assembly):
        assert timeout > 5 * PAUSES, function.name


def test_a_try_ends_far_before_its_function_does(assembly: Assembly) -> None:
    for function, timeout in callers(assembly):
        assert timeout > 10 * TRY, function.name


def test_a_function_outlives_a_call_whose_every_try_hangs(assembly: Assembly) -> None:
    """A timeout of isComplete fails the resource, and CloudFormation deletes what was just bought."""
    for function, timeout in callers(assembly):
        assert timeout > TRIES * TRY + PAUSES, function.name


def test_a_job_that_can_not_be_made_is_given_up_before_the_waiter_gives_up(assembly: Assembly) -> None:
    """The framework would only report that the operation timed out. Case B3."""
    timeouts = [timeout for _, timeout in callers(assembly)]
    for machine in assembly.resources("AWS::StepFunctions::StateMachine"):
        if machine.name.endswith("Providerwaiterstatemachine"):
            (retry,) = assembly.definition(machine)["States"]["framework-isComplete-task"]["Retry"]
            waited = retry["MaxAttempts"] * retry["IntervalSeconds"]
            assert CREATE_WAIT_SECONDS + max(timeouts) < waited, machine.name


def test_end_of_the_stack_waits_as_long_as_a_step_that_makes_something_may_run(
    assemblies: Mapping[str, Assembly],
) -> None:
    functions = {
        function.properties["Handler"]: function.properties["Timeout"]
        for function in assemblies["provisioned"].functions()
    }
    steps = (
        "candidate.handler.watch_job",
        "candidate.handler.deploy_candidate",
        "provisioned_throughput.handler.serve_from_throughput",
    )
    assert {functions[step] for step in steps} == {CREATING_SECONDS}
