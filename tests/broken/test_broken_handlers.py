"""The suite catches handlers that are broken on purpose.

`python -m tests.broken` prints which tests catch which version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.broken.trial import Verdict, attempt, files
from tests.broken.versions import VERSIONS, random_token

MISFIT = re.compile(r"^FAILED .* - (TypeError|NameError|AttributeError|KeyError)", re.MULTILINE)
NAMES = {version.name: version for version in VERSIONS}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Verdict]:
    """Return the suite's result on each version, run two at a time."""
    with ThreadPoolExecutor(2) as pool:
        trials = {
            name: pool.submit(attempt, version, files(version), tmp_path_factory.mktemp("broken"))
            for name, version in NAMES.items()
        }
        return {name: trial.result() for name, trial in trials.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_version_is_caught_by_a_test(verdicts: Mapping[str, Verdict], name: str) -> None:
    verdict = verdicts[name]
    assert verdict.caught_by, verdict.output
    # Caught by its behaviour: a version that no longer fits the code would fail any test.
    assert not MISFIT.search(verdict.output), verdict.output


def test_what_caught_them_passes_on_a_copy_that_is_not_broken(
    verdicts: Mapping[str, Verdict], tmp_path: Path
) -> None:
    caught_by = {test for verdict in verdicts.values() for test in verdict.caught_by}
    verdict = attempt(None, sorted(caught_by), tmp_path)
    assert verdict.passed, verdict.output


def test_a_version_that_changes_nothing_is_no_version() -> None:
    with pytest.raises(ValueError, match="No client request token"):
        random_token("token = 1\n")
    with pytest.raises(ValueError, match="no function handle"):
        NAMES["Delete that does not wait: job"].change("def check(): ...\n")
