"""A paid resource stays while anyone has a claim on it."""

from __future__ import annotations

import pytest

from distillation_job import handler as job_handler
from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import OWNER_TAG
from distilled_router.bedrock.ownership import REQUEST_TAG, Claimant, claims, described
from tests.unit import framework
from tests.unit.resource_scenes import OWNER, Meddled, World, job_properties, refusal, times

OLD = Claimant(framework.STACK, "JobResource1111")
NEW = Claimant(framework.STACK, "RenamedResource2222")
LIST_TAGS = "list_tags_for_resource"


@pytest.fixture
def job(world: World) -> str:
    """Create a job that the old logical id claims; return its ARN."""
    tags = OLD.tags(OWNER, request="request-1", digest="0123456789ab")
    request = job_handler.job_spec(job_properties(Tags=tags)).request()
    return str(world.bedrock.create_model_customization_job(**request)["jobArn"])


def test_tags_name_owner_stack_resource_digest_and_request(world: World, job: str) -> None:
    tags = ownership.read_tags(world.bedrock, job)
    assert tags is not None
    assert tags[OWNER_TAG] == OWNER
    assert tags[REQUEST_TAG] == "request-1"
    assert list(claims(tags).values()) == [f"{framework.STACK} JobResource1111"]
    assert OLD.holds(tags)
    assert not NEW.holds(tags)
    assert described(tags) == (
        f"owner {OWNER}, claimed by resource JobResource1111 of stack {framework.STACK}"
    )


def test_renamed_construct_keeps_the_resource(world: World, job: str) -> None:
    ownership.claim(world.bedrock, job, NEW)
    assert not ownership.release(world.bedrock, job, OLD)
    assert ownership.release(world.bedrock, job, NEW)


def test_rollback_of_a_renaming_keeps_the_resource(world: World, job: str) -> None:
    ownership.claim(world.bedrock, job, NEW)
    assert not ownership.release(world.bedrock, job, NEW)
    assert OLD.holds(ownership.read_tags(world.bedrock, job) or {})


def test_claim_that_is_repeated_or_released_twice_changes_nothing(world: World, job: str) -> None:
    ownership.claim(world.bedrock, job, NEW)
    ownership.claim(world.bedrock, job, NEW)
    assert len(claims(ownership.read_tags(world.bedrock, job) or {})) == 2
    assert not ownership.release(world.bedrock, job, NEW)
    assert not ownership.release(world.bedrock, job, NEW)


def test_resource_that_is_gone_is_nobodys(world: World, job: str) -> None:
    gone = job[:-4] + "zzzz"
    ownership.claim(world.bedrock, gone, NEW)
    assert not ownership.release(world.bedrock, gone, NEW)
    assert ownership.read_tags(world.bedrock, gone) is None


@pytest.mark.parametrize("reads", [0, 1])
def test_tags_that_can_not_be_read_do_not_say_that_nobody_else_claims_it(
    world: World, job: str, reads: int
) -> None:
    ownership.claim(world.bedrock, job, NEW)
    missing = times(1, refusal("ResourceNotFoundException", status=404), skip=reads)
    assert not ownership.release(Meddled(world.bedrock, before={LIST_TAGS: missing}), job, OLD)


def test_last_claim_that_was_removed_before_the_tags_can_not_be_read_is_the_last(
    world: World, job: str
) -> None:
    missing = times(1, refusal("ResourceNotFoundException", status=404), skip=1)
    assert ownership.release(Meddled(world.bedrock, before={LIST_TAGS: missing}), job, OLD)


@pytest.mark.parametrize("method", ["tag_resource", "untag_resource"])
def test_write_that_does_not_find_what_reads_find_is_repeated(world: World, job: str, method: str) -> None:
    missing = times(1, refusal("ResourceNotFoundException", status=404))
    late = Meddled(world.bedrock, before={method: missing})
    ownership.claim(late, job, NEW)
    assert NEW.holds(ownership.read_tags(world.bedrock, job) or {})
    assert not ownership.release(late, job, NEW)
    assert not NEW.holds(ownership.read_tags(world.bedrock, job) or {})


def test_stack_that_is_created_again_is_another_claimant() -> None:
    again = Claimant(f"{framework.STACK}0", OLD.logical_id)
    assert again.key != OLD.key


def test_longest_names_fit_into_a_tag() -> None:
    """botocore: TagKey 128, TagValue 256, and no character outside its pattern."""
    stack = f"arn:aws-us-gov:cloudformation:us-gov-west-1:123456789012:stack/{'s' * 128}/{'0' * 36}"
    claimant = Claimant(stack, "R" * 255)
    ((key, value),) = claimant.tag.items()
    assert len(key) <= 128
    assert len(value) <= 256
    assert Claimant(stack, f"{'R' * 254}S").key != key
