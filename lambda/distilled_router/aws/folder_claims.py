"""Whose a folder of the bucket is: each resource of a stack that needs its files has a claim on it.

The rule is that of `bedrock.ownership`: whoever removes the last claim deletes the files. A folder has no
tags, so a claim is a small object in it, `claims/<hash>.json`, which names stack id and logical id. If the
last one retains the files, `claims/retained.json` takes the place of its claim, and nobody deletes them.

Two resources can race: S3 reads and lists what was written last, so the order of calls is enough. One claims
a folder before it writes files. The other lists files, then looks for claims, and then deletes the listed
versions only. So it sees the claim, or the new files are not among those that it deletes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.custom_resource import Event
from distilled_router.aws.errors import code, is_missing
from distilled_router.aws.objects import Folder
from distilled_router.aws.storage import delete_versions, purge, versions
from distilled_router.bedrock.ownership import Claimant

CLAIMS = "claims/"
RETAINED = f"{CLAIMS}retained.json"


def rolls_back(event: Event, id_of: Callable[[Mapping[str, Any]], str]) -> bool:
    """Return whether an Update rolls back one that was not answered and wrote to another folder.

    CloudFormation never learned the other folder's physical id, so it sends no Delete for it. `id_of` returns
    the physical id of properties.
    """
    before = event.old_properties
    return bool(before) and id_of(before) != id_of(event.properties) == event.physical_id


class FolderClaim:
    """The claim of one resource on one folder."""

    def __init__(self, s3: Any, bucket: str, prefix: str, claimant: Claimant, request: str = "") -> None:
        """Describe the claim. `prefix` ends in a slash; `request` is the id of CloudFormation's request."""
        self._s3, self._folder = s3, Folder(s3, bucket, prefix)
        self._claimant, self._request = claimant, request
        self._key = f"{CLAIMS}{claimant.hash}.json"
        self._etag = ""

    def add(self, **details: str) -> bool:
        """Claim the folder, before anything is written to it. Return whether the claim is new."""
        place = {"Bucket": self._folder.bucket, "Key": f"{self._folder.prefix}{self._key}"}
        body = json.dumps({**self._named, "request": self._request, **details}).encode()
        try:
            self._etag = str(self._s3.put_object(**place, Body=body, IfNoneMatch="*").get("ETag"))
        except ClientError as error:
            if code(error) not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                raise
            self._etag = str(self._s3.put_object(**place, Body=body).get("ETag"))
            return False
        return True

    def drop(self, *, retain: bool) -> None:
        """Remove the claim, if there is one. With `retain`, keep the files if it is the last claim."""
        if retain and self._keys() == [self._key]:
            self._folder.write(RETAINED, self._named)
        self._remove(lambda _: True)

    @contextmanager
    def held(self, check: Callable[[], None], *, retain: bool, **details: str) -> Iterator[None]:
        """Claim the folder while files are written to it, and keep the claim.

        `check` raises if CloudFormation has sent a newer request. If it does, or if writing fails, a new
        claim is undone, with the files unless `retain`.
        """
        check()
        is_new = self.add(**details)
        try:
            yield
            check()
        except Exception:
            if is_new:
                self._withdraw()
                if not retain:
                    self.purge()
            raise

    def _withdraw(self) -> None:
        """Remove the claim unless a newer request of the same resource has claimed the folder."""
        self._remove(lambda latest: latest.get("ETag") == self._etag)

    @property
    def _named(self) -> dict[str, str]:
        return {"stack_id": self._claimant.stack_id, "logical_id": self._claimant.logical_id}

    def _remove(self, may: Callable[[dict[str, Any]], bool]) -> None:
        found = versions(self._s3, self._folder.bucket, f"{self._folder.prefix}{self._key}")
        if all(may(version) for version in found if version.get("IsLatest") and "ETag" in version):
            delete_versions(self._s3, self._folder.bucket, found)

    def others(self) -> list[dict[str, Any]]:
        """Return the claims of other resources. One that can't be read is returned without details."""
        return [self._read(key) for key in self._keys() if key != self._key]

    def purge(self, *, until: Callable[[], bool] = lambda: False) -> bool:
        """Delete the folder with all versions, unless anybody claims it.

        Return True once nothing is left to delete, False if `until` stopped it.
        """
        folder = self._folder
        return purge(self._s3, folder.bucket, folder.prefix, until=until, unless=lambda: bool(self._keys()))

    def _keys(self) -> list[str]:
        try:
            return self._folder.names(CLAIMS)
        except ClientError as error:
            if is_missing(error):
                return []
            raise

    def _read(self, key: str) -> dict[str, Any]:
        try:
            found = self._folder.read(key)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
