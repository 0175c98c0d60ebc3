"""Put a checkout's lambda/ on the import path, so that `distilled_router` can be imported.

`lambda` is a keyword, so that folder can't be a package. An installed wheel has `distilled_router` beside
this package and doesn't need this module.

lambda/ goes right after the checkout itself. An app earlier on the path keeps its own packages, even if they
have the name of a function's folder, and an installed wheel doesn't hide the checkout's code.
"""

import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
_LAMBDA = _CHECKOUT / "lambda"


def _place() -> int:
    """Return the index after the checkout in `sys.path`; 0 if it isn't there."""
    places = (place for place, entry in enumerate(sys.path) if Path(entry or ".").resolve() == _CHECKOUT)
    return next(places, -1) + 1


if (_LAMBDA / "distilled_router").is_dir() and str(_LAMBDA) not in sys.path:
    sys.path.insert(_place(), str(_LAMBDA))
