"""How features of a window differ from their reference, and what the change of each alone would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from measures.blame import resample_cells, share_effects
from measures.composition import MISSING, explain_composition
from measures.harm import estimate_harm
from schemas.descriptors import name_in_words
from schemas.spec import PublishedSpec
from streams.logic.distances import Column, find_column, list_features
from streams.logic.outcomes import find_labelled, measure_metrics
from streams.logic.reference_counts import code_cells
from streams.logic.rows import Coded, Rows

# Features with more distinct values are told by their median instead of their most changed values.
_NUM_VALUES_MAX = 20


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one feature of a window differs from its reference, in words and as data.

    `harm` is by how much the primary metric of the reference would be worse (positive) if only this feature had
    changed as it did, and `share` its part in that of all features explained; None where nothing can be said.
    """

    feature: str
    words: str
    values: list[dict[str, float | str]]
    harm: float | None = None
    share: float | None = None


def explain_features(
    published: PublishedSpec, reference: Rows, rows: Rows, features: Sequence[str]
) -> list[Explanation]:
    """Say how each feature differs, and what its change alone would cost."""
    explained = [explain_feature(published, reference, rows, feature) for feature in features]
    harms = estimate_harms(published, reference, rows, features)
    shares = share_effects(harms)
    return [replace(each, harm=harms.get(each.feature), share=shares.get(each.feature)) for each in explained]


def estimate_harms(published: PublishedSpec, reference: Rows, rows: Rows, features: Sequence[str]) -> dict[str, float]:
    """Estimate by how much performance would be worse if one feature alone had changed; see `measures.blame`."""
    labelled = reference.take(find_labelled(reference))
    if not len(labelled):
        return {}
    metric = published.spec.performance.metrics[0]
    before = measure_metrics(published.spec, labelled, [metric])[metric]
    order, harms = _order_outcomes(labelled), {}
    for feature in features:
        old, new = code_cells(published, labelled, feature), code_cells(published, rows, feature)
        if old is None or new is None:
            continue
        chosen = resample_cells(old, new, order)
        if chosen is None:
            continue
        after = measure_metrics(published.spec, labelled.take_outcomes(chosen), [metric])[metric]
        if (harm := estimate_harm(after, before, metric)) is not None:
            harms[feature] = harm
    return harms


def _order_outcomes(rows: Rows) -> np.ndarray:
    """Give numbers by which rows of like label and output lie together, so that a part of them is like all."""
    if rows.label_text is not None:
        return np.unique(rows.label_text.astype(str), return_inverse=True)[1].astype(np.float64)
    assert rows.label is not None
    if rows.score is not None:
        return 2.0 * rows.label + rows.score
    return rows.label if rows.prediction is None else rows.label - rows.prediction


def explain_feature(published: PublishedSpec, reference: Rows, rows: Rows, feature: str) -> Explanation:
    """Say how one feature differs: by the values whose share changed most, or of many numbers by the median."""
    kind = dict(list_features(published.spec)).get(feature, "category")
    before, after = find_column(reference, feature, kind), find_column(rows, feature, kind)
    if before is None or after is None:
        return Explanation(feature, f"{feature} cannot be compared: one side has no values", [])
    named = name_in_words(feature, published.spec.features.get(feature))
    if not isinstance(before, Coded) and not isinstance(after, Coded) and _has_many_values(before):
        old, new = float(np.nanmedian(before)), float(np.nanmedian(after)) if not np.isnan(after).all() else np.nan
        words = f"{named}: the median went from {old:.6g} in the reference to {new:.6g}"
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
    return Explanation(feature, f"{named}: {words}", values)


def _has_many_values(values: np.ndarray) -> bool:
    return len(np.unique(values[~np.isnan(values)])) > _NUM_VALUES_MAX


def _list_values(column: Column) -> np.ndarray:
    return column.decode() if isinstance(column, Coded) else column
