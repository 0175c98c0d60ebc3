"""AWS Control Tower's proactive controls, as rules for cfn-guard: 237 of them come with the CDK's validator.

    python -m tests.checks.guard FOLDER    synthesises prod and the bad example, held against them

It is a synthesis of its own, which takes some seconds: the other tests don't wait for it, and don't fail with
it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import aws_cdk as cdk
from cdklabs.cdk_validator_cfnguard import CfnGuardValidator

from tests.stacks import bad_example, offline
from tests.stacks.synthesize_all import synthesize

ENVIRONMENT = "prod"


def main(folder: Path) -> None:
    """Synthesize both assemblies, with the validator's report."""
    offline.refuse_network()
    # It is typed for the interface as it was in beta, which has the same members.
    rules = cast("cdk.IPolicyValidationPlugin", CfnGuardValidator())
    for name in (ENVIRONMENT, bad_example.NAME):
        try:
            if name == ENVIRONMENT:
                synthesize(name, folder, rules)
            else:
                bad_example.synthesize(folder / name, rules)
        except RuntimeError as error:
            # Findings are in the report; any other failure is an error.
            if not str(error).startswith("ValidationFailed"):
                raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
