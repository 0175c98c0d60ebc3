"""IAM decisions, made by the emulator's evaluator, and Lambda's checks of a function's role.

The emulator has its own virtual environment. Its evaluator is one file that imports only the standard
library.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from local.servers import EMULATOR_PYTHON
from stacks.settings import PROJECT


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_PACKAGES = EMULATOR_PYTHON.parents[1] / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
iam_evaluator = _load("emulator_iam", _PACKAGES / "ministack" / "core" / "iam_evaluator.py")
function_checks = _load("function_checks", PROJECT / "local" / "emulator" / "function_checks.py")
