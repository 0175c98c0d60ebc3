"""Layers without their content, for tests of what CloudFormation and our functions do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def empty(assembly: Path) -> None:
    """Leave the dependencies out of an assembly's layers.

    The emulator's functions have them of its own environment, and to unpack and compile them costs each a
    second at its first call. Bundles are tested for themselves.
    """
    for template in assembly.glob("*.template.json"):
        for resource in json.loads(template.read_text(encoding="utf-8")).get("Resources", {}).values():
            if resource["Type"] == "AWS::Lambda::LayerVersion":
                key = str(resource["Properties"]["Content"]["S3Key"])
                folder = assembly / f"asset.{key.removesuffix('.zip')}"
                shutil.rmtree(folder)
                (folder / "python").mkdir(parents=True)
                (folder / "python" / "empty.txt").touch()
