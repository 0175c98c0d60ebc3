"""The suite catches handlers that are broken on purpose.

Which tests catch which version: `python -m tests.broken` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.broken.trial import Verdict, attempt
from tests.broken.versions import VERSIONS, Version, random_token

UNBROKEN = "unbroken"
NAMES = {version.name: version for version in VERSIONS}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Verdict]]]:
    """The suite's verdict on each version and on the unbroken one, two at a time; the longest comes first."""
    tried: dict[str, Version | None] = {UNBROKEN: None, **NAMES}
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(attempt, version, tmp_path_factory.mktemp("broken"), to_the_end=False)
            for name, version in tried.items()
        }


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_version_is_caught_by_a_test(verdicts: Mapping[str, Future[Verdict]], name: str) -> None:
    verdict = verdicts[name].result()
    assert verdict.caught_by, verdict.output


def test_the_same_copy_passes_unbroken(verdicts: Mapping[str, Future[Verdict]]) -> None:
    verdict = verdicts[UNBROKEN].result()
    assert verdict.passed, verdict.output


def test_a_version_that_changes_nothing_is_no_version() -> None:
    with pytest.raises(ValueError, match="No client request token"):
        random_token("token = 1\n")
    with pytest.raises(ValueError, match="no function handle"):
        NAMES["Delete that does not wait: job"].change("def check(): ...\n")
