"""The functions' environment variables: what a template writes is what its handler reads."""

from __future__ import annotations

import json

import aws_cdk as cdk
import pytest

from stacks.application import declare
from stacks.settings import PROJECT
from tests.stacks.environments import settings_of


def test_tags_that_do_not_fit_into_the_variables_are_refused_by_name() -> None:
    """Lambda takes 4,096 bytes of variables for a function, and refuses more only when it is deployed."""
    long = {f"cost-centre-{number:02d}": "x" * 120 for number in range(30)}
    settings = settings_of("raw-queries").model_copy(update={"tags": long})
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    with pytest.raises(ValueError, match=r"/Labelling/Label: .* 4,\d+ bytes.* largest is TAGS with 4,\d+"):
        declare(cdk.App(context=context), settings)
