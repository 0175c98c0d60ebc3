"""Load the classification heads that the route names, on a thread of their own."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import code
from distilled_router.head.artifact import HeadError
from distilled_router.head.model import Head
from distilled_router.release.route import HeadFile, Route, Share

# After a load that failed, or that has not ended: Lambda may have frozen it in the middle.
RETRY_SECONDS = 60.0
# For reading one file.
LOAD_SECONDS = 2.0
# A route has the live release, a candidate and, during a rollback, a former one. A head has up to 1 MiB.
MOST_HEADS = 4
# The one that loads, and one that has not ended in time.
MOST_THREADS = 2


class Heads:
    """The heads of the releases in the current route.

    A fault costs the head and never an answer: it is logged once, and the file is tried again after
    `RETRY_SECONDS` or with the next version of the route.
    """

    def __init__(self, s3: Any, bucket: str, labels: tuple[str, ...], logger: Logger) -> None:
        """Load nothing yet.

        Args:
            s3: `router.services.S3`, or what has its methods.
            bucket: holds the files.
            labels: of the task; a head with other labels is not used.
            logger: writes which files could not be loaded.
        """
        self._s3, self._bucket = s3, bucket
        self._labels = labels
        self._logger = logger
        self._lock = threading.Lock()
        self._route = Route()
        self._files: tuple[HeadFile, ...] = ()
        self._loaded: dict[HeadFile, Head] = {}
        # By the wall clock. The monotonic clock may stand still while an environment is frozen.
        self._tried_at: dict[HeadFile, float] = {}
        self._began_at = 0.0
        self._threads: list[threading.Thread] = []
        self._logged: set[tuple[HeadFile, str]] = set()

    def of(self, share: Share | None) -> Head | None:
        """Return a share's head if it is loaded."""
        return self._loaded.get(share.head) if share and share.head else None

    def follow(self, route: Route, now: float) -> None:
        """Drop the heads that the route doesn't name, and begin to load those that are missing."""
        with self._lock:
            if route is not self._route:
                self._change(route)
            missing = [file for file in self._files if file not in self._loaded]
            due = [file for file in missing if not _is_recent(self._tried_at.get(file), now)]
            if not due or not self._may_begin(now):
                return
            self._tried_at.update(dict.fromkeys(due, now))
            self._began_at = now
            thread = threading.Thread(target=self._load, args=(due,), name="heads", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                problem = f"no thread: {error}"
            else:
                self._threads.append(thread)
                return
        self._log(due[0], problem)

    def _change(self, route: Route) -> None:
        if route.version != self._route.version:
            self._tried_at.clear()
        self._route = route
        # The live release first, so that it has its head whatever else an item names.
        shares = sorted(route.shares, key=lambda share: share.expires_at is not None)
        named = dict.fromkeys(share.head for share in shares if share.head)
        self._files = () if route.head_off else tuple(named)[:MOST_HEADS]
        self._loaded = {file: head for file, head in self._loaded.items() if file in self._files}
        self._logged = {(file, problem) for file, problem in self._logged if file in self._files}

    def _may_begin(self, now: float) -> bool:
        """Return whether no load is in progress, or only one that should have ended long ago."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if not self._threads:
            return True
        return len(self._threads) < MOST_THREADS and not _is_recent(self._began_at, now)

    def _load(self, files: list[HeadFile]) -> None:
        for file in files:
            if not self._is_wanted(file):
                continue
            found = self._read(file)
            with self._lock:
                # The route may have changed meanwhile, or another thread may have loaded the file.
                if not self._is_wanted(file):
                    continue
                if isinstance(found, Head):
                    self._loaded = {**self._loaded, file: found}
                    continue
            self._log(file, found)

    def _is_wanted(self, file: HeadFile) -> bool:
        return file in self._files and file not in self._loaded

    def _read(self, file: HeadFile) -> Head | str:
        """Return the head in a file, or why there is none."""
        try:
            content = self._s3.read_object(Bucket=self._bucket, Key=file.key)
            found = hashlib.sha256(content).hexdigest()
            if found != file.sha256:
                return f"its SHA-256 is {found}"
            return Head.read(content, self._labels)
        except ClientError as error:
            return f"refused: {code(error)}"
        except HeadError as error:
            return str(error)
        except BotoCoreError as error:
            return f"unreachable: {type(error).__name__}"
        except Exception as error:  # a bug costs the head, not the thread
            return f"unexpected: {type(error).__name__}"

    def _log(self, file: HeadFile, problem: str) -> None:
        with self._lock:
            if (file, problem) in self._logged:
                return
            self._logged.add((file, problem))
        self._logger.warning("head not loaded", key=file.key, sha256=file.sha256, problem=problem)


def _is_recent(since: float | None, now: float) -> bool:
    # The lower bound ends it if the clock was set back.
    return since is not None and 0 <= now - since < RETRY_SECONDS
