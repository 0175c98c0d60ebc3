"""Mask the parts of templates that change with every change of code or data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

# An asset is named by its content: a function's bundle, a data file, the CDK's own framework code.
_ASSET = re.compile(r"\b[0-9a-f]{64}\b")

# The logical id of a Lambda version ends in a hash of the function's code and configuration.
_VERSION = re.compile(r"(CurrentVersion[0-9A-F]{8})[0-9a-f]{32}\b")

LEFT_OVER = re.compile(r"[0-9a-f]{32,}")
"""A hash that no mask covers."""


class Digests(Protocol):
    """The digests of an identity that are in templates."""

    @property
    def digest(self) -> str: ...

    @property
    def dataset_digest(self) -> str: ...


def masked(template: Mapping[str, Any], identity: Digests) -> Any:
    """Return the template with `<asset>`, `<code>`, `<digest>` and `<dataset digest>` as placeholders."""
    text = json.dumps(template)
    text = _ASSET.sub("<asset>", text)
    text = _VERSION.sub(r"\1<code>", text)
    # By their values, so that a literal which only looks like one shows.
    text = text.replace(identity.dataset_digest, "<dataset digest>").replace(identity.digest, "<digest>")
    return json.loads(text)
