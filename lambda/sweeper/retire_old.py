"""Remove what a new live release replaced."""

from __future__ import annotations

from distilled_router.aws.state_machine import StageResult, done
from distilled_router.release.sweep import Sweeper
from distilled_router.release.wait_conditions import WaitConditions


def retire(sweeper: Sweeper, waits: WaitConditions) -> StageResult:
    """Signal the stacks that wait for the release, then remove the resources of replaced releases.

    A signal that is lost is repeated by the schedule of ReleaseWait.
    """
    waits.signal(sweeper.releases)
    return done(str(sweeper.sweep()))
