"""Model invocation logging to S3: one log object a call, where Bedrock collects several.

The form is that of published records: see `distilled_router.data.invocation_logs`. What AWS does to other
destinations, and to images, is not modelled.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from local.bedrock.account import Account, Parameters
from local.bedrock.errors import invalid

#: Larger bodies are objects of their own (Bedrock user guide, model-invocation-logging).
LARGEST_BODY = 100_000


def write(
    account: Account, operation: str, parameters: Parameters, request: Any, answer: Any, error: str = ""
) -> None:
    """Log a call, if the account's configuration says so; `error` is the code of a failed one."""
    config = account.logging or {}
    target = config.get("s3Config")
    if not target or not config.get("textDataDeliveryEnabled", True):
        return
    settings, now = account.settings, datetime.fromtimestamp(account.clock.now(), UTC)
    with account.lock:
        name = f"{now:%Y%m%dT%H%M%S000Z}_{account.new_id()}"
    folder = f"{_folder(account, target)}{settings.region}/{now:%Y/%m/%d/%H}/"

    def put(key: str, document: object) -> str:
        body = gzip.compress(json.dumps(document).encode())
        account.s3.put_object(Bucket=target["bucketName"], Key=f"{folder}{key}", Body=body)
        return f"s3://{target['bucketName']}/{folder}{key}"

    def part(kind: str, body: Any) -> dict[str, Any]:
        known = {f"{kind}ContentType": "application/json"}
        if len(json.dumps(body)) > LARGEST_BODY:
            return {**known, f"{kind}BodyS3Path": put(f"data/{name}_{kind}.json.gz", body)}
        usage = (answer or {}).get("usage", {})
        return {
            **known,
            f"{kind}BodyJson": body,
            f"{kind}TokenCount": usage.get(f"{kind}Tokens", 0),
        }

    record: dict[str, Any] = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "accountId": settings.account,
        "region": settings.region,
        "requestId": name,
        "operation": operation,
        **_model(account, parameters["modelId"]),
        **_metadata(parameters),
        "input": part("input", request),
        **({"errorCode": error} if error else {"output": part("output", answer)}),
    }
    put(f"{name}.json.gz", record)


def prove(account: Account, target: Mapping[str, str]) -> None:
    """Write the object by which Bedrock sees whether it can write its logs; raise its error if it can't."""
    key = f"{_folder(account, target)}amazon-bedrock-logs-permission-check"
    try:
        account.s3.put_object(Bucket=target["bucketName"], Key=key, Body=b"")
    except ClientError as error:
        raise invalid(f"Failed to validate permissions for log bucket: {target['bucketName']}.") from error


def _folder(account: Account, target: Mapping[str, str]) -> str:
    root = f"{target.get('keyPrefix', '').strip('/')}/".lstrip("/")
    return f"{root}AWSLogs/{account.settings.account}/BedrockModelInvocationLogs/"


def _model(account: Account, identifier: str) -> dict[str, str]:
    """Return the model as it is logged: a profile by its ARN, with the Region that answered."""
    if account.catalogue.profile_model(identifier) is None:
        return {"modelId": identifier}
    return {"modelId": account.catalogue.arn_of(identifier), "inferenceRegion": account.settings.region}


def _metadata(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request metadata: a field of Converse, and a header with JSON of InvokeModel."""
    given = parameters.get("requestMetadata")
    if isinstance(given, str):
        given = json.loads(given)
    return {"requestMetadata": given} if given else {}
