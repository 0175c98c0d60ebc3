"""The approaches that `benchmarks.router` compares.

Each is set up once per process and returns a function that asks the student one query. All send the student's
prompt as the system prompt, the query as the user's message, the same limit of output tokens, and temperature
0, so that the student writes the same answer for each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.standin import REGION, SECRET, Where

# The most requests in progress at a time, so that none waits for a connection.
CONNECTIONS = 100
MAX_TOKENS = 200


@dataclass(frozen=True)
class Reply:
    """How many tokens the model wrote, if the approach tells, and whether the student answered at all."""

    tokens: int | None = None
    from_student: bool = True


type Ask = Callable[[str], Reply]


def ours(where: Where) -> Ask:
    """Use the whole router, as its function runs it: request, route, cache, budget, validation, metrics.

    Its table is a double with one route.
    """
    from distilled_router.env import RouterEnv
    from distilled_router.release.route import Route, Share
    from distilled_router.task.task import Task
    from router.assembly import make_router, services
    from tests.unit.router.doubles import TableDouble

    env = RouterEnv.read(where.variables)
    bedrock, _ = services(env, where.variables, side_by_side=CONNECTIONS)
    table = TableDouble(Route(1, (Share("aaaaaaaaaaaa", where.model, 1.0),)))
    router = make_router(env, Task.load(), bedrock=bedrock, dynamodb=table)

    def ask(query: str) -> Reply:
        answer = router.handle({"query": query})
        return Reply(from_student=answer["source"] == "distilled")

    return ask


def our_call(where: Where) -> Ask:
    """Make only the router's call to Bedrock: what remains of `ours` is the router's own work."""
    from distilled_router.env import RouterEnv
    from router.assembly import services

    bedrock, _ = services(RouterEnv.read(where.variables), where.variables, side_by_side=CONNECTIONS)
    return _converse(bedrock, where)


def bare(where: Where) -> Ask:
    """Make one boto3 call with one client, without reading the reply's text."""
    return _converse(where.client(max_pool_connections=CONNECTIONS), where)


def sample(where: Where) -> Ask:
    """Call like AWS's routing samples: one client, made at import; no cache; an answer in JSON or in text."""
    from distilled_router.task.task import Task

    bedrock, request = where.client(max_pool_connections=CONNECTIONS), _request()
    labels = Task.load().labels

    def ask(query: str) -> Reply:
        reply = bedrock.converse(modelId=where.model, **request(query))
        text = reply["output"]["message"]["content"][0]["text"]
        try:
            found = json.loads(text)
        except ValueError:
            found = dict(zip(labels, text.split(), strict=False))
        return Reply(reply["usage"]["outputTokens"], bool(found))

    return ask


def litellm(where: Where) -> Ask:
    """Use LiteLLM's Router, which keeps its connections, with a fallback model."""
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    os.environ |= {"SSL_CERT_FILE": where.ca_bundle, "AWS_CA_BUNDLE": where.ca_bundle}
    import litellm as library  # type: ignore[import-not-found]  # in its own environment

    from distilled_router.task.converse import Prompt
    from distilled_router.task.task import Task

    library.suppress_debug_info = True
    library.ssl_verify = where.ca_bundle
    system = Prompt.student(Task.load()).text
    access = {
        "aws_bedrock_runtime_endpoint": where.url,
        "aws_access_key_id": "AKIASTANDIN",
        "aws_secret_access_key": SECRET,
        "aws_region_name": REGION,
    }
    student = {"model": "bedrock/converse/us.amazon.nova-micro-v1:0", "model_id": where.model, **access}
    base = {"model": "bedrock/converse/us.amazon.nova-lite-v1:0", **access}
    router = library.Router(
        model_list=[
            {"model_name": "student", "litellm_params": student},
            {"model_name": "base", "litellm_params": base},
        ],
        fallbacks=[{"student": ["base"]}],
        num_retries=0,
    )

    def ask(query: str) -> Reply:
        reply = router.completion(
            model="student",
            messages=[{"role": "system", "content": system}, {"role": "user", "content": query}],
            max_tokens=MAX_TOKENS,
            temperature=0.0,
        )
        return Reply(int(reply.usage.completion_tokens), "lite-v1" not in str(reply.model))

    return ask


APPROACHES: Mapping[str, Callable[[Where], Ask]] = {
    "ours": ours,
    "our-call": our_call,
    "bare": bare,
    "sample": sample,
    "litellm": litellm,
}


def _converse(bedrock: Any, where: Where) -> Ask:
    request = _request()

    def ask(query: str) -> Reply:
        reply = bedrock.converse(modelId=where.model, **request(query))
        return Reply(reply["usage"]["outputTokens"])

    return ask


def _request() -> Callable[[str], dict[str, Any]]:
    from distilled_router.task.converse import Prompt, request
    from distilled_router.task.task import Task

    prompt = Prompt(Prompt.student(Task.load()).text, MAX_TOKENS)
    return lambda query: request(prompt, query)
