"""Layers without content, for tests that need only CloudFormation and our functions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def empty(assembly: Path) -> None:
    """Remove the dependencies from an assembly's layers.

    The emulator's functions have them in their own environment, and unpacking and compiling them would cost
    each function a second at its first call. Bundles have their own tests.
    """
    for template in assembly.glob("*.template.json"):
        for resource in json.loads(template.read_text(encoding="utf-8")).get("Resources", {}).values():
            if resource["Type"] == "AWS::Lambda::LayerVersion":
                key = str(resource["Properties"]["Content"]["S3Key"])
                folder = assembly / f"asset.{key.removesuffix('.zip')}"
                shutil.rmtree(folder)
                (folder / "python").mkdir(parents=True)
                (folder / "python" / "empty.txt").touch()
