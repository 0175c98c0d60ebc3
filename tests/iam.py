"""IAM decisions, made by the emulator's evaluator.

The emulator has its own virtual environment. Its evaluator is one file that imports only the standard
library.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from local.servers import EMULATOR_PYTHON


def _load() -> Any:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = EMULATOR_PYTHON.parents[1] / "lib" / version / "site-packages"
    spec = importlib.util.spec_from_file_location(
        "emulator_iam", packages / "ministack" / "core" / "iam_evaluator.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


iam_evaluator = _load()
