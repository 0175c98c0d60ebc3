"""The stacks of the distilled router."""

import cdk_distilled_router  # noqa: F401  # puts lambda/ on the import path
