"""How a feature of a window differs from its reference, in words and as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from measures.composition import MISSING, explain_composition
from schemas.spec import PublishedSpec
from streams.logic.distances import Column, find_column, list_features
from streams.logic.rows import Coded, Rows

# Features with more distinct values are told by their median instead of their most changed values.
_NUM_VALUES_MAX = 20


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one feature of a window differs from its reference, in words and as data."""

    feature: str
    words: str
    values: list[dict[str, float | str]]


def explain_feature(published: PublishedSpec, reference: Rows, rows: Rows, feature: str) -> Explanation:
    """Say how one feature differs: by the values whose share changed most, or of many numbers by the median."""
    kind = dict(list_features(published.spec)).get(feature, "category")
    before, after = find_column(reference, feature, kind), find_column(rows, feature, kind)
    if before is None or after is None:
        return Explanation(feature, f"{feature} cannot be compared: one side has no values", [])
    if not isinstance(before, Coded) and not isinstance(after, Coded) and _has_many_values(before):
        old, new = float(np.nanmedian(before)), float(np.nanmedian(after)) if not np.isnan(after).all() else np.nan
        words = f"{feature}: the median went from {old:.6g} in the reference to {new:.6g}"
        return Explanation(feature, words, [{"value": "median", "reference": old, "window": new}])
    changes = explain_composition(_list_values(before), _list_values(after), top=4)
    words = ", ".join(
        f"{'missing' if each.value == MISSING else each.value} is {each.window_share:.1%} of the window "
        f"({each.reference_share:.1%} of the reference)"
        for each in changes
    )
    values = cast(
        "list[dict[str, float | str]]",
        [
            {"value": each.value, "reference_share": each.reference_share, "window_share": each.window_share}
            for each in changes
        ],
    )
    return Explanation(feature, f"{feature}: {words}", values)


def _has_many_values(values: np.ndarray) -> bool:
    return len(np.unique(values[~np.isnan(values)])) > _NUM_VALUES_MAX


def _list_values(column: Column) -> np.ndarray:
    return column.decode() if isinstance(column, Coded) else column
