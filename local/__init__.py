"""The local system: the ordinary stacks in an AWS emulator on this machine, and its test doubles."""

import stacks  # noqa: F401  # puts lambda/ on the import path
