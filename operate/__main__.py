"""Deploy an environment and work with it: `python -m operate COMMAND`.

Commands use the AWS credentials of your shell. `--environment local` is the
system that `make local` deploys into an emulator on this machine.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Protocol, cast

from operate.errors import OperateError, guarded
from operate.printing import err, out

# Each command is the module of its name. It is imported only to be run: `--help` is quick without all others.
COMMANDS = {
    "bootstrap": "prepare an AWS account and Region for the CDK, once",
    "doctor": "check an environment's account, and change nothing",
    "synth": "write the CloudFormation templates, without access to AWS",
    "diff": "show what a deployment would change",
    "deploy": "deploy an environment",
    "destroy": "delete an environment's stacks",
    "route": "ask a deployed router one query",
    "watch": "follow the running release until it ends",
    "releases": "list all releases with state, share, scores and cost",
    "report": "fetch the report of a release, and open it",
    "rollback": "give all requests to the previous good release",
    "head-off": "switch classification heads off, without a deployment",
    "head-on": "switch classification heads on again",
    "cost": "estimate what an environment costs, without access to AWS",
    "new-task": "lay out the folder of a new task from its labels",
    "dataset-import": "convert labelled rows of another form, such as OpenAI's",
    "dataset-split": "split labelled rows into training and hold-out files",
    "dataset-check": "check a file of training rows or of raw queries",
    "head": "train a classification head here, or let one answer",
    "execution-policy": "write the policies that CloudFormation needs",
}
USAGE_ERROR = 2


class Command(Protocol):
    """What the module of a command provides. Its docstring is the description in its help."""

    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""

    def run(self, options: argparse.Namespace) -> int:
        """Run the command and return its exit status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else ""
    if name in {"-h", "--help"}:
        out(overview())
        return 0
    if name not in COMMANDS:
        err(unknown(name))
        return USAGE_ERROR
    return guarded(lambda: _run(name, given[1:]))


def _run(name: str, arguments: Sequence[str]) -> int:
    command = load(name)
    return command.run(parser(name, command).parse_args(arguments))


def load(name: str) -> Command:
    """Import the module of a command.

    Raises:
        OperateError: It needs a package that only the tests need otherwise, such as cfn-lint.
    """
    try:
        return cast("Command", importlib.import_module(f"operate.{name.replace('-', '_')}"))
    except ModuleNotFoundError as error:
        raise OperateError(
            f"The command {name} needs the package {error.name}, which is not installed.",
            advice="Install it with `make install-tests`.",
        ) from error


def parser(name: str, command: Command) -> argparse.ArgumentParser:
    """Return the parser of one command's arguments."""
    made = argparse.ArgumentParser(
        prog=f"python -m operate {name}",
        description=command.__doc__,
        epilog="examples:\n" + command.EXAMPLES.rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(made)
    return made


def overview() -> str:
    """Return the list of all commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m operate COMMAND [OPTION ...]",
            "",
            *(__doc__ or "").splitlines(),
            "",
            "commands:",
            *lines,
            "",
            "`python -m operate COMMAND --help` explains one, with examples.",
        ]
    )


def unknown(name: str) -> str:
    """Return what to say to a command that does not exist."""
    if not name:
        return f"Name a command: {', '.join(COMMANDS)}."
    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"The commands are {', '.join(COMMANDS)}."
    return f"There is no command {name!r}. {hint}"


if __name__ == "__main__":
    sys.exit(main())
