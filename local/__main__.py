"""Run the local system: the ordinary stacks, in an emulator on this machine.

The Makefile's targets `local`, `local-status` and `local-down` call this.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from local import environment, logged_requests, own_app, status, system
from local.state import REGION, State
from operate.console import console
from operate.environment import LOCAL, add_argument, forget_aws, reach
from operate.errors import guarded
from operate.printing import out

PLAIN_WIDTH = 120
EXAMPLES = """\
examples:
  python -m local up
  python -m local up --environment dev
  python -m local up --queries my_queries.txt
  python -m local servers
  python -m local run cdk list --app "python app.py"
  python -m local env
  python -m local down
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: _run(options, State.load()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the servers, deploy, and ask the sample queries")
    add_argument(up, default=LOCAL)
    up.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder with training.jsonl and holdout.jsonl, instead of data that is not in the project",
    )
    up.add_argument(
        "--queries",
        type=Path,
        metavar="FILE",
        help="one query on each line; by default sample_queries.txt of the task, or rows of its data",
    )
    alone = commands.add_parser("servers", help="start the servers only, to deploy an app of your own")
    alone.add_argument(
        "--region", default=REGION, help=f"the Region that they stand for; by default {REGION}"
    )
    run = commands.add_parser("run", help="run a command, such as cdk, that reaches the local system")
    run.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command and its arguments"
    )
    down = commands.add_parser("down", help="destroy the stacks and stop the servers")
    down.add_argument("--force", action="store_true", help="only stop the servers")
    commands.add_parser("status", help="show servers, stacks and release")
    commands.add_parser("log-requests", help="log requests to the teacher, for settings with invocation logs")
    commands.add_parser("env", help="print the variables with which AWS clients reach the system")
    return parser


def _run(options: argparse.Namespace, state: State) -> int:
    """Run the command; return its exit status."""
    forget_aws()
    match options.command:
        case "up":
            try:
                system.up(state, console(PLAIN_WIDTH), options.environment, options.data, options.queries)
            except KeyboardInterrupt:
                advice = "The servers keep running. `make local` goes on, `make local-down` stops them."
                raise KeyboardInterrupt(advice) from None
        case "servers":
            own_app.start(state, console(PLAIN_WIDTH), options.region)
        case "run":
            return own_app.run(state, options.words)
        case "down":
            system.down(state, console(PLAIN_WIDTH), force=options.force)
        case "status":
            status.show(state, console(PLAIN_WIDTH))
        case "log-requests":
            at = reach(LOCAL)
            out(logged_requests.log(at.settings, at.variables, state.settings_source))
        case "env":
            out(environment.render(status.variables(state)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
