"""Find short queries that are near duplicates or share a template, which hold-out and training must not.

Two queries are near duplicates if they share three quarters of their words (Jaccard index of the two sets),
ignoring order, a plural's `s` and function words. So "a red car at night" and "the night, red cars" are near
duplicates, and "a blue car at night" is not one of either.
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Self

from distilled_router.data.conversation import normalised

# Near duplicates share three of four words.
_SHARED, _OF = 3, 4
# Dropping one never reverses a query's meaning, as it would for "not", "without", "up" or "from".
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\S+",
        "a an and are as at be by for her his in is it its of on or that the their this to was were with",
    )
)
# Han, kana and Hangul are written without spaces, so each character counts as a word.
_CHARACTER_WORDS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

# A template is a phrase of this many words that at least this many queries share, with at most one masked
# word and at least one that is not a function word. A phrase that a larger part of all queries shares is
# common wording.
_TEMPLATE_QUERIES = 3
_TEMPLATE_WORDS = 3
_MOST_OF_ALL = 0.25
_MASK = "_"
_QUOTED = re.compile(
    '"[^"]{1,300}"|\u201c[^\u201d]{1,300}\u201d|\u201e[^\u201c]{1,300}\u201c|\u00ab[^\u00bb]{1,300}\u00bb'
)


class Neighbours:
    """Finds near duplicates among queries without comparing all pairs.

    Two sets that share three quarters of their words have a common word among the rarest quarter of each,
    plus one word (prefix filtering: Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", 2007).
    So only these words are indexed, and only queries that share one of them are compared.

    `are_normalised` says that all queries are normalised already, which saves time.

    Example:
        >>> near = Neighbours(["a red car at night", "rain on a tin roof"])
        >>> near.nearest("the rain on tin roofs")
        1
    """

    def __init__(self, queries: Iterable[str] = (), *, are_normalised: bool = False) -> None:
        self._form = str if are_normalised else normalised
        self._stems = _Stems()
        self._words: list[tuple[str, ...]] = []
        self._ranks = _Ranks()
        self._ranked = self._indexed = 0
        self._by_rare_word: dict[str, list[int]] = {}
        for query in queries:
            self.add(query)

    def add(self, query: str) -> None:
        """Add a query. Its index is the number of queries before it."""
        self._words.append(tuple(self._stems.of(self._form(query))))

    def nearest(self, query: str) -> int | None:
        """Return the index of the nearest near duplicate of a query, the first of equal ones, or None."""
        found = self.near(query)
        return max(found, key=lambda index: (found[index], -index)) if found else None

    def near(self, query: str) -> dict[int, float]:
        """Return the shared part of the words for each near duplicate of a query, by index."""
        if self._indexed < len(self._words):
            self._index()
        words = self._stems.of(self._form(query))
        found: dict[int, float] = {}
        if self._by_rare_word.keys().isdisjoint(words):
            return found
        for word in self._rarest(words):
            for index in self._by_rare_word.get(word, ()):
                other = self._words[index]
                common = len(words.intersection(other))
                together = len(words) + len(other) - common
                if _OF * common >= _SHARED * together:
                    found[index] = common / together
        return found

    def _index(self) -> None:
        """Index the added queries.

        Any order of the words gives the right results, if all queries use the same. It is computed again as
        queries are added, since a search is slow in an order without their frequencies.
        """
        if len(self._words) > 2 * self._ranked:
            self._ranks = _Ranks.of(Counter(chain.from_iterable(self._words)))
            self._ranked, self._indexed = len(self._words), 0
            self._by_rare_word.clear()
        for index in range(self._indexed, len(self._words)):
            for word in self._rarest(self._words[index]):
                if word in self._by_rare_word:
                    self._by_rare_word[word].append(index)
                else:
                    self._by_rare_word[word] = [index]
        self._indexed = len(self._words)

    def _rarest(self, words: Collection[str]) -> list[str]:
        """Return the rarest words, one more than a near duplicate can lack."""
        may_lack = (_OF - _SHARED) * len(words) // _OF
        return sorted(words, key=self._ranks.__getitem__)[: may_lack + 1]


def families(queries: Sequence[str]) -> list[int]:
    """Return the number of each query's family, in the order of first appearance.

    A group is a set of near duplicates, or of queries that differ only in numbers, quoted phrases and names.
    A family is a group, or all groups with the same template: a phrase of three words. A group with several
    templates belongs to the one that most groups share, so no chain of templates joins everything.
    """
    groups = _Groups(len(queries))
    near = Neighbours(queries)
    for index, query in enumerate(queries):
        for other in near.near(query):
            groups.join(index, other)
    masked = list(_masked(queries))
    first: dict[tuple[str, ...], int] = {}
    for index, words in enumerate(masked):
        if _MASK in words and len(words) - words.count(_MASK) >= 2 and _has_meaning(words):
            groups.join(index, first.setdefault(tuple(words), index))
    roots = [groups.root(index) for index in range(len(queries))]
    templates = _templates(masked, roots)
    numbers: dict[object, int] = {}
    return [numbers.setdefault(templates.get(root, root), len(numbers)) for root in roots]


def _templates(masked: Sequence[list[str]], roots: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Return the template of each group that has one, by the group's root."""
    sizes = Counter(roots)
    frequencies = Counter(chain.from_iterable(map(set, masked)))
    sharing: defaultdict[tuple[str, ...], set[int]] = defaultdict(set)
    for words, root in zip(masked, roots, strict=True):
        common = [word if frequencies[word] >= _TEMPLATE_QUERIES else "" for word in words]
        for start in range(len(common) - _TEMPLATE_WORDS + 1):
            phrase = tuple(common[start : start + _TEMPLATE_WORDS])
            if "" not in phrase and phrase.count(_MASK) < 2 and _has_meaning(phrase):
                sharing[phrase].add(root)
    most = max(_TEMPLATE_QUERIES, _MOST_OF_ALL * len(roots))
    waiting = [
        (-len(found), phrase)
        for phrase, found in sharing.items()
        if len(found) >= _TEMPLATE_QUERIES and sum(sizes[root] for root in found) <= most
    ]
    heapq.heapify(waiting)
    chosen: dict[int, tuple[str, ...]] = {}
    while waiting:
        count, phrase = heapq.heappop(waiting)
        left = [root for root in sharing[phrase] if root not in chosen]
        if len(left) < _TEMPLATE_QUERIES:
            continue
        if len(left) < -count:
            heapq.heappush(waiting, (-len(left), phrase))  # others took some groups: queued again
        else:
            chosen.update(dict.fromkeys(left, phrase))
    return chosen


def _masked(queries: Sequence[str]) -> Iterator[list[str]]:
    """Yield the words of each query, with one mask for consecutive quoted phrases, numbers and names."""
    names = _names(queries)
    for query in queries:
        words: list[str] = []
        for part in _QUOTED.sub(f" {_MASK} ", query).split():
            may_be_name = _is_capital(part)
            for word in normalised(part).split():
                is_name = may_be_name and word in names
                if not is_name and word != _MASK and not any(map(str.isdigit, word)):
                    words.append(word)
                elif words[-1:] != [_MASK]:
                    words.append(_MASK)
        yield words


def _names(queries: Sequence[str]) -> Collection[str]:
    """Return the words that are mostly capitalised, ignoring each query's first word.

    The result is empty if most words are capitalised, since capitals mean nothing then.
    """
    capital: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for query in queries:
        for part in _QUOTED.sub(" ", query).split()[1:]:
            counter = capital if _is_capital(part) else small
            counter.update(normalised(part).split())
    if capital.total() > small.total():
        return ()
    return {word for word, count in capital.items() if count > small[word]}


def _is_capital(word: str) -> bool:
    return word.lstrip("\"'([{")[:1].isupper()


def _has_meaning(words: Iterable[str]) -> bool:
    return any(word != _MASK and word not in _FUNCTION_WORDS for word in words)


class _Stems(dict[str, str]):
    """The stem of each word, without a plural's `s`; empty for function words. Each is computed once."""

    def __missing__(self, word: str) -> str:
        is_plural = len(word) > 3 and word[-1] == "s" and word[-2] != "s"
        self[word] = stem = "" if word in _FUNCTION_WORDS else word[:-1] if is_plural else word
        return stem

    def of(self, form: str) -> set[str]:
        """Return the stems of a normalised query, or all its words if it has only function words."""
        if not form.isascii():
            form = _CHARACTER_WORDS.sub(r" \g<0> ", form)
        words = form.split()
        stems = set(map(self.__getitem__, words))
        stems.discard("")
        return stems or set(words)


class _Ranks(dict[str, int]):
    """The positions of words in an order from rare to frequent; a new word is the rarest."""

    @classmethod
    def of(cls, frequencies: Counter[str]) -> Self:
        """Return the order by frequency, then by spelling."""
        ordered = sorted(frequencies, key=lambda word: (frequencies[word], word))
        return cls((word, place) for place, word in enumerate(ordered))

    def __missing__(self, word: str) -> int:
        self[word] = place = -1 - len(self)
        return place


class _Groups:
    """Disjoint groups of numbers. A group's root is its smallest number."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low
