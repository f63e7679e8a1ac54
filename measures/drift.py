"""How far is a column from its reference?

Owns the choice of method, degenerate columns and thresholds; `measures.samples` owns what is missing,
`measures.distances` and `measures.two_sample_tests` the formulas. It must not decide whether anybody is alerted: a
distance says how big a change is, never how sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from measures.distances import (
    measure_energy,
    measure_hellinger,
    measure_jensenshannon,
    measure_kl,
    measure_l_infinity,
    measure_psi,
    measure_total_variation,
    measure_wasserstein,
)
from measures.samples import Sample, count_categories, sort_numbers
from measures.two_sample_tests import (
    compute_anderson_darling,
    compute_contingency,
    compute_cramer_von_mises,
    compute_g,
    compute_ks,
)

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

# Thresholds are Evidently's defaults where it has the method, so that a switch from it changes no verdict.
METHODS: dict[str, Method] = {
    "wasserstein": Method(_NUMBER, threshold=0.1, yields_p_value=False),
    "jensenshannon": Method(_BOTH, threshold=0.1, yields_p_value=False),
    "psi": Method(_BOTH, threshold=0.1, yields_p_value=False),
    "kl_div": Method(_BOTH, threshold=0.1, yields_p_value=False),
    "hellinger": Method(_BOTH, threshold=0.1, yields_p_value=False),
    "energy": Method(_NUMBER, threshold=0.1, yields_p_value=False),
    "total_variation": Method(_CATEGORY, threshold=0.1, yields_p_value=False),
    "l_infinity": Method(_CATEGORY, threshold=0.1, yields_p_value=False),
    "ks": Method(_NUMBER, threshold=0.05, yields_p_value=True),
    "cramer_von_mises": Method(_NUMBER, threshold=0.1, yields_p_value=True),
    "anderson_darling": Method(_NUMBER, threshold=0.1, yields_p_value=True),
    "chisquare": Method(_CATEGORY, threshold=0.05, yields_p_value=True),
    "g_test": Method(_CATEGORY, threshold=0.1, yields_p_value=True),
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

    A distance drifts at `value >= threshold`, a test at `p_value <= threshold`; METHODS has their defaults. If either
    side has no rows left, value is NaN, p_value None and drifted False. Constant columns are measured like any other.
    The result does not depend on the order of the rows, to the last bit.

    Raises ValueError for a method that does not exist or does not suit the kind.

    >>> import numpy as np
    >>> measure_distance(np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0, np.nan]), "number")
    Distance(metric='wasserstein', value=1.0, p_value=None, threshold=0.1, drifted=True)
    """
    prepare = sort_numbers if kind == "number" else count_categories
    return measure_samples(prepare(reference), prepare(current), kind, method, threshold)


def measure_samples(
    reference: Sample, current: Sample, kind: Kind, method: str = "auto", threshold: float | None = None
) -> Distance:
    """Measure as `measure_distance` does, but samples that are made ready once and compared often."""
    metric = AUTO[kind] if method == "auto" else method
    known = METHODS.get(metric)
    if known is None or kind not in known.kinds:
        suitable = ", ".join(name for name, each in METHODS.items() if kind in each.kinds)
        raise ValueError(f"drift method {metric!r} does not measure a column of kind {kind!r}; use auto, {suitable}")
    limit = known.threshold if threshold is None else threshold
    if len(reference) == 0 or len(current) == 0:
        return Distance(metric, math.nan, None, limit, drifted=False)
    if known.yields_p_value:
        value, p_value = _TESTS[metric](reference, current)
        return Distance(metric, value, p_value, limit, drifted=p_value <= limit)
    value = _DISTANCES[metric](reference, current)
    return Distance(metric, value, None, limit, drifted=value >= limit)


_DISTANCES: dict[str, Callable[[Any, Any], float]] = {
    "wasserstein": measure_wasserstein,
    "jensenshannon": measure_jensenshannon,
    "psi": measure_psi,
    "kl_div": measure_kl,
    "hellinger": measure_hellinger,
    "energy": measure_energy,
    "total_variation": measure_total_variation,
    "l_infinity": measure_l_infinity,
}
_TESTS: dict[str, Callable[[Any, Any], tuple[float, float]]] = {
    "ks": compute_ks,
    "cramer_von_mises": compute_cramer_von_mises,
    "anderson_darling": compute_anderson_darling,
    "chisquare": compute_contingency,
    "g_test": compute_g,
}
