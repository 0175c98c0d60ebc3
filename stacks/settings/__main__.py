"""Write the files generated from the settings' types: `python -m stacks.settings`."""

import sys

from stacks.settings.fields import PROJECT
from stacks.settings.loading import ENVIRONMENTS
from stacks.settings.reference import reference_text, schema_text

GENERATED = {
    ENVIRONMENTS / "schema.json": schema_text,
    PROJECT / "docs" / "settings.md": reference_text,
}

for path, text in GENERATED.items():
    path.parent.mkdir(exist_ok=True)
    path.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{path.relative_to(PROJECT)}\n")
