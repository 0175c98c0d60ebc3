"""The estimate of costs: its arithmetic by hand, its bounds, and the limit that refuses."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.aws.custom_resource import REASON_BYTES
from distilled_router.cost.batch_limits import BATCH_MINIMUM
from distilled_router.cost.estimate import Estimate, Line, Spec, Volume, check, dollars, estimate
from distilled_router.cost.prices import Prices
from distilled_router.task.task import Task

PRICES = Prices.load()
# Prompts of 100 and of 10 tokens, answers of 10 in JSON and of 3 in the task's own format.
TASK = replace(
    Task.load(),
    labels=("a", "b"),
    static_weights={"a": 0.5, "b": 0.5},
    teacher_prompt="a b ".ljust(400, "."),
    student_prompt="a b ".ljust(40, "."),
)
TUNING = Spec(
    method="fine_tuning",
    teacher="us.amazon.nova-pro-v1:0",
    student="amazon.nova-micro-v1:0:128k",
    base_model="us.amazon.nova-micro-v1:0",
)
DISTILLING = replace(TUNING, method="distillation", max_response_length=50, synthesis=True)


def labelling(spec: Spec, samples: int = 3) -> Spec:
    return replace(spec, samples=samples, max_tokens=20, trained_share=0.8)


def estimated(spec: Spec, volume: Volume) -> Estimate:
    return estimate(spec, volume, TASK, PRICES)


def once(spec: Spec, volume: Volume) -> dict[str, Line]:
    return {line.name: line for line in estimated(spec, volume).once.lines}


# By hand


def test_the_texts_whose_tokens_are_counted_below() -> None:
    """Four bytes are a token of a prompt, two one of an answer."""
    assert (len(TASK.teacher_prompt), len(TASK.student_prompt)) == (400, 40)
    assert TASK.render(TASK.static_weights, "json") == '{"a": 0.5, "b": 0.5}'
    assert TASK.render(TASK.static_weights) == "50 50"


def test_labels_are_records_times_full_prompt_and_answer_at_the_batch_price() -> None:
    labels = once(labelling(TUNING), Volume(queries=1_000, query_bytes=20_000))["labels by the teacher"]
    # 3,000 records of 100 + 5 tokens in and 10 out; at most asked twice, 158 in and 20 out.
    assert labels.expected.usd == pytest.approx(3_000 * (105 * 0.40 + 10 * 1.60) / 1e6)
    assert labels.at_most.usd == pytest.approx(2 * 3_000 * (158 * 0.40 + 20 * 1.60) / 1e6)
    assert (
        "3,000 records x (105 tokens in at 0.4 + 10 out at 1.6 USD a million), by batch"
        in labels.expected.how
    )


def test_too_few_records_for_a_batch_cost_twice_as_much_each() -> None:
    few = once(labelling(TUNING, 1), Volume(queries=BATCH_MINIMUM - 1))
    enough = once(labelling(TUNING, 1), Volume(queries=BATCH_MINIMUM))
    one, other = (
        few["labels by the teacher"].expected.usd / 99,
        enough["labels by the teacher"].expected.usd / 100,
    )
    assert one == pytest.approx(2 * other)


def test_what_fails_of_a_small_shard_is_too_little_for_a_second_batch() -> None:
    few = once(labelling(TUNING, 1), Volume(queries=2 * BATCH_MINIMUM - 1))["labels by the teacher"]
    enough = once(labelling(TUNING, 1), Volume(queries=2 * BATCH_MINIMUM))["labels by the teacher"]
    assert few.expected.how.endswith("by batch")
    assert "at 0.8 " in few.at_most.how
    assert "at 0.4 " in enough.at_most.how


def test_shards_that_are_each_too_small_for_a_batch_are_asked_on_demand() -> None:
    """101 queries in parts of 100 at most are 50 and 51."""
    spec = replace(labelling(TUNING, 1), queries_per_shard=100)
    assert "at 0.4 " in once(spec, Volume(queries=100))["labels by the teacher"].expected.how
    assert "at 0.8 " in once(spec, Volume(queries=101))["labels by the teacher"].expected.how


def test_training_is_rows_times_passes() -> None:
    """10,000 records of 200 tokens, twice: 4 dollars on Nova Micro."""
    # A query of 187 tokens beside a prompt of 10 and an answer of 3.
    volume = Volume(queries=10_000, query_bytes=10_000 * 187 * 4)
    training = once(TUNING, volume)["training"]
    assert training.expected.usd == pytest.approx(4.0)
    assert training.expected.how == "10,000 rows x 200 tokens x 2 passes, at 0.001 USD a 1,000 tokens"
    assert once(replace(TUNING, epochs=5), volume)["training"].expected.usd == pytest.approx(10.0)
    assert training.at_most.usd == pytest.approx(6.0)


def test_what_the_labelling_holds_out_is_not_trained_on() -> None:
    training = once(labelling(TUNING), Volume(queries=1_000))["training"]
    assert training.expected.how.startswith("800 rows ")
    assert training.at_most.how.startswith("(1,000 rows ")


def test_a_job_takes_no_more_rows_than_its_method_allows() -> None:
    assert once(TUNING, Volume(queries=50_000))["training"].expected.how.startswith("20,000 rows ")
    assert once(DISTILLING, Volume(queries=50_000))["training"].expected.how.startswith("15,000 rows ")


def test_bedrock_runs_the_teacher_on_demand_for_rows_without_an_answer() -> None:
    pairs = once(DISTILLING, Volume(queries=1_000, unlabelled=600, query_bytes=20_000))["teacher in the job"]
    assert pairs.expected.usd == pytest.approx(600 * (15 * 0.80 + 3 * 3.20) / 1e6)
    # 400 rows have answers, so Bedrock may make 14,600 pairs, of 50 tokens each.
    assert pairs.at_most.usd == pytest.approx(14_600 * (23 * 0.80 + 50 * 3.20) / 1e6)


def test_synthesized_pairs_are_trained_on_at_most() -> None:
    training = once(DISTILLING, Volume(queries=1_000, query_bytes=20_000))["training"]
    assert training.expected.usd == pytest.approx(1_000 * 18 * 2 * 0.001 / 1_000)
    assert training.at_most.usd == pytest.approx((1_000 * 27 + 14_000 * 73) * 5 * 0.001 / 1_000)
    assert "assumed passes" in training.expected.how


def test_the_labelling_may_keep_so_little_that_bedrock_synthesizes_all_pairs() -> None:
    found = once(labelling(DISTILLING), Volume(queries=1_000))
    assert found["teacher in the job"].at_most.how.startswith("15,000 ")
    assert found["training"].at_most.how.startswith("(15,000 pairs x ")


def test_a_job_without_synthesis_on_given_labels_asks_no_teacher() -> None:
    taken = replace(DISTILLING, synthesis=False)
    assert list(once(taken, Volume(queries=1_000))) == ["training"]


def test_fine_tuning_on_given_labels_pays_for_training_only() -> None:
    assert list(once(TUNING, Volume(queries=1_000))) == ["training"]


def test_a_month_is_storage_and_nothing_for_an_idle_endpoint() -> None:
    monthly = estimated(replace(TUNING, kept_models=2), Volume(queries=1_000)).monthly
    assert monthly.expected_usd == pytest.approx(1.95)
    assert monthly.at_most_usd == pytest.approx(3 * 1.95)


def test_provisioned_throughput_is_paid_by_the_hour_and_not_by_the_token() -> None:
    found = estimated(replace(TUNING, model_units=2, hourly_price_usd=10.0), Volume(queries=1_000))
    assert found.monthly.expected_usd == pytest.approx(1.95 + 2 * 10 * 730)
    assert found.per_thousand.lines[0].expected.usd == 0


def test_1000_queries_by_whoever_answers_them() -> None:
    lines = estimated(TUNING, Volume(queries=1_000, query_bytes=20_000)).per_thousand.lines
    usd = {line.name: line.expected.usd for line in lines}
    assert usd == {
        "distilled": pytest.approx((15 * 0.035 + 3 * 0.14) / 1e3),
        "base": pytest.approx((105 * 0.035 + 10 * 0.14) / 1e3),
        "teacher": pytest.approx((105 * 0.80 + 10 * 3.20) / 1e3),
        "Claude Haiku 4.5": pytest.approx((105 * 1.10 + 10 * 5.50) / 1e3),
        "Claude Haiku 5.5": pytest.approx((105 * 0.11 + 10 * 0.55) / 1e3),
    }


def test_characters_of_several_bytes_count_as_more_tokens() -> None:
    assert Volume.of(["xxxx"] * 3) == Volume(queries=3, query_bytes=12)
    assert Volume.of(["赤い車が走る"]).query_tokens > Volume.of(["xxxxxx"]).query_tokens
    assert Volume.of(["\ud800"]).queries == 1


def test_no_queries_cost_nothing_once() -> None:
    found = estimated(labelling(TUNING), Volume(queries=0, query_bytes=0))
    assert (found.once.expected_usd, found.once.at_most_usd) == (0, 0)


# Bounds

SPECS = st.builds(
    replace,
    st.sampled_from([TUNING, DISTILLING, replace(DISTILLING, synthesis=False)]),
    samples=st.integers(0, 10),
    max_tokens=st.integers(16, 500),
    trained_share=st.floats(0.2, 1.0),
)
VOLUMES = st.integers(0, 15_000).flatmap(
    lambda queries: st.builds(
        Volume,
        queries=st.just(queries),
        unlabelled=st.integers(0, queries),
        query_bytes=st.none() | st.integers(queries, 500 * queries),
    )
)


def labelled_by_us(spec: Spec, volume: Volume) -> Volume:
    """Nothing is left for Bedrock to answer where the labelling does, or in fine-tuning."""
    return replace(volume, unlabelled=0) if spec.samples or spec.method == "fine_tuning" else volume


@given(spec=SPECS, volume=VOLUMES)
def test_no_line_is_expected_to_cost_more_than_at_most(spec: Spec, volume: Volume) -> None:
    found = estimated(spec, labelled_by_us(spec, volume))
    for part in (found.once, found.monthly, found.per_thousand):
        assert not part.unknown
        for line in part.lines:
            assert 0 <= line.expected.usd <= line.at_most.usd + 1e-12


@given(spec=SPECS, queries=st.integers(1, 15_000), more=st.integers(1, 5))
def test_more_samples_are_never_cheaper(spec: Spec, queries: int, more: int) -> None:
    """Save where they make a batch of what was none, or of what fails, which halves the price."""
    spec = replace(spec, samples=max(spec.samples, 1))
    dearer = replace(spec, samples=spec.samples + more)
    records = range(queries * spec.samples + 1, queries * dearer.samples + 1)
    if BATCH_MINIMUM not in records and 2 * BATCH_MINIMUM not in records:
        before, after = estimated(spec, Volume(queries=queries)), estimated(dearer, Volume(queries=queries))
        assert after.once.expected_usd > before.once.expected_usd
        assert after.once.at_most_usd > before.once.at_most_usd


@given(spec=SPECS, volume=VOLUMES, longer=st.integers(0, 500), more=st.integers(0, 5))
def test_longer_answers_and_more_passes_are_never_cheaper(
    spec: Spec, volume: Volume, longer: int, more: int
) -> None:
    volume = labelled_by_us(spec, volume)
    dearer = replace(
        spec,
        max_tokens=spec.max_tokens + longer,
        max_response_length=spec.max_response_length + longer,
        epochs=2 + more,
    )
    before, after = estimated(spec, volume).once, estimated(dearer, volume).once
    assert after.at_most_usd >= before.at_most_usd
    assert after.expected_usd >= before.expected_usd


# The limit


def test_an_estimate_within_the_limit_passes() -> None:
    found = estimated(TUNING, Volume(queries=10_000))
    assert check(found, found.once.at_most_usd) is None


def test_what_may_exceed_the_limit_is_refused_though_less_is_expected() -> None:
    found = estimated(labelling(DISTILLING), Volume(queries=5_000))
    limit = (found.once.expected_usd + found.once.at_most_usd) / 2
    said = check(found, limit)
    assert said is not None
    assert f"This may cost {dollars(found.once.at_most_usd)} USD once" in said
    assert f"distillation.maximum_cost_usd = {limit:g}" in said
    assert "nothing was paid" in said
    biggest = max(found.once.lines, key=lambda line: line.at_most.usd)
    assert f"{biggest.name} {dollars(biggest.at_most.usd)} = {biggest.at_most.how}" in said
    assert f"To lower it: {biggest.lower}" in said
    assert len(said.encode()) < REASON_BYTES


def test_an_unknown_price_is_refused_with_the_way_out() -> None:
    found = estimated(replace(TUNING, student="amazon.nova-pro-v1:0:300k"), Volume(queries=1_000))
    assert list(found.once.unknown) == ["training"]
    said = check(found, 1_000_000)
    assert said is not None
    assert 'add it to [training."amazon.nova-pro-v1:0"]' in said
    assert "lambda/distilled_router/cost/prices.toml" in said


def test_an_unknown_price_of_what_is_not_paid_once_refuses_nothing() -> None:
    found = estimated(replace(TUNING, base_model="example.large"), Volume(queries=1_000))
    assert list(found.per_thousand.unknown) == ["base"]
    assert check(found, 200) is None


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "0.00"),
        (0.00234, "0.0023"),
        (0.05, "0.050"),
        (0.999, "1.00"),
        (1, "1.00"),
        (12_345.678, "12,345.68"),
    ],
)
def test_dollars_are_shown_to_two_digits_that_say_something(usd: float, text: str) -> None:
    assert dollars(usd) == text
