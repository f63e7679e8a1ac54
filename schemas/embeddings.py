"""Embeddings, which travel as JSON lists: their numbers, their length, and projections on random directions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.columns import Floats
from schemas.texts import TextColumn, decode_each

# Of directions; more of them see more and share the false-alarm budget with more.
NUM_PROJECTIONS = 8
_SEED = 20_260_101
# Numbers of so many embeddings are held at once: 8 MB.
_CELLS_MAX = 1 << 20

_DECODER = msgspec.json.Decoder(list[float])


def describe_embeddings(texts: TextColumn, num_dimensions: int | None) -> dict[str, Floats]:
    """Give the Euclidean length and each projection of n embeddings: float64[n].

    NaN where null, where the number of dimensions is another, and where a number is too large to have a square.
    Without a number of dimensions there are lengths of any, and no projections.
    """
    found = {"norm": np.full(len(texts), np.nan)}
    if num_dimensions is None:
        for row, vector in _decode(texts):
            found["norm"][row] = _measure_lengths(vector[None, :])[0]
        return found
    directions = draw_directions(num_dimensions)
    found |= {f"projection_{index}": np.full(len(texts), np.nan) for index in range(len(directions))}
    for rows, vectors in read_embeddings(texts, num_dimensions):
        found["norm"][rows] = _measure_lengths(vectors)
        for index, direction in enumerate(directions):
            found[f"projection_{index}"][rows] = _project(vectors, direction)
    return found


def read_embeddings(texts: TextColumn, num_dimensions: int) -> Iterator[tuple[npt.NDArray[np.int64], Floats]]:
    """Give the embeddings of so many dimensions, in blocks: which rows they are of, and float64[rows, dimensions]."""
    size = max(1, min(len(texts), _CELLS_MAX // max(num_dimensions, 1)))
    rows: list[int] = []
    vectors = np.empty((size, num_dimensions))
    for row, vector in _decode(texts):
        if len(vector) != num_dimensions:
            continue
        vectors[len(rows)] = vector
        rows.append(row)
        if len(rows) == size:
            yield np.array(rows), vectors
            rows = []
    if rows:
        yield np.array(rows), vectors[: len(rows)]


def _decode(texts: TextColumn) -> Iterator[tuple[int, Floats]]:
    """Give each list of numbers and its row; what is none is left out."""
    return ((row, np.array(values, np.float64)) for row, values in decode_each(texts, _DECODER))


@lru_cache(maxsize=64)
def draw_directions(num_dimensions: int) -> Floats:
    """Give float64[NUM_PROJECTIONS, dimensions] of length 1, the same on every machine and with every NumPy."""
    # RandomState's stream is frozen for ever, and rounding takes away what logarithms may differ in.
    drawn = np.random.RandomState(_SEED).standard_normal((NUM_PROJECTIONS, num_dimensions))
    rounded: Floats = np.round(drawn * 2**20) / 2**20
    lengths = _measure_lengths(rounded)
    return rounded / np.where(lengths > 0, lengths, 1.0)[:, None]


def _measure_lengths(vectors: Floats) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        return _finite(np.sqrt(_sum_rows(vectors * vectors)))


def _project(vectors: Floats, direction: Floats) -> Floats:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return _finite(_sum_rows(vectors * direction))


def _sum_rows(values: Floats) -> Floats:
    """Sum each row. Not a product of matrices, in which a row's last bits depend on how many stand beside it."""
    sums: Floats = np.add.reduce(np.ascontiguousarray(values), axis=1)
    return sums


def _finite(values: Floats) -> Floats:
    # + 0.0 turns -0.0 into 0.0, so that a number has one text.
    known: Floats = np.where(np.isfinite(values), values, np.nan) + 0.0
    return known
