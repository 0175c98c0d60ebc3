"""Join queries that share a template: a phrase that many queries have, with names and numbers masked."""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from sys import intern

from distilled_router.data.conversation import normalised
from distilled_router.data.wording import has_meaning, without_request

# A template is a phrase of this many words that at least this many queries share, with at most one masked
# word and at least one that is not a function word. A phrase that a larger part of all queries shares is
# common wording.
_TEMPLATE_QUERIES = 3
_TEMPLATE_WORDS = 3
_MOST_OF_ALL = 0.25
_MASK = "_"
# Bytes that count phrases: a longer count is no better, since 100,000 long queries have ten million phrases.
_MOST_SLOTS = 50_000_000
_QUOTED = re.compile(
    '"[^"]{1,300}"|\u201c[^\u201d]{1,300}\u201d|\u201e[^\u201c]{1,300}\u201c|\u00ab[^\u00bb]{1,300}\u00bb'
)


def with_templates(
    queries: Sequence[str], join: Callable[[int, int], None], roots_of: Callable[[], list[int]]
) -> list[int]:
    """Return the number of each query's family, from groups that are joined further.

    Args:
        queries: the queries.
        join: joins the groups of two queries, by their indices.
        roots_of: returns the root of each query's group.
    """
    masked = [without_request(words) for words in _masked(queries)]
    first: dict[tuple[str, ...], int] = {}
    for index, words in enumerate(masked):
        if _MASK in words and len(words) - words.count(_MASK) >= 2 and _has_meaning(words):
            join(index, first.setdefault(tuple(words), index))
    roots = roots_of()
    templates = _templates(masked, roots)
    numbers: dict[object, int] = {}
    return [numbers.setdefault(templates.get(root, root), len(numbers)) for root in roots]


def _templates(masked: Sequence[Sequence[str]], roots: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Return the template of each group that has one, by the group's root."""
    sizes = Counter(roots)
    sharing: defaultdict[tuple[str, ...], set[int]] = defaultdict(set)
    for phrase, root in _frequent(masked, roots):
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


def _frequent(masked: Sequence[Sequence[str]], roots: Sequence[int]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield each phrase that enough queries have, with each of their roots.

    Most phrases occur once, and would fill the memory. So their hashes are counted first, in one byte each:
    equal hashes of other phrases only let some phrases through that are too rare.
    """
    frequencies = Counter(chain.from_iterable(map(set, masked)))
    slots = 1 << min(8 * sum(map(len, masked)) + 1, _MOST_SLOTS).bit_length()
    counts = bytearray(slots)
    for words in masked:
        for phrase in _phrases(words, frequencies):
            slot = hash(phrase) % slots
            if counts[slot] < _TEMPLATE_QUERIES:
                counts[slot] += 1
    for words, root in zip(masked, roots, strict=True):
        for phrase in _phrases(words, frequencies):
            if counts[hash(phrase) % slots] >= _TEMPLATE_QUERIES:
                yield phrase, root


def _phrases(words: Sequence[str], frequencies: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Yield the phrases of a query that may be templates."""
    common = [word if frequencies[word] >= _TEMPLATE_QUERIES else "" for word in words]
    for start in range(len(common) - _TEMPLATE_WORDS + 1):
        phrase = tuple(common[start : start + _TEMPLATE_WORDS])
        if "" not in phrase and phrase.count(_MASK) < 2 and _has_meaning(phrase):
            yield phrase


def _masked(queries: Sequence[str]) -> Iterator[list[str]]:
    """Yield the words of each query, with one mask for consecutive quoted phrases, numbers and names."""
    names = _names(queries)
    for query in queries:
        words: list[str] = []
        for part in _QUOTED.sub(f" {_MASK} ", query).split():
            may_be_name = _is_capital(part)
            for word in map(intern, normalised(part).split()):
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
    return has_meaning(word for word in words if word != _MASK)
