"""The CDK app: five stacks for one environment, from its settings file.

Synthesis calls no AWS service and needs no credentials. The context value `environment` selects the
environment, e.g. `cdk synth -c environment=prod`. The value is the name of a file in `environments/`,
or the path of a settings file.
"""

from __future__ import annotations

import sys

import aws_cdk as cdk

from cdk_distilled_router.common.functions import VariablesError
from distilled_router.visible import visible
from stacks.application import build
from stacks.settings import SettingsError


def main() -> None:
    """Synthesize the stacks; for invalid settings or too many tags, exit with the list of problems."""
    app = cdk.App()
    try:
        build(app, str(app.node.try_get_context("environment") or "dev"))
    except (SettingsError, VariablesError) as error:
        sys.exit(visible(str(error)))
    app.synth()


main()
