"""The commands of an operator, for any environment. See `python -m operate --help`."""

import stacks  # noqa: F401  # puts lambda/ on the import path
