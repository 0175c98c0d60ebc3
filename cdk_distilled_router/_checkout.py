"""Put lambda/ on the import path of a checkout.

`lambda` is a keyword, so the folder is never a package; `distilled_router` is below it. A wheel installs that
package beside this one, and this module does nothing.
"""

import sys
from pathlib import Path

_LAMBDA = Path(__file__).resolve().parents[1] / "lambda"
if (_LAMBDA / "distilled_router").is_dir() and str(_LAMBDA) not in sys.path:
    sys.path.insert(0, str(_LAMBDA))
