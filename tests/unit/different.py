"""Queries that are not similar to each other."""

from __future__ import annotations

from random import Random


def different(count: int, seed: int = 17) -> list[str]:
    """Return queries of four random words each, which share no word and no template."""
    chance = Random(seed)
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    return [
        " ".join("".join(chance.choices(syllables, k=chance.randint(3, 4))) for _ in range(4))
        for _ in range(count)
    ]
