"""Find near duplicates and queries of one template, which must not be in both hold-out and training.

Two queries are near duplicates if
- they share three quarters of their words (Jaccard index of the two sets), ignoring order, a plural's `s`,
  function words, and words around the query that only ask for it, such as "show me";
- or one letter or space explains the difference (`spelling`);
- or one contains the other, and has few words more.

So "a red car at night", "the night, red cars" and "show me a red car at nigt" are near duplicates. "A blue
car at night" is not one of them, and neither is a query with another number of negations.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import reduce
from itertools import accumulate, chain, islice
from operator import and_, or_
from sys import intern
from typing import NamedTuple, Self

from distilled_router.data.conversation import normalised
from distilled_router.data.spelling import Spelling
from distilled_router.data.templates import with_templates
from distilled_router.data.word_sets import WordSets, bits_of, places_of, share
from distilled_router.data.wording import (
    ASKING,
    OPPOSITES,
    Stems,
    negations,
    with_letters,
    without_request,
    words_of,
)

# In longer queries, one wrong word leaves three quarters of the words.
_MOST_WORDS = 24
# A query of one short word is another query with another letter.
_LEAST_LETTERS = 10
# A contained query has at least so many different words and letters.
_LEAST_CONTAINED = 2, 10
# With fewer, "a dog barks" is a part of many scenes. It counts if few other queries contain it: then words
# around it are more likely a phrase than a scene.
_LEAST_OF_A_SCENE = 3, 16
_FEW_CONTAINING = 4
_MOST_AROUND = 3
# More words around it are a phrase if they ask, as in "do you have anything with", but for so many.
_MOST_ASKING, _MOST_OTHERS = 6, 2
# So many queries that have all words of a query, and more, are compared with it letter by letter.
_MOST_CONTAINING = 100
_ALL_OPPOSITES = frozenset[str]().union(*OPPOSITES)


class _Query(NamedTuple):
    """A query as it is compared.

    Attributes:
        wordings: its words, and those without what only asks for them if that is less. None of a long query.
        texts: the letters of the wordings, without spaces and hyphens.
        stems: those of the last wording, each once.
        negations: their number.
    """

    wordings: Sequence[Sequence[str]]
    texts: Sequence[str]
    stems: Collection[str]
    negations: int

    @classmethod
    def of(cls, form: str, stems: Stems) -> Self:
        """Read a normalised query."""
        words = words_of(form)
        core = without_request(words)
        wordings = [words] if len(core) == len(words) else [words, core]
        return cls(
            [] if len(words) > _MOST_WORDS else [_spelled(wording) for wording in wordings],
            ["".join(_spelled(wording)) for wording in wordings],
            tuple(stems.of(core if form.isascii() else list(with_letters(core)))),
            negations(words),
        )

    def contained(self) -> Iterator[tuple[str, bool]]:
        """Yield the texts of queries that this one contains, with few words around, and which are short."""
        least, letters = _LEAST_CONTAINED
        for words in self.wordings[:1]:
            others = list(accumulate((word not in ASKING for word in words), initial=0))
            for around in range(1, min(_MOST_ASKING, len(words) - least) + 1):
                for start in range(around + 1):
                    end = len(words) - around + start
                    if around > _MOST_AROUND and others[start] + others[-1] - others[end] > _MOST_OTHERS:
                        continue
                    inner = words[start:end]
                    text = "".join(inner)
                    if len(text) >= letters and len(set(inner)) >= least:
                        yield text, _is_short(inner, text)

    def respelled(self, spelling: Spelling) -> Iterator[str]:
        """Yield the texts that differ from this query's in one letter or space."""
        for words in self.wordings:
            if len(self.stems) > 1 or sum(map(len, words)) >= _LEAST_LETTERS:
                yield from spelling.texts(words)


def _is_short(words: Collection[str], text: str) -> bool:
    """Return whether a contained query may be a part of many scenes."""
    least, letters = _LEAST_OF_A_SCENE
    return len(text) < letters or len(set(words)) < least


def _spelled(words: Sequence[str]) -> Sequence[str]:
    """Return words without hyphens. Equal words are the same object, which saves memory."""
    return [intern(word.replace("-", "")) for word in words]


class _Index:
    """An index of normalised queries by their words and by their letters."""

    def __init__(self, forms: Sequence[str], *, least: int = 1) -> None:
        self.forms = forms
        self._stems = Stems()
        # The first query with these letters, by the number of negations.
        self._by_text: dict[int, dict[str, int]] = {}
        words, negated = Counter[str](), defaultdict[int, set[int]](set)
        for index, query in enumerate(map(self.read, forms)):
            for text in query.texts:
                self._by_text.setdefault(query.negations, {}).setdefault(text, index)
            words.update(chain.from_iterable(query.wordings[:1]))
            negated[query.negations].add(index)
        self.sets = WordSets(_StemsOf(self), least=least, always=_ALL_OPPOSITES)
        self._spelling = Spelling(words)
        self._negated = {
            count: bits_of(
                [place for place, index in enumerate(self.sets.order) if index in some], len(forms)
            )
            for count, some in negated.items()
        }

        self._common = self._contained_often()

    def _contained_often(self) -> dict[int, set[str]]:
        """Return the texts of short queries that more than a few contain, by the number of negations."""
        counts: dict[int, Counter[str]] = defaultdict(Counter)
        for query in map(self.read, self.forms):
            if known := self._by_text.get(query.negations):
                found = {text for text, is_short in query.contained() if is_short and text in known}
                counts[query.negations].update(found)
        return {
            negated: {text for text, count in each.items() if count > _FEW_CONTAINING}
            for negated, each in counts.items()
        }

    def read(self, form: str) -> _Query:
        """Return a normalised query as it is compared."""
        return _Query.of(form, self._stems)

    def share(self, query: _Query, place: int) -> tuple[int, float]:
        """Return the index of a set of words, and the part of its words that a query shares."""
        index = self.sets.order[place]
        return index, share(query.stems, self.read(self.forms[index]).stems)

    def like(self, query: _Query) -> int:
        """Return the sets that can mean the same: with as many negations, and no opposites."""
        found = self._negated.get(query.negations, 0)
        for group in OPPOSITES:
            if mine := group.intersection(query.stems):
                others = reduce(or_, map(self.sets.bits, group - mine), 0)
                same = reduce(and_, map(self.sets.bits, mine))
                found ^= found & (others ^ (others & same))
        return found

    def spelled(self, query: _Query) -> dict[int, float]:
        """Return the near duplicates by their letters, with the part of the letters that both have."""
        found = {}
        for index in (*self.spelled_like(query), *self._containing(query)):
            short, long = sorted(len(each.texts[-1]) for each in (query, self.read(self.forms[index])))
            found[index] = short / long if long else 0.0
        return found

    def spelled_like(self, query: _Query) -> Iterator[int]:
        """Yield the first query of each text that this one contains, or is but for a letter or space."""
        by_text = self._by_text.get(query.negations)
        if not by_text or not query.stems:
            return
        common = self._common.get(query.negations, ())
        inner = (text for text, is_short in query.contained() if not is_short or text not in common)
        for text in (*query.texts, *query.respelled(self._spelling), *inner):
            if (index := by_text.get(text)) is not None:
                yield index

    def _containing(self, query: _Query) -> Sequence[int]:
        """Return queries that contain this one."""
        least, letters = _LEAST_CONTAINED
        text = query.texts[0]
        if len(text) < letters or not any(len(words) >= least for words in query.wordings):
            return ()
        near = reduce(and_, map(self.sets.bits, query.stems)) & self._negated.get(query.negations, 0)
        found = []
        for place in islice(places_of(near), _MOST_CONTAINING):
            index = self.sets.order[place]
            if any(text == inner for inner, _ in self.read(self.forms[index]).contained()):
                found.append(index)
        return () if len(found) > _FEW_CONTAINING and _is_short(query.wordings[0], text) else found


class _StemsOf:
    """The stems of an index's queries, read again each time: all together they fill the memory."""

    def __init__(self, index: _Index) -> None:
        self._index = index

    def __iter__(self) -> Iterator[Collection[str]]:
        return (self._index.read(form).stems for form in self._index.forms)


class Neighbours:
    """Finds near duplicates among queries without comparing all pairs.

    `are_normalised` says that all queries are normalised already, which saves time. A search after an
    addition indexes all queries again.

    Example:
        >>> near = Neighbours(["a red car at night", "rain on a tin roof"])
        >>> near.nearest("show me the rain on tin rooofs")
        1
    """

    def __init__(self, queries: Iterable[str] = (), *, are_normalised: bool = False) -> None:
        self._form = str if are_normalised else normalised
        self._forms = [self._form(query) for query in queries]
        self._current: _Index | None = None

    def add(self, query: str) -> None:
        """Add a query. Its index is the number of queries before it."""
        self._forms.append(self._form(query))
        self._current = None

    def nearest(self, query: str) -> int | None:
        """Return the index of the nearest near duplicate of a query, the first of equal ones, or None."""
        index = self._index()
        asked = index.read(self._form(query))
        found = index.spelled(asked)
        place = index.sets.nearest(asked.stems, index.like(asked))
        if place is not None:
            other, part = index.share(asked, place)
            found[other] = max(found.get(other, 0), part)
        return max(found, key=lambda other: (found[other], -other)) if found else None

    def near(self, query: str) -> dict[int, float]:
        """Return the shared part of the words for each near duplicate of a query, by index.

        Of queries with the same letters, and of those with another letter, it has the first.
        """
        index = self._index()
        asked = index.read(self._form(query))
        found = index.spelled(asked)
        for place in places_of(index.sets.near(asked.stems) & index.like(asked)):
            other, part = index.share(asked, place)
            found[other] = max(found.get(other, 0), part)
        return found

    def _index(self) -> _Index:
        if self._current is None:
            self._current = _Index(self._forms)
        return self._current


def families(queries: Sequence[str]) -> list[int]:
    """Return the number of each query's family, in the order of first appearance.

    A group is a set of near duplicates, or of queries that differ only in numbers, quoted phrases and names.
    A family is a group, or all groups with the same template: a phrase of three words. A group with several
    templates belongs to the one that most groups share, so no chain of templates joins everything.
    """
    groups = _Groups(len(queries))
    forms = list(map(normalised, queries))
    index = _Index(forms, least=2)
    _join_by_words(forms, index, groups)
    for number, query in enumerate(map(index.read, forms)):
        for other in index.spelled_like(query):
            groups.join(number, other)
    del index  # the templates need the memory
    return with_templates(queries, groups.join, groups.roots)


def _join_by_words(forms: Sequence[str], index: _Index, groups: "_Groups") -> None:
    """Join all queries that share three quarters of their words.

    Each query is searched once, among those that no search has found before.
    """
    left = (1 << len(forms)) - 1
    is_found = bytearray(len(forms))
    for start in range(len(forms)):
        if is_found[start]:
            continue
        left ^= 1 << start
        waiting = [start]
        while waiting:
            number = index.sets.order[waiting.pop()]
            query = index.read(forms[number])
            found = index.sets.near(query.stems) & left
            found = found and found & index.like(query)
            left ^= found
            for place in places_of(found):
                is_found[place] = True
                waiting.append(place)
                groups.join(number, index.sets.order[place])


class _Groups:
    """Disjoint groups of numbers. A group's root is its smallest number."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def roots(self) -> list[int]:
        return [self.root(number) for number in range(len(self._parents))]

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low
