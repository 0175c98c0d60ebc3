"""Invocation logs as Bedrock writes them, for tests.

The form is that of records which others have published (aws-samples, and accounts of the Converse, Nova and
Anthropic forms).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from typing import Any

ACCOUNT, REGION = "111122223333", "us-east-1"
FOLDER = f"AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs/{REGION}/"
TEACHER = "us.amazon.nova-pro-v1:0"


def turn(text: str) -> dict[str, Any]:
    """Return a user's turn in the form of Converse."""
    return {"role": "user", "content": [{"text": text}]}


def answered(text: str) -> dict[str, Any]:
    """Return an answer in the form of Converse."""
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": "end_turn",
        "metrics": {"latencyMs": 302},
        "usage": {"inputTokens": 4, "outputTokens": 38, "totalTokens": 42},
    }


def record(query: str = "a red car", answer: str = "85 0 5 10", **changes: Any) -> dict[str, Any]:
    """Return a record of a call of Converse with a full prompt; None removes a field."""
    body = {"messages": [turn(query)], "system": [{"text": "Answer in JSON, with your reasons."}]}
    known = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": "2026-11-03T12:00:00Z",
        "accountId": ACCOUNT,
        "identity": {"arn": f"arn:aws:iam::{ACCOUNT}:role/search"},
        "region": REGION,
        "requestId": "ff4b6c63-5561-4431-93b8-06a817275900",
        "operation": "Converse",
        "modelId": TEACHER,
        "requestMetadata": {"service": "search"},
        "input": {"inputContentType": "application/json", "inputBodyJson": body, "inputTokenCount": 4},
        "output": {
            "outputContentType": "application/json",
            "outputBodyJson": answered(answer),
            "outputTokenCount": 38,
        },
        **changes,
    }
    return {name: value for name, value in known.items() if value is not None}


def line(value: object) -> bytes:
    """Return a record as a line of a log object."""
    return json.dumps(value).encode()


def packed(records: Iterable[object]) -> bytes:
    """Return records as a log object."""
    return gzip.compress(b"\n".join(map(line, records)) + b"\n")


def key(hour: str = "2026/11/03/12", name: str = "20261103T120000000Z_1a2b.json.gz") -> str:
    """Return the key of a log object below the folder of the logs."""
    return f"{FOLDER}{hour}/{name}"
