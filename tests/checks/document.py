"""docs/checks.md: what the stacks are held against, and what was accepted."""

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
# What the stacks are held against

| rules | held against | by |
|---|---|---|
| cdk-nag's packs | every synthesis, by `checks.packs` of the settings: prod has all five, dev and local \
AwsSolutions; the tests' variants of the settings have all five, too | `cdk synth`, `make test` |
| AWS Control Tower's proactive controls, 237 rules for cfn-guard | prod | `make test` |
| checkov, offline | prod | `make checks` |

A finding is fixed, or acknowledged at its construct with a reason. One that is neither ends the synthesis \
or fails the test, and so does an acknowledgement that no finding uses any more. A stack that is bad on \
purpose (`tests/stacks/bad_example.py`) has to fail each of them.

## Choosing packs

```toml
[checks]
packs = ["AwsSolutions", "Serverless", "NIST80053R5", "HIPAASecurity", "PCIDSS321"]
```

Each takes about a quarter of a second of a synthesis of four. The constructs of `cdk_distilled_router/` \
bring their acknowledgements along: another team's app adds the packs that it wants, or \
`cdklabs.cdk-validator-cfnguard`, by `cdk.Validations.of(app).add_plugins(...)`. With a key given to them \
they have no finding of these packs. NIST 800-53 R4 is a pack of cdk-nag that was not tried here. The rule \
sets of the AWS Guard Rules Registry (NIST, HIPAA, PCI for \
cfn-guard) are in no package registry; cdk-nag's packs of these names follow the same AWS Config rules.

A pack says what a template shows. That a deployment conforms to a standard, it does not say.

## Acknowledging

```python
from stacks.nag import acknowledge

acknowledge(
    bucket,
    "S3ObjectLock",
    "S3 delivers access logs to no bucket that has Object Lock (S3 API, LoggingEnabled).",
)
```

`MATTERS` in `cdk_distilled_router/common/nag.py` has each matter with its name in all rule sets, since a \
bucket without versions is one decision, whoever finds it. A reason says why it holds for this construct, \
in a sentence; `tests/stacks/test_nag.py` refuses short and general ones. What follows from who invokes a \
function is in `cdk_distilled_router/common/callers.py`. A matter that depends on the settings is \
acknowledged only where they leave it open: a function with reserved concurrency, or in a VPC, has no finding.

## Accepted in prod

Written by `make checks` from the synthesized stacks; a test compares. Wildcards in policies \
(AwsSolutions-IAM5) have their reasons beside the permissions, in \
`cdk_distilled_router/common/permissions.py`.
"""


def text(acknowledged: Acknowledged) -> str:
    """The whole page."""
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
    """The page as it is."""
    return path.read_text(encoding="utf-8")
