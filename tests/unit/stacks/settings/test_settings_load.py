"""`load`: its result for valid settings, and its errors for unreadable files."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stacks.settings import ENVIRONMENTS, PROJECT, Settings, SettingsError, load, loading, split_s3_uri

Changed = Callable[[dict[str, Any]], Settings]

FINE_TUNING = {
    "distillation.method": "fine_tuning",
    "distillation.max_response_length": ...,
    "distillation.teacher": "us.amazon.nova-2-lite-v1:0",
    "distillation.hyperparameters.learning_rate": 1e-5,
}


@pytest.mark.parametrize("environment", ["local", "dev", "prod"])
def test_the_environments_of_the_project_load(environment: str) -> None:
    settings = load(environment)
    assert settings.environment == environment
    assert settings.owner == f"video-router-{environment}"


def test_local_is_fast_and_leaves_nothing() -> None:
    settings = load("local")
    assert (settings.account, settings.region) == ("000000000000", "us-east-1")
    assert settings.release.poll_seconds <= 5
    assert settings.rollout.dwell_seconds <= 5
    assert (settings.retention.data, settings.retention.models) == ("delete", "delete")


def test_prod_keeps_encrypts_watches_and_is_stricter_than_dev() -> None:
    prod, dev = load("prod"), load("dev")
    assert (prod.retention.data, prod.retention.models) == ("retain", "retain")
    assert prod.encryption.model_key
    assert prod.alarms.emails
    assert prod.budget.monthly_usd
    assert prod.router.reserved_concurrency
    assert prod.gate.minimum_dominant_accuracy > dev.gate.minimum_dominant_accuracy


def test_the_defaults_are_the_cautious_ones(changed: Changed) -> None:
    settings = changed({})
    assert settings.distillation.allow_legacy is False
    assert settings.distillation.nonce == ""
    assert settings.router.log_queries is False
    assert settings.router.reserved_concurrency is None
    assert settings.rollout.keep_releases == 1
    assert settings.budget.monthly_usd is None
    # They neither spend money nor delete what was paid for.
    assert (settings.release.retry_internal_errors, settings.release.stop_stalled) == (0, False)


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load("dev").gate.minimum_examples = 1


@pytest.mark.parametrize("teacher", ["us.amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"])
def test_the_teacher_is_a_model_or_its_profile(changed: Changed, teacher: str) -> None:
    assert changed({"distillation.teacher": teacher}).distillation.teacher == teacher


def test_llama_learns_in_oregon(changed: Changed) -> None:
    settings = changed(
        {
            "region": "us-west-2",
            "distillation.teacher": "meta.llama3-1-405b-instruct-v1:0",
            "distillation.student": "meta.llama3-3-70b-instruct-v1:0:128k",
        }
    )
    assert settings.distillation.student == "meta.llama3-3-70b-instruct-v1:0:128k"


def test_fine_tuning_takes_any_teacher_that_lives(changed: Changed) -> None:
    distillation = changed(FINE_TUNING).distillation
    assert distillation.teacher == "us.amazon.nova-2-lite-v1:0"
    # The teacher labels raw queries; the job itself asks no teacher.
    assert distillation.asked_teacher is None


def test_hyperparameters_are_the_api_s_names_and_strings(changed: Changed) -> None:
    settings = changed({**FINE_TUNING, "distillation.hyperparameters.epoch_count": 3})
    hyperparameters = settings.distillation.hyperparameters
    assert hyperparameters is not None
    assert hyperparameters.to_api() == {
        "epochCount": "3",
        "learningRate": "0.00001",
        "learningRateWarmupSteps": "10",
    }


def test_provisioned_throughput_by_the_hour(changed: Changed) -> None:
    settings = changed(
        {
            "endpoint.kind": "provisioned",
            "endpoint.provisioned.model_units": 1,
            "endpoint.provisioned.hourly_price_usd": 25,
        }
    )
    assert settings.endpoint.provisioned is not None
    assert settings.endpoint.provisioned.commitment == "none"
    assert settings.endpoint.provisioned.term is None


def test_a_commitment_that_is_acknowledged(changed: Changed) -> None:
    settings = changed(
        {
            "endpoint.kind": "provisioned",
            "endpoint.provisioned.model_units": 2,
            "endpoint.provisioned.hourly_price_usd": 20.5,
            "endpoint.provisioned.commitment": "SixMonths",
            "endpoint.provisioned.acknowledge_commitment": True,
        }
    )
    assert settings.endpoint.provisioned is not None
    assert settings.endpoint.provisioned.term == "SixMonths"


def test_throughput_goes_with_its_stack_unless_it_is_retained(changed: Changed) -> None:
    """Case B22."""
    assert changed({}).retention.throughput == "delete"
    assert changed({"retention.throughput": "retain"}).retention.throughput == "retain"


def test_the_longest_name_fits(changed: Changed) -> None:
    assert len(changed({"name": "n" * 43}).owner) == 48


def test_s3_uris_are_split() -> None:
    assert split_s3_uri("s3://examples/a/b(1).jsonl") == ("examples", "a/b(1).jsonl")
    with pytest.raises(ValueError, match="characters that Bedrock accepts"):
        split_s3_uri("s3://examples/dt=1/a.jsonl")


@pytest.mark.parametrize(
    ("environment", "file"),
    [
        ("staging", "environments/staging.toml"),
        ("Dev", "environments/Dev.toml"),
        ("", "environments/.toml"),
        ("settings/acme", "settings/acme"),
        ("nowhere/acme.toml", "nowhere/acme.toml"),
    ],
)
def test_a_missing_file_lists_those_that_exist(
    folder: Path, monkeypatch: pytest.MonkeyPatch, environment: str, file: str
) -> None:
    monkeypatch.setattr(loading, "ENVIRONMENTS", folder)
    for name in ("other", "test"):
        (folder / f"{name}.toml").write_text("")
    with pytest.raises(SettingsError) as caught:
        load(environment)
    assert str(caught.value) == (
        f'{file}: environment: found "{environment}", which has no file; '
        'allowed: "other" or "test", or the path of a settings file, which ends in .toml'
    )


def test_any_settings_file_is_named_by_its_path(write: Callable[..., Path]) -> None:
    path = write({})
    settings = load(str(path))
    assert (settings.environment, settings.file) == ("test", "environments/test.toml")
    assert load("environments/test.toml") == settings == load(path)


def test_settings_know_their_file_after_a_change(write: Callable[..., Path]) -> None:
    assert load(write({})).model_copy(update={"name": "other"}).file == "environments/test.toml"


def test_a_toml_error_names_file_and_place(folder: Path) -> None:
    (folder / "test.toml").write_text('name = "a"\nregion = \n')
    with pytest.raises(SettingsError, match=r"environments/test\.toml: syntax: .*line 2.*allowed: TOML 1\.0"):
        load(folder / "test.toml")


def test_a_key_given_twice_is_a_toml_error(folder: Path) -> None:
    (folder / "test.toml").write_text('name = "a"\nname = "b"\n')
    with pytest.raises(SettingsError, match="syntax"):
        load(folder / "test.toml")


def test_a_file_in_another_encoding(folder: Path) -> None:
    (folder / "test.toml").write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(SettingsError, match="UTF-8"):
        load(folder / "test.toml")


def test_a_folder_in_a_file_s_place(folder: Path) -> None:
    (folder / "test.toml").mkdir()
    with pytest.raises(SettingsError, match="a readable file"):
        load(folder / "test.toml")


def test_nothing_of_aws_is_imported() -> None:
    program = (
        "import sys; from stacks import settings; settings.load('local'); "
        "print([m for m in sys.modules if m.split('.')[0] in ('boto3', 'botocore', 'aws_cdk', 'jsii')])"
    )
    output = subprocess.check_output([sys.executable, "-c", program], cwd=PROJECT, text=True)
    assert output.strip() == "[]"


def test_environments_differ_from_each_other_in_values_only() -> None:
    """A reader who compares two files finds the same tables, apart from what is optional."""
    optional = {"budget", "checks", "head", "labelling"}
    texts = [path.read_text(encoding="utf-8") for path in ENVIRONMENTS.glob("*.toml")]
    tables = [set(tomllib.loads(text)) - optional for text in texts]
    assert all(table == tables[0] for table in tables)


@pytest.mark.parametrize(
    ("given", "arn"),
    [
        ("Boundary", "arn:aws:iam::444455556666:policy/Boundary"),
        ("arn:aws:iam::444455556666:policy/a/b/Boundary", "arn:aws:iam::444455556666:policy/a/b/Boundary"),
        ("arn:aws:iam::aws:policy/PowerUserAccess", "arn:aws:iam::aws:policy/PowerUserAccess"),
    ],
)
def test_a_boundary_is_a_policy_of_this_account_or_of_awss(changed: Changed, given: str, arn: str) -> None:
    assert changed({"security.permissions_boundary": given}).permissions_boundary == arn


def test_without_a_boundary_there_is_none(changed: Changed) -> None:
    assert changed({}).permissions_boundary is None


@pytest.mark.parametrize(
    ("environment", "allowed"),
    [
        ("dev-eu", "lower-case letters and digits, beginning with a letter, without a hyphen"),
        ("router", "a name that no stack has: data, distillation, release, router, operations"),
    ],
)
def test_an_environment_whose_names_begin_like_anothers_is_refused(
    write: Callable[..., Path], environment: str, allowed: str
) -> None:
    """`video-router-dev-*` would be the names of `dev-eu`, too."""
    path = write({})
    path.rename(path.with_stem(environment))

    with pytest.raises(SettingsError) as error:
        load(path.parent / f"{environment}.toml")

    (problem,) = error.value.problems
    assert (problem.key, problem.found) == ("environment", f'"{environment}"')
    assert problem.allowed.startswith(allowed)


def test_limits_of_a_release_have_defaults(changed: Changed) -> None:
    example = tomllib.loads((Path(__file__).with_name("example.toml")).read_text(encoding="utf-8"))
    for table in ("gate", "rollout", "release"):
        settings = changed({**{f"{table}.{key}": ... for key in example[table]}})
        assert settings.gate.minimum_examples
    assert changed({"release.timeout_hours": 10, "release.stall_hours": ...}).release.stall_hours == 10
