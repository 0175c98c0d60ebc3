"""The router's overhead on a model call, compared with a bare call, LiteLLM and the pattern of AWS samples.

    python -m benchmarks.router                      measures, prints the tables of README.md
    python -m benchmarks.router --queries 200        a short run
    python -m benchmarks.router --without litellm    if LiteLLM can't be installed

All approaches ask the same student of the Bedrock stand-in over TLS on loopback, each in its own process, in
turns.
The stand-in waits 380 ms before the first token and writes 183 tokens per second. The rest of the latency is
client, connection and stand-in; an approach's overhead is its latency minus that of the bare call.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import stacks  # noqa: F401  # puts lambda/ on the import path

PROJECT = Path(__file__).resolve().parents[1]
FIRST_TOKEN_MS, TOKENS_A_SECOND = 380.0, 183.0
CONCURRENCY = (1, 100)
QUERY = "red car number"
TURNS, STARTS = 3, 11
SECRET = "not-a-secret"  # noqa: S105  # the stand-in verifies no signature
REGION, ROLE = "us-east-1", "arn:aws:iam::000000000000:role/job"
# The variables of the function.
FUNCTION = {
    "POWERTOOLS_SERVICE_NAME": "benchmark",
    "TABLE_NAME": "releases",
    "BASE_MODEL": "us.amazon.nova-micro-v1:0",
    "BASE_PRICES": "0.035 0.14",
    "STUDENT_PRICES": "0.035 0.14",
    "TIME_BUDGET_MS": "1500",
    "BATCH_TIME_BUDGET_MS": "10000",
    "CACHE_ENTRIES": "2000",
    "CACHE_SECONDS": "300",
    "ROUTE_SECONDS": "10",
    "LOG_QUERIES": "false",
    "TRACING": "false",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "AKIASTANDIN",
    "AWS_SECRET_ACCESS_KEY": SECRET,
}
# The published student answers with four weights and about 60 tokens of reasoning.
REASONING = (
    "The query names what can be seen in the clip, so the visual channel matters most and the audio channel "
    "somewhat, while spoken words and metadata add little."
)


# The approaches. Each is set up once per process and returns a function that asks one query and returns the
# number of output tokens.


@dataclass(frozen=True)
class Where:
    """The stand-in's URL, the ARN of the student's deployment, and the authorities to trust."""

    url: str
    model: str
    ca_bundle: str

    @property
    def variables(self) -> dict[str, str]:
        """Return the function's variables for the stand-in. There is no table: nothing listens on port 9."""
        endpoints = {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.url,
            "AWS_ENDPOINT_URL_DYNAMODB": "https://127.0.0.1:9",
        }
        return {**FUNCTION, **endpoints, "AWS_CA_BUNDLE": self.ca_bundle}

    def client(self, **config: Any) -> Any:
        """Return a bedrock-runtime client for the stand-in."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "bedrock-runtime",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="AKIASTANDIN",
            aws_secret_access_key=SECRET,
            verify=self.ca_bundle,
            config=Config(**{"proxies": {}, **config}),
        )


type Ask = Callable[[str], int]


@dataclass(frozen=True)
class Timed:
    """Bedrock, with the milliseconds of each call by query."""

    bedrock: Any
    took: dict[str, float] = field(default_factory=dict)

    def within(self, seconds: float) -> Self:
        """Return the same with a limit for a call."""
        return replace(self, bedrock=self.bedrock.within(seconds))

    def converse(self, **request: Any) -> Any:
        """Call Converse and record its duration."""
        began = time.perf_counter()
        reply = self.bedrock.converse(**request)
        query = request["messages"][0]["content"][0]["text"]
        self.took[query] = (time.perf_counter() - began) * 1000
        return reply


# The router's milliseconds without its model call, by query.
OVERHEAD: dict[str, float] = {}


def ours(where: Where) -> Ask:
    """Use the whole router: request, route, cache, budget, breaker, validation, metrics.

    Its table is a double with one route.
    """
    from distilled_router.env import RouterEnv
    from distilled_router.release.route import Route, Share
    from distilled_router.task.task import Task
    from router.assembly import make_router, services
    from tests.unit.router.doubles import TableDouble

    env = RouterEnv.read(FUNCTION)
    # In Lambda, an execution environment has one request at a time; here there are up to 100.
    bedrock, _ = services(env, where.variables, side_by_side=max(CONCURRENCY))
    table = TableDouble(Route(1, (Share("aaaaaaaaaaaa", where.model, 1.0),)))
    timed = Timed(bedrock)
    router = make_router(env, Task.load(), bedrock=timed, dynamodb=table)

    def ask(query: str) -> int:
        began = time.perf_counter()
        answer = router.handle({"query": query})
        OVERHEAD[query] = (time.perf_counter() - began) * 1000 - timed.took[query]
        assert answer["source"] == "distilled", answer
        return 0

    return ask


def bare(where: Where) -> Ask:
    """Make one boto3 call with the student's prompt, without reading the reply's text."""
    from distilled_router.task.converse import Prompt, request
    from distilled_router.task.task import Task

    bedrock = where.client(max_pool_connections=max(CONCURRENCY))
    prompt = Prompt.student(Task.load())
    prompt = Prompt(prompt.text, 200)

    def ask(query: str) -> int:
        reply = bedrock.converse(modelId=where.model, **request(prompt, query))
        tokens: int = reply["usage"]["outputTokens"]
        return tokens

    return ask


def samples(where: Where) -> Ask:
    """Call like the AWS routing samples: a client for each call, no cache, an answer in JSON or text."""
    from distilled_router.task.task import Task

    prompt = Task.load().student_prompt

    def ask(query: str) -> int:
        reply = where.client().converse(
            modelId=where.model,
            messages=[{"role": "user", "content": [{"text": f"{prompt}\n\n{query}"}]}],
            inferenceConfig={"maxTokens": 200, "temperature": 0.0},
        )
        text = reply["output"]["message"]["content"][0]["text"]
        try:
            json.loads(text)
        except ValueError:
            text.split()
        tokens: int = reply["usage"]["outputTokens"]
        return tokens

    return ask


def litellm(where: Where) -> Ask:
    """Use LiteLLM's Converse path with a fallback."""
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    import litellm as library  # type: ignore[import-not-found]  # in its own environment

    from distilled_router.task.converse import Prompt
    from distilled_router.task.task import Task

    library.suppress_debug_info = True
    prompt = Prompt.student(Task.load())

    def ask(query: str) -> int:
        reply = library.completion(
            model="bedrock/converse/us.amazon.nova-micro-v1:0",
            model_id=where.model,
            messages=[{"role": "system", "content": prompt.text}, {"role": "user", "content": query}],
            max_tokens=200,
            temperature=0.0,
            fallbacks=["bedrock/converse/us.amazon.nova-lite-v1:0"],
            aws_bedrock_runtime_endpoint=where.url,
            aws_access_key_id="AKIASTANDIN",
            aws_secret_access_key=SECRET,
            aws_region_name=REGION,
            ssl_verify=where.ca_bundle,
        )
        return int(reply.usage.completion_tokens)

    return ask


APPROACHES: Mapping[str, Callable[[Where], Ask]] = {
    "ours": ours,
    "bare": bare,
    "litellm": litellm,
    "samples": samples,
}


# One measurement, in its own process.


def measure(approach: str, where: Where, queries: int, concurrency: int) -> dict[str, Any]:
    """Ask a number of different queries; return their latencies, throughput, CPU time and memory."""
    ask = APPROACHES[approach](where)
    # Metrics and logs are discarded: in Lambda, another process handles them.
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        ThreadPoolExecutor(concurrency) as pool,
    ):
        list(pool.map(lambda n: ask(f"warm {n}"), range(concurrency)))
        numbers = itertools.count()
        cpu, start = time.process_time(), time.perf_counter()
        asked = list(pool.map(lambda n: _caller(ask, numbers, queries, n / concurrency), range(concurrency)))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    took = [one for several in asked for one in several]
    return {
        "ms": [milliseconds for milliseconds, _ in took],
        "overhead": [OVERHEAD[query] for query in OVERHEAD if query.startswith(QUERY)],
        "tokens": max(tokens for _, tokens in took),
        "rate": queries / wall,
        "cpu_ms": cpu / queries * 1000,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _caller(ask: Ask, numbers: Iterator[int], queries: int, delay: float) -> list[tuple[float, int]]:
    """Ask queries one after another; return milliseconds and output tokens of each.

    `delay` is a fraction of the time of an answer: callers start at different times, as requests arrive. If
    all started at once, each would wait for the others with any approach.
    """
    time.sleep(delay * FIRST_TOKEN_MS / 1000)
    took = []
    while (number := next(numbers)) < queries:
        began = time.perf_counter()
        tokens = ask(f"{QUERY} {number}")
        took.append(((time.perf_counter() - began) * 1000, tokens))
    return took


def initialise(approach: str, where: Where) -> dict[str, Any]:
    """Return the CPU milliseconds of an approach's setup; "boto3" is only its import and a client."""
    os.environ |= where.variables
    began = time.process_time()
    if approach == "boto3":
        where.client()
    elif approach == "ours":
        # As in Lambda: it also loads the authorities and opens a connection.
        importlib.import_module("router.handler")
    else:
        APPROACHES[approach](where)
    return {"ms": (time.process_time() - began) * 1000}


# The run.


@contextmanager
def standin() -> Iterator[tuple[Where, Where]]:
    """Run the stand-in with two deployed students: one answers with weights only, one with reasoning."""
    from distilled_router.data.conversation import examples, row
    from distilled_router.task.task import Task
    from local.bedrock import BedrockStandIn, MemoryS3, Settings

    task, s3 = Task.load(), MemoryS3()
    with (PROJECT / "data" / "training.jsonl").open(encoding="utf-8") as lines:
        rows = [row(task, one.query, one.weights) for one in examples(lines, task)][:400]
    short = "".join(f"{json.dumps(one)}\n" for one in rows)
    for one in rows:
        (content,) = one["messages"][1]["content"]
        weights = task.parse(content["text"])
        content["text"] = json.dumps({**weights, "reasoning": REASONING})
    long = "".join(f"{json.dumps(one)}\n" for one in rows)
    settings = Settings(first_token_ms=FIRST_TOKEN_MS, token_ms=1000 / TOKENS_A_SECOND)
    with BedrockStandIn(s3=s3, settings=settings, tls=True) as bedrock:
        found = []
        for name, body in (("short", short), ("long", long)):
            s3.put_object(Bucket="data", Key=f"{name}.jsonl", Body=body)
            found.append(Where(bedrock.endpoint, _student(bedrock, name), bedrock.ca_bundle))
        yield found[0], found[1]


def _student(bedrock: Any, name: str) -> str:
    control, day = bedrock.client("bedrock"), 24 * 3600
    teacher = {"teacherModelIdentifier": "us.amazon.nova-pro-v1:0", "maxResponseLengthForInference": 200}
    control.create_model_customization_job(
        jobName=name,
        customModelName=name,
        roleArn=ROLE,
        baseModelIdentifier="amazon.nova-micro-v1:0:128k",
        customizationType="DISTILLATION",
        customizationConfig={"distillationConfig": {"teacherModelConfig": teacher}},
        trainingDataConfig={"s3Uri": f"s3://data/{name}.jsonl"},
        outputDataConfig={"s3Uri": "s3://data/jobs/"},
    )
    bedrock.advance(day)
    model = control.get_model_customization_job(jobIdentifier=name)["outputModelArn"]
    created = control.create_custom_model_deployment(modelDeploymentName=name, modelArn=model)
    bedrock.advance(day)
    return str(created["customModelDeploymentArn"])


def measure_in_process(python: Path, approach: str, where: Where, *load: int) -> dict[str, Any]:
    """Measure an approach in a new process: its setup, or with `load` its latency.

    `load` is the number of queries and the number of callers in parallel.
    """
    arguments = [approach, where.url, where.model, where.ca_bundle, *map(str, load)]
    done = subprocess.run(  # noqa: S603  # our own program
        [str(python), "-m", "benchmarks.router", "--measure", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{approach} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def with_litellm() -> Path:
    """Return the Python of LiteLLM's environment, created on first use; LiteLLM needs other versions."""
    folder = PROJECT / ".cache" / "benchmark-litellm"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        for requirements in ("lambda/requirements.txt", "benchmarks/requirements.txt"):
            command = [
                *(str(python), "-m", "pip", "install", "-q"),
                *("--require-hashes", "--only-binary", ":all:"),
            ]
            subprocess.run([*command, "-r", str(PROJECT / requirements)], check=True)  # noqa: S603  # our own command
        (folder / ".installed").touch()
    return python


def report(
    found: Mapping[tuple[str, int], Sequence[dict[str, Any]]],
    starts: Mapping[str, Sequence[float]],
    published: Sequence[float],
) -> str:
    """Return the tables of README.md."""
    lines = [
        "| approach | in parallel | p50 ms | p99 ms | more than bare: p50 | p99 | queries/s | CPU ms | MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    tokens = found["bare", 1][0]["tokens"]
    model = FIRST_TOKEN_MS + tokens / TOKENS_A_SECOND * 1000
    for approach, concurrency in found:
        runs = found[approach, concurrency]
        p50, p99 = (_median(_part(run["ms"], part) for run in runs) for part in (0.50, 0.99))
        # Compared within a turn, so that other load on the machine affects both.
        pairs = list(zip(runs, found["bare", concurrency], strict=True))
        overhead = [
            _median(_part(mine["ms"], part) - _part(theirs["ms"], part) for mine, theirs in pairs)
            for part in (0.50, 0.99)
        ]
        shown = ["", ""] if approach == "bare" else [f"{value:+.2f}" for value in overhead]
        lines.append(
            f"| {approach} | {concurrency} | {p50 - model:.2f} | {p99 - model:.2f} | {shown[0]} | "
            f"{shown[1]} | {_median(run['rate'] for run in runs):.0f} | "
            f"{_median(run['cpu_ms'] for run in runs):.2f} | "
            f"{_median(run['megabytes'] for run in runs):.0f} |"
        )
    lines += ["", "| in parallel | the router without its model call: p50 ms | p99 ms |", "|---:|---:|---:|"]
    for concurrency in CONCURRENCY:
        overheads = [run["overhead"] for run in found["ours", concurrency]]
        p50, p99 = (_median(_part(one, part) for one in overheads) for part in (0.50, 0.99))
        lines.append(f"| {concurrency} | {p50:.2f} | {p99:.2f} |")
    lines += ["", "| approach | imports and init without boto3 and its client, CPU ms |", "|---|---:|"]
    for approach in dict.fromkeys(name for name, _ in found):
        # The minimum, because other load on the machine only adds time.
        lines.append(f"| {approach} | {min(starts[approach]) - min(starts['boto3']):.0f} |")
    mine = _median(_part(run["ms"], 0.5) for run in found["ours", 1])
    theirs = _part(published, 0.5)
    lines += [
        "",
        f"End to end, one query at a time: ours {mine:.0f} ms (at most {tokens} output tokens), the "
        f"published student's answer format {theirs:.0f} ms: **{mine / theirs:.2f}**.",
        "",
        f"Python {platform.python_version()}, {platform.machine()}, median of {TURNS} turns.",
    ]
    return "\n".join(lines)


def _part(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def _median(values: Iterator[float] | Sequence[float]) -> float:
    return statistics.median(values)


def main() -> int:
    """Measure all approaches in turns and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--queries",
        type=int,
        default=2000,
        help="queries with 100 callers; a twentieth of them with one caller",
    )
    parser.add_argument("--without", action="append", default=[], choices=APPROACHES)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        approach, url, model, ca_bundle, *load = options.measure
        where = Where(url, model, ca_bundle)
        print(json.dumps(measure(approach, where, *map(int, load)) if load else initialise(approach, where)))
        return 0
    chosen = [name for name in APPROACHES if name not in options.without]
    pythons = {name: Path(sys.executable) for name in chosen}
    if "litellm" in chosen:
        pythons["litellm"] = with_litellm()
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    published: list[float] = []
    starts: dict[str, list[float]] = {}
    with standin() as (student, reasoning):
        for _ in range(STARTS):
            for name in ("boto3", *chosen):
                one = measure_in_process(pythons.get(name, Path(sys.executable)), name, student)
                starts.setdefault(name, []).append(one["ms"])
        for _ in range(TURNS):
            for concurrency in CONCURRENCY:
                queries = options.queries if concurrency > 1 else max(options.queries // 20, 20)
                for name in chosen:
                    one = measure_in_process(pythons[name], name, student, queries, concurrency)
                    found.setdefault((name, concurrency), []).append(one)
            few = max(options.queries // 20, 20)
            run = measure_in_process(Path(sys.executable), "bare", reasoning, few, 1)
            print(f"# the published student's format has {run['tokens']} output tokens", file=sys.stderr)
            published += run["ms"]
    print(report(found, starts, published))
    return 0


if __name__ == "__main__":
    sys.exit(main())
