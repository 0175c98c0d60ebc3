"""Find how a word may have been meant, if one letter of it is wrong."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from distilled_router.data.wording import COMMON_WORDS, is_written_without_spaces

# A known word occurs this often, or is common in English.
_KNOWN = 2
# Among so many uses of a word, some are misspelled alike: a word may be a typo of one that is so many times
# as frequent, although it is known.
_FREQUENT, _TIMES = 20, 50
# Two unknown words that are shorter may be anything.
_LEAST_LETTERS = 4
# Of more different words, only the most frequent ones are compared. Each takes a kilobyte, since longer ones,
# such as addresses or text without spaces, are compared as they are.
_MOST_WORDS = 200_000
_MOST_LETTERS = 30


class Spelling:
    """Words of all queries, to find pairs that one wrong, missing, additional or exchanged letter explains.

    "talking" and "walking" are one letter apart, and different words. So two known words are not each other's
    typos, unless one is far more frequent.
    """

    def __init__(self, frequencies: Counter[str]) -> None:
        self._frequencies = frequencies
        self._by_rest: dict[str, list[str]] = {}
        by_frequency = sorted(frequencies, key=lambda word: (-frequencies[word], word))
        for word in by_frequency[:_MOST_WORDS]:
            if _has_spelling(word):
                for rest in _rests(word):
                    self._by_rest.setdefault(rest, []).append(word)
        self._meant_by = cache(self._meant)

    def texts(self, words: Sequence[str]) -> Iterator[str]:
        """Yield the letters of words, without spaces, as they may have been meant."""
        text, start = "".join(words), 0
        for place, word in enumerate(words):
            before, after = text[:start], text[start + len(word) :]
            for meant in self._meant_by(word):
                yield before + meant + after
            if len(word) > _LEAST_LETTERS and not self._is_known(word) and _has_spelling(word):
                for letter in range(1, len(word) - 1):  # in the place of a space
                    yield before + word[:letter] + word[letter + 1 :] + after
            if place + 1 < len(words):
                following = words[place + 1]
                for meant in self._meant(word + following):
                    yield before + meant + after[len(following) :]
            start += len(word)

    def _meant(self, word: str) -> list[str]:
        """Return the indexed words that are this word with one typo, or whose typo this word is."""
        if not _has_spelling(word):
            return []
        found = dict.fromkeys(other for rest in _rests(word) for other in self._by_rest.get(rest, ()))
        return [other for other in found if other != word and self._is_typo(word, other)]

    def _is_typo(self, one: str, other: str) -> bool:
        if one in COMMON_WORDS and other in COMMON_WORDS:
            return False
        rare, frequent = sorted((self._frequencies[one], self._frequencies[other]))
        known = self._is_known(one) + self._is_known(other)
        if known > 1 and (frequent < _FREQUENT or rare * _TIMES > frequent):
            return False
        return (known > 0 or max(len(one), len(other)) >= _LEAST_LETTERS) and is_one_edit(one, other)

    def _is_known(self, word: str) -> bool:
        return self._frequencies[word] >= _KNOWN or word in COMMON_WORDS


def is_one_edit(one: str, other: str) -> bool:
    """Return whether one letter is wrong, missing, additional or exchanged with the next."""
    short, long = sorted((one, other), key=len)
    start = 0
    while start < len(short) and short[start] == long[start]:
        start += 1
    if len(long) > len(short):
        return len(long) == len(short) + 1 and short[start:] == long[start + 1 :]
    if short[start + 1 :] == long[start + 1 :]:
        return True
    exchanged = short[start + 1 : start + 2] + short[start : start + 1]
    return long[start : start + 2] == exchanged and short[start + 2 :] == long[start + 2 :]


def _has_spelling(word: str) -> bool:
    return (
        0 < len(word) <= _MOST_LETTERS
        and not any(map(str.isdigit, word))
        and not is_written_without_spaces(word)
    )


def _rests(word: str) -> set[str]:
    """Return the word, and the word without each letter. Words that are one edit apart have one in common."""
    return {word, *(word[:place] + word[place + 1 :] for place in range(len(word)))}
