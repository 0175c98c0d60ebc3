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

# Eight digits of a hold-out set's key: in a job's tag, in the logical ids of a wait, and as a property of it.
_HOLDOUT = re.compile(r'(distilled-router:holdout:|"Holdout": ")[0-9a-f]{8}\b')
_WINDOW = re.compile(r"(<digest>)[0-9a-f]{8}(?=Window)")

LEFT_OVER = re.compile(r"[0-9a-f]{32,}")
"""A hash that no mask covers."""


class Digests(Protocol):
    """The digests of an identity that are in templates."""

    @property
    def digest(self) -> str: ...

    @property
    def dataset_digest(self) -> str: ...

    @property
    def holdout_digest(self) -> str: ...

    @property
    def earlier_job_name(self) -> str: ...


def masked(template: Mapping[str, Any], identity: Digests) -> Any:
    """Return the template with `<asset>`, `<code>`, `<digest>` and the like as placeholders."""
    text = json.dumps(template)
    text = _ASSET.sub("<asset>", text)
    text = _VERSION.sub(r"\1<code>", text)
    return json.loads(without_digests(text, identity))


def without_digests(text: str, identity: Digests) -> str:
    """Return the text with placeholders for the digests of a model and of its hold-out set."""
    # By their values, so that a literal which only looks like one shows.
    values = {
        identity.dataset_digest: "<dataset digest>",
        identity.holdout_digest: "<hold-out digest>",
        identity.earlier_job_name: "<earlier job>",
        identity.digest: "<digest>",
    }
    for value, shown in values.items():
        text = text.replace(value, shown) if value else text
    return _WINDOW.sub(r"\1<hold-out>", _HOLDOUT.sub(r"\1<hold-out>", text))
