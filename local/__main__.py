"""`python -m local`: what the Makefile's targets for the local system run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from local import environment, status, system
from local.state import ENVIRONMENT, PROJECT, State
from operate import deployed, processes, releases, rollback, route, watch
from operate.errors import LocalError
from operate.gradual_rollback import Rise
from stacks.settings import SettingsError

# Wide enough for the table of answers where no terminal says how wide it is.
PLAIN_WIDTH = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    options = _parser().parse_args(arguments)
    state = State.load()
    console = _console()
    try:
        return _run(options, state, console)
    except (LocalError, SettingsError, BotoCoreError, ClientError) as error:
        _explain(error)
        return 1
    except BrokenPipeError:
        # Whoever read our output has heard enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        if options.command == "up":
            print(
                "Servers that had started still run: `make local` goes on, `make local-down` stops them.",
                file=sys.stderr,
            )
        if options.command == "watch":
            print("The release goes on.", file=sys.stderr)
        if options.command == "rollback":
            print(f"Look at what serves: make releases ENV={options.environment}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the local system, deploy, and ask the sample queries")
    up.add_argument(
        "--queries", type=Path, default=PROJECT / "data" / "sample_queries.txt", help="one query a line"
    )
    down = commands.add_parser("down", help="destroy the stacks and stop the servers")
    down.add_argument("--force", action="store_true", help="only stop the servers")
    account = commands.add_parser("cdk", help="run the CDK for an environment in AWS, with your credentials")
    account.add_argument("--environment", required=True)
    account.add_argument("arguments", nargs="+", help="e.g. deploy --all")
    route = commands.add_parser("route", help="ask a deployed router")
    route.add_argument("query")
    route.add_argument("--environment", default=ENVIRONMENT)
    for name, text in (
        ("releases", "show all releases, and what serves"),
        ("rollback", "give all requests to the previous good release"),
        ("watch", "follow the release that is on its way"),
    ):
        of_releases = commands.add_parser(name, help=text)
        of_releases.add_argument("--environment", default=ENVIRONMENT)
        if name == "rollback":
            of_releases.add_argument("--to", default="", help="the digest of a retired release")
            of_releases.add_argument(
                "--gradual", action="store_true", help="by the steps of the settings, watched"
            )
    commands.add_parser("status", help="show servers, stacks and release")
    commands.add_parser("env", help="print the variables that point AWS clients at the local system")
    synth = commands.add_parser("synth", help="synthesize an environment without any access to AWS")
    synth.add_argument("--environment", default=ENVIRONMENT)
    synth.add_argument("--output", type=Path, default=PROJECT / "cdk.out")
    return parser


def _run(options: argparse.Namespace, state: State, console: Console) -> int:
    """Run the command that was asked for; its exit status."""
    match options.command:
        case "up":
            _forget_aws()
            system.up(state, console, options.queries)
        case "down":
            _forget_aws()
            system.down(state, console, force=options.force)
        case "status":
            _forget_aws()
            status.show(state, console)
        case "env":
            print(environment.render(status.variables(state)), end="")
        case "synth":
            system.synth(options.environment, options.output)
        case "cdk":
            return system.in_account(options.environment, options.arguments)
        case "route":
            if options.environment == ENVIRONMENT:
                _forget_aws()
            answer = route.router(options.environment, state).ask(options.query)
            print(json.dumps(answer, indent=2), flush=True)
        case "releases" | "rollback" | "watch":
            return _of_releases(options, state, console)
    return 0


def _of_releases(options: argparse.Namespace, state: State, console: Console) -> int:
    """Run one of the commands that work on a deployed environment's releases; its exit status."""
    if options.environment == ENVIRONMENT:
        _forget_aws()
    at = deployed.deployed(options.environment, state)
    if options.command == "watch":
        return watch.follow(at, console)
    if options.command == "rollback":
        rise = Rise(deployed.watch(options.environment, state), console) if options.gradual else None
        rollback.show(rollback.roll_back(at, options.to, rise), at, console)
    else:
        releases.show(at, console)
    return 0


def _forget_aws() -> None:
    """Drop the caller's AWS variables: a profile or an endpoint of theirs must not reach the local system."""
    kept = environment.without_aws()
    os.environ.clear()
    os.environ.update(kept)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def _explain(error: Exception) -> None:
    """Print what failed, the end of its log, and what to do."""
    print(f"\nFailed: {error}", file=sys.stderr)
    if isinstance(error, LocalError):
        if error.log and (lines := processes.tail(error.log)):
            print(f"\nThe last lines of {error.log}:\n{lines}\n", file=sys.stderr)
        if error.advice:
            print(error.advice, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
