"""Find the sets of words that share three quarters of their words with another set, however many there are.

Prefix filters and hashes find near sets fast if words are rare, and compare all pairs if they are not: in
queries of one template, of few words, or nearly equal ones. Here an integer has one bit for each set, so that
one operation counts a word in all sets at once. The time depends on the number of sets and words only, and
nothing is approximate.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache

# Near sets share three of four words (Jaccard index).
_SHARED, _OF = 3, 4
# Of one index: integers of words that are kept for the next search.
_CACHE_BYTES = 48_000_000


class WordSets:
    """An index of sets of words.

    A search returns an integer with a bit for each set that was found. A set's bit is its place in the order
    of size, so that sets of one size are neighbours: `order` has their indices.

    Example:
        >>> sets = WordSets([{"red", "car"}, {"rain"}, {"car", "red"}])
        >>> [sets.order[place] for place in places_of(sets.near({"red", "car"}))]
        [0, 2]
    """

    def __init__(
        self, sets: Iterable[Collection[str]], *, least: int = 1, always: Collection[str] = ()
    ) -> None:
        """Index sets, which are read twice. Words in fewer than `least` are ignored, except in `always`."""
        frequencies, sizes = Counter[str](), array("I")
        for words in sets:
            frequencies.update(words)
            sizes.append(len(words))
        self.order = sorted(range(len(sizes)), key=sizes.__getitem__)
        self._sizes: dict[int, tuple[int, int]] = {}  # first place and number of the sets of a size
        place_of = array("I", bytes(sizes.itemsize * len(sizes)))
        for place, index in enumerate(self.order):
            first, count = self._sizes.get(sizes[index], (place, 0))
            self._sizes[sizes[index]] = first, count + 1
            place_of[index] = place
        # One place as a number, which takes less memory.
        self._places: dict[str, int | array[int]] = {}
        for place, words in zip(place_of, sets, strict=True):
            for word in words:
                if frequencies[word] >= least or word in always:
                    self._add(word, place)
        kept = max(64, 8 * _CACHE_BYTES // (len(sizes) + 1))
        self.bits: Callable[[str], int] = lru_cache(kept)(self._bits)
        self._limits = lru_cache(64)(self._limits_of)

    def _add(self, word: str, place: int) -> None:
        known = self._places.setdefault(word, place)
        if isinstance(known, array):
            known.append(place)
        elif known != place:
            self._places[word] = array("I", (known, place))

    def near(self, words: Collection[str]) -> int:
        """Return the near sets."""
        near, _ = self._near(words)
        return near

    def nearest(self, words: Collection[str], among: int) -> int | None:
        """Return the place of the set among these that shares most, the first of equal ones, or None."""
        near, excess = self._near(words)
        near &= among
        best: tuple[float, int, int] | None = None
        for size, least in _limits(len(words)):
            found = near & self._of_size(size) if near else 0
            if not found:
                continue
            common = least
            for weight in reversed(range(len(excess))):
                if more := found & excess[weight]:
                    found, common = more, common + (1 << weight)
            place = next(places_of(found))
            rank = (common / (len(words) + size - common), -self.order[place], place)
            best = max(best, rank) if best else rank
        return best[2] if best else None

    def _near(self, words: Collection[str]) -> tuple[int, list[int]]:
        """Return the near sets, and the binary digits of how many more words each shares than it must."""
        known = [word for word in words if word in self._places]
        if not words or _OF * len(known) < _SHARED * len(words):
            return 0, []
        # Each near set's number begins so far below a power of two as it must share words.
        columns = [[limit] for limit in self._limits(len(words))]
        columns[0] += map(self.bits, known)
        columns.append([])
        digits = [_added(column, columns[weight + 1]) for weight, column in enumerate(columns[:-1])]
        near = 0
        for carry in columns[-1]:
            near |= carry
        return near, digits

    def _limits_of(self, size: int) -> list[int]:
        """Return the binary digits of the number at which each set begins, for a search of a size."""
        digits = [0] * size.bit_length()
        for other, least in _limits(size):
            members = self._of_size(other)
            start = (1 << len(digits)) - least
            for weight in range(len(digits)):
                if start >> weight & 1:
                    digits[weight] |= members
        return digits

    def _of_size(self, size: int) -> int:
        first, count = self._sizes.get(size, (0, 0))
        return ((1 << count) - 1) << first

    def _bits(self, word: str) -> int:
        places = self._places.get(word, ())
        return 1 << places if isinstance(places, int) else bits_of(places, len(self.order))


def bits_of(places: Collection[int], length: int) -> int:
    """Return an integer with these of so many bits."""
    bits = bytearray(length // 8 + 1)
    for place in places:
        bits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(bits, "little")


def places_of(bits: int) -> Iterator[int]:
    """Yield the places of an integer's bits, from the lowest."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def share(one: Collection[str], other: Collection[str]) -> float:
    """Return the Jaccard index of two sets."""
    common = len(set(one).intersection(other))
    together = len(one) + len(other) - common
    return common / together if together else 0.0


def _limits(size: int) -> Iterator[tuple[int, int]]:
    """Yield each size of a near set, with the least number of common words.

    Of sizes a and b, c common words are enough if 4c >= 3(a + b - c).
    """
    for other in range(-(-_SHARED * size // _OF), _OF * size // _SHARED + 1):
        yield other, -(-_SHARED * (size + other) // (_SHARED + _OF))


def _added(column: list[int], carries: list[int]) -> int:
    """Return the digits' sum, and append its carries: one bit of each integer is one set's digit."""
    while len(column) > 2:
        one, other, third = column.pop(), column.pop(), column.pop()
        either = one ^ other
        column.append(either ^ third)
        carries.append(one & other | either & third)
    if len(column) > 1:
        one, other = column
        carries.append(one & other)
        return one ^ other
    return column[0]
