"""How far is a column from its reference?

Owns the choice of method, missing values, degenerate columns and thresholds. The distances are
Evidently's (`measures.evidently_distances`), the p-values SciPy's. It must not decide whether
anybody is alerted: a distance says how big a change is, never how sure.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from measures import evidently_distances

Kind = Literal["number", "category"]


@dataclass(frozen=True, slots=True)
class Method:
    """What a method can measure, and how its result is judged."""

    kinds: frozenset[Kind]
    threshold: float
    yields_p_value: bool


_BOTH: frozenset[Kind] = frozenset({"number", "category"})
_NUMBER: frozenset[Kind] = frozenset({"number"})
_CATEGORY: frozenset[Kind] = frozenset({"category"})

# Thresholds are Evidently's defaults, so that a switch from it changes no verdict.
METHODS: dict[str, Method] = {
    "wasserstein": Method(_NUMBER, threshold=0.1, yields_p_value=False),
    "jensenshannon": Method(_BOTH, threshold=0.1, yields_p_value=False),
    "psi": Method(_BOTH, threshold=0.1, yields_p_value=False),
    "ks": Method(_NUMBER, threshold=0.05, yields_p_value=True),
    "chisquare": Method(_CATEGORY, threshold=0.05, yields_p_value=True),
}

# Always distances, whatever the size of the reference: the p-values that Evidently prefers up to
# 1,000 reference rows flag most windows of unchanged data when there are many rows and columns.
AUTO: dict[Kind, str] = {"number": "wasserstein", "category": "jensenshannon"}


@dataclass(frozen=True, slots=True)
class Distance:
    """One column's distance; `value` is the statistic where the method yields a p-value."""

    metric: str
    value: float
    p_value: float | None
    threshold: float
    drifted: bool


def measure_distance(
    reference: NDArray[Any],
    current: NDArray[Any],
    kind: Kind,
    method: str = "auto",
    threshold: float | None = None,
) -> Distance:
    """Measure how far `current` is from `reference`, two 1-D samples of one column.

    Numbers come as floats, NaN being missing (infinities too, as in Evidently); categories as
    strings (or other hashable values), None or NaN being missing. Missing values are dropped: their
    share is a matter of data quality. Method `auto` is the normalised Wasserstein distance for
    numbers and the Jensen-Shannon distance (natural logarithm) for categories.

    A distance drifts at `value >= threshold` (default 0.1), a test at `p_value <= threshold`
    (default 0.05). If either side has no rows left, value is NaN, p_value None and drifted False.
    Constant columns are measured like any other. The result does not depend on the order of the
    rows, to the last bit (Evidently's own sums follow their order).

    Raises ValueError for a method that does not exist or does not suit the kind.

    >>> measure_distance(np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0, np.nan]), "number")
    Distance(metric='wasserstein', value=1.0, p_value=None, threshold=0.1, drifted=True)
    """
    metric = AUTO[kind] if method == "auto" else method
    known = METHODS.get(metric)
    if known is None or kind not in known.kinds:
        suitable = ", ".join(name for name, each in METHODS.items() if kind in each.kinds)
        raise ValueError(f"drift method {metric!r} does not measure a column of kind {kind!r}; use auto, {suitable}")
    limit = known.threshold if threshold is None else threshold
    before, after = _sort_numbers(reference, current) if kind == "number" else _encode(reference, current)
    if before.size == 0 or after.size == 0:
        return Distance(metric, math.nan, None, limit, drifted=False)
    if known.yields_p_value:
        value, p_value = _test_ks(before, after) if metric == "ks" else _test_contingency(before, after)
        return Distance(metric, value, p_value, limit, drifted=p_value <= limit)
    value = evidently_distances.compute_distance(metric, before, after, kind)
    return Distance(metric, value, None, limit, drifted=value >= limit)


def warm_up() -> None:
    """Import what the first measurement would otherwise wait seconds for. Safe to repeat."""
    evidently_distances.warm_up()


def _sort_numbers(reference: NDArray[Any], current: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    def clean(values: NDArray[Any]) -> NDArray[np.float64]:
        numbers = np.asarray(values, dtype=np.float64)
        # Adding 0.0 makes -0.0 equal to 0.0 in every bit, so that sorting leaves no trace of order.
        return np.sort(numbers[np.isfinite(numbers)]) + 0.0

    return clean(reference), clean(current)


def _encode(reference: NDArray[Any], current: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Replace categories by codes 0, 1, … in the order of their names; missing values are dropped.

    Evidently walks over a set of the values, and a set of strings has another order in every
    process, hence other last bits of the sum; a set of small integers has not.
    """
    both = np.concatenate([np.asarray(reference, dtype=object), np.asarray(current, dtype=object)])
    codes, values = pd.factorize(both, use_na_sentinel=True)
    order = sorted(range(len(values)), key=lambda i: (str(values[i]), type(values[i]).__name__))
    rank = np.empty(len(values) + 1, dtype=np.int64)
    rank[order] = np.arange(len(values))
    rank[-1] = -1  # where factorize's code for missing, -1, points
    ranked = rank[codes]
    before, after = ranked[: len(reference)], ranked[len(reference) :]
    return before[before >= 0], after[after >= 0]


def _test_ks(reference: NDArray[Any], current: NDArray[Any]) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov statistic and p-value: exact up to 10,000 rows, then asymptotic."""
    with warnings.catch_warnings():
        # SciPy warns when the exact p-value underflows and it takes the asymptotic one.
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.ks_2samp(reference, current)
    return float(result.statistic), float(result.pvalue)


def _test_contingency(reference: NDArray[Any], current: NDArray[Any]) -> tuple[float, float]:
    """Pearson's two-sample χ² on the 2 × K table of counts, without continuity correction.

    Both samples are random here. Evidently's test of the same name takes the reference's shares for
    the truth: with 1,000 reference rows and windows of 5,000 it is wrong in 82 of 100 at level .05.
    A single category gives statistic 0 and p-value 1.
    """
    num_values = int(max(reference.max(), current.max())) + 1
    if num_values == 1:
        return 0.0, 1.0
    counts = np.stack([np.bincount(side, minlength=num_values) for side in (reference, current)]).astype(np.float64)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic, float(stats.chi2.sf(statistic, num_values - 1))
