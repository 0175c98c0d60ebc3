"""`load`: the settings that it refuses, and its messages."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stacks.settings import PROJECT, Problem, SettingsError, load

Problems = Callable[[dict[str, Any]], dict[str, Problem]]

S3 = {
    "dataset.source": "s3",
    "dataset.training": "s3://examples/training.jsonl",
    "dataset.holdout": "s3://examples/holdout.jsonl",
    "dataset.training_version": "v1",
    "dataset.holdout_version": "v2",
}
PROVISIONED = {
    "endpoint.kind": "provisioned",
    "endpoint.provisioned.model_units": 1,
    "endpoint.provisioned.hourly_price_usd": 20.0,
}

NOVA_PRO_STUDENT = {
    "distillation.method": "fine_tuning",
    "distillation.student": "amazon.nova-pro-v1:0:300k",
    "distillation.max_response_length": ...,
}

JUDGED = {"evaluation.judge": "us.amazon.nova-pro-v1:0"}

RAW = {
    "dataset.labels": "teacher",
    "dataset.training": ...,
    "dataset.holdout": ...,
    "dataset.queries": "data/queries.txt",
}
RAW_FOLDER = {
    **RAW,
    "dataset.source": "s3",
    "dataset.queries": "s3://examples/queries/",
    "dataset.queries_version": "0" * 16,
}
LOGS = {
    "dataset.source": "invocation_logs",
    "dataset.training": ...,
    "dataset.logs": "s3://examples/logs/",
}

# The account of the example.
OWN = "444455556666"
SUBNET = "subnet-0123456789abcdef0"
NETWORK = {"network.subnet_ids": [SUBNET], "network.security_group_ids": ["sg-01234567"]}
ENDPOINTS = {
    **NETWORK,
    "network.endpoints.vpc_id": "vpc-0123456789abcdef0",
    "network.endpoints.route_table_ids": ["rtb-0123456789abcdef0"],
}

# Changes to valid settings, the key that is reported, and a part of the allowed values in the message.
CASES: list[tuple[dict[str, Any], str, str]] = [
    # names, account, Region, tags
    ({"name": "Video"}, "name", "lower-case letters"),
    ({"name": "video--router"}, "name", "single hyphens"),
    ({"name": "video_router"}, "name", "lower-case letters"),
    ({"name": "9video"}, "name", "beginning with a letter"),
    ({"name": "video-"}, "name", "lower-case letters"),
    ({"name": ""}, "name", "lower-case letters"),
    ({"name": "n" * 46}, "name", "at most 43 characters"),
    ({"name": ...}, "name", "lower-case letters"),
    ({"account": "12345678901"}, "account", "12 digits"),
    ({"bootstrap_qualifier": "Dev"}, "bootstrap_qualifier", "1 to 10 lower-case letters or digits"),
    ({"bootstrap_qualifier": "a-b"}, "bootstrap_qualifier", "1 to 10 lower-case letters or digits"),
    ({"bootstrap_qualifier": "abcdefghijk"}, "bootstrap_qualifier", "1 to 10 lower-case letters"),
    ({"account": 111122223333}, "account", "12 digits in quotes"),
    ({"account": "11112222333x"}, "account", "12 digits"),
    ({"region": "eu-west-1"}, "region", '"us-east-1" or "us-west-2"'),
    ({"region": "us-west-2"}, "region", '"us-east-1", the only Region where amazon.nova-micro-v1:0:128k'),
    ({"tags": {"aws:cost": "1"}}, 'tags."aws:cost"', "reserved"),
    ({"tags": {"AWS:cost": "1"}}, 'tags."AWS:cost"', "reserved"),
    ({"tags": {"distilled-router:owner": "me"}}, 'tags."distilled-router:owner"', "reserved"),
    ({"tags": {"": "1"}}, 'tags.""', "1 to 128"),
    ({"tags": {"k" * 129: "1"}}, f"tags.{'k' * 129}", "1 to 128"),
    ({"tags": {"team": "a\nb"}}, "tags.team", "up to 256"),
    ({"tags": {"team": "v" * 257}}, "tags.team", "up to 256"),
    ({"tags": {"team": 7}}, "tags.team", "up to 256"),
    ({"tags": {f"k{i}": "" for i in range(41)}}, "tags", "up to 40 keys"),
    ({"tags": {"team": "1", "Team": "2"}}, "tags", "differ not only in capitals"),
    ({"tags": {"STRASSE": "1", "stage": "2", "Stage": "3"}}, "tags", "stage, Stage"),
    ({"tags": ["a"]}, "tags", "a table"),
    # task
    ({"task": "examples/nothing"}, "task", "examples/nothing/task.toml: No such file"),
    ({"task": "task/task.toml"}, "task", "task/task.toml/task.toml: Not a directory"),
    ({"task": ""}, "task", "task.toml: No such file"),
    ({"task": "../task"}, "task", "inside the project"),
    ({"task": "examples/../task"}, "task", "inside the project"),
    ({"task": "/etc"}, "task", "inside the project"),
    ({"task": f"{PROJECT}/task"}, "task", "relative to its root"),
    ({"task": "a\0b"}, "task", "a folder inside the project with task.toml"),
    ({"task": ["task"]}, "task", "a folder inside the project with task.toml"),
    # data set
    ({"dataset.source": "http"}, "dataset.source", '"file" or "s3"'),
    ({"dataset.training": "/etc/training.jsonl"}, "dataset.training", "inside the project"),
    ({"dataset.training": "../training.jsonl"}, "dataset.training", "inside the project"),
    ({"dataset.training": "data/../../training.jsonl"}, "dataset.training", "inside the project"),
    ({"dataset.training": "data\\training.jsonl"}, "dataset.training", "inside the project"),
    ({"dataset.training": "data/training.csv"}, "dataset.training", ".jsonl"),
    ({"dataset.training": "s3://examples/../training.jsonl"}, "dataset.training", 'source is "file"'),
    ({"dataset.training": "s3://examples/training.jsonl"}, "dataset.training", 'source is "file"'),
    ({"dataset.training": ""}, "dataset.training", ".jsonl path"),
    ({"dataset.holdout": "data/training.jsonl"}, "dataset.holdout", "a file other than dataset.training"),
    (
        {"dataset.training_version": "v1"},
        "dataset.training_version",
        "a local file is identified by its content",
    ),
    ({**S3, "dataset.training": "data/training.jsonl"}, "dataset.training", "s3://bucket/key"),
    ({**S3, "dataset.training": "s3://examples/dt=1/t.jsonl"}, "dataset.training", "S3Uri"),
    ({**S3, "dataset.training": "s3://examples/a b.jsonl"}, "dataset.training", "S3Uri"),
    ({**S3, "dataset.training": "s3://examples/sha256:ab.jsonl"}, "dataset.training", "S3Uri"),
    ({**S3, "dataset.training": "s3://examples//t.jsonl"}, "dataset.training", "S3Uri"),
    ({**S3, "dataset.training": "s3://examples"}, "dataset.training", "S3Uri"),
    ({**S3, "dataset.training": "s3://Examples/t.jsonl"}, "dataset.training", "S3Uri"),
    ({**S3, "dataset.training": f"s3://examples/{'t' * 1024}"}, "dataset.training", "s3://bucket/key"),
    ({**S3, "dataset.training_version": ...}, "dataset.training_version", "version id"),
    ({**S3, "dataset.holdout_version": ...}, "dataset.holdout_version", "version id"),
    ({**S3, "dataset.holdout_version": "null"}, "dataset.holdout_version", "versioned bucket"),
    ({**S3, "dataset.holdout_version": "a b"}, "dataset.holdout_version", "version id"),
    # distillation
    ({"distillation.method": "magic"}, "distillation.method", '"distillation" or "fine_tuning"'),
    ({"distillation.teacher": "us.amazon.nova-premier-v1:0"}, "distillation.teacher", "ended on 2026-09-14"),
    ({"distillation.teacher": "amazon.nova-premier-v1:0"}, "distillation.teacher", "us.amazon.nova-pro-v1:0"),
    ({"distillation.teacher": "amazon.nova-2-lite-v1:0"}, "distillation.teacher", "teachers of 2026-11-24"),
    (
        {"distillation.teacher": "us.anthropic.claude-3-5-sonnet-20240620-v1:0"},
        "distillation.teacher",
        "Anthropic",
    ),
    (
        {"distillation.teacher": "global.amazon.nova-pro-v1:0"},
        "distillation.teacher",
        "us. inference profile",
    ),
    ({"distillation.teacher": "amazon.nova-pro-v1:0:300k"}, "distillation.teacher", "without context length"),
    (
        {"distillation.teacher": "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.x"},
        "distillation.teacher",
        "a model id",
    ),
    (
        {"distillation.teacher": "us.meta.llama3-1-405b-instruct-v1:0"},
        "distillation.teacher",
        "the only way to name this teacher",
    ),
    (
        {"distillation.teacher": "us.meta.llama3-3-70b-instruct-v1:0"},
        "distillation.teacher",
        "no student that can be deployed on demand",
    ),
    (
        {"distillation.student": "amazon.nova-micro-v1:0"},
        "distillation.student",
        "amazon.nova-micro-v1:0:128k",
    ),
    (
        {"distillation.student": "amazon.nova-micro-v1:0:24k"},
        "distillation.student",
        "their context length",
    ),
    ({"distillation.student": "amazon.nova-pro-v1:0:300k"}, "distillation.student", "students of us.amazon"),
    (
        {
            "region": "us-west-2",
            "distillation.teacher": "meta.llama3-1-405b-instruct-v1:0",
            "distillation.student": "meta.llama3-1-8b-instruct-v1:0:128k",
        },
        "distillation.student",
        "can't be deployed on demand",
    ),
    ({"distillation.max_response_length": ...}, "distillation.max_response_length", "from 1 to 10000"),
    ({"distillation.max_response_length": 0}, "distillation.max_response_length", "from 1 to 10000"),
    ({"distillation.max_response_length": "1000"}, "distillation.max_response_length", "an integer"),
    ({"distillation.method": "fine_tuning"}, "distillation.max_response_length", "Bedrock runs no teacher"),
    ({"distillation.hyperparameters": {}}, "distillation.hyperparameters", 'method is "distillation"'),
    (
        {"distillation.hyperparameters.epoch_count": 6},
        "distillation.hyperparameters.epoch_count",
        "an integer from 1 to 5",
    ),
    (
        {"distillation.hyperparameters.learning_rate": 0.001},
        "distillation.hyperparameters.learning_rate",
        "a number from 0.000001 to 0.0001",
    ),
    (
        {"distillation.hyperparameters.learning_rate_warmup_steps": 101},
        "distillation.hyperparameters.learning_rate_warmup_steps",
        "from 0 to 100",
    ),
    ({"distillation.nonce": "a_b"}, "distillation.nonce", "letters, digits and hyphens"),
    ({"distillation.nonce": "a" * 33}, "distillation.nonce", "up to 32"),
    ({"distillation.allow_legacy": "yes"}, "distillation.allow_legacy", "true or false"),
    # endpoint
    ({"endpoint.kind": "serverless"}, "endpoint.kind", '"on_demand" or "provisioned"'),
    ({"endpoint.kind": "provisioned"}, "endpoint.provisioned", "a table [endpoint.provisioned]"),
    ({**PROVISIONED, "endpoint.kind": "on_demand"}, "endpoint.provisioned", 'kind is "on_demand"'),
    (
        {**PROVISIONED, "endpoint.provisioned.model_units": 0},
        "endpoint.provisioned.model_units",
        "at least 1",
    ),
    (
        {**PROVISIONED, "endpoint.provisioned.hourly_price_usd": ...},
        "endpoint.provisioned.hourly_price_usd",
        "above 0",
    ),
    (
        {**PROVISIONED, "endpoint.provisioned.commitment": "OneYear"},
        "endpoint.provisioned.commitment",
        '"SixMonths"',
    ),
    (
        {**PROVISIONED, "endpoint.provisioned.commitment": "OneMonth"},
        "endpoint.provisioned.acknowledge_commitment",
        "can't be deleted before",
    ),
    (
        {
            **PROVISIONED,
            "region": "us-west-2",
            "distillation.teacher": "meta.llama3-1-405b-instruct-v1:0",
            "distillation.student": "meta.llama3-3-70b-instruct-v1:0:128k",
        },
        "endpoint.kind",
        "no provisioned throughput for meta.llama3-3-70b",
    ),
    # raw queries and logs
    ({**RAW, "dataset.queries": ...}, "dataset.queries", ".txt, .csv, .tsv or .jsonl path"),
    ({**RAW, "dataset.queries": "data/queries.xlsx"}, "dataset.queries", ".txt, .csv, .tsv or .jsonl path"),
    ({**RAW, "dataset.queries": "../queries.txt"}, "dataset.queries", "inside the project"),
    ({**RAW, "dataset.training": "data/training.jsonl"}, "dataset.training", 'labels are "teacher"'),
    ({**RAW, "dataset.queries_version": "v1"}, "dataset.queries_version", "identified by its content"),
    ({"dataset.queries": "data/queries.txt"}, "dataset.queries", 'labels are "given"'),
    ({**RAW_FOLDER, "dataset.queries_version": ...}, "dataset.queries_version", "16 hex digits"),
    ({**RAW_FOLDER, "dataset.queries_version": "v1"}, "dataset.queries_version", "16 hex digits"),
    ({**RAW_FOLDER, "dataset.queries": "s3://examples/a b/"}, "dataset.queries", "single slashes"),
    ({**RAW, "labelling.samples": 11}, "labelling.samples", "from 1 to 10"),
    ({**RAW, "labelling.temperature": 0.0}, "labelling.temperature", "above 0"),
    ({**RAW, "labelling.queries_per_shard": 20}, "labelling.queries_per_shard", "from 34 to 16666"),
    ({**RAW, "labelling.batch_hours": 12}, "labelling.batch_hours", "from 24 to 168"),
    ({**RAW, "labelling.validation_share": 0.1}, "labelling.validation_share", "no validation"),
    ({**LOGS, "dataset.logs": ...}, "dataset.logs", "s3://bucket/folder/"),
    ({**LOGS, "dataset.logs": "s3://examples/logs"}, "dataset.logs", "s3://bucket/folder/"),
    ({**LOGS, "dataset.labels": "teacher"}, "dataset.labels", 'because source is "invocation_logs"'),
    ({**LOGS, "dataset.log_filters": {"a b": "x" * 257}}, 'dataset.log_filters."a b"', ""),
    ({"dataset.log_filters": {"service": "search"}}, "dataset.log_filters", "invocation_logs"),
    ({"dataset.use_logged_answers": True}, "dataset.use_logged_answers", "invocation_logs"),
    ({"dataset.log_query": "Query: {query}"}, "dataset.log_query", "invocation_logs"),
    ({**LOGS, "dataset.log_query": "Query:"}, "dataset.log_query", "text with {query} once"),
    ({**LOGS, "dataset.log_query": "{query}{query}"}, "dataset.log_query", "text with {query} once"),
    ({**LOGS, "dataset.logs_from": "01.11.2026"}, "dataset.logs_from", "a date in quotes"),
    ({**LOGS, "dataset.logs_from": "2026-02-30"}, "dataset.logs_from", "a date of the calendar"),
    ({"dataset.logs_until": "2026-11-01"}, "dataset.logs_until", "invocation_logs"),
    (
        {**LOGS, "dataset.logs_from": "2026-11-02", "dataset.logs_until": "2026-11-01"},
        "dataset.logs_until",
        "2026-11-02 or later",
    ),
    ({"dataset.source_key": "alias/mine"}, "dataset.source_key", "the ARN of a KMS key"),
    ({"distillation.maximum_cost_usd": 0}, "distillation.maximum_cost_usd", "above 0"),
    ({"release.attempt": 0}, "release.attempt", "from 1 to 1000"),
    # gate and roll-out
    ({"gate.minimum_valid_output": 98}, "gate.minimum_valid_output", "from 0 to 1"),
    ({"gate.minimum_dominant_accuracy": -0.1}, "gate.minimum_dominant_accuracy", "from 0 to 1"),
    ({"gate.maximum_mean_absolute_error": float("nan")}, "gate.maximum_mean_absolute_error", "from 0 to 1"),
    ({"gate.minimum_examples": 0}, "gate.minimum_examples", "at least 1"),
    ({"gate.minimum_examples": 10.5}, "gate.minimum_examples", "an integer"),
    ({"gate.minimum_judge_score": 0.5, **JUDGED}, "gate.minimum_judge_score", "from 1 to 5"),
    ({"gate.minimum_judge_score": 5.1, **JUDGED}, "gate.minimum_judge_score", "from 1 to 5"),
    ({"gate.minimum_judge_score": 3.0}, "gate.minimum_judge_score", "evaluation.judge is not set"),
    (
        {"gate.minimum_judge_score": 3.0, "evaluation.judge": ""},
        "gate.minimum_judge_score",
        "evaluation.judge is not set",
    ),
    ({"gate.minimum_worst_label_accuracy": 1.1}, "gate.minimum_worst_label_accuracy", "from 0 to 1"),
    (
        {"gate.minimum_slice_accuracy": {"injection": 0.8}},
        "gate.minimum_slice_accuracy.injection",
        '"paraphrases" or "injections" or',
    ),
    (
        {"gate.minimum_slice_accuracy.injections": 80},
        "gate.minimum_slice_accuracy.injections",
        "from 0 to 1",
    ),
    (
        {"gate.minimum_slice_accuracy.injections": 0.8, "evaluation.slice_queries": 0},
        "gate.minimum_slice_accuracy",
        "nothing, because evaluation.slice_queries is 0",
    ),
    (
        {"gate.minimum_slice_accuracy.traffic": 0.8},
        "gate.minimum_slice_accuracy.traffic",
        "traffic needs raw queries",
    ),
    (
        {"head.mode": "first", "head.explore_share": 0, "rollout.probes": 0},
        "head.explore_share",
        "above 0, because head.mode is",
    ),
    ({"evaluation.judge": "amazon.nova-premier-v1:0"}, "evaluation.judge", "ended on 2026-09-14"),
    ({"evaluation.judge": "us.amazon.nova-premier-v1:0"}, "evaluation.judge", "ended on 2026-09-14"),
    ({"evaluation.judge": "amazon.nova-lite-v1:0"}, "evaluation.judge", '"amazon.nova-pro-v1:0" or'),
    (
        {"evaluation.judge": "eu.amazon.nova-pro-v1:0"},
        "evaluation.judge",
        "all supported Regions are in the US",
    ),
    ({"evaluation.judge": "Nova Pro"}, "evaluation.judge", '"amazon.nova-pro-v1:0" or'),
    ({"evaluation.judge_hours": 0}, "evaluation.judge_hours", "above 0, at most 24"),
    ({"evaluation.judge_hours": 25}, "evaluation.judge_hours", "above 0, at most 24"),
    ({"evaluation.outage_minutes": 0}, "evaluation.outage_minutes", "above 0, at most 720"),
    ({"evaluation.outage_minutes": 721}, "evaluation.outage_minutes", "above 0, at most 720"),
    ({"rollout.steps": []}, "rollout.steps", "1 to 20 values"),
    ({"rollout.steps": [0.5]}, "rollout.steps", "ascend to 1.0"),
    ({"rollout.steps": [0.5, 0.2, 1.0]}, "rollout.steps", "ascend to 1.0"),
    ({"rollout.steps": [0.5, 0.5, 1.0]}, "rollout.steps", "ascend to 1.0"),
    ({"rollout.steps": [0, 1]}, "rollout.steps[0]", "above 0, at most 1"),
    ({"rollout.steps": 1.0}, "rollout.steps", "a list"),
    ({"rollout.dwell_seconds": 0}, "rollout.dwell_seconds", "from 1 to 86400"),
    ({"rollout.probes": 501}, "rollout.probes", "from 0 to 500"),
    (
        {"rollout.dwell_seconds": 60, "rollout.bake_seconds": 6_001},
        "rollout.bake_seconds",
        "up to 6000 with rollout.dwell_seconds 60",
    ),
    ({"rollout.keep_releases": -1}, "rollout.keep_releases", "from 0 to 10"),
    ({"rollout.maximum_error_rate": True}, "rollout.maximum_error_rate", "a number"),
    # release
    ({"release.poll_seconds": 0}, "release.poll_seconds", "from 1 to 3600"),
    ({"release.stall_hours": 73}, "release.stall_hours", "up to release.timeout_hours, which is 72"),
    ({"release.wait_hours": 73}, "release.wait_hours", "from 0 to 72"),
    ({"release.retry_internal_errors": 4}, "release.retry_internal_errors", "from 0 to 3"),
    ({"release.retry_internal_errors": -1}, "release.retry_internal_errors", "from 0 to 3"),
    ({"release.stop_stalled": "yes"}, "release.stop_stalled", "true or false"),
    # router
    ({"router.base_model": "amazon.nova-micro-v1:0:128k"}, "router.base_model", "without context length"),
    (
        {"router.base_model": "eu.amazon.nova-micro-v1:0"},
        "router.base_model",
        "all supported Regions are in the US",
    ),
    ({"router.base_model": "amazon.nova-premier-v1:0"}, "router.base_model", "ended on 2026-09-14"),
    (
        {"router.base_model": "anthropic.claude-haiku-4-5-20251001-v1:0"},
        "router.base_model",
        '"us.anthropic.claude-haiku-4-5-20251001-v1:0": Bedrock invokes this model by no other id',
    ),
    *(
        ({"router.base_model": model}, "router.base_model", "add a newer one to FALLBACKS in")
        for model in ("amazon.titan-embed-text-v2:0", "amazon.nova-canvas-v1:0", "amazon.nova-micro-v9:0")
    ),
    ({"alarms.static_rate": 2}, "alarms.static_rate", "from 0 to 1"),
    ({"alarms.hourly_cost_usd": 0}, "alarms.hourly_cost_usd", "above 0"),
    ({"alarms.hourly_requests": 0}, "alarms.hourly_requests", "at least 1"),
    ({"distillation.maximum_cost_days": 0}, "distillation.maximum_cost_days", "from 1 to 366"),
    ({"router.time_budget_ms": 199}, "router.time_budget_ms", "from 200 to 25000"),
    ({"router.time_budget_ms": 25_001}, "router.time_budget_ms", "from 200 to 25000"),
    ({"router.memory_mb": 100}, "router.memory_mb", "from 128 to 10240"),
    ({"router.throttle_rate": 0}, "router.throttle_rate", "above 0"),
    *(
        (changes, "router.throttle_rate", allowed)
        for changes, allowed in (
            # 60 x 200 + 40, and 35 batches of 20.
            (
                {"router.throttle_rate": 200},
                "2,000 queries a minute (router.quota_requests_per_minute). These",
            ),
            ({"router.throttle_rate": 200}, "allow 12,740: 12,040 on POST /route"),
            ({"router.throttle_burst": 101}, "allow 2,001"),
            ({"router.batch_queries": 100}, "allow 4,740: 1,240 on POST /route"),
            ({"router.batch_throttle_rate": 2}, "125 batches of 20 on POST /routes"),
            ({"router.batch_throttle_burst": 9}, "allow 2,020"),
            ({"router.quota_requests_per_minute": 200}, "Lower router.throttle_rate or throttle_burst"),
        )
    ),
    ({"router.batch_queries": 101}, "router.batch_queries", "from 1 to 100"),
    ({"router.batch_queries": 0}, "router.batch_queries", "from 1 to 100"),
    ({"router.batch_throttle_rate": 0}, "router.batch_throttle_rate", "above 0"),
    ({"router.batch_throttle_burst": 0}, "router.batch_throttle_burst", "from 1 to 100000"),
    ({"router.quota_requests_per_minute": 0}, "router.quota_requests_per_minute", "from 1 to 10000000"),
    (
        NOVA_PRO_STUDENT,
        "router.quota_requests_per_minute",
        "200 requests a minute",
    ),
    ({"router.reserved_concurrency": 0}, "router.reserved_concurrency", "at least 1"),
    ({"router.log_queries": 1}, "router.log_queries", "true or false"),
    # retention, encryption, alarms, budget, checks
    ({"retention.data": "keep"}, "retention.data", '"retain" or "delete"'),
    ({"retention.throughput": "keep"}, "retention.throughput", '"delete" or "retain"'),
    ({"retention.log_days": 2}, "retention.log_days", "1, 3, 5, 7, 14"),
    ({"encryption.key_deletion_days": 6}, "encryption.key_deletion_days", "from 7 to 30"),
    ({"alarms.emails": ["nobody"]}, "alarms.emails[0]", "an e-mail address"),
    ({"alarms.emails": "a@example.com"}, "alarms.emails", "a list of up to 10"),
    ({"alarms.emails": [f"a{i}@example.com" for i in range(11)]}, "alarms.emails", "up to 10"),
    ({"alarms.emails": ["a@example.com", "a@example.com"]}, "alarms.emails", "each value once"),
    ({"alarms.emails": ["Ops@example.com", "ops@example.com"]}, "alarms.emails", "Ops@example.com, ops@"),
    (
        {"budget.monthly_usd": 100.0, "budget.emails": ["a@example.com", "a@example.com"]},
        "budget.emails",
        "each value once",
    ),
    ({"alarms.latency_p95_ms": 0}, "alarms.latency_p95_ms", "from 1 to 29000"),
    ({"budget.monthly_usd": 100.0}, "budget.emails", "at least one"),
    ({"budget.bedrock_monthly_usd": 5}, "budget.bedrock_monthly_usd", "only with budget.monthly_usd"),
    ({"budget.monthly_usd": 0, "budget.emails": ["a@example.com"]}, "budget.monthly_usd", "above 0"),
    # security, network, encryption
    *(
        ({"security.permissions_boundary": policy}, "security.permissions_boundary", allowed)
        for policy, allowed in (
            ("", "the ARN of a managed policy"),
            ("two words", "the ARN of a managed policy"),
            ("platform/Boundary", "the ARN of a managed policy"),
            ("arn:aws:iam::444455556666:role/Boundary", "the ARN of a managed policy"),
            ("arn:aws:iam::444455556666:policy/", "the ARN of a managed policy"),
            ("arn:aws:iam::111122223333:policy/Boundary", "arn:aws:iam::444455556666:policy/"),
            (7, "the ARN of a managed policy"),
        )
    ),
    ({"encryption.key_arn": "alias/ours"}, "encryption.key_arn", "the ARN of a KMS key"),
    (
        {"encryption.key_arn": f"arn:aws:kms:us-east-1:{OWN}:alias/a"},
        "encryption.key_arn",
        "the ARN of a KMS",
    ),
    ({"encryption.key_arn": f"arn:aws:kms:us-west-2:{OWN}:key/a"}, "encryption.key_arn", "and Region"),
    ({"encryption.key_arn": "arn:aws:kms:us-east-1:111122223333:key/a"}, "encryption.key_arn", OWN),
    ({"encryption.runtime_key": 1}, "encryption.runtime_key", "true or false"),
    ({**NETWORK, "network.subnet_ids": ...}, "network.subnet_ids", "a list of 1 to 16"),
    ({**NETWORK, "network.subnet_ids": []}, "network.subnet_ids", "a list of 1 to 16"),
    ({**NETWORK, "network.subnet_ids": [f"subnet-{i:08x}" for i in range(17)]}, "network.subnet_ids", "16"),
    ({**NETWORK, "network.subnet_ids": ["subnet-1"]}, "network.subnet_ids[0]", "subnet- and 8 or 17 hex"),
    ({**NETWORK, "network.subnet_ids": [SUBNET, SUBNET]}, "network.subnet_ids", "each value once"),
    ({**NETWORK, "network.security_group_ids": ...}, "network.security_group_ids", "a list of 1 to 5"),
    ({**NETWORK, "network.security_group_ids": ["default"]}, "network.security_group_ids[0]", "sg- and 8 or"),
    (
        {**NETWORK, "network.security_group_ids": [f"sg-{i:08x}" for i in range(6)]},
        "network.security_group_ids",
        "1 to 5",
    ),
    ({**ENDPOINTS, "network.endpoints.vpc_id": ...}, "network.endpoints.vpc_id", "the id of a VPC"),
    ({**ENDPOINTS, "network.endpoints.vpc_id": "vpc-main"}, "network.endpoints.vpc_id", "vpc- and 8 or 17"),
    ({**ENDPOINTS, "network.endpoints.route_table_ids": []}, "network.endpoints.route_table_ids", "1 to 200"),
    (
        {**ENDPOINTS, "network.endpoints.route_table_ids": ["rtb"]},
        "network.endpoints.route_table_ids[0]",
        "rtb- and 8 or 17",
    ),
    ({**NETWORK, "network.vpc_id": "vpc-12345678"}, "network.vpc_id", "subnet_ids, security_group_ids"),
    ({"checks.packs": []}, "checks.packs", "a list of 1 to 5"),
    ({"checks.packs": ["CIS"]}, "checks.packs[0]", '"AwsSolutions", "Serverless", "NIST80053R5"'),
    ({"checks.packs": ["PCIDSS321", "PCIDSS321"]}, "checks.packs", "each pack once"),
    # shape
    ({"gate": ...}, "gate", "a table [gate]"),
    ({"gate": 1}, "gate", "a table [gate]"),
    ({"environment": "test"}, "environment", "the file's name is the environment"),
]


TUNED_LOGS = {
    **LOGS,
    "dataset.holdout": ...,
    "dataset.logs_from": "2026-11-01",
    "dataset.logs_until": "2026-11-01",
    "distillation.method": "fine_tuning",
    "distillation.max_response_length": ...,
}


@pytest.mark.parametrize("changes", [RAW, RAW_FOLDER, LOGS, TUNED_LOGS, NETWORK, ENDPOINTS])
def test_what_the_cases_start_from_is_allowed(problems: Problems, changes: dict[str, Any]) -> None:
    assert problems(changes) == {}


def test_a_wrong_value_is_blamed_alone(problems: Problems) -> None:
    for changes, key, allowed in CASES:
        found = problems(changes)
        assert list(found) == [key], changes
        assert allowed in found[key].allowed, changes
        assert found[key].file == "environments/test.toml"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("distillation.techer", "teacher"),
        ("nmae", "name"),
        ("gate.minimum_example", "minimum_examples"),
        ("rollout.maximum_fallback", "maximum_fallback_rate"),
        ("rooter", "router"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(problems: Problems, key: str, nearest: str) -> None:
    found = problems({key: 1})
    assert found[key].allowed == f'"{nearest}" is the nearest key'
    assert found[key].found == "an unknown key, 1"


def test_a_key_near_to_none_lists_them_all(problems: Problems) -> None:
    assert problems({"endpoint.zzz": 1})["endpoint.zzz"].allowed == "kind, provisioned"


def test_all_problems_are_told_at_once(problems: Problems) -> None:
    found = problems(
        {
            "name": "Video",
            "region": "us-west-2",
            "dataset.training": "s3://examples/training.jsonl",
            "distillation.max_response_length": ...,
            "distillation.student": "amazon.nova-micro-v1:0",
            "gate.minimum_valid_output": 98,
            "alarms.fallback_rate": ...,
            "release.stall_hours": 500,
            "budget.monthly_usd": 5,
            "typo": True,
        }
    )
    assert set(found) == {
        "name",
        "dataset.training",
        "distillation.max_response_length",
        "distillation.student",
        "gate.minimum_valid_output",
        "alarms.fallback_rate",
        "release.stall_hours",
        "budget.emails",
        "typo",
    }


def test_the_text_has_one_problem_a_line(folder: Path) -> None:
    (folder / "test.toml").write_text("name = 1\naccount = 2\n")
    with pytest.raises(SettingsError) as caught:
        load(folder / "test.toml")
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]


def test_a_problem_reads_file_key_found_allowed(problems: Problems) -> None:
    found = problems({"encryption.key_deletion_days": 5})
    assert str(found["encryption.key_deletion_days"]) == (
        "environments/test.toml: encryption.key_deletion_days: found 5; allowed: an integer from 7 to 30"
    )


def test_what_was_found_is_shortened(problems: Problems) -> None:
    assert len(problems({"distillation.nonce": "x" * 500})["distillation.nonce"].found) == 80


def test_a_missing_key_was_found_as_nothing(problems: Problems) -> None:
    assert problems({"retention.data": ...})["retention.data"].found == "nothing"
    assert (
        problems({"distillation.max_response_length": ...})["distillation.max_response_length"].found
        == "nothing"
    )


def test_an_empty_file_names_every_table(folder: Path) -> None:
    (folder / "test.toml").write_text("")
    with pytest.raises(SettingsError) as caught:
        load(folder / "test.toml")
    keys = {problem.key for problem in caught.value.problems}
    assert {"name", "account", "region", "dataset", "router", "alarms"} <= keys
    assert not {"tags", "budget"} & keys


def test_a_date_is_not_a_text(folder: Path) -> None:
    (folder / "test.toml").write_text("name = 2026-01-01")
    with pytest.raises(SettingsError, match=re.escape('name: found "2026-01-01"')):
        load(folder / "test.toml")


def test_robustness_file_that_can_not_be_used_is_refused_before_anything_is_deployed(
    problems: Problems, tmp_path: Path
) -> None:
    """If the evaluation found the error, the training job would have run for hours in vain."""
    folder = PROJECT / ".cache" / tmp_path.name
    shutil.copytree(PROJECT / "task", folder)
    try:
        (folder / "robustness.toml").write_text('paraphrases = ["show me"]')
        found = problems({"task": folder.relative_to(PROJECT).as_posix()})
        assert list(found) == ["task"]
        assert "robustness.toml: paraphrases: 'show me' must hold {query} once" in str(found["task"])
    finally:
        shutil.rmtree(folder)
