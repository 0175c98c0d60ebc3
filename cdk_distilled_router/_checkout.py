"""Put lambda/ on the import path of a checkout.

`lambda` is a keyword, so the folder is never a package; `distilled_router` is below it. A wheel installs that
package beside this one, and this module does nothing.

It comes right behind the checkout itself: an app that comes before the checkout keeps its own packages, even
where they are called as a function's folder is, and an installed wheel doesn't hide the checkout's code.
"""

import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
_LAMBDA = _CHECKOUT / "lambda"


def _place() -> int:
    """Return the place in the path behind the checkout."""
    places = (place for place, entry in enumerate(sys.path) if Path(entry or ".").resolve() == _CHECKOUT)
    return next(places, -1) + 1


if (_LAMBDA / "distilled_router").is_dir() and str(_LAMBDA) not in sys.path:
    sys.path.insert(_place(), str(_LAMBDA))
