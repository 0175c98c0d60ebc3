"""The CDK app: five stacks for one environment, from its settings file alone.

Synthesis calls no AWS service and needs no credentials. The environment is the context value `environment`,
e.g. `cdk synth -c environment=prod`; its file is in `environments/`, or in the folder that the context value
`environments` names.
"""

from __future__ import annotations

import sys
from pathlib import Path

import aws_cdk as cdk

from stacks.application import build
from stacks.settings import ENVIRONMENTS, SettingsError


def main() -> None:
    """Synthesise; wrong settings end with their list of problems instead of a stack trace."""
    app = cdk.App()
    try:
        folder = app.node.try_get_context("environments")
        build(app, str(app.node.try_get_context("environment") or "dev"), Path(folder or ENVIRONMENTS))
    except SettingsError as error:
        sys.exit(str(error))
    app.synth()


main()
