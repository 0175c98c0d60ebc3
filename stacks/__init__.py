"""The stacks of the distilled router.

`lambda` is a keyword, so the folder is never a package: it is put on the import path, here and in the tests,
so that the stacks use the names and the task that the functions use.
"""

import sys
from pathlib import Path

_LAMBDA = str(Path(__file__).resolve().parents[1] / "lambda")
if _LAMBDA not in sys.path:
    sys.path.insert(0, _LAMBDA)
