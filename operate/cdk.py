"""Run the CDK's command line from the virtual environment, with a Node.js that it supports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from operate import account
from operate.environment import in_aws, without_access
from operate.errors import OperateError
from operate.node import OLDEST_NODE, machine_node, packaged_node
from operate.processes import spawn
from stacks.settings import DEFAULT_QUALIFIER, ENVIRONMENTS, PROJECT, locate

TOOLKIT_STACK = "CDKToolkit"
QUIET = ("--no-notices", "--no-version-reporting", "--no-color")


@cache
def node() -> Path:
    """Return the Node.js to use.

    Raises:
        OperateError: There is none.
    """
    found = machine_node() or packaged_node()
    if found is None:
        raise OperateError(
            f"No Node.js {OLDEST_NODE} or newer was found.",
            advice="Remove .venv and run `make install`: it puts one into .venv.",
        )
    return found


def tool_path() -> str:
    """Return a PATH that finds this project's `node` and `python` first."""
    return os.pathsep.join([str(node().parent), str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs the CDK: AWS's own npm package, which the installer put into .venv.

    Raises:
        OperateError: It is not installed.
    """
    script = Path(sys.prefix) / "cdk-cli" / "node_modules" / "aws-cdk" / "bin" / "cdk"
    if not script.exists():
        raise OperateError(
            "The CDK's command line is not installed.", advice="Remove .venv and run `make install`."
        )
    return [str(node()), str(script), *arguments, *QUIET]


def with_tools(variables: Mapping[str, str]) -> dict[str, str]:
    """Return `variables` with this project's `python` and `node` first on the PATH, and no telemetry."""
    return {**variables, "PATH": tool_path(), "CDK_DISABLE_CLI_TELEMETRY": "true"}


def start(
    arguments: Sequence[str], variables: Mapping[str, str], log: Path | None, cwd: Path = PROJECT
) -> subprocess.Popen[bytes]:
    """Start the CDK; its output goes to `log`, or to the terminal."""
    return spawn(command([*arguments, "--ci"] if log else arguments), with_tools(variables), cwd, log)


def run(arguments: Sequence[str], cwd: Path = PROJECT) -> int:
    """Run the CDK at the caller's terminal, where it may ask for approval; return its exit status."""
    done = subprocess.run(command(arguments), env=with_tools(os.environ), cwd=cwd, check=False)  # noqa: S603 - the CDK of this project
    return done.returncode


def run_in_account(name: str, arguments: Sequence[str]) -> int:
    """Run the CDK for an environment in AWS with the caller's credentials; return its exit status.

    Raises:
        OperateError: It is the local system, or the credentials are not those of its account.
    """
    chosen = in_aws(name)
    if not any(argument.partition("=")[0] in account.OTHERS for argument in arguments):
        account.check(chosen)
    if arguments and arguments[0] == "bootstrap":
        # Away from cdk.json: with it, bootstrap would synthesize the whole application first.
        prepare = bootstrap(chosen.account, chosen.region, chosen.bootstrap_qualifier)
        return run([*prepare, *arguments[1:]], ENVIRONMENTS)
    return run([*arguments, *_selected(name)])


def write_assembly(name: str, output: Path) -> None:
    """Synthesize an environment into a folder, with no access to AWS.

    Raises:
        OperateError: The CDK failed; it has said why.
    """
    if start(synth(name, output), without_access(), None).wait():
        raise OperateError(f"cdk synth failed for the environment {name}.")


def synth(environment: str | Path, output: Path) -> list[str]:
    """Return the arguments that synthesize an environment, without access to any account."""
    return ["synth", "--quiet", "--no-lookups", "--output", str(output), *_selected(environment)]


def _selected(environment: str | Path) -> list[str]:
    """Return the arguments that select an environment; the CDK runs in the project's root."""
    path = locate(environment)
    is_named = path == locate(path.stem)
    return ["-c", f"environment={path.stem if is_named else path.resolve()}"]


def bootstrap(account: str, region: str, qualifier: str = DEFAULT_QUALIFIER) -> list[str]:
    """Return the arguments that bootstrap an account and Region.

    A qualifier of its own has a bootstrap stack of its own.
    """
    place = ["bootstrap", f"aws://{account}/{region}"]
    if qualifier == DEFAULT_QUALIFIER:
        return place
    return [*place, "--qualifier", qualifier, "--toolkit-stack-name", toolkit_stack(qualifier)]


def toolkit_stack(qualifier: str) -> str:
    """Return the name of the bootstrap stack with a qualifier."""
    return TOOLKIT_STACK if qualifier == DEFAULT_QUALIFIER else f"{TOOLKIT_STACK}-{qualifier}"


def deploy(assembly: Path, outputs: Path) -> list[str]:
    """Return the arguments that deploy every stack of a synthesized assembly."""
    return [
        *("deploy", "--all", "--app", str(assembly)),
        *("--concurrency", "4", "--require-approval", "never"),
        *("--outputs-file", str(outputs)),
    ]


def destroy(assembly: Path) -> list[str]:
    """Return the arguments that destroy every stack of a synthesized assembly."""
    return ["destroy", "--all", "--force", "--app", str(assembly)]


@dataclass(frozen=True)
class Stack:
    """One stack of an assembly."""

    name: str
    resources: int


def is_assembly(folder: Path) -> bool:
    """Return whether a folder holds a whole assembly: the CDK writes the manifest last."""
    return (folder / "manifest.json").is_file()


def stacks(assembly: Path) -> list[Stack]:
    """Return the stacks of an assembly in their order of dependency."""
    artifacts = json.loads((assembly / "manifest.json").read_text())["artifacts"]
    found = {key: value for key, value in artifacts.items() if value["type"] == "aws:cloudformation:stack"}
    ordered: list[str] = []

    def visit(key: str) -> None:
        for dependency in found[key].get("dependencies", []):
            if dependency in found and dependency not in ordered:
                visit(dependency)
        if key not in ordered:
            ordered.append(key)

    for key in found:
        visit(key)
    return [_stack(assembly, key, found[key]["properties"]) for key in ordered]


def _stack(assembly: Path, key: str, properties: Mapping[str, str]) -> Stack:
    template = json.loads((assembly / properties["templateFile"]).read_text())
    return Stack(properties.get("stackName", key), len(template.get("Resources", {})))
