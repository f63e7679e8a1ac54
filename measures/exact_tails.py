"""How unlikely is a count, when so many rows of a pooled sample are the window's?

Owns the hypergeometric tails behind Fisher's exact test, for many tables at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

# Nearer to the mean than two deviations, and where a deviation is more than five counts, the normal tail with its
# skewness term is right to 0.001; nothing alarms there, and summing the middle would take most of the time.
_CENTRAL_Z = 2.0
_CENTRAL_SD = 5.0

# A tail is summed until a term adds less than this share; what is left after TERMS_MAX terms is bounded from above.
_NEGLIGIBLE = 1e-12
_TERMS_MAX = 2_048
# Many terms at a time save calls, which are what a few tables cost; many tables cost by the terms that are in vain.
_TERMS_A_STEP, _TERMS_A_STEP_OF_MANY, _MANY = 32, 8, 500


def fisher_p_values(hits: ArrayLike, drawn: ArrayLike, marked: ArrayLike, total: ArrayLike) -> Floats:
    """Give twice the smaller one-sided tail of Fisher's exact test, at most 1, for each 2 × 2 table.

    Of `total` rows, `drawn` are the window's; of `marked` rows, `hits` are the window's. All are counts; they are
    broadcast. Where the margins leave only one table, 1. Never below the exact value but for rounding: 1e-12 of it,
    and 0.001 in absolute terms where the value is above 0.04. Fisher, The Design of Experiments (1935).

    >>> fisher_p_values([3, 0], 3, 3, 6).round(6)
    array([0.1, 0.1])
    """
    a, n, k, m = (np.array(each, np.float64) for each in np.broadcast_arrays(hits, drawn, marked, total))
    shape = a.shape
    a, n, k, m = a.ravel(), n.ravel(), k.ravel(), m.ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        # The lower tail is the upper tail of the rows that are not marked.
        is_below = a * m < n * k
        a, k = np.where(is_below, n - a, a), np.where(is_below, m - k, k)
        mean = n * k / m
        sd = np.sqrt(mean * (1.0 - k / m) * (m - n) / (m - 1.0))
        z = (a - mean) / sd
    tail = np.ones(len(a))
    is_open = sd > 0.0
    is_central = is_open & (z < _CENTRAL_Z) & (sd > _CENTRAL_SD)
    for chosen, give_tail in ((is_central, _approximate_tail), (is_open & ~is_central, _sum_tail)):
        if chosen.any():
            tail[chosen] = give_tail(a[chosen], n[chosen], k[chosen], m[chosen])
    p_values: Floats = np.minimum(1.0, 2.0 * tail).reshape(shape)
    return p_values


def _approximate_tail(a: Floats, n: Floats, k: Floats, m: Floats) -> Floats:
    """Give P(H >= a) by the normal tail with continuity correction and the first Edgeworth term."""
    sd = np.sqrt(n * (k / m) * (1.0 - k / m) * (m - n) / (m - 1.0))
    x = (a - 0.5 - n * k / m) / sd
    skewness = (m - 2.0 * k) * (m - 2.0 * n) / (m * (m - 2.0) * sd)
    density = np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)
    tail: Floats = special.ndtr(-x) + skewness / 6.0 * (x * x - 1.0) * density
    return tail


def _sum_tail(a: Floats, n: Floats, k: Floats, m: Floats) -> Floats:
    """Give P(H >= a) as a sum of ratios of successive probabilities, from a upwards.

    The ratios fall, so that a geometric series bounds what is left of a sum that is cut short.
    """
    totals, term, total = np.ones(len(a)), np.ones(len(a)), np.ones(len(a))
    rows: NDArray[Any] = np.arange(len(a))
    counts = np.stack([a, n, k, m - k - n])
    num_terms = _TERMS_A_STEP if len(a) < _MANY else _TERMS_A_STEP_OF_MANY
    for begin in range(0, _TERMS_MAX, num_terms):
        x, n_left, k_left, u_left = counts
        x = x + np.arange(begin, begin + num_terms)[:, None]
        ratio = (k_left - x) * (n_left - x) / ((x + 1.0) * (u_left + x + 1.0))
        terms = term * np.cumprod(ratio, axis=0)
        total, term = total + terms.sum(axis=0), terms[-1]
        if begin + num_terms >= _TERMS_MAX:
            total = total + term * ratio[-1] / (1.0 - ratio[-1])
        totals[rows] = total
        is_going = term > _NEGLIGIBLE * total
        if not is_going.any():
            break
        rows, counts, term, total = rows[is_going], counts[:, is_going], term[is_going], total[is_going]
    tail: Floats = np.exp(_log_probability(a, n, k, m) + np.log(totals))
    return tail


def _log_probability(a: Floats, n: Floats, k: Floats, m: Floats) -> Floats:
    """Give log P(H = a) of the hypergeometric distribution."""
    log_factorial = special.gammaln
    found: Floats = (
        log_factorial(k + 1.0) - log_factorial(a + 1.0) - log_factorial(k - a + 1.0)
        + log_factorial(m - k + 1.0) - log_factorial(n - a + 1.0) - log_factorial(m - k - n + a + 1.0)
        - log_factorial(m + 1.0) + log_factorial(n + 1.0) + log_factorial(m - n + 1.0)
    )  # fmt: skip
    return found
