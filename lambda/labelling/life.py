"""The life of a labels' folder: digits that are new each time the folder is created.

They are part of the names of batch jobs. Bedrock may never release a name, so a folder that was deleted and
is created again needs new ones.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code
from distilled_router.aws.objects import Folder

LIFE = "life.json"


def begin(s3: Any, folder: Folder) -> None:
    """Begin the folder's life, unless it has begun."""
    try:
        s3.put_object(
            Bucket=folder.bucket,
            Key=f"{folder.prefix}{LIFE}",
            Body=json.dumps({"life": secrets.token_hex(3)}).encode(),
            IfNoneMatch="*",
        )
    except ClientError as error:
        if code(error) not in {"PreconditionFailed", "ConditionalRequestConflict"}:
            raise


def read(folder: Folder) -> str:
    """Return 6 hex digits that are new each time the labels' folder is created."""
    found = folder.read(LIFE)
    if found is None:
        raise ResourceError(
            f"{folder.uri(LIFE)} is missing, so batch jobs can't be named. Raise release.attempt and deploy "
            "again: the file is written again, and existing answers are used."
        )
    return str(found["life"])
