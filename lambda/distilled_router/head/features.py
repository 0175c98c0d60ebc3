"""Turn a query into numbers: hashes of its words, pairs of words, sequences of letters, and signs."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from zlib import crc32

BUCKETS = 15_360
"""Number of buckets of features. With 64 columns of one byte each, a head's file stays below 1 MB."""
VERSION = 1
"""Of the features. A head works with the version that it was trained with."""

MOST_CHARACTERS = 256
"""Of a query that are read, which bounds the work for it."""
# Characters that are brought into their normal form at once: one can become eighteen.
_PIECE = 128
_NGRAMS = (3, 4)
# First values of the hashes, so that a word, a pair and an n-gram of the same letters are different features.
_WORD, _PAIR, _FLAG, _FIRST, _LAST = range(1, 6)
_WORDS = re.compile(r"\w+")
_QUOTES = '"\u201c\u201d\u201e\u00ab\u00bb'
_LENGTHS = (2, 4, 8, 16, 32)


def features(query: str) -> list[int]:
    """Return the numbers of a query's features, each once, in a fixed order.

    They depend on no hash seed and no state. Only the first MOST_CHARACTERS characters count.
    """
    raw = query[:MOST_CHARACTERS]
    text = raw.lower() if raw.isascii() else _plain(raw)
    words = _WORDS.findall(text)
    hashes = [crc32(flag, _FLAG) for flag in _flags(raw, text, len(words))]
    encoded = [word.encode() for word in words]
    hashes += [crc32(word, _WORD) for word in encoded]
    hashes += [crc32(one + b" " + other, _PAIR) for one, other in pairwise(encoded)]
    if encoded:
        first = (encoded[0], b" ".join(encoded[:2]))
        hashes += [*(crc32(each, _FIRST) for each in first), crc32(encoded[-1], _LAST)]
    hashes += _ngrams(b" " + b" ".join(encoded) + b" ")
    return list(dict.fromkeys([each % BUCKETS for each in hashes]))


def _plain(raw: str) -> str:
    """Return a text in the form in which equal letters are the same characters, cut off again."""
    form = ""
    for start in range(0, len(raw), _PIECE):
        form += unicodedata.normalize("NFKC", raw[start : start + _PIECE])
        if len(form) >= MOST_CHARACTERS:
            break
    return form[:MOST_CHARACTERS].casefold()[:MOST_CHARACTERS]


def _ngrams(text: bytes) -> list[int]:
    """Return the hashes of all sequences of 3 and 4 characters."""
    if text.isascii():
        return [
            crc32(text[place : place + size]) for size in _NGRAMS for place in range(len(text) - size + 1)
        ]
    starts = [place for place, byte in enumerate(text) if byte & 0xC0 != 0x80]
    starts.append(len(text))
    return [
        crc32(text[start:end]) for size in _NGRAMS for start, end in zip(starts, starts[size:], strict=False)
    ]


def _flags(raw: str, text: str, words: int) -> list[bytes]:
    """Return the names of what a query is and has, besides its words. The first one is in each query."""
    found = [b"any", b"words %d" % sum(words > most for most in _LENGTHS)]
    if any(map(str.isdigit, text)):
        found.append(b"digit")
    if any(quote in raw for quote in _QUOTES):
        found.append(b"quoted")
    if "?" in raw:
        found.append(b"question")
    return found
