"""Step PrepareEvaluation: write the questions in shards, and the evaluation's plan."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import cast

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ReplacedError, code, is_missing
from distilled_router.aws.objects import Folder, Published
from distilled_router.aws.state_machine import StageResult, done, not_in_progress
from distilled_router.data.conversation import Example, examples
from distilled_router.data.findings import WARNINGS
from distilled_router.release.table import Release, Releases
from evaluation.attempt import PLAN, QUESTIONS, Evaluation, Plan
from evaluation.contenders import contenders
from evaluation.questions import questions, shards


def prepare(digest: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Write the questions and the plan, which fixes the live release to compare the candidate with."""
    release = releases.get(digest)
    if release is None or not releases.evaluating(digest, "preparing the questions"):
        return not_in_progress(digest)
    folder, life = evaluation.folder(release), release.life
    plan = _kept(folder)
    if plan is None or plan["life"] != life:
        holdout = _holdout(release, releases, evaluation)
        asked = list(
            questions(
                holdout,
                evaluation.task,
                evaluation.robustness,
                evaluation.slice_queries,
                _traffic(release, evaluation),
            )
        )
        names = []
        for name, rows in shards(asked):
            folder.write_rows(f"{QUESTIONS}{name}.jsonl", rows)
            names.append(name)
        asked_of = [asdict(one) for one in contenders(release, releases, evaluation.base_model)]
        plan = {
            "life": life,
            "contenders": asked_of,
            "shards": names,
            "questions": len(asked),
            "warnings": _warnings(release, evaluation),
        }
        folder.write(PLAN, plan)
    others = len(plan["contenders"]) - 1
    message = f"{plan['questions']} questions to the candidate and {others} other models"
    return done(message) if releases.evaluating(digest, message) else not_in_progress(digest)


def _kept(folder: Folder) -> Plan | None:
    """Return the plan of this attempt. One of an earlier life of the stack has another seal."""
    try:
        return cast("Plan | None", folder.read(PLAN))
    except ReplacedError:
        return None


def _traffic(release: Release, evaluation: Evaluation) -> list[Example]:
    """Return queries like trained ones; none unless a labelling of this version put some beside the set.

    No hash is known of the file: nothing is decided by it.
    """
    folder = evaluation.key_of(release).rpartition("/")[0]
    try:
        rows = list(Folder(evaluation.s3, evaluation.bucket, f"{folder}/").rows("traffic.jsonl"))
        return list(examples(map(json.dumps, rows), evaluation.task))
    except ClientError as error:
        # S3 also denies access to a missing object, unless the caller may list the bucket.
        if is_missing(error) or code(error) == "AccessDenied":
            return []
        raise
    except ValueError:
        return []


def _warnings(release: Release, evaluation: Evaluation) -> list[str]:
    """Return what the checks of the training rows and of the hold-out set warned of.

    They have a folder each, unless the hold-out set is split off from the labels.
    """
    keys = (evaluation.training_key, evaluation.key_of(release))
    folders = dict.fromkeys(key.rpartition("/")[0] for key in keys if key)
    return [warning for folder in folders for warning in _warnings_in(folder, evaluation)]


def _warnings_in(folder: str, evaluation: Evaluation) -> list[str]:
    """Return the warnings in a folder; nothing if an earlier version published the data."""
    try:
        found = Folder(evaluation.s3, evaluation.bucket, f"{folder}/").read(WARNINGS)
        return [str(warning) for warning in found["warnings"]] if found else []
    except (ClientError, ValueError, LookupError, TypeError) as error:
        # S3 also denies access to a missing object, unless the caller may list the bucket.
        if isinstance(error, ClientError) and code(error) != "AccessDenied":
            raise
        return []


def _holdout(release: Release, releases: Releases, evaluation: Evaluation) -> list[Example]:
    """Return the hold-out set as it was published.

    If nobody knows its SHA-256, that of what is read counts for the rest of the attempt.
    """
    published = Published(evaluation.bucket, evaluation.key_of(release), release.holdout_sha256)
    content = published.read(evaluation.s3)
    if not published.sha256:
        releases.update(release.digest, holdout_sha256=hashlib.sha256(content).hexdigest())
    return list(examples((line.decode() for line in content.splitlines()), evaluation.task))
