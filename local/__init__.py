"""The local system: the ordinary stacks, deployed into an AWS emulator on this machine."""

import stacks  # noqa: F401  # puts lambda/ on the import path
