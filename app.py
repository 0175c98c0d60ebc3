"""The CDK app: five stacks for one environment, from its settings file.

Synthesis calls no AWS service and needs no credentials. The context value `environment` selects the
environment, e.g. `cdk synth -c environment=prod`. The value is the name of a file in `environments/`,
or the path of a settings file.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import aws_cdk as cdk

from cdk_distilled_router.common.functions import VariablesError
from distilled_router.visible import visible
from stacks.application import build
from stacks.settings import SettingsError


def main() -> None:
    """Synthesize the stacks; for invalid settings or too many tags, exit with the list of problems."""
    remove_bundles(os.environ.get("CDK_OUTDIR"))
    app = cdk.App()
    try:
        build(app, str(app.node.try_get_context("environment") or "dev"))
    except (SettingsError, VariablesError) as error:
        sys.exit(visible(str(error)))
    app.synth()


def remove_bundles(output: str | None) -> None:
    """Remove the bundles of an earlier synthesis from the folder that the CDK writes to.

    One that was interrupted leaves parts of a bundle, and the CDK takes every folder of that name for whole.
    """
    for bundle in Path(output).glob("asset.*") if output else ():
        if bundle.is_dir():
            shutil.rmtree(bundle)
        else:
            bundle.unlink()


main()
