"""Given embeddings as arrays: parsed from their JSON, all of one width, brought to a common scale.

Owns parsing. One mean and one scale for all their numbers, since an embedding's directions are its
meaning and standardising each would bend them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrain.spread import measure_spread

_DECODER = msgspec.json.Decoder(list[float])
# As for numbers: beyond ten standard deviations a value says "extreme" and nothing more.
_CLIP_SD = 10.0


class VectorInput(msgspec.Struct, frozen=True, tag="vector"):
    """An embedding: float32 (n, width), standardised, 0 where it is missing or of another width.

    `indicator`: a dense column says where it is missing.
    """

    name: str
    width: int
    mean: float
    scale: float
    indicator: bool

    def encode(self, texts: pa.Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Parse n embeddings: (n, width), and where there is none."""
        values, lengths = _parse(texts)
        vectors = np.zeros((len(texts), self.width), np.float32)
        fits = lengths == self.width
        found = values[np.repeat(fits, lengths)].reshape(-1, self.width)
        vectors[fits] = ((found - self.mean) / self.scale).clip(-_CLIP_SD, _CLIP_SD)
        return vectors, ~fits


def fit_vector(name: str, blocks: Iterable[pa.Array]) -> VectorInput | None:
    """Learn width (the commonest, of equals the smallest), mean and scale; None where there is no embedding."""
    num_rows: Counter[int] = Counter()
    for texts in blocks:
        num_rows.update(_parse(texts)[1].tolist())
    widths = sorted(width for width in num_rows if width)
    if not widths:
        return None
    width = max(widths, key=lambda each: num_rows[each])

    def read() -> Iterator[NDArray[np.float64]]:
        for texts in blocks:
            values, lengths = _parse(texts)
            yield values[np.repeat(lengths == width, lengths)]

    spread = measure_spread(read)
    assert spread is not None
    scale = spread.sd if spread.sd > 0 else 1.0
    return VectorInput(name, width, spread.mean, scale, indicator=num_rows[width] < num_rows.total())


def _parse(texts: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return all numbers of all rows, one after the other, and how many each row has (none where it is no list)."""
    try:
        inner = pc.utf8_trim(texts.fill_null("[]"), characters="[] ")
        parts = pc.split_pattern(inner, ",")
        lengths = pc.list_value_length(parts).to_numpy().astype(np.int64)
        flat = pc.utf8_trim_whitespace(pc.list_flatten(parts))
        empty = pc.equal(inner, "").to_numpy(zero_copy_only=False)
        values = flat.filter(pc.not_equal(flat, "")).cast(pa.float64()).to_numpy()
        lengths = np.where(empty, 0, lengths)
        if len(values) == lengths.sum() and np.isfinite(values).all():
            return values, lengths
    except pa.ArrowInvalid:
        pass
    # Some row is no list of numbers: its type was another when it was sent. One by one, then.
    rows = [_parse_one(text) for text in texts.to_pylist()]
    return np.array([value for row in rows for value in row], np.float64), np.array(
        [len(row) for row in rows], np.int64
    )


def _parse_one(text: str | None) -> list[float]:
    try:
        values = [] if text is None else _DECODER.decode(text)
    except msgspec.MsgspecError:
        return []
    return values if np.isfinite(values).all() else []
