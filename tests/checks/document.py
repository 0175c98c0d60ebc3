"""Write docs/checks.md: which rules check the stacks, and which findings are acknowledged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from cdk_distilled_router.common import nag
from stacks.settings import PROJECT
from tests.checks import checkov
from tests.checks.acknowledged import Acknowledged

PATH = PROJECT / "docs" / "checks.md"
ENVIRONMENT = "prod"
INTRODUCTION = """\
# Compliance checks

| rules | check | in |
|---|---|---|
| cdk-nag packs | every synthesis, by `checks.packs` in the settings: all five for prod, AwsSolutions for \
dev and local, all five for the test variants | `cdk synth`, `make test` |
| AWS Control Tower's proactive controls, 237 rules for cfn-guard | prod | `make test-all` |
| checkov, offline | prod | `make test-all`, `make checks` |

A finding is fixed, or acknowledged at its construct with a reason. Otherwise the synthesis or the test \
fails. An acknowledgement without a finding fails too. A stack that violates the rules on \
purpose (`tests/stacks/bad_example.py`) must fail each of the checks.

## Choosing packs

```toml
[checks]
packs = ["AwsSolutions", "Serverless", "NIST80053R5", "HIPAASecurity", "PCIDSS321"]
```

Each pack adds about a quarter of a second to a synthesis of four seconds. The constructs of \
`cdk_distilled_router/` contain their acknowledgements, so another team's app can add packs, or \
`cdklabs.cdk-validator-cfnguard`, with `cdk.Validations.of(app).add_plugins(...)`. If the constructs get a \
KMS key, these packs report no finding. cdk-nag's pack NIST 800-53 R4 was not tested. The rule sets of the \
AWS Guard Rules Registry (NIST, HIPAA, PCI for cfn-guard) are in no package registry; cdk-nag's packs of \
these names follow the same AWS Config rules.

A pack checks templates. It doesn't certify that a deployment complies with a standard.

## Acknowledging

```python
from cdk_distilled_router.common.nag import acknowledge

acknowledge(
    bucket,
    "S3ObjectLock",
    "S3 can't deliver access logs to a bucket with Object Lock (S3 API, LoggingEnabled).",
)
```

`MATTERS` in `cdk_distilled_router/common/nag.py` lists each kind of finding with its names in all rule \
sets: a bucket without versioning is one decision, whichever tool reports it. The reason says in a \
sentence why it holds for this construct; `tests/stacks/test_nag.py` rejects short and general ones. \
Reasons that follow from a function's caller are in `cdk_distilled_router/common/callers.py`. If settings \
can remove a finding, it is acknowledged only where they don't: a function with reserved concurrency, or \
in a VPC, has none.

## Acknowledged in prod

`make checks` writes this list from the synthesized stacks; a test compares it. Reasons for wildcards in \
policies (AwsSolutions-IAM5) are stated with the permissions, by \
`cdk_distilled_router/common/permissions.py`.
"""


def text(acknowledged: Acknowledged) -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *_sections(acknowledged)])


def _sections(acknowledged: Acknowledged) -> Iterator[str]:
    for matter, ids in nag.MATTERS.items():
        where: Mapping[str, list[str]] = _by_reason(acknowledged, ids[0])
        if not where:
            continue
        yield f"### {matter}\n\n{', '.join(map(_name, ids))}.\n"
        for reason, constructs in sorted(where.items()):
            yield f"- {reason} *{_counted(constructs)}*"
        yield ""


def _by_reason(acknowledged: Acknowledged, rule: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for (construct, accepted), reason in sorted(acknowledged.reasons.items()):
        if accepted == rule:
            stack, _, path = construct.partition("/")
            found[reason].append(f"{stack.rpartition('-')[2]}: {path}")
    return found


def _name(id_: str) -> str:
    rule_set, _, rule = id_.partition("::")
    return f"checkov {rule}" if rule_set == checkov.RULE_SET else rule


def _counted(constructs: list[str]) -> str:
    if len(constructs) <= 3:
        return "; ".join(constructs) + "."
    return f"{len(constructs)} constructs."


def read(path: Path = PATH) -> str:
    """Return the page as it is on disk."""
    return path.read_text(encoding="utf-8")
