"""The life of a labels' folder: digits that are new each time the folder is created.

They are part of the names of batch jobs. Bedrock may never release a name, so a folder that was deleted and
is created again needs new ones.
"""

from __future__ import annotations

import secrets

from distilled_router.aws.errors import ResourceError
from distilled_router.aws.objects import Folder

LIFE = "life.json"


def begin(folder: Folder) -> None:
    """Begin the folder's life, unless it has begun."""
    folder.create(LIFE, {"life": secrets.token_hex(3)})


def read(folder: Folder) -> str:
    """Return 6 hex digits that are new each time the labels' folder is created."""
    found = folder.read(LIFE)
    if found is None:
        raise ResourceError(
            f"{folder.uri(LIFE)} is missing, so batch jobs can't be named. Raise release.attempt and deploy "
            "again: the file is written again, and existing answers are used."
        )
    return str(found["life"])
