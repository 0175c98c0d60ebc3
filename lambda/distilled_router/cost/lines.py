"""Compute the lines of an estimate (`cost.estimate`) by the assumptions below.

Each line has two amounts, in US dollars. The expected one uses averages and the usual course. The maximum is
what the settings allow: prompts with 50 % more tokens, answers of maximum length, every record asked twice,
all pairs that Bedrock may synthesize, the maximum number of epochs, and all retries of the job.

Tokens are estimated, since the models' tokenizers are not public.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Self

from distilled_router.cost.batch_limits import BATCH_MINIMUM
from distilled_router.cost.prices import HOURS_A_MONTH, Prices, Rate
from distilled_router.data.dataset_rules import ROWS
from distilled_router.task.task import Task

# English prose has about four characters per token. Scripts with one token per character take two to four
# bytes for each in UTF-8, so counting bytes suits both.
BYTES_A_TOKEN = 4
# In weights nearly every number, bracket and quote is a token: four weights as JSON, in AWS's examples, have
# about 70 characters and 32 tokens.
BYTES_AN_ANSWER_TOKEN = 2
MARGIN = 1.5
# Bytes of a query if they were not counted.
QUERY_BYTES = 40
# The labelling asks once more after an invalid answer.
TRIES = 2
# Epochs: default and maximum of fine-tuning (Amazon Nova user guide). Bedrock documents none for
# distillation, so the same are assumed.
EPOCHS, MOST_EPOCHS = 2, 5
# Tokens of a judge's grade and explanation: our assumption, since neither Bedrock's own part of the prompt
# nor the length of its judges' answers is public.
GRADE_TOKENS, MOST_GRADE_TOKENS = 200, 1_000
# Maximum of pairs for distillation, including synthesized ones (Bedrock user guide, distillation).
MOST_PAIRS = ROWS["distillation"][1]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The settings that decide the cost, in plain values.

    `Spec(**json.loads(text))` reads what `json.dumps(asdict(spec))` wrote.

    Attributes:
        method: `distillation` or `fine_tuning`.
        teacher: model id.
        student: model id.
        base_model: model id of the router's fallback.
        samples: teacher's answers to each query; 0 if labels are given.
        max_tokens: limit of tokens of such an answer.
        queries_per_shard: maximum number of queries of a batch job; 0 for all.
        trained_share: part of the queries for training; the rest is for hold-out and validation.
        epochs: passes over the rows; 0 if Bedrock decides.
        max_response_length: limit of tokens of the teacher's answer to a row, within the job.
        synthesis: whether Bedrock may add pairs of its own.
        model_units: units of provisioned throughput; 0 on demand.
        hourly_price_usd: price of one of them.
        kept_models: maximum number of stored models besides the live one.
        retries: how often the job is created again after an internal error of Bedrock.
        job: name of the job that is paid; empty if it isn't known.
        earlier_job: name by which an earlier version created a job for the same model; empty if equal.
        keep: what keeps that job, as a sentence without its period.
    """

    method: str
    teacher: str
    student: str
    base_model: str
    samples: int = 0
    max_tokens: int = 0
    queries_per_shard: int = 0
    trained_share: float = 1.0
    epochs: int = 0
    max_response_length: int = 0
    synthesis: bool = False
    model_units: int = 0
    hourly_price_usd: float = 0.0
    kept_models: int = 0
    retries: int = 0
    job: str = ""
    earlier_job: str = ""
    keep: str = ""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The amount of data.

    Attributes:
        queries: number of training rows or raw queries.
        unlabelled: rows without an answer, which the teacher answers within the job.
        query_bytes: bytes (UTF-8) of all queries together; None if not counted.
    """

    queries: int
    unlabelled: int = 0
    query_bytes: int | None = None

    @classmethod
    def of(cls, queries: Iterable[str]) -> Self:
        """Count raw queries and their bytes."""
        number = size = 0
        for query in queries:
            number += 1
            size += _bytes(query)
        return cls(queries=number, query_bytes=size)

    @property
    def query_tokens(self) -> int:
        """Return the average number of tokens of a query."""
        if self.query_bytes is None or not self.queries:
            return _tokens(QUERY_BYTES)
        return _tokens(self.query_bytes / self.queries)


@dataclass(frozen=True, slots=True)
class Amount:
    """US dollars, and the calculation as text."""

    usd: float
    how: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One cost. `lower` says what would lower it, `cited` where its price is from."""

    name: str
    expected: Amount
    at_most: Amount
    lower: str = ""
    cited: str = ""


@dataclass(frozen=True)
class Case:
    """Computes each line from settings, data, task and prices. Raises PriceError if a price is unknown."""

    spec: Spec
    volume: Volume
    task: Task
    prices: Prices

    def labels(self, name: str) -> Line:
        """Return the cost of the labelling: each query, once for each sample, with the full prompt."""
        spec, records = self.spec, self.volume.queries * self.spec.samples
        asked, answered = self._asked(full=True), min(self.answer_tokens(full=True), spec.max_tokens)
        rate, way = self._labelling_rate(self._shard)
        # The failed records of a small shard are too few for another batch job.
        worst, worst_way = self._labelling_rate(self._shard // TRIES)
        again = f"{TRIES} x {records:,} records"
        return Line(
            name=name,
            expected=_amount(f"{records:,} records", records, asked, answered, rate, way),
            at_most=_amount(again, TRIES * records, _most(asked), spec.max_tokens, worst, worst_way),
            lower="fewer queries, a lower labelling.samples, a lower labelling.max_tokens",
            cited=rate.cited,
        )

    def pairs(self, name: str) -> Line:
        """Return the cost of the teacher within the job: for unlabelled rows and synthesized pairs."""
        spec, rows, most = self.spec, self.volume.unlabelled, self.most_pairs
        rate = self.prices.rate(spec.teacher)
        asked, longest = self._asked(full=False), spec.max_response_length
        answered = min(self.answer_tokens(full=False), longest)
        what = "synthesized pairs and rows without an answer" if spec.synthesis else "rows without an answer"
        expected = Amount(0.0, "every row has an answer")
        if rows:
            expected = _amount(f"{rows:,} rows without an answer", rows, asked, answered, rate, "on demand")
        return Line(
            name=name,
            expected=expected,
            at_most=self._retried(
                _amount(f"{most:,} {what}", most, _most(asked), longest, rate, "on demand")
            ),
            lower=self._shorter,
            cited=rate.cited,
        )

    def training(self, name: str) -> Line:
        """Return the cost of training the student, by token and epoch."""
        spec, price = self.spec, self.prices.training_price(self.spec.student)
        asked, answered = self._asked(full=False), self.answer_tokens(full=False)
        epochs, most_epochs, passes = spec.epochs or EPOCHS, spec.epochs or EPOCHS, "passes"
        if spec.method == "distillation":
            epochs, most_epochs, passes = EPOCHS, MOST_EPOCHS, "assumed passes"
        rows, pairs = self._rows(spec.trained_share), self.most_pairs
        # How many labels will be kept is unknown: all pairs may be synthesized, which may be longer.
        given = 0 if spec.samples and pairs else self._rows(1.0) - self.volume.unlabelled
        row, pair = _most(asked + answered), _most(asked) + spec.max_response_length
        sizes = [(given, "rows", row), (pairs, "pairs", pair)]
        most = " + ".join(f"{number:,} {what} x {size:,}" for number, what, size in sizes if number)
        unit = f"at {price.usd:g} USD a 1,000 tokens"
        tokens, most_tokens = rows * (asked + answered) * epochs, (given * row + pairs * pair) * most_epochs
        return Line(
            name=name,
            expected=Amount(
                self.prices.training(spec.student, tokens),
                f"{rows:,} rows x {asked + answered:,} tokens x {epochs} {passes}, {unit}",
            ),
            at_most=self._retried(
                Amount(
                    self.prices.training(spec.student, most_tokens),
                    f"({most or 0}) tokens x {most_epochs} {passes}, {unit}",
                )
            ),
            lower=self._shorter if pairs else "fewer rows or passes",
            cited=price.cited,
        )

    def storage(self, name: str) -> Line:
        """Return the monthly cost of storing models: the live one, and at most those kept for rollback."""
        price, most = self.prices.storage, 1 + self.spec.kept_models
        return Line(
            name=name,
            expected=Amount(price.usd, f"1 model at {price.usd:g} USD"),
            at_most=Amount(most * price.usd, f"{most} models at {price.usd:g} USD"),
            cited=price.cited,
        )

    def hosting(self, name: str) -> Line:
        """Return the monthly cost of the model endpoint: provisioned throughput by the hour, else nothing."""
        units, price = self.spec.model_units, self.spec.hourly_price_usd
        amount = Amount(0.0, "on demand: nothing while idle")
        if units:
            how = f"{units} model units x {HOURS_A_MONTH} hours at {price:g} USD, which the settings state"
            amount = Amount(units * HOURS_A_MONTH * price, how)
        return Line(name=name, expected=amount, at_most=amount)

    def answers(self, name: str, model: str, *, full: bool, number: int = 1_000) -> Line:
        """Return the cost of a model's answers to so many queries, with the full prompt or the student's."""
        if self.spec.model_units and not full:
            amount = Amount(0.0, "provisioned: by the hour, whatever the number of requests")
            return Line(name=name, expected=amount, at_most=amount)
        rate = self.prices.rate(model)
        asked, answered = self._asked(full=full), self.answer_tokens(full=full)
        return Line(
            name=name,
            expected=_amount(f"{number:,}", number, asked, answered, rate, model),
            at_most=_amount(f"{number:,}", number, _most(asked), _most(answered), rate, model),
            cited=rate.cited,
        )

    def evaluated(self, name: str, *, questions: int, compares_base: bool) -> Line:
        """Return the cost of an evaluation: candidate and live release answer, and the base model if it does.

        The candidate answers on demand, also where the live release has provisioned throughput.
        """
        spec = self.spec
        students = questions if spec.model_units else 2 * questions
        asked = [(spec.student, False, students), *([(spec.base_model, True, questions)] * compares_base)]
        amounts = [self._asked_model(*each) for each in asked]
        expected, most = (
            Amount(sum(one.usd for one in each), "; and ".join(one.how for one in each))
            for each in zip(*amounts, strict=True)
        )
        cited = "; ".join(dict.fromkeys(self.prices.rate(model).cited for model, _, _ in asked))
        return Line(
            name=name, expected=expected, at_most=most, lower="a lower evaluation.slice_queries", cited=cited
        )

    def _asked_model(self, model: str, full: bool, number: int) -> tuple[Amount, Amount]:
        """Return the expected and the maximum cost of so many questions to a model on demand."""
        rate, asked, answered = self.prices.rate(model), self._asked(full=full), self.answer_tokens(full=full)
        return (
            _amount(f"{number:,} questions", number, asked, answered, rate, model),
            _amount(f"{number:,} questions", number, _most(asked), _most(answered), rate, model),
        )

    def probed(self, name: str, *, probes: int) -> Line:
        """Return the cost of a rollout's probes, which the candidate and the live release answer.

        The candidate answers on demand, also where the live release has provisioned throughput.
        """
        spec, rate = self.spec, self.prices.rate(self.spec.student)
        asked, answered = self._asked(full=False), self.answer_tokens(full=False)
        number = probes if spec.model_units else 2 * probes
        count = f"{probes:,} probes" if spec.model_units else f"2 x {probes:,} probes"
        return Line(
            name=name,
            expected=_amount(count, number, asked, answered, rate, spec.student),
            at_most=_amount(count, number, _most(asked), _most(answered), rate, spec.student),
            lower="a lower rollout.probes",
            cited=rate.cited,
        )

    def graded(self, name: str, *, judge: str, instructions: str) -> Line:
        """Return the cost of 1,000 grades of a judge, the maximum of one job.

        Its prompt has the instructions, the query, and the weights of reference and answer.
        """
        rate = self.prices.rate(judge)
        asked = _tokens(_bytes(instructions)) + self.volume.query_tokens + 2 * self.answer_tokens(full=True)
        count = "1,000 answers"
        return Line(
            name=name,
            expected=_amount(count, 1_000, asked, GRADE_TOKENS, rate, judge),
            at_most=_amount(count, 1_000, _most(asked), MOST_GRADE_TOKENS, rate, judge),
            cited=rate.cited,
        )

    @cached_property
    def most_pairs(self) -> int:
        """Return the maximum number of pairs that the teacher answers within the job."""
        spec, volume = self.spec, self.volume
        if spec.method != "distillation" or not spec.synthesis:
            return volume.unlabelled
        answered = 0 if spec.samples else volume.queries - volume.unlabelled
        return max(MOST_PAIRS - answered, volume.unlabelled)

    def _retried(self, amount: Amount) -> Amount:
        """Return the cost of all attempts at the job. That a failed one is free isn't documented."""
        attempts = 1 + self.spec.retries
        if attempts == 1:
            return amount
        return Amount(attempts * amount.usd, f"{attempts} attempts x {amount.how}")

    @property
    def _shard(self) -> int:
        """Return the number of records of the smallest shard; all have nearly the same size."""
        queries = self.volume.queries
        shards = ceil(queries / (self.spec.queries_per_shard or queries or 1))
        return queries // max(shards, 1) * self.spec.samples

    def _labelling_rate(self, records: int) -> tuple[Rate, str]:
        """Return the teacher's rate for `records` records together, and how they are asked."""
        batch = records >= BATCH_MINIMUM
        way = "by batch" if batch else f"on demand, as fewer than {BATCH_MINIMUM} are no batch"
        return self.prices.rate(self.spec.teacher, batch=batch), way

    @property
    def _shorter(self) -> str:
        answered = self.answer_tokens(full=False)
        return f"a lower distillation.max_response_length; an answer has about {answered} tokens"

    def _rows(self, share: float) -> int:
        """Return the number of training rows, at most the limit of the method."""
        return min(round(self.volume.queries * share), ROWS[self.spec.method][1])

    def _asked(self, *, full: bool) -> int:
        """Return the tokens of a prompt and a query."""
        prompt = self.task.teacher_prompt if full else self.task.student_prompt
        return _tokens(_bytes(prompt)) + self.volume.query_tokens

    def answer_tokens(self, *, full: bool) -> int:
        """Return the tokens of an answer: JSON to the full prompt, otherwise the task's format."""
        text = self.task.render(self.task.static_weights, "json" if full else None)
        return ceil(_bytes(text) / BYTES_AN_ANSWER_TOKEN)


def _amount(count: str, number: int, asked: int, answered: int, rate: Rate, way: str) -> Amount:
    """Return the cost of `number` requests; `count` is the number as text."""
    tokens = f"{asked:,} tokens in at {rate.input:g} + {answered:,} out at {rate.output:g} USD a million"
    return Amount(rate.usd(number * asked, number * answered), f"{count} x ({tokens}), {way}")


def _most(tokens: int) -> int:
    return ceil(tokens * MARGIN)


def _tokens(size: float) -> int:
    return max(ceil(size / BYTES_A_TOKEN), 1)


def _bytes(text: str) -> int:
    # A lone surrogate is reported by the check of queries, not here.
    return len(text.encode(errors="surrogatepass"))
