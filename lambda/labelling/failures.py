"""Why shards failed: the reasons of an execution, kept in the labels' folder."""

from __future__ import annotations

from collections.abc import Sequence

from distilled_router.aws.objects import Folder
from distilled_router.aws.state_machine import MESSAGE_CHARACTERS

# Names in the message if no shard left a reason.
MOST_NAMES = 5


def keep(folder: Folder, shard: str, execution: str, message: str) -> None:
    """Keep the reason why a shard failed."""
    folder.write(_key(shard), {"execution": execution, "message": message[:MESSAGE_CHARACTERS]})


def described(folder: Folder, missing: Sequence[str], count: int, execution: str) -> str:
    """Return in words that shards, of `count` in all, are not labelled, with a reason of this execution.

    A shard has none if its function could not say it, for example because it timed out.
    """
    kept = {key.removeprefix("failed/") for key in folder.names("failed/")}
    for shard in missing:
        found = folder.read(_key(shard)) if f"{shard}.json" in kept else None
        if found and found["execution"] == execution:
            return f"{len(missing)} of {count} shards failed: {found['message']}"
    names = ", ".join(missing[:MOST_NAMES])
    more = f" and {len(missing) - MOST_NAMES} more" if len(missing) > MOST_NAMES else ""
    return (
        f"{len(missing)} of {count} shards are not labelled, without a reason: {names}{more}. Their function "
        "was stopped, timed out or had too little memory: see its log. Restart the labelling (raise "
        "release.attempt); existing answers are used."
    )


def _key(shard: str) -> str:
    return f"failed/{shard}.json"
