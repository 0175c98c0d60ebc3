"""Sources of data: rows, raw queries that the teacher labels, and invocation logs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest

from distilled_router.bedrock.naming import OWNER_TAG
from distilled_router.data.labelling_plan import Plan
from tests.stacks.assembly import Assembly, Statement

Assemblies = Mapping[str, Assembly]


@pytest.fixture
def raw(assemblies: Assemblies) -> Assembly:
    return assemblies["raw-queries"]


@pytest.fixture
def folder(assemblies: Assemblies) -> Assembly:
    return assemblies["queries-folder"]


def labelling(assembly: Assembly) -> Any:
    return assembly.one("Custom::BedrockLabelling").properties


def plan(assembly: Assembly) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(labelling(assembly)["Plan"])
    return found


def statements(assembly: Assembly, role: str) -> list[Statement]:
    return list(assembly.role_statements(assembly.one("AWS::IAM::Role", role)))


def test_job_is_made_later_from_what_the_labelling_curates(raw: Assembly) -> None:
    job, known = raw.one("Custom::BedrockDistillationJob").properties, plan(raw)
    place = f"labels/{known['owner']}/{known['labels']}/datasets/{known['dataset']}"
    assert job["MadeLater"] is True
    assert raw.plain(job["TrainingDataUri"]) == f"s3://<Data>/{place}/training.jsonl"
    assert "ValidationDataUris" not in job
    judge = raw.one("AWS::Lambda::Function", "ReleaseScoreAndGate").properties["Environment"]["Variables"]
    assert judge["HOLDOUT_KEY"] == f"{place}/holdout.jsonl" == raw.holdout_key


def test_plan_is_what_executions_take(raw: Assembly) -> None:
    # The hash of a supplied hold-out set and the shards are known once the resource has read the files.
    assert plan(raw).keys() == {field.name for field in fields(Plan)} - {
        "holdout_key",
        "holdout_sha256",
        "shards",
    }


def test_validation_rows_are_curated_too(folder: Assembly) -> None:
    job, known = folder.one("Custom::BedrockDistillationJob").properties, plan(folder)
    (uri,) = job["ValidationDataUris"]
    assert folder.plain(uri).endswith(f"/datasets/{known['dataset']}/validation.jsonl")


def test_each_execution_asks_the_limit_first(raw: Assembly) -> None:
    """Also one that a person started: its plan is the input, the limit is deployed."""
    definition = json.loads(
        raw.plain(
            raw.one("AWS::StepFunctions::StateMachine", "LabellingStateMachine").properties[
                "DefinitionString"
            ]
        )
    )
    assert definition["StartAt"] == "CheckCost: begin"
    outcome = definition["States"]["CheckCost: outcome"]
    assert [choice["Next"] for choice in outcome["Choices"]] == [
        "CheckCost: wait",
        "LabelQueries: each shard",
    ]
    assert outcome["Default"] == "Failed"
    function = raw.one("AWS::Lambda::Function", "LabellingCheckCost").properties["Environment"]["Variables"]
    given, settings = labelling(raw), raw.settings.distillation
    assert json.loads(function["COST"]) == json.loads(given["Cost"])
    assert (
        json.loads(function["COST"])["job"] == raw.one("Custom::BedrockDistillationJob").properties["JobName"]
    )
    assert float(function["MAXIMUM_COST_USD"]) == settings.maximum_cost_usd == given["MaximumCostUsd"]
    assert int(function["MAXIMUM_COST_DAYS"]) == settings.maximum_cost_days == given["MaximumCostDays"]


def test_job_comes_before_its_labelling_and_goes_after_it(raw: Assembly) -> None:
    """The job's resource owns the job that the labelling creates, so its Delete must come last."""
    waits_for = raw.one("Custom::BedrockLabelling").raw["DependsOn"]
    assert raw.one("Custom::BedrockDistillationJob").logical_id in waits_for


def test_labelling_waits_for_all_that_its_machine_may(raw: Assembly) -> None:
    waits_for = raw.one("Custom::BedrockLabelling").raw["DependsOn"]
    policies = [policy for policy in raw.resources("AWS::IAM::Policy") if "Labelling" in policy.name]
    wanted = {p.logical_id for p in policies if "Provider" not in p.name and "Framework" not in p.name}
    assert wanted <= set(waits_for)


def test_release_follows_the_labelling_and_may_start_it_again(raw: Assembly) -> None:
    watch = raw.one("AWS::Lambda::Function", "ReleaseWatchJob").properties["Environment"]["Variables"]
    account, region = raw.settings.account, raw.settings.region
    machine = f"arn:aws:states:{region}:{account}:stateMachine:{raw.settings.owner}-labelling"
    assert raw.plain(watch["LABELLING_MACHINE_ARN"]) == machine
    granted = {
        action: resource
        for statement in statements(raw, "ReleaseCandidateRole")
        for action in statement.actions
        for resource in statement.resources
        if action.startswith("states:")
    }
    executions = f"{machine.replace(':stateMachine:', ':execution:')}:*"
    assert granted == {"states:StartExecution": machine, "states:DescribeExecution": executions}


def test_release_of_given_rows_follows_no_labelling(assemblies: Assemblies) -> None:
    dev = assemblies["dev"]
    watch = dev.one("AWS::Lambda::Function", "ReleaseWatchJob").properties["Environment"]["Variables"]
    assert watch["LABELLING_MACHINE_ARN"] == ""
    assert not any(
        action.startswith("states:")
        for statement in statements(dev, "ReleaseCandidateRole")
        for action in statement.actions
    )
    assert dev.resources("Custom::BedrockLabelling") == []
    assert "MadeLater" not in dev.one("Custom::BedrockDistillationJob").properties


def test_batch_role_is_for_bedrocks_batch_jobs_of_this_account(raw: Assembly) -> None:
    role = raw.one("AWS::IAM::Role", "LabellingBatchRole")
    (trust,) = raw.statements(role.properties["AssumeRolePolicyDocument"])
    account, region = raw.settings.account, raw.settings.region
    assert trust.principal == {"Service": "bedrock.amazonaws.com"}
    assert trust.conditions == {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": f"arn:aws:bedrock:{region}:{account}:model-invocation-job/*"},
    }


def test_roles_of_the_labelling_reach_no_other_folder(raw: Assembly) -> None:
    folder = f"labels/{raw.settings.owner}/*"
    for role in ("LabellingBatchRole", "LabellingStepRole", "LabellingRole"):
        granted = statements(raw, role)
        objects = {
            resource
            for statement in granted
            if statement.actions & {"s3:GetObject", "s3:PutObject", "s3:DeleteObjectVersion"}
            for resource in statement.resources
            if resource.startswith("<Data.Arn>")
        }
        assert objects == {f"<Data.Arn>/{folder}"}
        listed = [s for s in granted if s.resources == {"<Data.Arn>"}]
        assert all(s.conditions == {"StringLike": {"s3:prefix": [folder]}} for s in listed)


def test_only_the_batch_role_is_passed_and_only_to_bedrock(raw: Assembly) -> None:
    (passing,) = [s for s in statements(raw, "LabellingStepRole") if "iam:PassRole" in s.actions]
    assert passing.resources == {"<LabellingBatchRole.Arn>"}
    assert passing.conditions == {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}}


def test_batch_jobs_are_stopped_by_their_owner_only(raw: Assembly) -> None:
    for role in ("LabellingStepRole", "LabellingRole"):
        (stopping,) = [s for s in statements(raw, role) if "bedrock:StopModelInvocationJob" in s.actions]
        assert stopping.conditions == {"StringEquals": {f"aws:ResourceTag/{OWNER_TAG}": raw.settings.owner}}


def test_folder_of_queries_is_listed_and_read_with_its_key(folder: Assembly) -> None:
    assert labelling(folder)["Queries"] == {
        "Bucket": "search-team-data",
        "Prefix": "queries/2026-11/",
        "Content": "0123456789abcdef",
    }
    granted = statements(folder, "LabellingRole")
    (listing,) = [s for s in granted if s.resources == {"arn:aws:s3:::search-team-data"}]
    assert listing.actions == {"s3:ListBucket"}
    account = {"aws:ResourceAccount": folder.settings.account}
    assert listing.conditions == {
        "StringLike": {"s3:prefix": ["queries/2026-11/"]},
        "StringEquals": account,
    }
    (reading,) = [s for s in granted if s.resources == {"arn:aws:s3:::search-team-data/queries/2026-11/*"}]
    assert reading.conditions == {"StringEquals": account}
    assert any(
        s.actions == {"kms:Decrypt"} and s.resources == {str(folder.settings.dataset.source_key)}
        for s in granted
    )


def test_job_is_created_with_the_hashes_of_the_curated_files(raw: Assembly) -> None:
    """By the state machine, not by another object of the bucket."""
    states = raw.definition(raw.one("AWS::StepFunctions::StateMachine", "LabellingStateMachine"))["States"]
    kept = states["CurateDataset: files"]
    assert kept["Parameters"] == {"files.$": "$.stage.files"}
    assert (kept["ResultPath"], states["CreateJob"]["Parameters"]["files.$"]) == (
        "$.published",
        "$.published.files",
    )


def test_settings_of_the_labelling_are_its_plan(raw: Assembly) -> None:
    known = plan(raw)
    settings = raw.settings.labelling.model_dump()
    assert settings.pop("queries_per_shard") == int(labelling(raw)["QueriesPerShard"])
    assert {name: known[name] for name in settings} == settings
    assert known["teacher"] == raw.settings.distillation.teacher


def test_attempt_reaches_release_and_labelling(raw: Assembly) -> None:
    assert labelling(raw)["Attempt"] == 2
    assert raw.one("Custom::BedrockRelease").properties["Attempt"] == 2


def test_logs_are_raw_queries_and_the_job_does_not_see_them(assemblies: Assemblies) -> None:
    logs = assemblies["invocation-logs"]
    job = logs.plain(logs.one("Custom::BedrockDistillationJob").properties)
    assert (job["MadeLater"], job["TrainingDataUri"]) == (True, logs.training_uri)
    assert not {"InvocationLogsUri", "RequestMetadata", "UsePromptResponse"} & job.keys()
    known = labelling(logs)
    assert known["Logs"] == {
        "Bucket": "search-team-logs",
        "Prefix": "bedrock/",
        "Query": "{query}",
        "Metadata": {"service": "search", "stage": "prod"},
    }
    assert "Queries" not in known
    assert "Holdout" in known
    assert plan(logs)["samples"] == logs.settings.labelling.samples
    assert not any("search-team-logs" in str(resource) for resource in reading(logs, "JobJobRole"))


def test_logged_answers_are_taken_from_a_window_and_nobody_is_asked(assemblies: Assemblies) -> None:
    logs = assemblies["logged-answers"]
    assert labelling(logs)["Logs"] == {
        "Bucket": "search-team-logs",
        "Prefix": "bedrock/",
        "Query": "Query: {query}",
        "UseAnswers": True,
        "From": "2026-10-01",
        "Until": "2026-10-31",
    }
    assert plan(logs)["samples"] == 0
    assert json.loads(labelling(logs)["Cost"])["samples"] == 0


def test_logs_are_read_by_the_resource_in_one_account_with_their_key(assemblies: Assemblies) -> None:
    logs = assemblies["logged-answers"]
    found = {
        (action, resource, json.dumps(statement.conditions, sort_keys=True))
        for statement in statements(logs, "LabellingRole")
        for action in statement.actions
        for resource in statement.resources
        if "search-team-logs" in resource or "0b8f1c7e" in resource
    }
    account = {"StringEquals": {"aws:ResourceAccount": "444455556666"}}
    listed = {**account, "StringLike": {"s3:prefix": ["bedrock/*"]}}
    bucket = "arn:aws:s3:::search-team-logs"
    assert {(action, resource) for action, resource, _ in found} == {
        ("s3:ListBucket", bucket),
        ("s3:GetObject", f"{bucket}/bedrock/*"),
        ("kms:Decrypt", logs.settings.dataset.source_key),
    }
    conditions = {action: json.loads(given) for action, _, given in found}
    assert conditions["s3:GetObject"] == account
    assert conditions["s3:ListBucket"] == listed
    assert not any("search-team-logs" in str(resource) for resource in reading(logs, "LabellingStepRole"))


def reading(assembly: Assembly, role: str) -> set[str]:
    """Return the resources that a role may read from S3."""
    return {
        resource
        for statement in statements(assembly, role)
        if {"s3:GetObject", "s3:ListBucket"} & set(statement.actions)
        for resource in statement.resources
    }


def test_accounts_logging_is_never_changed(assemblies: Assemblies) -> None:
    logs = assemblies["invocation-logs"]
    actions = {
        action
        for role in logs.resources("AWS::IAM::Role")
        for statement in logs.role_statements(role)
        for action in statement.actions
    }
    assert not any("ModelInvocationLogging" in action for action in actions)
    assert not any(action.startswith("s3:PutBucket") for action in actions)


def test_limit_of_the_cost_reaches_what_checks_the_data(raw: Assembly, assemblies: Assemblies) -> None:
    for properties in (
        labelling(raw),
        assemblies["dev"].one("Custom::BedrockDataset", "Dataset").properties,
    ):
        assert properties["MaximumCostUsd"] == raw.settings.distillation.maximum_cost_usd
        assert json.loads(properties["Cost"])["teacher"] == raw.settings.distillation.teacher
