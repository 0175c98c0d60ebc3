"""Generate the JSON schema for editors and the settings page for people, both from the types."""

import json
from typing import Any

from stacks.settings.explanation import Schema, allowed_by, resolved, schema

_INTRODUCTION = """\
# Settings

One file per environment: `environments/<environment>.toml`, or any other file, such as
`ENV=../acme/prod.toml`. Its name is that of the environment. Invalid settings stop the synthesis with a list
of all problems. This page and `environments/schema.json` are generated from the types in `stacks/settings/`:
change those, then run `make schema`.
"""

SAMPLE = """\
[security]
permissions_boundary = "arn:aws:iam::111122223333:policy/platform/TeamBoundary"  # or "TeamBoundary"

[network]
subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
security_group_ids = ["sg-0123456789abcdef0"]
attached = true  # false on the way out of the network

[network.endpoints]  # only if the stacks should create VPC endpoints
vpc_id = "vpc-0123456789abcdef0"
route_table_ids = ["rtb-0123456789abcdef0"]

[encryption]
model_key = true
runtime_key = true
key_arn = "arn:aws:kms:us-east-1:111122223333:key/0b8f1c7e-1111-4222-8333-444455556666"  # or one is created
key_deletion_days = 30
"""

_SAMPLE_TITLE = """\
## Platform settings together

No sample environment has a network, so each one deploys as it is. [Platform](platform.md) explains these \
settings.
"""


def schema_text() -> str:
    """Return the content of `environments/schema.json`."""
    document: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_titles(schema()),
        "title": "Settings of a distilled-router environment",
    }
    # The file's name gives the environment, so the file has no such key.
    document["properties"] = {k: v for k, v in document["properties"].items() if k != "environment"}
    document["required"] = [key for key in document["required"] if key != "environment"]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def reference_text() -> str:
    """Return the content of `docs/settings.md`."""
    sample = [_SAMPLE_TITLE, "```toml", SAMPLE.rstrip(), "```", ""]
    return "\n".join([_INTRODUCTION, _contents(schema()), *_section("", schema()), *sample])


def _contents(node: Schema) -> str:
    tables = [name for name, raw in node["properties"].items() if "properties" in resolved(raw)]
    links = [f"[`[{name}]`](#{name})" for name in tables]
    together = "[platform settings together](#platform-settings-together)"
    return " · ".join(["**Contents:** [at the top](#at-the-top)", *links, together]) + "\n"


def _section(key: str, node: Schema) -> list[str]:
    title = f"`[{key}]`" if key else "At the top"
    lines = [f"## {title}", "", *([node["description"], ""] if key else [])]
    lines += ["| key | required | allowed | meaning |", "|---|---|---|---|"]
    tables: list[str] = []
    required = node.get("required", [])
    for name, raw in node["properties"].items():
        field, path = resolved(raw), f"{key}.{name}" if key else name
        if path == "environment":
            continue
        if "properties" in field:
            tables += _section(path, field)
        else:
            cells = (
                f"`{name}`",
                "yes" if name in required else "no",
                allowed_by(field),
                field["description"],
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, "", *tables]


def _without_titles(node: Any) -> Any:
    # pydantic's title of a field is its name, which tells nothing new.
    if isinstance(node, dict):
        return {k: _without_titles(v) for k, v in node.items() if not (k == "title" and isinstance(v, str))}
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    return node
