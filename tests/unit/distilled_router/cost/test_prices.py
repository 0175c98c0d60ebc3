"""The price table: complete for what we deploy, read with care, and never a guess."""

from pathlib import Path

import pytest

from cdk_distilled_router import catalogue
from distilled_router.cost.prices import FILE, PriceError, Prices
from stacks.settings import ENVIRONMENTS, load

PRICES = Prices.load()
MICRO, PRO = "amazon.nova-micro-v1:0", "amazon.nova-pro-v1:0"


@pytest.mark.parametrize("environment", sorted(path.stem for path in ENVIRONMENTS.glob("*.toml")))
def test_all_that_an_environment_pays_for_has_a_price(environment: str) -> None:
    settings = load(environment)
    teacher, student = settings.distillation.teacher, settings.distillation.student
    assert PRICES.tokens(teacher, 1, 1) > 0
    assert PRICES.tokens(teacher, 1, 1, batch=True) > 0
    assert PRICES.tokens(settings.router.base_model, 1, 1) > 0
    assert PRICES.tokens(student, 1, 1) > 0
    assert PRICES.training(student, 1) > 0
    assert PRICES.storage.usd > 0


def test_every_teacher_and_student_that_the_settings_allow_has_a_price_of_tokens() -> None:
    for model in (*catalogue.teacher_identifiers(), *catalogue.servable(tuple(catalogue.STUDENTS))):
        assert PRICES.tokens(model, 1, 1) > 0


def test_tokens_are_priced_by_the_million() -> None:
    assert PRICES.tokens(PRO, 1_000_000, 500_000) == pytest.approx(0.80 + 1.60)
    assert PRICES.tokens(PRO, 1_000_000, 500_000, batch=True) == pytest.approx(0.40 + 0.80)


def test_training_is_priced_by_1000_tokens_and_pass() -> None:
    """10,000 records of 200 tokens, twice: 4 million tokens are 4 dollars on Nova Micro."""
    assert PRICES.training("amazon.nova-micro-v1:0:128k", 10_000 * 200 * 2) == pytest.approx(4.0)


def test_a_batch_costs_half() -> None:
    """Bedrock's rule; a row of the table that breaks it is more likely a slip than a price."""
    batches = [price for price in PRICES.models.values() if price.batch_input is not None]
    assert batches
    for price in batches:
        assert price.batch_input == pytest.approx(price.input / 2)
        assert price.batch_output == pytest.approx(price.output / 2)


@pytest.mark.parametrize(
    "name",
    [
        "amazon.nova-micro-v1:0:128k",
        "us.amazon.nova-micro-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0",
        "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.amazon.nova-micro-v1:0",
        "arn:aws:bedrock:us-east-1:111122223333:custom-model/amazon.nova-micro-v1:0:128k/abcdefabcdef",
    ],
    ids=["context length", "profile", "model ARN", "profile ARN", "custom model ARN"],
)
def test_a_model_is_known_by_all_its_names(name: str) -> None:
    assert PRICES.rate(name) == PRICES.rate(MICRO)
    assert PRICES.training_price(name) == PRICES.training_price(MICRO)


def test_a_profile_with_a_price_of_its_own_has_that_one() -> None:
    model = "amazon.nova-2-lite-v1:0"
    assert PRICES.tokens(f"us.{model}", 1_000_000, 0) == pytest.approx(0.33)
    assert PRICES.tokens(model, 1_000_000, 0) == pytest.approx(0.30)


def test_an_unknown_price_is_an_error_that_says_where_to_add_it() -> None:
    with pytest.raises(
        PriceError, match=r'no price for us\.example\.large.*\[tokens\."us\.example\.large"\]'
    ):
        PRICES.tokens("us.example.large", 1, 1)
    with pytest.raises(PriceError, match=r'no training price for .*\[training\."amazon\.nova-pro-v1:0"\]'):
        PRICES.training("amazon.nova-pro-v1:0:300k", 1)
    with pytest.raises(PriceError, match=r"no batch price for meta\.llama3-1-405b"):
        PRICES.tokens("meta.llama3-1-405b-instruct-v1:0", 1, 1, batch=True)


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "prices.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("input = 0.035\n", "", r'\[tokens\."amazon\.nova-micro-v1:0"\] input: found nothing'),
        ("input = 0.035", "input = -1", r"nova-micro.* input: found -1"),
        ("input = 0.035", "input = nan", r"nova-micro.* input: found nan"),
        ("input = 0.035", "input = true", r"nova-micro.* input: found True"),
        ("input = 0.035", 'input = "0.035"', r"nova-micro.* input: found '0.035'"),
        ("batch_output = 0.07\n", "", r"nova-micro.*both batch_input and batch_output"),
        ("usd = 1.95\n", "", r"\[storage\] usd: found nothing"),
        ("usd = 1.95", "usd = 1.95\nunit = 3", r"\[storage\] has unit; known are .*usd"),
        ('date = "2026-11"', 'date = "lately"', r"date: found 'lately'"),
        ('date = "2026-11"', "date = 2026-11-01", r"date: found datetime"),
        ('source = "AWS Price List"', 'source = ""', r"source: found ''"),
        ("[storage]", "[store]", r"has tokens, training, store"),
        ('unit = "a month"\n', "", r"\[services\.dashboard\] unit: found nothing"),
        ("[storage]", "[storage", r"can't be read"),
        ('[tokens."amazon.nova-micro-v1:0"]', '[tokens."amazon.nova-micro-v1:0:128k"]', r"name the model as"),
        ('[tokens."amazon.nova-micro-v1:0"]', "[tokens]\nx = 1\n[tokens.y]", r"must be a table"),
    ],
)
def test_a_slip_in_the_table_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(PriceError, match=said):
        Prices.load(changed(tmp_path, old, new))


def test_a_service_without_a_price_is_named() -> None:
    with pytest.raises(PriceError, match=r"no price for satellites: add \[services\.satellites\]"):
        PRICES.service("satellites")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(PriceError, match=r"prices\.toml can't be read"):
        Prices.load(tmp_path / "none.toml")
