"""Fixtures of the emulator's CloudFormation: started for each test file, empty for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distilled_router.task.task import Task
from local.state import State
from tests.engine import apps
from tests.engine.apps import App
from tests.engine.engine import Engine, until
from tests.engine.release_apps import Scene
from tests.permissions.calls import check
from tests.unit.resource_scenes import training_rows

# A job of an hour takes a second; the Provider framework polls ten times as often.
TIME_SCALE, WAIT_SCALE = 3000, 0.1


@pytest.fixture(scope="module")
def running_engine(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Engine]:
    """Start servers for one file, which may define its own TIME_SCALE and WAIT_SCALE."""
    engine = Engine(
        State(tmp_path_factory.mktemp("engine")),
        time_scale=getattr(request.module, "TIME_SCALE", TIME_SCALE),
        wait_scale=getattr(request.module, "WAIT_SCALE", WAIT_SCALE),
    )
    yield engine
    engine.close()


@pytest.fixture
def engine(running_engine: Engine) -> Iterator[Engine]:
    """Return an empty CloudFormation and Bedrock; check at the end that IAM refused no call and knows all."""
    running_engine.reset()
    yield running_engine
    assert not (found := check(running_engine.asked_of_iam())), "\n".join(found)


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """Return another team's app, synthesized."""
    return apps.synthesize(tmp_path_factory.mktemp("app"))


@pytest.fixture
def team(engine: Engine, app: App) -> Engine:
    """Return an account with that team's bucket and the app's published assets."""
    for assembly in app.assemblies:
        engine.publish(assembly)
    engine.aws("s3").create_bucket(Bucket=apps.BUCKET)
    engine.aws("s3").put_object(Bucket=apps.BUCKET, Key=apps.ROWS, Body=training_rows(Task.load()))
    return engine


@pytest.fixture
def scene(
    engine: Engine, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Return a team with releases, before its first deployment; describe its state if the test fails."""
    scene = Scene(engine, tmp_path_factory.getbasetemp() / "release-apps")
    yield scene
    request.node.add_report_section("teardown", "scene", scene.told())


@pytest.fixture
def models(team: Engine) -> list[str]:
    """Return the ARNs of two custom models that exist already, `search-a` and `search-b`."""
    role = team.somebodys_role("trainer")
    teacher = {"teacherModelIdentifier": apps.TEACHER}
    for name in ("search-a", "search-b"):
        team.aws("bedrock").create_model_customization_job(
            jobName=name,
            customModelName=name,
            roleArn=role,
            baseModelIdentifier=apps.STUDENT,
            customizationType="DISTILLATION",
            trainingDataConfig={"s3Uri": f"s3://{apps.BUCKET}/{apps.ROWS}"},
            outputDataConfig={"s3Uri": f"s3://{apps.BUCKET}/jobs/{name}/"},
            customizationConfig={"distillationConfig": {"teacherModelConfig": teacher}},
        )
    until(lambda: len(team.held("models")) == 2, lambda: team.held("jobs"))
    return [team.held("models")[name]["arn"] for name in ("search-a", "search-b")]
