"""How sure is it that a column changed, and may that open an alert?

Owns what makes up a column's p-value and how floors enter it. The tests are `measures.p_values`, how big a change is
`measures.effects`, and which p-value is small enough `measures.budget`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measures.effects import Floors, bound_ks, bound_shares, measure_ks, measure_linf
from measures.exact_tails import fisher_p_values
from measures.p_values import categorical_p_values, numeric_p_values

Counts = NDArray[Any]
Floats = NDArray[np.float64]

DEFAULT_FLOORS = Floors()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the counts say of each column, float64[...]: how sure, how big, and the p-value that may open an alert.

    `p_alarm` is `p_value` without what stays below its floor, so never smaller. `effect` is that of the values
    (numbers: KS at the cuts; categories: L-infinity), `null_effect` the difference of the shares of nulls; NaN where
    a side has no rows.
    """

    p_value: Floats
    p_alarm: Floats
    effect: Floats
    null_effect: Floats


def compare_numbers(
    window: Counts, reference: Counts, window_nulls: Counts, reference_nulls: Counts, floors: Floors = DEFAULT_FLOORS
) -> Comparison:
    """Compare numeric columns: counts [..., bins] between cuts of the reference, and of nulls [...].

    Three tests share the level where there are nulls at all: rank sum, scan and share of nulls. Given the pooled
    number of nulls each keeps its level, so that a column without any pays nothing for them.
    """
    p_values, ks = numeric_p_values(window, reference), measure_ks(window, reference)
    binary = _as_binary(window, window_nulls), _as_binary(reference, reference_nulls)
    num_window, num_reference = (each.sum(axis=-1) for each in binary)
    pooled_nulls = window_nulls + reference_nulls
    null_p_values = fisher_p_values(window_nulls, num_window, pooled_nulls, num_window + num_reference)
    null_effect, has_nulls = measure_linf(*binary), pooled_nulls > 0

    def join(of_values: Floats, of_nulls: Floats) -> Floats:
        return np.where(has_nulls, np.minimum(1.0, np.minimum(1.5 * of_values, 3.0 * of_nulls)), of_values)

    if floors.is_strict:
        alarming = np.maximum(p_values, bound_ks(window, reference, floors.ks))
        null_alarming = np.maximum(null_p_values, bound_shares(*binary, floors.share))
    else:
        alarming = np.where(ks >= floors.ks, p_values, 1.0)
        null_alarming = np.where(null_effect >= floors.share, null_p_values, 1.0)
    return Comparison(join(p_values, null_p_values), join(alarming, null_alarming), ks, null_effect)


def compare_categories(
    window: Counts, reference: Counts, window_nulls: Counts, reference_nulls: Counts, floors: Floors = DEFAULT_FLOORS
) -> Comparison:
    """Compare category columns: counts [..., categories], and of nulls [...], which are one more category."""
    window_all = np.concatenate([window, window_nulls[..., None]], axis=-1)
    reference_all = np.concatenate([reference, reference_nulls[..., None]], axis=-1)
    p_values, effect = categorical_p_values(window_all, reference_all), measure_linf(window_all, reference_all)
    if floors.is_strict:
        p_alarm = np.maximum(p_values, bound_shares(window_all, reference_all, floors.share))
    else:
        p_alarm = np.where(effect >= floors.share, p_values, 1.0)
    null_effect = measure_linf(_as_binary(window, window_nulls), _as_binary(reference, reference_nulls))
    return Comparison(p_values, p_alarm, effect, null_effect)


def _as_binary(values: Counts, nulls: Counts) -> Counts:
    return np.stack([np.sum(values, axis=-1), nulls], axis=-1)
