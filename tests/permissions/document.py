"""Write docs/permissions.md: what each role may do, and which call uses it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stacks.settings import PROJECT
from tests.permissions.calls import Call
from tests.permissions.grants import Grant
from tests.permissions.proof import Proof, explained
from tests.permissions.reasons import SHARED, UNUSED, Reason

PATH = PROJECT / "docs" / "permissions.md"
INTRODUCTION = """\
# Permissions

One section for each role. `make permissions` writes this page from the templates of all environments and \
the calls that the tests recorded ([decision 19](decisions/0019-permissions-are-proven.md)). A test fails \
if page, templates and calls don't agree.

| notation | meaning |
|---|---|
| `<Data>` | a resource, by its name in the templates |
| `<Source>` | a bucket named in the settings |
| `{owner}` | the beginning of the stacks' names |
| `{id}` | an id from Bedrock, or a digest |
| *used by* `...` | one of the recorded calls that use the permission |
| *used by* follows | the emulator makes this call without asking IAM, and the templates show it: state \
machine tasks, encryption keys, logs, traces, undelivered events |
| *used by* no test | the reason why the permission is needed anyway |
"""
OF_ALL = """\
## Every role that Lambda assumes

In a VPC, and with `encryption.runtime_key`. Lambda itself makes these calls with the function's role. A \
Deny of these actions of EC2 on the key `lambda:SourceFunctionArn`, which only calls of the function's own \
code have, keeps the code from them.
"""
SHARED_TITLE = """\
## Across environments

No policy reaches another environment of the account, and no other environment reaches what is ours: neither \
the policies on this page nor those for the deployment, of the key, of buckets, topics and queues. These are \
the exceptions; policies and actions are regular expressions.

| policy | actions | why |
|---|---|---|
"""
# What each role is for. Roles of the CDK's Provider framework are recognized by their pattern.
ROLES: Mapping[str, str] = {
    "DatasetRole": "The function behind `Dataset`: validates the rows and publishes them under their digest.",
    "JobRole": "The functions behind `DistillationJob`: create, stop and delete the job and its model.",
    "JobJobRole": "Bedrock's customization jobs: read the rows, ask the teacher, write the metrics.",
    "LabellingRole": "The functions behind `Labelling`: publish the queries, check the cost, start and stop.",
    "LabellingStepRole": "The steps of the labelling: ask the teacher, and curate its answers.",
    "LabellingBatchRole": "Bedrock's batch jobs: read questions, ask the teacher, write answers.",
    "LabellingStateMachineRole": "The labelling state machine.",
    "ReleaseCandidateRole": "WatchJob and DeployCandidate: wait for the job, and deploy its model.",
    "ReleaseEvaluationRole": "The evaluation, with TrainHead: asks, trains, scores and stores the report.",
    "ReleaseGradeAnswersRole": "GradeAnswers: has the judge grade the answers in an evaluation job.",
    "ReleaseJudgeRole": "Bedrock's evaluation jobs: read answers, ask the judge, write grades.",
    "ReleaseRolloutRole": "RollOut: raises the share, compares metrics, and sends probes.",
    "ReleaseSweeperRole": "Sweep, RetireOld and Fail: delete resources that no release needs.",
    "ReleaseReleaseRole": "The functions behind `Release`: start it, and delete what it created.",
    "ReleaseStateMachineRole": "The release state machine.",
    "RouterRole": "The router: reads the route and classification heads, and asks models.",
    "ThroughputStepRole": "ServeFromThroughput: buys throughput, or updates it to a release's model.",
    "WaitRole": "The functions behind `ReleaseWait`: the windows of the stack's wait conditions.",
}
# Roles that only another team's app has (`tests/engine/apps.py`): they look up existing resources, or buy
# throughput without a release.
ELSEWHERE = r"Existing\w+|ThroughputRole|ThroughputProvider\w+"
_FRAMEWORK = {
    "ProviderFrameworkOnEventRole": "The CDK's framework: passes CloudFormation's events to `{}`.",
    "ProviderFrameworkPollRole": "The CDK's framework: polls `{}`.",
    "ProviderwaiterstatemachineRole": "The CDK's framework: the state machine that waits for `{}`.",
}


def belongs_to(role: str) -> str:
    """Return what a role is for, in a sentence. Raise KeyError for a role that ROLES doesn't describe."""
    for ending, sentence in _FRAMEWORK.items():
        if role.endswith(ending):
            return sentence.format(role.removesuffix(ending))
    return ROLES[role]


def text(proof: Proof) -> str:
    """Return the whole page."""
    by_role: dict[str, list[Grant]] = defaultdict(list)
    of_all: dict[Grant, Grant] = {}
    for grant in proof.grants:
        if _is_of_all(proof, grant):
            anyones = replace(grant, role="")
            # Keep the one in most environments: not every environment has every function.
            of_all[anyones] = max(of_all.get(anyones, grant), grant, key=lambda one: len(proof.grants[one]))
        else:
            by_role[grant.role].append(grant)
    sections = [
        section
        for role, grants in sorted(by_role.items())
        for section in (*_title(proof, role), *_table(proof, grants))
    ]
    shared = SHARED_TITLE + "".join(map(_exception, SHARED))
    return "\n".join([INTRODUCTION, shared, OF_ALL, *_table(proof, list(of_all.values())), *sections])


def _exception(reason: Reason) -> str:
    """Return a row of the exceptions; in a table, a bar needs an escape."""
    role, action = (text.replace("|", r"\|") for text in (reason.role, reason.action))
    return f"| `{role}` | `{action}` | {reason.because} |\n"


def _is_of_all(proof: Proof, grant: Grant) -> bool:
    """Return whether all functions of an environment have this permission."""
    if grant.action.startswith("ec2:"):
        return any(e.trusted(grant.role) == "lambda.amazonaws.com" for e in proof.environments)
    conditions = json.loads(grant.conditions)
    return bool(
        conditions.get("StringEquals", {}).get("kms:ViaService") == ["lambda.us-east-1.amazonaws.com"]
    )


def _title(proof: Proof, role: str) -> Iterator[str]:
    trusted = ", ".join(sorted({trust for e in proof.environments if (trust := e.trusted(role))}))
    yield f"## {role}\n\n{belongs_to(role)} Assumed by {trusted}.\n"


def _table(proof: Proof, grants: Sequence[Grant]) -> Iterator[str]:
    yield "| action | resource | where | used by |\n|---|---|---|---|"
    rows: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for grant in grants:
        shown = _resource(grant.resource), _conditions(proof, grant), _use(proof, grant)
        rows[shown].append(grant.action)
    for (resource, where, use), actions in sorted(rows.items(), key=lambda row: (row[1], row[0])):
        yield f"| {_actions(actions)} | {_cell(resource)} | {where} | {use} |"
    yield ""


def _actions(actions: Sequence[str]) -> str:
    return "<br>".join(dict.fromkeys(sorted(actions)))


def _cell(value: str) -> str:
    return f"`{value}`"


def _resource(resource: str) -> str:
    """Return an ARN without the parts that all of its kind share."""
    short = re.sub(r"^arn:aws:(bedrock|states|kms):([\w*-]+):(\{account\})?:", r"\1 \2 ", resource)
    short = (
        short.replace("bedrock us-east-1 ", "").replace("states us-east-1 ", "").replace("kms us-east-1 ", "")
    )
    return short.replace(".Arn>", ">").replace("bedrock us-*", "us-*")


def _conditions(proof: Proof, grant: Grant) -> str:
    parts = []
    for operator, values in json.loads(grant.conditions).items():
        for key, value in values.items():
            several = value if isinstance(value, list) else [value]
            name = key.replace("distilled-router:", "")
            sign = "is, if any," if operator.endswith("IfExists") else "is"
            parts.append(f"{name} {sign} {' or '.join(f'`{_resource(str(one))}`' for one in several)}")
    names = proof.grants[grant]
    if len(names) < len(proof.environments):
        parts.append(f"*in {_some(names)}*")
    return "<br>".join(parts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _use(proof: Proof, grant: Grant) -> str:
    calls = proof.users[grant]
    made = [call for call in calls if call in proof.recorded]
    if made:
        return "a call" if grant.resource == made[0].resource else f"`{_called(made[0])}`"
    if calls:
        return "follows"
    reason = explained(UNUSED, grant)
    return f"no test: {reason.because if reason else 'UNEXPLAINED'}"


def _called(call: Call) -> str:
    return _resource(call.resource)


def read(path: Path = PATH) -> str:
    """Return the page as it is on disk."""
    return path.read_text(encoding="utf-8") if path.exists() else ""
