"""Read a cloud assembly: resources, policies and references, with intrinsic functions as plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stacks.identity import Identity
from stacks.settings import STACKS, Settings


@dataclass(frozen=True)
class Resource:
    """One resource of a template. `name` is the logical id without the CDK's hash."""

    stack: str
    logical_id: str
    raw: Mapping[str, Any]

    @property
    def name(self) -> str:
        return unhashed(self.logical_id)

    @property
    def type(self) -> str:
        return str(self.raw["Type"])

    @property
    def properties(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.raw.get("Properties", {})
        return found


@dataclass(frozen=True)
class Statement:
    """One statement of a policy, with lists where IAM takes one value or several."""

    effect: str
    actions: frozenset[str]
    resources: frozenset[str]
    conditions: Mapping[str, Any]
    principal: Mapping[str, Any]


@dataclass(frozen=True)
class Assembly:
    """The cloud assembly of an environment."""

    environment: str
    settings: Settings
    folder: Path

    @cached_property
    def identity(self) -> Identity:
        return Identity.of(self.settings)

    @property
    def is_labelled_here(self) -> bool:
        """Return whether the data set is curated from raw queries."""
        return self.settings.dataset.is_curated

    @property
    def dataset_folder(self) -> str:
        """Return the folder of the data set in the data bucket."""
        digest = self.identity.dataset_digest
        if self.is_labelled_here:
            return f"labels/{self.settings.owner}/{self.identity.labels_digest}/datasets/{digest}"
        return f"datasets/{digest}"

    @property
    def holdout_key(self) -> str:
        """Return the key of the hold-out set in the data bucket."""
        supplied = self.identity.holdout_digest
        return f"{f'datasets/{supplied}' if supplied else self.dataset_folder}/holdout.jsonl"

    @property
    def training_uri(self) -> str:
        """Return the URI of the training rows."""
        return f"s3://<Data>/{self.dataset_folder}/training.jsonl"

    @cached_property
    def templates(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the templates by stack (`data`, `release`, ...), in order of dependency."""
        return {stack: json.loads(self.path(stack).read_text(encoding="utf-8")) for stack in STACKS}

    @cached_property
    def report(self) -> Mapping[str, Any]:
        """Return cdk-nag's report."""
        text = (self.folder / "validation-report.json").read_text(encoding="utf-8")
        report: Mapping[str, Any] = json.loads(text)
        return report

    def path(self, stack: str, kind: str = "template") -> Path:
        """Return the path of a stack's file in the assembly."""
        return self.folder / f"{self.settings.owner}-{stack}.{kind}.json"

    def resources(self, *types: str, stack: str | None = None) -> list[Resource]:
        """Return all resources, or those of some types or of a stack."""
        return [
            resource
            for name, template in self.templates.items()
            for logical_id, raw in template["Resources"].items()
            if (resource := Resource(name, logical_id, raw))
            and (not types or resource.type in types)
            and stack in {None, name}
        ]

    def one(self, resource_type: str, name: str | None = None) -> Resource:
        """Return the only resource of a type, or of that type and name (without the CDK's hash)."""
        found = [
            resource for resource in self.resources(resource_type) if name is None or resource.name == name
        ]
        assert len(found) == 1, f"{resource_type} {name}: {[resource.name for resource in found]}"
        return found[0]

    def plain(self, value: Any) -> Any:
        """Return a value as text: joined, with `<Name.Attribute>` for an attribute of a resource.

        An import becomes the exported value.
        """
        match value:
            case {"Fn::Join": [separator, list(parts)]}:
                return str(separator).join(str(self.plain(part)) for part in parts)
            case {"Fn::GetAtt": [resource, attribute]}:
                return f"<{unhashed(resource)}.{attribute}>"
            case {"Fn::ImportValue": name}:
                return self.plain(self.exports[name]["Value"])
            case {"Ref": "AWS::Partition"}:
                return "aws"
            case {"Ref": "AWS::Region"}:
                return self.settings.region
            case {"Ref": "AWS::AccountId"}:
                return self.settings.account
            case {"Ref": name}:
                return f"<{unhashed(name)}>"
            case dict():
                return {key: self.plain(inner) for key, inner in value.items()}
            case list():
                return [self.plain(inner) for inner in value]
            # The team's own key is shown like the stacks' key.
            case str() if value == self.settings.encryption.key_arn:
                return "<Key.Arn>"
            case _:
                return value

    @cached_property
    def exports(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the outputs with an export, by its name."""
        return {
            output["Export"]["Name"]: output
            for template in self.templates.values()
            for output in template.get("Outputs", {}).values()
            if "Export" in output
        }

    def statements(self, document: Mapping[str, Any]) -> list[Statement]:
        """Return the statements of a policy document as text."""
        return [
            Statement(
                effect=raw["Effect"],
                actions=_several(raw["Action"]),
                resources=_several(self.plain(raw.get("Resource", []))),
                conditions=self.plain(raw.get("Condition", {})),
                principal=raw["Principal"] if isinstance(raw.get("Principal"), dict) else {"AWS": "*"},
            )
            for raw in document["Statement"]
        ]

    def role_statements(self, role: Resource) -> list[Statement]:
        """Return all statements of a role's policies."""
        documents = [inline["PolicyDocument"] for inline in role.properties.get("Policies", [])]
        documents += [
            policy.properties["PolicyDocument"]
            for policy in self.resources("AWS::IAM::Policy", stack=role.stack)
            if {"Ref": role.logical_id} in policy.properties["Roles"]
        ]
        return [statement for document in documents for statement in self.statements(document)]

    def functions(self) -> list[Resource]:
        """Return the functions with our code."""
        return [
            function for function in self.resources("AWS::Lambda::Function") if not is_framework(function)
        ]

    def definition(self, machine: Resource) -> Mapping[str, Any]:
        """Return a state machine's definition."""
        definition: Mapping[str, Any] = json.loads(self.plain(machine.properties["DefinitionString"]))
        return definition


def is_framework(function: Resource) -> bool:
    """Return whether a function belongs to the CDK's Provider framework."""
    return str(function.properties["Handler"]).startswith("framework.")


def unhashed(logical_id: str) -> str:
    """Return a logical id without the CDK's hash at its end."""
    return re.sub(r"[0-9A-F]{8}$", "", logical_id)


def walk(value: Any) -> Iterator[Any]:
    """Yield a value and all values in it."""
    yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for item in inner:
        yield from walk(item)


def _several(value: Any) -> frozenset[str]:
    return frozenset([value] if isinstance(value, str) else value)
