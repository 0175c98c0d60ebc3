"""What each part of a deployment costs: the lines of an estimate (`cost.estimate`), and all that is assumed.

Each amount comes twice. What is expected follows from averages and from what usually happens. At most is what
the settings let happen: prompts of half as many tokens again, answers as long as they may be, every record
asked twice, all the pairs that Bedrock may synthesize, as many passes as there may be.

All are US dollars. Tokens are estimated, since the models' tokenizers are not public.
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

# English prose has about four characters a token. In UTF-8 scripts whose characters are tokens of their own
# take two to four bytes for each, so that bytes serve them better.
BYTES_A_TOKEN = 4
# In weights nearly every number, bracket and quote is a token: AWS's examples of four weights as JSON have
# about 70 characters and 32 tokens.
BYTES_AN_ANSWER_TOKEN = 2
MARGIN = 1.5
# Bytes of a query where nobody has counted.
QUERY_BYTES = 40
# What is answered badly is asked once more (`labelling`).
TRIES = 2
# Passes over the rows: default and maximum of fine-tuning (Amazon Nova user guide). For distillation Bedrock
# documents none, and the same is assumed.
EPOCHS, MOST_EPOCHS = 2, 5
# Tokens with which a judge gives its grade and says why. Bedrock's own words around ours aren't public, nor
# how long its judges write.
GRADE_TOKENS, MOST_GRADE_TOKENS = 200, 1_000
# Pairs that Bedrock distils from at most, with those that it synthesizes (Bedrock user guide, distillation).
MOST_PAIRS = ROWS["distillation"][1]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is asked for, in plain values: `Spec(**json.loads(text))` reads what `json.dumps(asdict(spec))`
    wrote.

    Attributes:
        method: `distillation` or `fine_tuning`.
        teacher, student, base_model: ids. The base model answers in the router where no release does.
        samples: answers to each query that the labelling pays for; 0 where labels are given.
        max_tokens: of one such answer.
        queries_per_shard: queries of one batch job, at most; 0 for all.
        trained_share: part of the queries that is trained on; the rest is held out, or validates.
        epochs: passes over the rows; 0 where Bedrock decides.
        max_response_length: tokens that Bedrock's own run of the teacher may write for a row.
        synthesis: whether Bedrock may add pairs of its own.
        logged: whether the rows are logged requests, which carry a full prompt.
        model_units, hourly_price_usd: provisioned throughput; 0 on demand.
        kept_models: models that are stored besides the live one, at most.
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
    logged: bool = False
    model_units: int = 0
    hourly_price_usd: float = 0.0
    kept_models: int = 0


@dataclass(frozen=True, kw_only=True)
class Volume:
    """How much there is: training rows or raw queries, how many of them Bedrock's run of the teacher has to
    answer, and the bytes (UTF-8) of all their queries together, where somebody counted."""

    queries: int
    unlabelled: int = 0
    query_bytes: int | None = None

    @classmethod
    def of(cls, queries: Iterable[str]) -> Self:
        """That of raw queries."""
        number = size = 0
        for query in queries:
            number += 1
            size += _bytes(query)
        return cls(queries=number, query_bytes=size)

    @property
    def query_tokens(self) -> int:
        """Tokens of one query, on average."""
        if self.query_bytes is None or not self.queries:
            return _tokens(QUERY_BYTES)
        return _tokens(self.query_bytes / self.queries)


@dataclass(frozen=True, slots=True)
class Amount:
    """US dollars, and the numbers from which they were computed."""

    usd: float
    how: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that costs. `lower` says what would make it cheaper, `cited` where its price is from."""

    name: str
    expected: Amount
    at_most: Amount
    lower: str = ""
    cited: str = ""


@dataclass(frozen=True)
class Case:
    """All that lines are computed from. Each line raises PriceError where its price is unknown."""

    spec: Spec
    volume: Volume
    task: Task
    prices: Prices

    def labels(self, name: str) -> Line:
        """The labelling: each query, as often as there are samples, under the full prompt."""
        spec, records = self.spec, self.volume.queries * self.spec.samples
        asked, answered = self._asked(full=True), min(self._answered(full=True), spec.max_tokens)
        rate, way = self._labelling_rate(self._shard)
        # What fails of a small shard is too little for a second batch.
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
        """Bedrock's run of the teacher, for rows without an answer and for pairs that it synthesizes."""
        spec, rows, most = self.spec, self.volume.unlabelled, self.most_pairs
        rate = self.prices.rate(spec.teacher)
        asked, longest = self._asked(full=spec.logged), spec.max_response_length
        answered = min(self._answered(full=spec.logged), longest)
        what = "synthesized pairs and rows without an answer" if spec.synthesis else "rows without an answer"
        expected = Amount(0.0, "every row has an answer")
        if rows:
            expected = _amount(f"{rows:,} rows without an answer", rows, asked, answered, rate, "on demand")
        return Line(
            name=name,
            expected=expected,
            at_most=_amount(f"{most:,} {what}", most, _most(asked), longest, rate, "on demand"),
            lower=self._shorter,
            cited=rate.cited,
        )

    def training(self, name: str) -> Line:
        """The student's training, by the token and pass."""
        spec, price = self.spec, self.prices.training_price(self.spec.student)
        asked, answered = self._asked(full=spec.logged), self._answered(full=spec.logged)
        epochs, most_epochs, passes = spec.epochs or EPOCHS, spec.epochs or EPOCHS, "passes"
        if spec.method == "distillation":
            epochs, most_epochs, passes = EPOCHS, MOST_EPOCHS, "assumed passes"
        rows, pairs = self._rows(spec.trained_share), self.most_pairs
        # What the labelling will keep isn't known: all pairs may be Bedrock's own, which may be longer.
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
            at_most=Amount(
                self.prices.training(spec.student, most_tokens),
                f"({most or 0}) tokens x {most_epochs} {passes}, {unit}",
            ),
            lower=self._shorter if pairs else "fewer rows or passes",
            cited=price.cited,
        )

    def storage(self, name: str) -> Line:
        """The models in the account: the live one, and at most those that are kept for rollback."""
        price, most = self.prices.storage, 1 + self.spec.kept_models
        return Line(
            name=name,
            expected=Amount(price.usd, f"1 model at {price.usd:g} USD"),
            at_most=Amount(most * price.usd, f"{most} models at {price.usd:g} USD"),
            cited=price.cited,
        )

    def hosting(self, name: str) -> Line:
        """The endpoint: nothing while it is idle on demand, provisioned throughput by the hour."""
        units, price = self.spec.model_units, self.spec.hourly_price_usd
        amount = Amount(0.0, "on demand: nothing while idle")
        if units:
            how = f"{units} model units x {HOURS_A_MONTH} hours at {price:g} USD, which the settings state"
            amount = Amount(units * HOURS_A_MONTH * price, how)
        return Line(name=name, expected=amount, at_most=amount)

    def thousand(self, name: str, model: str, *, full: bool) -> Line:
        """1,000 answers of a model: to the full prompt, as JSON, or as the student is asked and answers."""
        if self.spec.model_units and not full:
            amount = Amount(0.0, "provisioned: by the hour, whatever is asked")
            return Line(name=name, expected=amount, at_most=amount)
        rate = self.prices.rate(model)
        asked, answered = self._asked(full=full), self._answered(full=full)
        return Line(
            name=name,
            expected=_amount("1,000", 1_000, asked, answered, rate, model),
            at_most=_amount("1,000", 1_000, _most(asked), _most(answered), rate, model),
            cited=rate.cited,
        )

    def graded(self, name: str, *, judge: str, instructions: str) -> Line:
        """1,000 answers, the most of one job, that a judge grades: each with what it is told, the query, and
        the weights of reference and answer."""
        rate = self.prices.rate(judge)
        asked = _tokens(_bytes(instructions)) + self.volume.query_tokens + 2 * self._answered(full=True)
        count = "1,000 answers"
        return Line(
            name=name,
            expected=_amount(count, 1_000, asked, GRADE_TOKENS, rate, judge),
            at_most=_amount(count, 1_000, _most(asked), MOST_GRADE_TOKENS, rate, judge),
            cited=rate.cited,
        )

    @cached_property
    def most_pairs(self) -> int:
        """Pairs for which Bedrock's run of the teacher may be paid in the job."""
        spec, volume = self.spec, self.volume
        if spec.method != "distillation" or not spec.synthesis:
            return volume.unlabelled
        answered = 0 if spec.samples else volume.queries - volume.unlabelled
        return max(MOST_PAIRS - answered, volume.unlabelled)

    @property
    def _shard(self) -> int:
        """Records of the smallest shard; shards are of nearly the same size."""
        queries = self.volume.queries
        shards = ceil(queries / (self.spec.queries_per_shard or queries or 1))
        return queries // max(shards, 1) * self.spec.samples

    def _labelling_rate(self, records: int) -> tuple[Rate, str]:
        """The teacher's rate for so many records together, and the way they are asked."""
        batch = records >= BATCH_MINIMUM
        way = "by batch" if batch else f"on demand, as fewer than {BATCH_MINIMUM} are no batch"
        return self.prices.rate(self.spec.teacher, batch=batch), way

    @property
    def _shorter(self) -> str:
        answered = self._answered(full=self.spec.logged)
        return f"a lower distillation.max_response_length; an answer has about {answered} tokens"

    def _rows(self, share: float) -> int:
        """Rows that are trained on; a job takes no more than its method's limit."""
        return min(round(self.volume.queries * share), ROWS[self.spec.method][1])

    def _asked(self, *, full: bool) -> int:
        """Tokens of a prompt and a query."""
        prompt = self.task.teacher_prompt if full else self.task.student_prompt
        return _tokens(_bytes(prompt)) + self.volume.query_tokens

    def _answered(self, *, full: bool) -> int:
        """Tokens of an answer: JSON under the full prompt, the task's format otherwise."""
        text = self.task.render(self.task.static_weights, "json" if full else None)
        return ceil(_bytes(text) / BYTES_AN_ANSWER_TOKEN)


def _amount(count: str, number: int, asked: int, answered: int, rate: Rate, way: str) -> Amount:
    """So many questions and answers; `count` is their number in words."""
    tokens = f"{asked:,} tokens in at {rate.input:g} + {answered:,} out at {rate.output:g} USD a million"
    return Amount(rate.usd(number * asked, number * answered), f"{count} x ({tokens}), {way}")


def _most(tokens: int) -> int:
    return ceil(tokens * MARGIN)


def _tokens(size: float) -> int:
    return max(ceil(size / BYTES_A_TOKEN), 1)


def _bytes(text: str) -> int:
    # Half of a surrogate pair is the business of whoever checks the queries.
    return len(text.encode(errors="surrogatepass"))
