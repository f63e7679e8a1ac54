"""How rows of features become the numbers a network reads.

Owns what is learnt from the training rows (means, spreads, vocabularies) and its JSON form, which
travels inside the artifact. It must not look at labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.columns import EventColumns, format_numbers
from schemas.errors import ConfigurationError
from schemas.spec import FeatureSpec

Floats = NDArray[np.float64]

# Beyond 10 standard deviations a value says "extreme" and nothing more; unclipped, one typing error
# in a feature moves a prediction anywhere.
_CLIP_SD = 10.0
# As many as the catalogue of a spec keeps; rarer values share one embedding.
_MAX_VALUES = 1_000
# A value seen in fewer rows teaches nothing of itself, but it teaches what a rare value looks like.
_MIN_VALUE_ROWS = 5
_MISSING, _OTHER, _NUM_RESERVED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """n rows of features: numbers (NaN where missing) and texts (null where missing)."""

    numbers: Mapping[str, Floats]
    texts: Mapping[str, pa.Array]
    num_rows: int

    @classmethod
    def of_table(cls, table: pa.Table) -> FeatureRows:
        """Take the columns `f:NAME` and `t:NAME` of a table of stored rows."""
        numbers, texts = {}, {}
        for name in table.column_names:
            if name.startswith("f:"):
                numbers[name[2:]] = table[name].cast(pa.float64()).fill_null(math.nan).to_numpy()
            elif name.startswith("t:"):
                texts[name[2:]] = table[name].cast(pa.string()).combine_chunks()
        return cls(numbers, texts, table.num_rows)

    @classmethod
    def of_columns(cls, columns: EventColumns) -> FeatureRows:
        """Take the features of validated events."""
        texts = {name: values.to_arrow(pa.string()) for name, values in columns.texts.items()}
        return cls(columns.numbers, texts, columns.num_rows)

    def read_number(self, name: str) -> Floats:
        """Return a feature as float64 (n,), NaN where it is missing; a feature that no row has is all NaN."""
        found = self.numbers.get(name)
        return np.full(self.num_rows, math.nan) if found is None else found

    def read_text(self, name: str) -> pa.Array:
        """Return a feature as strings (n,), null where it is missing; 1.0 reads "1"."""
        if name in self.texts:
            return self.texts[name]
        return format_numbers(self.read_number(name)).to_arrow(pa.string())


class NumberColumn(msgspec.Struct, frozen=True):
    """A number, standardised; `indicator` adds a column that says whether the value is missing."""

    name: str
    mean: float
    scale: float
    indicator: bool


class CategoryColumn(msgspec.Struct, frozen=True):
    """A category: code 0 is missing, 1 any value not listed, 2 the first value, 3 the second …"""

    name: str
    values: tuple[str, ...]

    @property
    def num_codes(self) -> int:
        """Count the codes, the two reserved ones included."""
        return len(self.values) + _NUM_RESERVED


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """What a network reads: `dense` float32 (n, width), `codes` int64 (n, number of categories)."""

    dense: NDArray[np.float32]
    codes: NDArray[np.int64]


class Preprocessing(msgspec.Struct, frozen=True):
    """All that is needed to encode rows as at training; `ignored` lists declared features that it cannot read."""

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    ignored: tuple[str, ...] = ()

    @property
    def dense_width(self) -> int:
        """Count the dense columns: a number each, and its indicator where it has one."""
        return len(self.numbers) + sum(column.indicator for column in self.numbers)

    def encode(self, rows: FeatureRows) -> EncodedRows:
        """Encode n rows; the same row gives the same numbers whatever rows surround it."""
        dense = np.zeros((rows.num_rows, self.dense_width), dtype=np.float32)
        place = 0
        for number in self.numbers:
            values = rows.read_number(number.name)
            missing = np.isnan(values)
            standardised = np.where(missing, 0.0, (values - number.mean) / number.scale)
            dense[:, place] = np.clip(standardised, -_CLIP_SD, _CLIP_SD)
            place += 1
            if number.indicator:
                dense[:, place] = missing
                place += 1
        codes = np.zeros((rows.num_rows, len(self.categories)), dtype=np.int64)
        for index, category in enumerate(self.categories):
            codes[:, index] = _encode_category(category, rows.read_text(category.name))
        return EncodedRows(dense, codes)


def fit_preprocessing(rows: FeatureRows, features: Mapping[str, FeatureSpec]) -> Preprocessing:
    """Learn the preprocessing of the declared features from training rows; labels are not looked at.

    Features whose policy is `drop` are never stored, so they are not read; texts, images and
    embeddings are listed as ignored. Raises ConfigurationError when nothing is left to learn from.
    """
    numbers: list[NumberColumn] = []
    categories: list[CategoryColumn] = []
    ignored: list[str] = []
    for name, feature in features.items():
        if feature.policy == "drop":
            continue
        if feature.type in ("number", "boolean"):
            numbers.append(_fit_number(name, rows.read_number(name)))
        elif feature.type == "category":
            categories.append(_fit_category(name, rows.read_text(name)))
        else:
            ignored.append(name)
    if not numbers and not categories:
        raise ConfigurationError(
            "no feature to train on: only numbers, booleans and categories can be read",
            key="features",
            remedy="declare at least one feature of type number, boolean or category",
        )
    return Preprocessing(tuple(numbers), tuple(categories), tuple(ignored))


def _fit_number(name: str, values: Floats) -> NumberColumn:
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if known.size else 0.0
    spread = float(known.std()) if known.size else 0.0
    scale = spread if spread > 1e-12 * max(1.0, abs(mean)) else 1.0
    # Without a missing value in training the indicator's weights would stay as they were drawn.
    return NumberColumn(name, mean, scale, indicator=known.size < values.size)


def _fit_category(name: str, values: pa.Array) -> CategoryColumn:
    counts = pc.value_counts(values.drop_null())
    pairs: Sequence[tuple[str, int]] = list(
        zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    )
    # By falling count, then by value: the order of the rows must not decide.
    ranked = sorted((pair for pair in pairs if pair[1] >= _MIN_VALUE_ROWS), key=lambda pair: (-pair[1], pair[0]))
    return CategoryColumn(name, tuple(value for value, _ in ranked[:_MAX_VALUES]))


def _encode_category(category: CategoryColumn, values: pa.Array) -> NDArray[np.int64]:
    code_of = {value: code for code, value in enumerate(category.values, start=_NUM_RESERVED)}
    encoded = values.dictionary_encode()
    # One entry a distinct value, and a last one for null (index -1).
    table = np.array([code_of.get(value, _OTHER) for value in encoded.dictionary.to_pylist()] + [_MISSING], np.int64)
    index = encoded.indices.fill_null(len(table) - 1).to_numpy()
    codes: NDArray[np.int64] = table[index]
    return codes
