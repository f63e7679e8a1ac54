"""Texts as hashed n-grams: every word and every pair of neighbours becomes the number of a bucket.

Owns the cutting of words and their hashes, which depend on nothing but the text. Hashed n-grams with
a bag of embeddings: Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification".
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

# What follows says little more of a text's class, and each word costs eight bytes a row.
_MAX_WORDS = 128
# A bucket a distinct n-gram and one spare, so that few meet; 65,536 of 16 numbers are 4 MiB of weights.
_BUCKETS_MIN, _BUCKETS_MAX = 256, 65_536
# An odd number, so that multiplying loses no bit: 2⁶⁴ divided by the golden ratio.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_NO_WORD = r"[^\p{L}\p{N}]+"


class TextInput(msgspec.Struct, frozen=True, tag="text"):
    """A text: codes int32 (n, 2·max_words - 1), 0 for nothing; `indicator`: a dense column says where it is missing."""

    name: str
    max_words: int
    num_buckets: int
    indicator: bool

    def encode(self, texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Encode n texts: codes of the first words, then of their pairs, and where there is no text."""
        hashes, rows, places = _hash_words(texts, self.max_words)
        codes = np.zeros((len(texts), 2 * self.max_words - 1), np.int32)
        codes[rows, places] = _choose_buckets(hashes, self.num_buckets)
        pairs, first = _hash_pairs(hashes, rows)
        codes[rows[first], self.max_words + places[first]] = _choose_buckets(pairs, self.num_buckets)
        return codes, ~_are_valid(texts)


def fit_text(name: str, blocks: Iterable[pa.Array]) -> TextInput | None:
    """Choose how many words and buckets the training texts need; None where no text has a word."""
    words, pairs = np.empty(0, np.uint64), np.empty(0, np.uint64)
    max_words, indicator = 0, False
    for texts in blocks:
        hashes, rows, places = _hash_words(texts, _MAX_WORDS)
        indicator |= not bool(_are_valid(texts).all())
        max_words = max(max_words, int(places.max(initial=-1)) + 1)
        # More than fill the largest table need not be told apart.
        if len(words) + len(pairs) < _BUCKETS_MAX:
            words, pairs = np.union1d(words, hashes), np.union1d(pairs, _hash_pairs(hashes, rows)[0])
    if not max_words:
        return None
    num_buckets = _BUCKETS_MIN
    while num_buckets < min(2 * (len(words) + len(pairs)), _BUCKETS_MAX):
        num_buckets *= 2
    return TextInput(name, max_words, num_buckets, indicator)


def _hash_words(texts: pa.Array, max_words: int) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the hash, the row and the place in its row of each word, the first `max_words` of a row only."""
    cleaned = pc.replace_substring_regex(pc.utf8_lower(texts.fill_null("")), _NO_WORD, " ")
    words = pc.split_pattern(pc.utf8_trim_whitespace(cleaned), " ", max_splits=max_words)
    lengths = pc.list_value_length(words).to_numpy().astype(np.int64)
    encoded = pc.list_flatten(words).dictionary_encode()
    distinct = encoded.dictionary.cast(pa.large_binary()).to_pylist()
    hashes = np.array([xxh3_64_intdigest(word) for word in distinct], np.uint64)[encoded.indices.to_numpy()]
    rows = np.repeat(np.arange(len(texts)), lengths)
    places = np.arange(len(hashes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    # A text without words splits into one empty word, and the last part of a long one is its uncut rest.
    empty = np.array([not word for word in distinct], np.bool_)[encoded.indices.to_numpy()]
    kept = ~empty & (places < max_words)
    return hashes[kept], rows[kept], places[kept]


def _hash_pairs(hashes: NDArray[np.uint64], rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the hash of each two neighbours in a row, and the position of the first."""
    first = np.flatnonzero(rows[:-1] == rows[1:])
    return hashes[first] * _MIX + hashes[first + 1], first


def _choose_buckets(hashes: NDArray[np.uint64], num_buckets: int) -> NDArray[np.int32]:
    # The high bits: the low ones of a product hold less of its factors.
    return ((hashes * _MIX >> np.uint64(32)) % np.uint64(num_buckets) + np.uint64(1)).astype(np.int32)


def _are_valid(texts: pa.Array) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = pc.is_valid(texts).to_numpy(zero_copy_only=False)
    return valid
