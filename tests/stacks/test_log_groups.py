"""Log groups: those that services other than Lambda deliver to have the prefix of vended logs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.stacks.assembly import Assembly


def name(assembly: Assembly, shown: str) -> str:
    """Return the name of a log group, given how the template refers to it; empty for a generated name."""
    (logical_name,) = re.findall(r"<(\w+)(?:\.Arn)?>", shown)
    return str(assembly.one("AWS::Logs::LogGroup", logical_name).properties.get("LogGroupName", ""))


def destinations(assembly: Assembly) -> Iterator[tuple[str, str]]:
    """Yield the log groups of state machines and of API stages, with whose they are."""
    for machine in assembly.resources("AWS::StepFunctions::StateMachine"):
        for found in machine.properties["LoggingConfiguration"]["Destinations"]:
            yield machine.name, assembly.plain(found["CloudWatchLogsLogGroup"]["LogGroupArn"])
    for stage in assembly.resources("AWS::ApiGatewayV2::Stage"):
        yield stage.name, assembly.plain(stage.properties["AccessLogSettings"]["DestinationArn"])


def test_every_delivery_goes_to_a_group_of_vended_logs(assembly: Assembly) -> None:
    """Each other group adds to a resource policy that has 5,120 characters for the account and Region."""
    found = {whose: name(assembly, shown) for whose, shown in destinations(assembly)}
    assert len(found) > 3
    assert {whose for whose, group in found.items() if not group.startswith("/aws/vendedlogs/")} == set()
    assert len(set(found.values())) == len(found)


def test_every_other_group_is_a_functions(assembly: Assembly) -> None:
    """A log group that neither a function nor a vended delivery uses is a new kind of destination."""
    functions = {
        assembly.plain(function.properties["LoggingConfig"]["LogGroup"])
        for function in assembly.resources("AWS::Lambda::Function")
    }
    vended = {shown for _, shown in destinations(assembly)}
    for group in assembly.resources("AWS::Logs::LogGroup"):
        assert f"<{group.name}>" in functions or f"<{group.name}.Arn>" in vended, group.name


def test_a_groups_name_begins_with_the_owner_and_is_short_enough(assembly: Assembly) -> None:
    for group in assembly.resources("AWS::Logs::LogGroup"):
        if given := group.properties.get("LogGroupName"):
            # botocore: logs LogGroupName.
            assert re.fullmatch(r"[\w./#-]{1,512}", given), given
            assert re.fullmatch(rf"/aws/vendedlogs/\w+/{assembly.settings.owner}-.+", given), given
