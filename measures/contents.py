"""Texts, embeddings and images as rows of numbers, so that whole contents of two samples can be compared.

Owns how each is encoded. What is compared is `measures.multivariate`; single numbers of each content are
`schemas.descriptors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.embeddings import read_embeddings
from schemas.images import open_grey, read_inline
from schemas.texts import TextColumn

Floats = NDArray[np.float64]
ContentType = Literal["text", "embedding", "image"]

# Collisions of rare words do little harm; more places cost time in proportion.
NUM_HASHED = 1_024
# A tenth of a second for two thousand texts; what differs only behind that is not seen.
NUM_CHARS_MAX = 2_000
# Of each side of a square: enough for layout and light, too few for what is written in it.
NUM_PIXELS_A_SIDE = 16


def encode_contents(kind: ContentType, contents: Sequence[str], num_dimensions: int | None) -> Floats:
    """Give float64[rows, dimensions] of contents as they are stored; what cannot be read is left out.

    Texts: hashed words and pairs of words, each row of length 1. Embeddings: as they are, of `num_dimensions`. Images:
    grey pixels (0 to 1), scaled down to a square.
    """
    return _ENCODE[kind](contents, num_dimensions)


def _encode_texts(contents: Sequence[str], _: int | None) -> Floats:
    from sklearn.feature_extraction.text import HashingVectorizer

    word = r"(?u)\w+"
    hashing = HashingVectorizer(n_features=NUM_HASHED, ngram_range=(1, 2), token_pattern=word)
    rows: Floats = hashing.transform([text[:NUM_CHARS_MAX] for text in contents]).toarray()
    return rows


def _encode_embeddings(contents: Sequence[str], num_dimensions: int | None) -> Floats:
    blocks = [vectors.copy() for _, vectors in read_embeddings(TextColumn.of(list(contents)), num_dimensions or 0)]
    return np.concatenate(blocks) if blocks else np.empty((0, num_dimensions or 0))


def _encode_images(contents: Sequence[str], _: int | None) -> Floats:
    from PIL import Image

    size = (NUM_PIXELS_A_SIDE, NUM_PIXELS_A_SIDE)
    rows = []
    for _row, data in read_inline(TextColumn.of(list(contents))):
        grey = open_grey(data)
        if grey is not None:
            scaled = grey.resize(size, Image.Resampling.BOX)
            rows.append(np.asarray(scaled, np.float64).ravel() / 255)
    return np.array(rows).reshape(len(rows), NUM_PIXELS_A_SIDE**2)


_ENCODE: dict[ContentType, Callable[[Sequence[str], int | None], Floats]] = {
    "text": _encode_texts,
    "embedding": _encode_embeddings,
    "image": _encode_images,
}
