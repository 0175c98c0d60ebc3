"""The recorded calls of roles; values that differ between deployments are masked.

The emulator keeps them while the tests deploy (`local/emulator/access.py`), Bedrock's double among those who
ask. `calls.json` is what `make permissions RECORD=1` has recorded so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from cdk_distilled_router.catalogue import NOVA_2_LITE, NOVA_MICRO
from distilled_router.bedrock.naming import OWNER_TAG
from stacks.settings import STACKS
from tests.engine.apps import BUCKET, KEY, OWNER
from tests.permissions.reasons import UNUSED
from tests.stacks.assembly import unhashed

RECORD = Path(__file__).with_name("calls.json")
FOLDER = "PERMISSIONS_FOLDER"
"""Variable with a folder: if it is set, test runs store their calls there instead of comparing them."""
BOOTSTRAP = "CDKToolkit"
ALLOWED, GONE = "Allow", "RoleGone"

LEADING_KEYS = "dynamodb:LeadingKeys"
REQUEST_TAG, RESOURCE_TAG = f"aws:RequestTag/{OWNER_TAG}", f"aws:ResourceTag/{OWNER_TAG}"
KEYS = {
    key.lower(): key
    for key in (
        "bedrock:InferenceProfileArn",
        LEADING_KEYS,
        "iam:PassedToService",
        "kms:ViaService",
        "s3:prefix",
        REQUEST_TAG,
        RESOURCE_TAG,
    )
}
"""The condition keys in our policies; of all tags, only the owner's."""

# Calls that policies deny on purpose, by action and resource.
REFUSED: Mapping[tuple[str, str], str] = {
    ("s3:ListBucket", r"<Source>"): "HeadBucket, for the bucket's Region: a refusal tells it, too.",
    (r"bedrock:(Stop|Delete|Tag|Untag)\w+", r"arn:.*\{id\}"): (
        "What has gone meanwhile has no owner's tag any more; the next look sees that it is gone."
    ),
    ("bedrock:InvokeModel", r"arn:.*:(custom-model-deployment|provisioned-model)/\{id\}"): (
        "An endpoint that was deleted has no owner's tag any more; the router answers without it."
    ),
}

# Names of resources in policies, by type: a pattern of the ARN, and the text in the template.
_ARNS = {
    "AWS::S3::Bucket": ("arn:aws:s3:::{}", "<{}.Arn>"),
    "AWS::DynamoDB::Table": ("arn:aws:dynamodb:us-east-1:{{account}}:table/{}", "<{}.Arn>"),
    "AWS::Lambda::Function": ("arn:aws:lambda:us-east-1:{{account}}:function:{}", "<{}.Arn>"),
    "AWS::IAM::Role": ("arn:aws:iam::{{account}}:role/{}", "<{}.Arn>"),
    "AWS::KMS::Key": ("arn:aws:kms:us-east-1:{{account}}:key/{}", "<{}.Arn>"),
    "AWS::StepFunctions::StateMachine": ("{}", "<{}>"),
    "AWS::SNS::Topic": ("{}", "<{}>"),
}
# Another team's app has names of its own for the same things.
_SAME = {"ReleaseTable": "Releases", "ReleaseTopic": "Notifications"}
# Of an example with another student, the policies differ only in its id. With and without its context length.
_STUDENTS = {
    NOVA_2_LITE: NOVA_MICRO,
    NOVA_2_LITE.rpartition(":")[0]: NOVA_MICRO.rpartition(":")[0],
}
_IDS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<![0-9a-zA-Z])[0-9a-f]{12,64}(?![0-9a-zA-Z])"
)


@dataclass(frozen=True, order=True)
class Call:
    """One action of a role on one resource, with the values of condition keys."""

    role: str
    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return a line for a test's message."""
        with_ = "".join(f" {key}={value}" for key, value in self.context)
        return f"{self.role}: {self.action} on {self.resource}{with_}"


def masked(text: str, owner: str) -> str:
    """Return a text with account, owner, student, digests and other ids masked."""
    for student, shown in _STUDENTS.items():
        text = text.replace(student, shown)
    text = re.sub(r"(?<=:)\d{12}(?=:)", "{account}", text)
    text = re.sub(r"(?<={id}-)\d+$", "{n}", _IDS.sub("{id}", text))
    # Throughput's name carries its units and its commitment.
    text = re.sub(r"\d+mu(-\d+m)?$", "{n}mu", text)
    text = re.sub(rf"(?<=[:/]){re.escape(owner)}(?=[-/]|$)|^{re.escape(owner)}(?=/)", "{owner}", text)
    # Somebody else's bucket: the CDK's, or what the settings name.
    text = re.sub(r"arn:aws:s3:::(cdk-hnb659fds-assets|search-team|video-search)[^/]*", "<Source>", text)
    # Of invocation logs, also the folder that the settings name.
    return re.sub(r"(?<=^<Source>/)(bedrock/)?[^*]+$", r"\1{file}", text)


def observed(asked: Mapping[str, Any]) -> tuple[set[Call], set[str]]:
    """Return the calls by the stacks' roles in an emulator's record, and the denied ones."""
    resources: Mapping[str, Mapping[str, str]] = asked["resources"]
    names = sorted(_names(resources), key=lambda pair: -len(pair[0]))
    calls, denied = set(), set()
    for raw in asked["calls"]:
        role = resources.get(raw["role"])
        if role is None or role["stack"] == BOOTSTRAP:  # a test's own, or the CDK's
            continue
        owner = _owner(role["stack"])
        resource = _plain(raw["resource"], owner, names)
        for context in _of_each_item(raw["context"], owner, resource):
            call = Call(
                unhashed(role["logical_id"]),
                raw["action"],
                resource,
                tuple(sorted(_context(context, owner, names))),
            )
            if raw["decision"] == ALLOWED:
                calls.add(call)
            elif raw["decision"] != GONE and not _may_be_refused(call):
                denied.add(f"{raw['decision']}: {call}")
    return calls, denied


def _of_each_item(context: Mapping[str, Any], owner: str, table: str) -> Iterator[Mapping[str, Any]]:
    """Yield a call's context for each item of its transaction; owners share only the releases table."""
    rest = {key: value for key, value in context.items() if key != LEADING_KEYS}
    found = context.get(LEADING_KEYS, ()) if table == "<Releases.Arn>" else ()
    keys = [key for key in found if key.startswith(f"{owner}/")]
    yield from ({**rest, LEADING_KEYS: key} for key in keys)
    if not keys:
        yield rest


def _may_be_refused(call: Call) -> bool:
    return RESOURCE_TAG not in dict(call.context) and any(
        re.fullmatch(action, call.action) and re.fullmatch(resource, call.resource)
        for action, resource in REFUSED
    )


def _owner(stack: str) -> str:
    name, _, last = stack.rpartition("-")
    return name if last in STACKS else OWNER


def _names(resources: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield each resource's ARN, masked except for its name, and its name in policies."""
    yield f"arn:aws:s3:::{BUCKET}/rows/", "<Data.Arn>/datasets/{id}/"
    yield f"arn:aws:s3:::{BUCKET}", "<Data.Arn>"
    yield _account(KEY), "<Key.Arn>"
    for physical_id, resource in resources.items():
        if resource["type"] in _ARNS and resource["stack"] != BOOTSTRAP:
            arn, plain = _ARNS[resource["type"]]
            name = unhashed(resource["logical_id"])
            shown = physical_id if ":" not in physical_id else _account(physical_id)
            yield arn.format(shown), plain.format(_SAME.get(name, name))


def _account(text: str) -> str:
    return text.replace(":000000000000:", ":{account}:")


def _plain(text: str, owner: str, names: Iterable[tuple[str, str]]) -> str:
    text = _account(text)
    for arn, plain in names:
        if text == arn or text.startswith((f"{arn}/", f"{arn}:")) or (arn.endswith("/") and arn in text):
            text = plain + text.removeprefix(arn)
            break
    text = masked(text, owner)
    return re.sub(r"(?<=^<Data.Arn>/).*$", lambda key: _key(key.group(), owner), text)


def _key(key: str, owner: str) -> str:
    """Return an object's key without the parts that differ between files of a kind."""
    key = re.sub(rf"(?<=/){re.escape(owner)}-", "{owner}-", key)
    return re.sub(r"(?<![a-z{])\d+", "{n}", key)


def _context(
    context: Mapping[str, Any], owner: str, names: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    for key, value in context.items():
        if known := KEYS.get(key.lower()):
            text = str(value[0] if isinstance(value, list) else value)
            if known in (REQUEST_TAG, RESOURCE_TAG):
                text = "{owner}" if text == owner else "{somebody else}"
            elif known == "s3:prefix":
                text = _key(masked(text, owner), owner)
            elif known == LEADING_KEYS:
                # A copy of the route has a version, and a wait has a window.
                text = re.sub(r"(?<=@)\d{1,9}$", "{n}", masked(text, owner))
            yield known, _plain(text, owner, names)


def recorded() -> set[Call]:
    """Return the recorded calls."""
    return {
        Call(role, action, resource, tuple(sorted(context.items())))
        for role, calls in json.loads(RECORD.read_text(encoding="utf-8")).items()
        for action, resource, context in calls
    }


def write(calls: Iterable[Call]) -> None:
    """Write the record, one call a line."""
    by_role: dict[str, list[str]] = {}
    for call in sorted(calls):
        line = json.dumps([call.action, call.resource, dict(call.context)])
        by_role.setdefault(call.role, []).append(line)
    parts = (f'"{role}": [\n  ' + ",\n  ".join(lines) + "\n]" for role, lines in by_role.items())
    RECORD.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def check(asked: Mapping[str, Any]) -> list[str]:
    """What is wrong with the calls of a run: refused, or new to the record. Only kept where it is recorded.

    What happens in some runs only is no news: a permission whose reason says that tests don't use it, a
    resource whose tags are seen or are not yet, and which objects of a folder a delete still finds.
    """
    if folder := os.environ.get(FOLDER):
        Path(folder, f"{uuid4()}.json").write_text(json.dumps(asked), encoding="utf-8")
        return []
    calls, denied = observed(asked)
    known = {_kind(call) for call in recorded()}
    new = [f"new: {call}" for call in sorted(calls) if _kind(call) not in known and not _is_rare(call)]
    advice = (
        ["`make permissions RECORD=1` records new calls; look at docs/permissions.md then."] if new else []
    )
    return [*sorted(denied), *new, *advice]


def _kind(call: Call) -> tuple[str, str, str]:
    """What is the same in all runs: of an object, its bucket and the first folder, as policies name them."""
    return call.role, call.action, re.sub(r"^(<\w+\.Arn>/[^/]+/).+$", r"\1", call.resource)


def _is_rare(call: Call) -> bool:
    return any(
        re.fullmatch(reason.role, call.role) and re.fullmatch(reason.action, call.action) for reason in UNUSED
    )


def kept(folder: Path) -> set[Call]:
    """Return all calls that test runs have stored in a folder."""
    found: set[Call] = set()
    for file in folder.glob("*.json"):
        found |= observed(json.loads(file.read_text(encoding="utf-8")))[0]
    return found
