"""Every environment, synthesised without network: `python -m tests.stacks.synthesise_all FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import aws_cdk as cdk

from stacks.application import declare
from stacks.settings import PROJECT
from tests.stacks import bad_example, offline
from tests.stacks.environments import ALL, settings_of


def synthesise(environment: str, folder: Path, *plugins: cdk.IPolicyValidationPlugin) -> None:
    """Synthesise one environment as app.py does, with cdk.json's context; a finding of cdk-nag raises."""
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    app = cdk.App(context=context, outdir=str(folder / environment), analytics_reporting=False)
    declare(app, settings_of(environment))
    cdk.Validations.of(app).add_plugins(*plugins)
    app.synth()


def synthesise_bad_example(folder: Path) -> None:
    """Synthesise what must not pass, and leave the error beside it."""
    try:
        bad_example.synthesise(folder)
    except RuntimeError as error:
        (folder / "error.txt").write_text(str(error), encoding="utf-8")


if __name__ == "__main__":
    offline.refuse_network()
    target = Path(sys.argv[1])
    for name in ALL:
        synthesise(name, target)
    synthesise_bad_example(target / bad_example.NAME)
