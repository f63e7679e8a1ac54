"""From a table of reference rows to what a spec and counting need: feature types, cuts, categories, segment values.

The features of a reference go through the same readers as those of events, so that both are written alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from schemas.columns import Floats, format_numbers
from schemas.declarations import FeatureSpec, FeatureType, ModelSpec
from schemas.errors import ConfigurationError
from schemas.privacy import protect_texts
from schemas.values import is_embedding, is_media, read_numbers, read_texts

# Where the reference is cut: 5 % apart, and finer at the tails, where the first signs show.
QUANTILES = (0.01, 0.025, *(round(0.05 * step, 2) for step in range(1, 20)), 0.975, 0.99)
CATEGORIES_MAX = 1_000
SEGMENT_VALUES_MAX = 100

# A text is prose where nearly every row has its own and it is longer than a name.
_PROSE_DISTINCT_SHARE = 0.5
_PROSE_CHARS = 30


@dataclass(slots=True)
class ReferenceSummary:
    """See `PublishedSpec` for the three."""

    cuts: dict[str, list[float]] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)
    segment_values: dict[str, list[str]] = field(default_factory=dict)


def infer_features(frame: pd.DataFrame, declared: dict[str, FeatureSpec]) -> dict[str, FeatureSpec]:
    """Give every column of a frame of features its type; what is declared stays, only `auto` is filled in.

    Numbers are numbers however few values they take: that codes are categories is for the spec to say. Declared
    features come first; ValueError for one that has neither a type nor a column.
    """
    features: dict[str, FeatureSpec] = {}
    for name, spec in declared.items():
        if spec.type != "auto":
            features[name] = spec
        elif name in frame.columns:
            features[name] = FeatureSpec(
                type=_infer_type(frame[name]), min=spec.min, max=spec.max, values=spec.values, policy=spec.policy
            )
        else:
            raise ValueError(f"feature {name!r} has no type, and the reference no such column")
    for name in map(str, frame.columns):
        if name not in features:
            features[name] = FeatureSpec(type=_infer_type(frame[name]))
    return features


def find_dimensions(frame: pd.DataFrame, features: dict[str, FeatureSpec]) -> dict[str, int]:
    """Give the number of dimensions of each embedding: that of the first row which has one."""
    found: dict[str, int] = {}
    for name, feature in features.items():
        if feature.type == "embedding" and name in frame.columns:
            size = next((len(value) for value in map(_plain, frame[name]) if is_embedding(value)), None)
            if size is not None:
                found[name] = size
    return found


def _infer_type(column: pd.Series[Any]) -> FeatureType:
    if pd.api.types.is_bool_dtype(column.dtype):
        return "boolean"
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "number"
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "category"
    values = [_plain(value) for value in column]
    values = [value for value in values if value is not None]
    if not values:
        return "category" if pd.api.types.is_string_dtype(column.dtype) and column.dtype != object else "number"
    if all(isinstance(value, bool) for value in values):
        return "boolean"
    if all(isinstance(value, int | float) for value in values):
        return "number"
    if all(is_embedding(value) for value in values):
        return "embedding"
    if all(is_media(value) for value in values):
        return "image"
    texts = [value for value in values if isinstance(value, str)]
    long = sum(map(len, texts)) > _PROSE_CHARS * len(values)
    return "text" if long and len(set(texts)) > _PROSE_DISTINCT_SHARE * len(values) else "category"


def read_reference_features(frame: pd.DataFrame, spec: ModelSpec, privacy_key: bytes, file: str) -> pd.DataFrame:
    """Give the features of a reference as they are stored: float64 or texts, the personal-data policy applied.

    ConfigurationError names the file and the first column that is missing or does not fit its type.
    """
    columns: dict[str, Any] = {}
    for name, feature in spec.stored_features.items():
        if feature.of is not None:
            continue
        if name not in frame.columns:
            raise ConfigurationError("the reference has no such column", file=file, key=f"features.{name}")
        values = [_plain(value) for value in frame[name]]
        if feature.is_numeric:
            columns[name], problems = read_numbers(values, name, boolean=feature.type == "boolean")
        else:
            texts, problems = read_texts(values, name)
            columns[name] = pd.Series(protect_texts(texts, feature.policy, privacy_key).tolist(), dtype=object)
        if problems:
            row, problem = min(problems.items())
            raise ConfigurationError(f"row {row}: {problem.message}", file=file, key=f"features.{name}")
    return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))


def summarise_reference(
    frame: pd.DataFrame,
    spec: ModelSpec,
    score: Sequence[float] | Floats | None = None,
    prediction: Sequence[Any] | None = None,
) -> ReferenceSummary:
    """Summarise features as `read_reference_features` gives them, with the model's outputs where there are any."""
    summary = ReferenceSummary()
    for name in spec.numeric_features:
        if name in frame.columns:
            summary.cuts[name] = find_cuts(frame[name].to_numpy(dtype=np.float64))
    for name in spec.category_features:
        if name in frame.columns:
            summary.categories[name] = rank_values(frame[name].tolist(), CATEGORIES_MAX)
    if score is not None:
        summary.cuts["score"] = find_cuts(np.asarray(score, dtype=np.float64))
    if prediction is not None and spec.task == "regression":
        summary.cuts["prediction"] = find_cuts(np.asarray(prediction, dtype=np.float64))
    elif prediction is not None:
        outputs, _ = read_texts([_plain(value) for value in prediction], "prediction")
        summary.categories["prediction"] = rank_values(outputs, CATEGORIES_MAX)
    for key in spec.segments:
        if key in frame.columns:
            values = frame[key]
            numeric = pd.api.types.is_numeric_dtype(values.dtype)
            texts = format_numbers(values.to_numpy(dtype=np.float64)).tolist() if numeric else values.tolist()
            summary.segment_values[key] = rank_values(texts, SEGMENT_VALUES_MAX)
    return summary


def find_cuts(values: Floats) -> list[float]:
    """Give the order statistics x_(⌈Nq⌉) at QUANTILES of the values that are not NaN, duplicates dropped."""
    known = np.sort(values[~np.isnan(values)])
    if len(known) == 0:
        return []
    # Rounded first: 0.15 × 100 is 15.000000000000002 in binary.
    ranks = [max(1, math.ceil(round(len(known) * quantile, 9))) for quantile in QUANTILES]
    cuts: list[float] = np.unique(known[[rank - 1 for rank in ranks]]).tolist()
    return cuts


def rank_values(values: Iterable[str | None], limit: int) -> list[str]:
    """Give the values by falling count, equal counts in the order of the texts, at most `limit`."""
    counts = Counter(value for value in values if value is not None)
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [value for value, _ in ranked[:limit]]


def _plain(value: Any) -> Any:
    """Give a frame's value as JSON has it: NaN, NaT and NA are missing, NumPy's scalars and arrays Python's own."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | int | dict | list | bytes) or value is None:
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return None if pd.isna(value) else str(value)
