"""The CDK app: five stacks for one environment, from its settings file.

Synthesis calls no AWS service and needs no credentials. The context value `environment` selects the
environment, e.g. `cdk synth -c environment=prod`. Settings files are in `environments/`, or in the folder
that the context value `environments` sets.
"""

from __future__ import annotations

import sys
from pathlib import Path

import aws_cdk as cdk

from cdk_distilled_router.common.functions import VariablesError
from distilled_router.visible import visible
from stacks.application import build
from stacks.settings import ENVIRONMENTS, SettingsError


def main() -> None:
    """Synthesize the stacks; for invalid settings or too many tags, exit with the list of problems."""
    app = cdk.App()
    try:
        folder = app.node.try_get_context("environments")
        build(app, str(app.node.try_get_context("environment") or "dev"), Path(folder or ENVIRONMENTS))
    except (SettingsError, VariablesError) as error:
        sys.exit(visible(str(error)))
    app.synth()


main()
