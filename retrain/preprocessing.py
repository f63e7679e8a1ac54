"""How rows of features become the numbers a network reads.

Owns what is learnt from the training rows (means, spreads, vocabularies) and its JSON form, which
travels inside the artifact. It must not look at labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrain.disk import BLOCK_ROWS, allocate
from retrain.images import ImageInput, fit_image
from retrain.spread import drop_missing, measure_spread
from retrain.texts import TextInput, fit_text
from retrain.vectors import VectorInput, fit_vector
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
# An image is thousands of bytes.
_IMAGE_BLOCK_ROWS = 1_024


class _TableColumns(Mapping[str, Any]):
    """Columns of a table by name, converted at each reading and not kept: all together would be the table again."""

    def __init__(self, table: pa.Table, prefix: str, convert: Callable[[pa.ChunkedArray], Any]) -> None:
        self._table, self._prefix, self._convert = table, prefix, convert
        self._names = [name for name in table.column_names if name.startswith(prefix)]

    def __getitem__(self, name: str) -> Any:
        if self._prefix + name not in self._names:
            raise KeyError(name)
        return self._convert(self._table[self._prefix + name])

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._names)

    def __len__(self) -> int:
        return len(self._names)

    def slice(self, start: int, num_rows: int) -> _TableColumns:
        """Return the columns of some rows, not copied."""
        return _TableColumns(self._table.slice(start, num_rows), self._prefix, self._convert)


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """n rows of features: numbers (NaN where missing) and texts (null where missing)."""

    numbers: Mapping[str, Floats]
    texts: Mapping[str, pa.Array]
    num_rows: int

    @classmethod
    def of_table(cls, table: pa.Table) -> FeatureRows:
        """Take the columns `f:NAME` and `t:NAME` of a table of stored rows, each converted when it is read."""
        numbers = _TableColumns(table, "f:", lambda column: column.cast(pa.float64()).fill_null(math.nan).to_numpy())
        texts = _TableColumns(table, "t:", lambda column: column.cast(pa.large_string()).combine_chunks())
        return cls(numbers, texts, table.num_rows)

    @classmethod
    def of_columns(cls, columns: EventColumns) -> FeatureRows:
        """Take the features of validated events."""
        texts = {name: values.to_arrow(pa.string()) for name, values in columns.texts.items()}
        return cls(columns.numbers, texts, columns.num_rows)

    def slice(self, start: int, num_rows: int) -> FeatureRows:
        """Return `num_rows` rows, or fewer where there are no more, not copied."""
        numbers, texts = (
            columns.slice(start, num_rows)
            if isinstance(columns, _TableColumns)
            else {name: values[start : start + num_rows] for name, values in columns.items()}
            for columns in (self.numbers, self.texts)
        )
        return FeatureRows(numbers, texts, max(0, min(num_rows, self.num_rows - start)))

    def split(self, block_rows: int = BLOCK_ROWS) -> Iterator[FeatureRows]:
        """Give the rows in blocks of so many."""
        for start in range(0, self.num_rows, block_rows):
            yield self.slice(start, block_rows)

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


# What has an encoder of its own in the network, beside the numbers and the categories.
ExtraInput = TextInput | ImageInput | VectorInput
Column = NumberColumn | CategoryColumn | ExtraInput


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """What a network reads: `dense` float32 (n, width), `codes` int64 (n, number of categories).

    `extra` holds an array (n, …) for each text, image and embedding, by the feature's name.
    """

    dense: NDArray[np.float32]
    codes: NDArray[np.int64]
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def allocate(self, num_rows: int) -> EncodedRows:
        """Return room for so many rows of this shape; on disk, if it is much."""
        dense, codes = (allocate((num_rows, *part.shape[1:]), part.dtype) for part in (self.dense, self.codes))
        extra = {name: allocate((num_rows, *part.shape[1:]), part.dtype) for name, part in self.extra.items()}
        return EncodedRows(dense, codes, extra)

    def write(self, start: int, rows: EncodedRows) -> None:
        """Copy rows to the places from `start`."""
        end = start + len(rows.dense)
        self.dense[start:end], self.codes[start:end] = rows.dense, rows.codes
        for name, values in rows.extra.items():
            self.extra[name][start:end] = values


class Preprocessing(msgspec.Struct, frozen=True):
    """All that is needed to encode rows as at training; `ignored` lists declared features that it does not read."""

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    ignored: tuple[str, ...] = ()
    extra: tuple[ExtraInput, ...] = ()

    @property
    def dense_names(self) -> tuple[str, ...]:
        """Name the dense columns: each number, its indicator behind it, then the indicators of the extra inputs."""
        names: list[str] = []
        for number in self.numbers:
            names += [number.name, f"{number.name} is missing"] if number.indicator else [number.name]
        return (*names, *(f"{each.name} is missing" for each in self.extra if each.indicator))

    @property
    def dense_width(self) -> int:
        """Count the dense columns."""
        return len(self.dense_names)

    @property
    def columns(self) -> Mapping[str, Column]:
        """Return what was learnt of each feature that is read, by name."""
        return {column.name: column for column in (*self.numbers, *self.categories, *self.extra)}

    @property
    def block_rows(self) -> int:
        """Count the rows that are encoded at once."""
        return _IMAGE_BLOCK_ROWS if any(isinstance(each, ImageInput) for each in self.extra) else BLOCK_ROWS

    def encode(self, rows: FeatureRows) -> EncodedRows:
        """Encode n rows, block by block; the same row gives the same numbers whatever rows surround it."""
        if rows.num_rows <= self.block_rows:
            return self._encode_block(rows)
        whole: EncodedRows | None = None
        for number, block in enumerate(rows.split(self.block_rows)):
            part = self._encode_block(block)
            whole = whole or part.allocate(rows.num_rows)
            whole.write(number * self.block_rows, part)
        assert whole is not None
        return whole

    def _encode_block(self, rows: FeatureRows) -> EncodedRows:
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
        extra: dict[str, NDArray[Any]] = {}
        for each in self.extra:
            extra[each.name], is_missing = each.encode(rows.read_text(each.name))
            if each.indicator:
                dense[:, place] = is_missing
                place += 1
        return EncodedRows(dense, codes, extra)


def fit_preprocessing(
    rows: FeatureRows, features: Mapping[str, FeatureSpec], known: Preprocessing | None = None
) -> Preprocessing:
    """Learn the preprocessing of the declared features from training rows; labels are not looked at.

    Features whose policy is `drop` are never stored, so they are not read. A number, text, image or
    embedding that no row has is ignored, and so is a number derived from a feature that is read itself.
    Features that `known` has learnt already, in the same form, keep what it learnt and its order: a
    network that starts from another's weights must read the same numbers. Raises ConfigurationError
    when nothing is left to learn from.
    """
    before = known.columns if known else {}
    fitted: dict[str, Column] = {}
    ignored: list[str] = []
    for name in _order(features, list(before)):
        feature = features[name]
        if feature.policy == "drop":
            continue
        kept = before.get(name)
        column = kept if isinstance(kept, _FORMS.get(feature.type, ())) else _fit_column(name, feature, rows)
        if column is None:
            ignored.append(name)
        else:
            fitted[name] = column
    for name in [name for name in fitted if features[name].of in fitted]:
        del fitted[name]
        ignored.append(name)
    if not fitted:
        raise ConfigurationError(
            "no feature to train on: none can be read",
            key="features",
            remedy="declare at least one feature whose values the training rows have",
        )
    columns = fitted.values()
    return Preprocessing(
        tuple(column for column in columns if isinstance(column, NumberColumn)),
        tuple(column for column in columns if isinstance(column, CategoryColumn)),
        tuple(ignored),
        tuple(column for column in columns if isinstance(column, ExtraInput)),
    )


# What each type of feature is learnt as.
_FORMS: Mapping[str, type[Column]] = {
    "number": NumberColumn,
    "boolean": NumberColumn,
    "category": CategoryColumn,
    "text": TextInput,
    "image": ImageInput,
    "embedding": VectorInput,
}


def _order(features: Mapping[str, FeatureSpec], before: Sequence[str]) -> list[str]:
    """Name the features in the order in which they are read: those that were learnt before come first."""
    return [*(name for name in before if name in features), *(name for name in features if name not in set(before))]


def _fit_column(name: str, feature: FeatureSpec, rows: FeatureRows) -> Column | None:
    match feature.type:
        case "number" | "boolean":
            return _fit_number(name, rows)
        case "category":
            return _fit_category(name, rows)
        case "text":
            return fit_text(name, TextBlocks(rows, name))
        case "image":
            return fit_image(name, TextBlocks(rows, name, _IMAGE_BLOCK_ROWS))
        case "embedding":
            return fit_vector(name, TextBlocks(rows, name))
    return None


class TextBlocks:
    """A feature of rows as arrays of strings, one a block, read anew whenever they are iterated over."""

    def __init__(self, rows: FeatureRows, name: str, block_rows: int = BLOCK_ROWS) -> None:
        self._rows, self._name, self._block_rows = rows, name, block_rows

    def __iter__(self) -> Iterator[pa.Array]:
        return (block.read_text(self._name) for block in self._rows.split(self._block_rows))


def _fit_number(name: str, rows: FeatureRows) -> NumberColumn | None:
    spread = measure_spread(lambda: (drop_missing(block.read_number(name)) for block in rows.split()))
    if spread is None:
        return None
    scale = spread.sd if spread.sd > 1e-12 * max(1.0, abs(spread.mean)) else 1.0
    # Without a missing value in training the indicator's weights would stay as they were drawn.
    return NumberColumn(name, spread.mean, scale, indicator=spread.num_values < rows.num_rows)


def _fit_category(name: str, rows: FeatureRows) -> CategoryColumn:
    num_rows: Counter[str] = Counter()
    for values in TextBlocks(rows, name):
        found = pc.value_counts(values.drop_null())
        num_rows.update(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
    # By falling count, then by value: the order of the rows must not decide.
    ranked = sorted(
        (pair for pair in num_rows.items() if pair[1] >= _MIN_VALUE_ROWS), key=lambda pair: (-pair[1], pair[0])
    )
    return CategoryColumn(name, tuple(value for value, _ in ranked[:_MAX_VALUES]))


def _encode_category(category: CategoryColumn, values: pa.Array) -> NDArray[np.int64]:
    code_of = {value: code for code, value in enumerate(category.values, start=_NUM_RESERVED)}
    encoded = values.dictionary_encode()
    # One entry a distinct value, and a last one for null (index -1).
    table = np.array([code_of.get(value, _OTHER) for value in encoded.dictionary.to_pylist()] + [_MISSING], np.int64)
    index = encoded.indices.fill_null(len(table) - 1).to_numpy()
    codes: NDArray[np.int64] = table[index]
    return codes
