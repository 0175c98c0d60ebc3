"""`make cost`: what it counts, what it prints, and what it says when it can't."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from distilled_router.cost.estimate import Line, Spec, Volume, check, estimate
from distilled_router.cost.lines import Case
from distilled_router.cost.prices import Prices
from distilled_router.data.conversation import row
from distilled_router.release.rollout import Rollout
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task
from operate import cost, cost_volume
from operate.__main__ import main
from operate.errors import OperateError
from operate.month import Month
from stacks.costs import deployed, spec
from stacks.settings import ENVIRONMENTS, Settings, load
from tests.unit.hostile import controls

TASK = Task.load()
WEIGHTS = {"visual": 1.0, "audio": 0.0, "transcription": 0.0, "metadata": 0.0}
GIVEN = 'source = "file"\ntraining = "data/training.jsonl"\nholdout = "data/holdout.jsonl"\n'
RAW = 'source = "file"\nlabels = "teacher"\nqueries = "queries.txt"\n'
HOLDOUT_LINE = 'holdout = "data/holdout.jsonl"\n'
LOGS = f'source = "invocation_logs"\nlogs = "s3://bucket/logs/"\n{HOLDOUT_LINE}'

MANY = "".join(f"red car {number} at night\n" for number in range(1_000))

type Environment = Callable[..., Settings]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Write `test.toml`: dev's settings with another data set and other replacements."""

    def _environment(dataset: str = GIVEN, replaced: Mapping[str, str] | None = None) -> Settings:
        text = (ENVIRONMENTS / "dev.toml").read_text(encoding="utf-8")
        for old, new in {GIVEN: dataset, **(replaced or {})}.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "test.toml").write_text(text, encoding="utf-8")
        return load(tmp_path / "test.toml")

    return _environment


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], project: Path, *more: str
) -> tuple[int, str]:
    """Return exit status and output of the command for `test.toml`."""
    monkeypatch.setattr(cost, "PROJECT", project)
    status = main(["cost", "--environment", str(project / "test.toml"), *more])
    out, err = capsys.readouterr()
    return status, out + err


# Counting


def test_training_rows_are_counted_with_those_that_lack_an_answer(
    environment: Environment, project: Path
) -> None:
    rows = [row(TASK, "red car", WEIGHTS), row(TASK, "blue car", None), row(TASK, "ein Zug fährt", None)]
    lines = [json.dumps(one) for one in rows]
    (project / "data" / "training.jsonl").write_text("\n".join([*lines, "", "{}", "]"]))
    counted = cost_volume.count(environment(), project)
    assert counted.volume == Volume(queries=3, unlabelled=2, query_bytes=7 + 8 + 14)
    assert "3 rows, 2 of them without an answer" in counted.text
    assert "2 unusable lines" in counted.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("queries.txt", "red car\r\n\n blue car \n"),
        ("queries.jsonl", '{"query": "red car"}\n{"query": "blue car"}'),
        ("queries.csv", "query,count\r\nred car,12\r\nblue car,3\r\n"),
        ("log.txt", "\ufeffred car\t12\nblue car\t3\nRed car!\t1\n"),
    ],
)
def test_raw_queries_are_counted(environment: Environment, project: Path, name: str, content: str) -> None:
    (project / name).write_bytes(content.encode())
    counted = cost_volume.count(environment(RAW.replace("queries.txt", name)), project)
    assert counted.volume == Volume(queries=2, query_bytes=15)


def test_another_number_is_scaled_from_the_file(environment: Environment, project: Path) -> None:
    (project / "queries.txt").write_text("red car\nblue car\n")
    counted = cost_volume.count(environment(RAW), project, 3_000)
    assert counted.volume == Volume(queries=3_000, query_bytes=22_500)
    rows = [row(TASK, "red car", WEIGHTS), row(TASK, "blue car", None)]
    (project / "data" / "training.jsonl").write_text("\n".join(map(json.dumps, rows)))
    counted = cost_volume.count(environment(), project, 3_000)
    assert counted.volume == Volume(queries=3_000, unlabelled=1_500, query_bytes=22_500)


def test_data_in_s3_is_not_read_and_its_size_is_unknown() -> None:
    counted = cost_volume.count(load("prod"), ENVIRONMENTS)
    assert counted.volume.queries == cost_volume.ASSUMED_ROWS
    assert "is not on this machine" in counted.text
    assert "give the real number with ROWS" in counted.text
    given = cost_volume.count(load("prod"), ENVIRONMENTS, 12_000)
    assert given.volume == Volume(queries=12_000)


# From the settings


def test_given_labels_cost_no_labelling(environment: Environment) -> None:
    found = spec(environment())
    assert (found.samples, found.trained_share, found.synthesis) == (0, 1.0, True)


def test_labels_of_the_teacher_cost_samples_and_leave_out_the_hold_out(environment: Environment) -> None:
    found = spec(environment(f"{RAW}\n[labelling]\nsamples = 5\nholdout_share = 0.25\n"))
    assert (found.samples, found.trained_share) == (5, 0.625)
    given = spec(environment(f'{RAW}holdout = "data/holdout.jsonl"\n'))
    assert given.trained_share == 1.0


def test_fine_tuning_synthesizes_nothing_and_takes_the_epochs_of_the_settings(
    environment: Environment,
) -> None:
    tuning = {
        'method = "distillation"': 'method = "fine_tuning"',
        "max_response_length = 1000\n": "hyperparameters = { epoch_count = 4 }\n",
    }
    found = spec(environment(GIVEN, tuning))
    assert (found.synthesis, found.epochs, found.max_response_length) == (False, 4, 0)


def test_logged_queries_cost_labels_unless_their_answers_are_taken(environment: Environment) -> None:
    asked = spec(environment(LOGS))
    assert (asked.samples, asked.trained_share) == (3, 1.0)
    taken = spec(environment(f"{LOGS}use_logged_answers = true\n"))
    assert (taken.samples, taken.max_tokens, taken.synthesis) == (0, 0, True)
    split = spec(environment(f"{LOGS}use_logged_answers = true\n".replace(HOLDOUT_LINE, "")))
    assert split.trained_share == 0.85


def test_provisioned_throughput_comes_with_the_price_that_the_settings_state(
    environment: Environment,
) -> None:
    throughput = "provisioned = { model_units = 2, hourly_price_usd = 9.5 }"
    bought = {'kind = "on_demand"': f'kind = "provisioned"\n{throughput}'}
    found = spec(environment(GIVEN, bought))
    assert (found.model_units, found.hourly_price_usd) == (2, 9.5)


def test_a_spec_survives_json(environment: Environment) -> None:
    found = spec(environment(RAW))
    assert Spec(**json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize("name", sorted(path.stem for path in ENVIRONMENTS.glob("*.toml")))
def test_every_environment_is_within_its_limit_for_any_number_of_rows(name: str) -> None:
    settings = load(name)
    for queries in (100, 2_000, 10_000, 15_000):
        found = estimate(spec(settings), Volume(queries=queries), TASK, Prices.load())
        assert check(found, settings.distillation.maximum_cost_usd) is None


# Printing


def test_the_estimate_is_shown_with_its_sources_and_the_limit(
    environment: Environment,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment(RAW)
    (project / "queries.txt").write_text(MANY)
    status, text = printed(monkeypatch, capsys, project)
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert status == 0
    assert {
        "labels by the teacher",
        "teacher in the job",
        "training",
        "model storage",
        "model hosting",
        "together",
    } <= rows.keys()
    assert {"distilled", "base", "teacher", "Claude Haiku 4.5", "Claude Haiku 5.5"} <= rows.keys()
    # The teacher's tokens cost more than 100 times as much, a whole month less than that.
    assert float(rows["teacher"][1]) > 100 * float(rows["distilled"][1])
    assert float(rows["distilled"][3]) == 1
    assert 5 < float(rows["teacher"][3]) < 100
    assert "queries.txt: 1,000 queries." in text
    assert "AWS Price List (2026-08-02, us-east-1)" in text
    assert "Within the limit: at most" in text
    assert "error: queries examples: no query can be held out" in text


def test_data_in_s3_is_said_to_be_compared_by_the_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--environment", "prod"]) == 0
    assert "Data in S3 is not checked here. The deployment checks" in capsys.readouterr().out


def test_no_name_of_a_file_controls_the_terminal(
    environment: Environment,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Settings refuse C0 characters in a path, and take all others."""
    name = "\x9b31m\u202equeries.txt"
    environment(RAW.replace("queries.txt", name))
    for content, expected in ((MANY, 0), ("", 1)):
        (project / name).write_text(content)
        status, text = printed(monkeypatch, capsys, project)
        assert status == expected
        assert "\\u009b31m\\u202equeries.txt" in text
        assert controls(text) == []


def test_a_link_out_of_the_project_is_not_read(
    environment: Environment, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.txt"
    secret.write_text("red car\n" * 200)
    (project / "queries.txt").symlink_to(secret)
    with pytest.raises(OperateError, match=r"queries\.txt can't be read: a link leads out of"):
        cost_volume.count(environment(RAW), project)


def of_release(settings: Settings, project: Path) -> dict[str, Line]:
    """Return what each release costs besides its job, by name."""
    case = Case(spec(settings), Volume(queries=1_000), TASK, Prices.load())
    month = Month(settings, deployed(settings), case, 1_000_000)
    return {line.name: line for line in cost.for_each_release(month, project).lines}


def test_probes_are_paid_for_each_release(environment: Environment, project: Path) -> None:
    """Both releases answer them, in each round; provisioned throughput is billed by the hour."""
    settings = environment(RAW)
    rollout = Rollout.of(settings.rollout.to_function())
    line = of_release(settings, project)["probes"]
    assert line.expected.how.startswith(f"2 x {rollout.probes * len(rollout.rounds):,} probes")
    # Some 45 tokens in at 0.035 USD a million, and 9 out at 0.14.
    each = line.expected.usd / (2 * rollout.probes * len(rollout.rounds))
    assert 2e-6 < each < 6e-6
    assert line.expected.usd < line.at_most.usd
    without = {"rollout": {**settings.rollout.model_dump(), "probes": 0}}
    changed = Settings.model_validate({**settings.model_dump(), **without})
    assert "probes" not in of_release(changed, project)


def test_evaluation_asks_candidate_live_release_and_base_model(
    environment: Environment, project: Path
) -> None:
    """The hold-out set of 30 rows; five slices of as many; what fits no label, and other languages."""
    settings = environment()
    (project / "data" / "holdout.jsonl").write_text("{}\n" * 30)
    variants = Robustness.load(TASK)
    questions = 30 * 6 + len(variants.out_of_domain) + len(variants.other_languages)
    line = of_release(settings, project)["evaluation"]
    assert f"{2 * questions:,} questions x" in line.expected.how
    assert f"and {questions:,} questions x" in line.expected.how
    alone = {"evaluation": {**settings.evaluation.model_dump(), "compare_base": False, "slice_queries": 0}}
    changed = Settings.model_validate({**settings.model_dump(), **alone})
    how = of_release(changed, project)["evaluation"].expected.how
    assert how.startswith("60 questions x")
    assert settings.router.base_model not in how


def test_a_judge_is_paid_for_each_release(
    environment: Environment,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = environment(RAW)
    names = ["evaluation", "probes", "rollout metrics", "state machine"]
    assert list(of_release(settings, project)) == names
    judged = {"evaluation": {**settings.evaluation.model_dump(), "judge": "us.amazon.nova-pro-v1:0"}}
    changed = Settings.model_validate({**settings.model_dump(), **judged})
    line = of_release(changed, project)["judge"]
    # 1,000 answers of some 300 tokens in at 0.80 USD a million, and 200 out at 3.20.
    assert 0.7 < line.expected.usd < 1.2
    assert line.expected.usd < line.at_most.usd < 5
    monkeypatch.setattr(cost, "load", lambda *_: changed)
    (project / "queries.txt").write_text(MANY)
    status, text = printed(monkeypatch, capsys, project)
    assert status == 0
    assert "a release" in text
    assert "1,000 answers x" in text


def test_an_estimate_above_the_limit_is_shown_and_fails(
    environment: Environment,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment(RAW, {"maximum_cost_usd = 500.0": "maximum_cost_usd = 0.5"})
    (project / "queries.txt").write_text(MANY)
    status, text = printed(monkeypatch, capsys, project)
    assert status == 1
    assert "more than distillation.maximum_cost_usd = 0.5" in text


def test_an_unknown_price_is_shown_as_unknown_and_fails(
    environment: Environment,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment(RAW, {"amazon.nova-micro-v1:0:128k": "amazon.nova-lite-v1:0:300k"})
    (project / "queries.txt").write_text("red car at night\n")
    status, text = printed(monkeypatch, capsys, project)
    assert status == 1
    assert ["training", "unknown", "unknown"] in [line.split()[:3] for line in text.splitlines()]
    assert ["together", "unknown", "unknown"] in [line.split()[:3] for line in text.splitlines()]
    assert 'add it to [training."amazon.nova-lite-v1:0"]' in text


def test_an_unknown_environment_is_named_with_those_that_are_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["cost", "--environment", "nowhere"]) == 1
    said = capsys.readouterr().err
    assert '"nowhere", which has no file' in said
    assert '"dev" or "local" or "prod"' in said


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), (b"\xff\xfe\n", "contains no readable queries")]
)
def test_a_file_that_can_not_be_counted_is_named(
    environment: Environment,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    said: str,
) -> None:
    environment(RAW)
    if content:
        (project / "queries.txt").write_bytes(content)
    status, text = printed(monkeypatch, capsys, project)
    assert status == 1
    assert "queries.txt" in text
    assert said in text


@pytest.mark.parametrize("option", ["--queries", "--rows"])
@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_a_number_is_at_least_one(option: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["cost", "--environment", "dev", option, number])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err
