"""The columns from which a regression's loss is estimated: features as numbers, the same for reference and window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from measures.estimate_losses import NUM_CATEGORIES_MAX, LossEstimator
from measures.intervals import Interval
from schemas.spec import ModelSpec
from streams.logic.rows import Floats, Rows


@dataclass(frozen=True, slots=True)
class RowLossEstimator:
    """An estimator with the coding of its inputs: numeric features, and for each category the numbers of its values."""

    estimator: LossEstimator
    numbers: list[str]
    categories: Mapping[str, Mapping[Any, int]]

    @classmethod
    def fit(cls, spec: ModelSpec, reference: Rows) -> RowLossEstimator | None:
        """Learn from a reference; None without two rows that have label and prediction, or without a metric to learn.

        Of a category the most frequent values have a number of their own; the rest is missing to the estimator.
        """
        if reference.label is None or reference.prediction is None:
            return None
        if np.count_nonzero(~(np.isnan(reference.label) | np.isnan(reference.prediction))) < 2:
            return None
        numbers = [name for name in spec.numeric_features if name in reference.numbers]
        categories = {}
        for name in spec.category_features:
            column = reference.texts.get(name)
            if column is not None:
                counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.vocabulary))
                kept = np.argsort(-counts, kind="stable")[:NUM_CATEGORIES_MAX].tolist()
                categories[name] = {column.vocabulary[code]: number for number, code in enumerate(kept)}
        is_category = [False] * len(numbers) + [True] * len(categories)
        inputs = _code(reference, numbers, categories)
        metrics = spec.performance.metrics
        estimator = LossEstimator.fit(inputs, is_category, reference.label, reference.prediction, metrics)
        return cls(estimator, numbers, categories)

    def estimate(self, rows: Rows) -> tuple[dict[str, float], dict[str, Interval]]:
        """Return the expected metrics of rows with features and predictions, and their intervals."""
        assert rows.prediction is not None
        return self.estimator.estimate(_code(rows, self.numbers, self.categories), rows.prediction)


def attach_features(outputs: Rows, inputs: Rows) -> Rows:
    """Return a version's rows with the features that came as records: missing where a row has none."""
    if outputs.numbers or outputs.texts or outputs.record_id is None or inputs.record_id is None:
        return outputs
    found = pd.Index(inputs.record_id).get_indexer(pd.Index(outputs.record_id))
    is_there = found >= 0
    kept = outputs.take(is_there)
    features = inputs.take(found[is_there])
    kept.numbers, kept.texts = features.numbers, features.texts
    return kept


def _code(rows: Rows, numbers: list[str], categories: Mapping[str, Mapping[Any, int]]) -> Floats:
    missing = np.full(len(rows), np.nan)
    columns = [rows.numbers.get(name, missing) for name in numbers]
    columns = [np.where(np.isfinite(each), each, np.nan) for each in columns]
    for name, table in categories.items():
        column = rows.texts.get(name)
        codes = missing if column is None else column.look_up(table, -1, -1).astype(np.float64)
        columns.append(np.where(codes >= 0, codes, np.nan))
    return np.column_stack(columns) if columns else np.empty((len(rows), 0))
