"""Keyword rules by which the stand-in's teacher and base models answer.

The system prompt sets the labels (those of its JSON example, or those that it names) and the format: JSON, or
whole percents if the prompt shows that compact format. A large model follows the rules exactly, a small one
with some deterministic noise.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

_LISTS: Mapping[str, str] = {
    "visual": "see shows shown showing looks wearing red blue green white black yellow car dress shirt "
    "scene camera close-up holding standing walking running sitting picture view sunset beach "
    "mountain dog cat face smiles opens door table hand picks puts turns enters walks drives "
    "jumps appears screen color aerial shot",
    "audio": "sound sounds noise music song loud barking barks singing sings applause laughter siren "
    "engine horn thunder whistle explosion bang rain hum beeps ringing crying drum guitar hear "
    "heard audio cheering snoring buzzing rustling quacking clicks",
    "transcription": "says say said saying tells talks talking speech quote quotes mentions mentioned "
    "explains explaining discusses discussing discussion interview debate asks dialogue narration "
    "announces lecture conversation words line presentation speaker shares phrase",
    "metadata": "movie film show series episode title titled album trailer video clip season year genre "
    "documentary director actor starring channel published uploaded 2018 2019 2020 2021 2022 2023 "
    "2024 find named called playlist comedy news interview game book",
}
_KEYWORDS = {label: frozenset(words.split()) for label, words in _LISTS.items()}
_PRIOR: Mapping[str, float] = {"visual": 0.4, "audio": 0.1, "transcription": 0.15, "metadata": 0.1}
_OTHER_PRIOR = 0.2
_HIT = 1.0
_PROSE_KEYS = ("reasoning", "reason", "explanation", "confidence_note", "rationale")
# Weights are multiples of 1/20.
_STEPS = 20


def answer(system: str, prompt: str, *, noise: float = 0.0, seed: int = 0) -> str:
    """Return a model's answer to a prompt.

    Args:
        system: the system prompt, which sets labels and format.
        prompt: the user's message.
        noise: the probability that some weight moves from one label to another.
        seed: changes the noise, for repeated requests at a temperature above 0.
    """
    labels = labels_of(system)
    if not labels:
        return "I'm not sure which labels you would like me to weigh. Could you say more about what you need?"
    steps = _noisy(_steps(labels, prompt, _guidelines(system, tuple(labels))), prompt, noise, seed)
    if wants_compact(system, len(labels)):
        return " ".join(str(step * 100 // _STEPS) for step in steps)
    result: dict[str, float | str] = {label: step / _STEPS for label, step in zip(labels, steps, strict=True)}
    for key in _PROSE_KEYS:
        if f'"{key}"' in system or re.search(rf"\b(?:and|with) {key}\b", system):
            result[key] = f"The request is mostly about {labels[steps.index(max(steps))]}."
    return json.dumps(result)


def labels_of(system: str) -> list[str]:
    """Return the labels that a system prompt asks weights for, in its order."""
    for block in re.findall(r"\{[^{}]*\}", system):
        keys = [key for key in re.findall(r'"([^"\n]+)"\s*:', block) if key.lower() not in _PROSE_KEYS]
        if keys:
            return list(dict.fromkeys(keys))
    found = {name: match.start() for name in _KEYWORDS if (match := re.search(rf"\b{name}\b", system, re.I))}
    return sorted(found, key=found.__getitem__)


def wants_compact(system: str, labels: int) -> bool:
    """Return whether a system prompt shows or names the compact format: whole percents in label order."""
    if re.search(r'\{[^{}]*"[^"\n]+"\s*:', system):
        return False
    row = rf"(?<![\d.])\d{{1,3}}(?: \d{{1,3}}){{{labels - 1}}}(?![\d.])"
    shown = any(sum(map(int, text.split())) == 100 for text in re.findall(row, system))
    named = re.search(r"\b(percent|percents|percentages|integers|whole numbers)\b", system, re.I)
    return shown or ("json" not in system.lower() and named is not None)


@lru_cache(maxsize=64)
def _guidelines(system: str, labels: tuple[str, ...]) -> dict[str, set[str]]:
    """Return, for each label, the words of the system prompt's line about it."""
    found = {}
    for label in labels:
        match = re.search(rf"^\W*{re.escape(label)}\W*\s*[:=-]\s*([^\n\d{{}}]+)$", system, re.I | re.M)
        found[label] = _words(match.group(1)) if match else set()
    return found


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z0-9-]+", text.lower()) if len(word) > 3 or word.isdigit()}


def _steps(labels: Sequence[str], prompt: str, guidelines: Mapping[str, set[str]]) -> list[int]:
    words = set(re.findall(r"[a-z0-9-]+", prompt.lower()))
    names = len(re.findall(r"(?<!^)\b[A-Z][a-z]+", prompt))
    scores = []
    for label in labels:
        known = _KEYWORDS.get(label.lower(), frozenset())
        hits = len(words & known) + 0.5 * len(words & (guidelines[label] - known))
        if label.lower() == "metadata":
            hits += min(names, 3) * 0.6
        scores.append(_PRIOR.get(label.lower(), _OTHER_PRIOR) + _HIT * hits)
    return largest_remainder(scores, _STEPS)


def largest_remainder(scores: Iterable[float], steps: int) -> list[int]:
    """Return whole numbers in proportion to the scores; they add up to `steps`."""
    values = list(scores)
    exact = [value * steps / sum(values) for value in values]
    units = [int(value) for value in exact]
    for index in sorted(range(len(exact)), key=lambda i: units[i] - exact[i])[: steps - sum(units)]:
        units[index] += 1
    return units


def _noisy(steps: list[int], prompt: str, noise: float, seed: int) -> list[int]:
    digest = hashlib.sha256(f"{seed}:{prompt}".encode()).digest()
    if len(steps) < 2 or digest[0] / 256 >= noise:
        return steps
    giver = max(range(len(steps)), key=steps.__getitem__)
    taker = (giver + 1 + digest[1] % (len(steps) - 1)) % len(steps)
    moved = 2 + 2 * (digest[2] % 2)
    changed = list(steps)
    changed[giver] -= moved
    changed[taker] += moved
    return changed
