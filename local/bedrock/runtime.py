"""Converse and InvokeModel."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local.bedrock import invocation_logs, rules
from local.bedrock.account import Account, Parameters, Result
from local.bedrock.catalogue import INVALID_MODEL, FoundationModel
from local.bedrock.errors import ServiceError, invalid, not_found
from local.bedrock.faults import CALL_ERRORS, OUTPUT_KINDS
from local.bedrock.malformed import RESHAPE, SPOIL
from local.bedrock.student import Student
from local.bedrock.tokens import count, cut

#: Nova's temperature if a request sets none.
DEFAULT_TEMPERATURE = 0.7
_NOISE = {"micro": 0.3, "lite": 0.15}
_SAMPLING_NOISE = 0.2


@dataclass(frozen=True)
class Target:
    """The model to invoke: a student, or a foundation model with the noise for its size."""

    student: Student | None
    noise: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A model's answer; `fault` is the kind of an injected fault, or empty."""

    text: str
    stop_reason: str
    input_tokens: int
    output_tokens: int
    fault: str = ""

    def body(self) -> Result:
        """Return the common part of Converse and Nova's InvokeModel bodies, reshaped by an injected fault."""
        body: Result = {
            "output": {"message": {"role": "assistant", "content": [{"text": self.text}]}},
            "stopReason": self.stop_reason,
            "usage": {
                "inputTokens": self.input_tokens,
                "outputTokens": self.output_tokens,
                "totalTokens": self.input_tokens + self.output_tokens,
            },
        }
        return RESHAPE[self.fault](body) if self.fault in RESHAPE else body


def resolve(account: Account, identifier: str) -> Target:
    """Return the model that an identifier invokes; raise Bedrock's error if it can't be invoked."""
    if ":custom-model-deployment/" in identifier:
        return _deployed(account, identifier)
    if ":provisioned-model/" in identifier:
        return _provisioned(account, identifier)
    if ":custom-model/" in identifier:
        raise invalid(
            f"{INVALID_MODEL} Invoke a custom model by the ARN of its deployment or provisioned model."
        )
    model = account.catalogue.profile_model(identifier)
    if model is None:
        model = account.catalogue.find(identifier)
        if model is not None and model.inference == ("PROVISIONED",):
            # Context-suffixed ids are for customization and Provisioned Throughput only.
            raise not_found("Model not found.")
        if model is not None and "ON_DEMAND" not in model.inference and not model.ended(account.clock.now()):
            raise invalid(
                f"Invocation of model ID {model.id} with on-demand throughput isn't supported. Retry your "
                "request with the ID or ARN of an inference profile that contains this model."
            )
    if model is None or model.ended(account.clock.now()):
        raise invalid(INVALID_MODEL)
    return _foundation(model)


def _foundation(model: FoundationModel) -> Target:
    return Target(None, next((noise for size, noise in _NOISE.items() if size in model.id), 0.0))


def _model(account: Account, arn: str) -> Target:
    custom = account.models.get(arn)
    if custom is not None:
        return Target(custom.student)
    model = account.catalogue.find(arn)
    if model is None:
        raise not_found(f"The model {arn} could not be found.")
    return _foundation(model)


def _deployed(account: Account, arn: str) -> Target:
    deployment = account.deployments.get(arn)
    if deployment is None:
        raise not_found(f"The custom model deployment {arn} could not be found.")
    deployment.settle(account.clock.now())
    if deployment.status == "Creating":
        raise ServiceError("ModelNotReadyException", "The model is not ready to serve inference requests.")
    if deployment.status == "Failed":
        raise invalid(f"The custom model deployment {arn} has failed and can't be invoked.")
    return _model(account, deployment.model)


def _provisioned(account: Account, arn: str) -> Target:
    throughput = account.throughputs.get(arn)
    if throughput is None:
        raise not_found(f"The provisioned model {arn} could not be found.")
    throughput.settle(account.clock.now())
    if throughput.status == "Creating":
        raise ServiceError("ModelNotReadyException", "The model is not ready to serve inference requests.")
    if throughput.status == "Failed":
        raise invalid(f"The provisioned model {arn} has failed and can't be invoked.")
    return _model(account, throughput.model)


def ask(account: Account, model_id: str, target: Target, request: Mapping[str, Any]) -> Answer:
    """Return a model's answer to a request in the format of Converse, without the configured delays."""
    system = "\n".join(_text(block) for block in request.get("system", ()))
    prompt = _last_prompt(request.get("messages"))
    config = request.get("inferenceConfig", {})
    if target.student is not None:
        text = target.student.answer(system, prompt)
    else:
        text = _by_rules(
            account, model_id, target, system, prompt, config.get("temperature", DEFAULT_TEMPERATURE)
        )
    fault = account.faults.take(*OUTPUT_KINDS, models=account.names_of_model(model_id))
    kind = fault.kind if fault else ""
    if kind in SPOIL:
        text = SPOIL[kind](text)
    stop_reason = "end_turn"
    for sequence in config.get("stopSequences", ()):
        if sequence in text:
            text, stop_reason = text.partition(sequence)[0], "stop_sequence"
    if "maxTokens" in config:
        text, shortened = cut(text, config["maxTokens"])
        stop_reason = "max_tokens" if shortened else stop_reason
    given = system + "".join(_text(block) for message in request["messages"] for block in message["content"])
    return Answer(text, stop_reason, count(given), count(text), kind)


def _by_rules(
    account: Account, model_id: str, target: Target, system: str, prompt: str, temperature: float
) -> str:
    if temperature <= 0:
        return rules.answer(system, prompt, noise=target.noise)
    key = hashlib.sha256(f"{model_id}\0{system}\0{prompt}".encode()).hexdigest()
    with account.lock:
        seed = account.repeats[key] = account.repeats.get(key, 0) + 1
    return rules.answer(system, prompt, noise=max(target.noise, _SAMPLING_NOISE), seed=seed)


def _last_prompt(messages: Any) -> str:
    if not isinstance(messages, list) or not messages:
        raise invalid("The messages field must hold at least one message.")
    for index, message in enumerate(messages):
        if (
            not isinstance(message, dict)
            or not isinstance(message.get("content"), list)
            or not message["content"]
        ):
            raise invalid("The content field of a message must hold at least one block.")
        if message.get("role") != ("user", "assistant")[index % 2]:
            raise invalid("A conversation must start with a user message, and roles must alternate.")
    texts: Sequence[str] = [_text(block) for block in messages[-1]["content"]]
    if messages[-1]["role"] != "user":
        raise invalid("A conversation must end with a user message.")
    if not any(text.strip() for text in texts):
        raise invalid("The text field in a content block must not be blank.")
    return "\n".join(texts)


def _text(block: Any) -> str:
    text = block.get("text") if isinstance(block, dict) else None
    if not isinstance(text, str):
        raise invalid("This model takes text content only.")
    return text


def _take_from_quota(account: Account, model_id: str) -> None:
    """Raise ThrottlingException if a minute's requests of a model are used up."""
    quota = account.settings.quotas.requests_per_minute
    if quota is None:
        return
    now = time.monotonic()
    left, since = account.left.get(model_id, (quota, now))
    left = min(left + (now - since) * quota / 60, quota)
    if left < 1:
        raise ServiceError(*CALL_ERRORS["throttled"])
    account.left[model_id] = left - 1, now


def _logged(
    account: Account, operation: str, parameters: Parameters, request: Any, answer: Callable[[], Result]
) -> Result:
    """Return an answer, and log the call if the account does so."""
    try:
        body = answer()
    except ServiceError as error:
        invocation_logs.write(account, operation, parameters, request, None, error.code)
        raise
    invocation_logs.write(account, operation, parameters, request, body)
    return body


def _answered(account: Account, model_id: str, request: Mapping[str, Any]) -> Answer:
    with account.lock:
        target = resolve(account, model_id)
        _take_from_quota(account, model_id)
    answer = ask(account, model_id, target, request)
    settings = account.settings
    delay = (settings.first_token_ms + settings.token_ms * answer.output_tokens) / 1000
    if delay:
        time.sleep(delay)
    return answer


def converse(account: Account, parameters: Parameters) -> Result:
    """Handle Converse."""
    began = time.perf_counter()
    if "toolConfig" in parameters or "guardrailConfig" in parameters:
        raise invalid("This stand-in models neither tools nor guardrails.")
    apart = {"modelId", "requestMetadata"}
    request = {name: value for name, value in parameters.items() if name not in apart}

    def answer() -> Result:
        answered = _answered(account, parameters["modelId"], parameters)
        return {**answered.body(), "metrics": {"latencyMs": round((time.perf_counter() - began) * 1000)}}

    return _logged(account, "Converse", parameters, request, answer)


def native_request(body: Any) -> Mapping[str, Any]:
    """Return a Nova InvokeModel body as a Converse request."""
    if not isinstance(body, dict):
        raise invalid("Malformed input request: the body must be a JSON object.")
    unknown = sorted(body.keys() - {"schemaVersion", "messages", "system", "inferenceConfig"})
    if unknown:
        raise invalid(f"Malformed input request: extraneous keys {unknown} are not permitted.")
    config = dict(body.get("inferenceConfig", {}))
    if "max_new_tokens" in config:
        config["maxTokens"] = config.pop("max_new_tokens")
    return {**body, "inferenceConfig": config}


def invoke_model(account: Account, parameters: Parameters) -> Result:
    """Handle InvokeModel with Nova's body."""
    try:
        body = json.loads(parameters.get("body", b""))
    except ValueError:
        raise invalid("Malformed input request: the body is not valid JSON.") from None

    def answer() -> Result:
        return _answered(account, parameters["modelId"], native_request(body)).body()

    found = _logged(account, "InvokeModel", parameters, body, answer)
    return {"body": json.dumps(found).encode(), "contentType": "application/json"}
