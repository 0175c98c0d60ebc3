"""What an operator runs against any environment."""

import stacks  # noqa: F401  # puts lambda/ on the import path
