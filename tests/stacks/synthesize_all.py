"""Synthesize environments without network: `python -m tests.stacks.synthesize_all FOLDER READS NAME...`.

The file READS gets the list of this project's files that were read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import aws_cdk as cdk

from stacks.application import declare
from stacks.settings import PROJECT
from tests.stacks import bad_example, offline
from tests.stacks.environments import settings_of


def synthesize(environment: str, folder: Path, *plugins: cdk.IPolicyValidationPlugin) -> None:
    """Synthesize one environment as app.py does, with cdk.json's context; a finding of cdk-nag raises."""
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    app = cdk.App(context=context, outdir=str(folder / environment), analytics_reporting=False)
    declare(app, settings_of(environment))
    cdk.Validations.of(app).add_plugins(*plugins)
    app.synth()


def synthesize_bad_example(folder: Path) -> None:
    """Synthesize the bad example, and write its error beside it."""
    try:
        bad_example.synthesize(folder)
    except RuntimeError as error:
        (folder / "error.txt").write_text(str(error), encoding="utf-8")


if __name__ == "__main__":
    offline.refuse_network()
    target, reads, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    opened = offline.note_reads(PROJECT)
    for name in names:
        if name == bad_example.NAME:
            synthesize_bad_example(target / name)
        else:
            synthesize(name, target)
    opened |= offline.modules(PROJECT)
    reads.write_text("".join(f"{path}\n" for path in sorted(opened)), encoding="utf-8")
