"""The oracle's tests of counts: what opens a calibrated drift alert, from the recipe with SciPy's distributions.

Imports nothing of the product. Of a model without segments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2, gamma, hypergeom, norm

from tests.faults.formulas import Array
from tests.faults.models import Model

DAY_MS = 86_400_000
SCALES = (1, 6, 24)
CUTS = (0.01, 0.025, *(round(0.05 * step, 2) for step in range(1, 20)), 0.975, 0.99)
SCANNED = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
KS_FLOOR, SHARE_FLOOR = 0.04, 0.02


class Test(NamedTuple):
    """What is found of one column; the p-value is the one that alarms where the status is `alert`."""

    metric: str
    value: float
    threshold: float
    p_value: float
    alpha: float
    status: str


class CountTests:
    """The tests of one model."""

    def __init__(self, model: Model, reference: pd.DataFrame) -> None:
        assert not model.segments
        self.model = model
        self.reference = reference
        self.kinds = {name: each.type for name, each in model.measured.items() if each.type in ("number", "category")}
        self.outputs = {"prediction": "number"} if model.task == "regression" else {}
        assert self.outputs

    def spans(self, starts: set[int], end_ms: int) -> Iterator[tuple[int, int, int]]:
        """Give (start, end, scale) of the windows, single and merged, that are complete by then."""
        for scale in SCALES:
            size = self.model.size_ms * scale
            for start in sorted({start // size * size for start in starts}):
                if start + size <= end_ms:
                    yield start, start + size, scale

    def test(self, rows: pd.DataFrame, version: str, scale: int) -> dict[str, Test]:
        """Test every column of the inputs ('') or of a version's outputs."""
        kinds = self.outputs if version else self.kinds
        num_tests = len(SCALES) * (len(self.kinds) + len(self.outputs))
        level = 0.9 * self.model.size_ms * scale / (30 * DAY_MS) / num_tests
        return {name: self._test(rows[name], self.reference[name], kind, level) for name, kind in kinds.items()}

    def _test(self, window: pd.Series[float], reference: pd.Series[float], kind: str, level: float) -> Test:
        compare = compare_numbers if kind == "number" else compare_categories
        values = [side.dropna().to_numpy() for side in (window, reference)]
        nulls = [int(side.isna().sum()) for side in (window, reference)]
        value, floor, p_value, p_alarm = compare(*values, *nulls)
        if len(values[0]) < self.model.min_rows:
            status = "too_few_rows"
        else:
            status = "alert" if p_alarm <= level else "ok"
        metric = "ks_counts" if kind == "number" else "linf_counts"
        return Test(metric, value, floor, p_alarm if status == "alert" else p_value, level, status)


def compare_numbers(window: Array, reference: Array, nulls: int, reference_nulls: int) -> tuple[float, ...]:
    """Give effect, its floor, p-value, and the p-value of what reaches its floor."""
    n, m = len(window), len(reference)
    ordered = np.sort(reference.astype(float))
    cut_at = {q: ordered[max(1, math.ceil(round(m * q, 9))) - 1] for q in CUTS}
    cuts = sorted(set(cut_at.values()))
    ks = max(abs(np.mean(window <= cut) - np.mean(reference <= cut)) for cut in cuts) if n else math.nan
    below = [(int(np.sum(window <= cut_at[q])), int(np.sum(reference <= cut_at[q]))) for q in SCANNED]
    scan = min(1.0, 9 * min(_fisher(a, n, b, m) for a, b in below))
    rank_sum = _rank_sum(np.searchsorted(cuts, window), np.searchsorted(cuts, reference))
    p_value = min(1.0, 2 * min(rank_sum, scan))
    null_p = _fisher(nulls, n + nulls, reference_nulls, m + reference_nulls)
    null_effect = abs(nulls / (n + nulls) - reference_nulls / (m + reference_nulls)) if n + nulls else math.nan

    def join(of_values: float, of_nulls: float) -> float:
        return min(1.0, 1.5 * of_values, 3.0 * of_nulls) if nulls + reference_nulls else of_values

    alarm = join(p_value if ks >= KS_FLOOR else 1.0, null_p if null_effect >= SHARE_FLOOR else 1.0)
    effect = (null_effect, SHARE_FLOOR) if not ks >= KS_FLOOR and null_effect >= SHARE_FLOOR else (ks, KS_FLOOR)
    return (*effect, join(p_value, null_p), alarm)


def compare_categories(window: Array, reference: Array, nulls: int, reference_nulls: int) -> tuple[float, ...]:
    """The same; what the reference lacks is one more category, and so are nulls."""
    known = sorted(set(reference.tolist()))
    now, before = (np.array([*(np.sum(side == value) for value in known), 0, 0]) for side in (window, reference))
    now[-2], now[-1], before[-1] = len(window) - now.sum(), nulls, reference_nulls
    n, m = int(now.sum()), int(before.sum())
    effect = float(np.max(np.abs(now / n - before / m)))
    pairs = [(int(a), int(b)) for a, b in zip(now, before, strict=True) if a + b]
    shares = len(pairs) * min(_fisher(a, n, b, m) for a, b in pairs)
    p_value = min(1.0, 2 * min(1.0, shares, _contingency(pairs, n, m)))
    return effect, SHARE_FLOOR, p_value, p_value if effect >= SHARE_FLOOR else 1.0


def _fisher(a: int, n: int, b: int, m: int) -> float:
    """Twice the smaller tail of Fisher's exact test."""
    law = hypergeom(n + m, a + b, n)
    return float(min(1.0, 2 * law.cdf(a), 2 * law.sf(a - 1)))


def _rank_sum(window: Array, reference: Array) -> float:
    """Wilcoxon's rank sum of bins by a shifted gamma of the same three moments."""
    n, m = len(window), len(reference)
    cells = np.arange(max(window.max(initial=0), reference.max(initial=0)) + 1)
    w, r = (np.array([np.sum(side == cell) for cell in cells], dtype=float) for side in (window, reference))
    t, total = w + r, n + m
    ranks = np.cumsum(t) - (t - 1) / 2
    deviation = ranks - np.sum(t * ranks) / total
    second, third = (np.sum(t * deviation**power) / total for power in (2, 3))
    variance = n * m / (total - 1) * second
    if not variance > 0:
        return 1.0
    z = np.sum(w * deviation) / math.sqrt(variance)
    skew = n * m * (m - n) / ((total - 1) * (total - 2)) * third / variance**1.5
    if abs(skew) <= 1e-3:
        return float(2 * norm.sf(abs(z)))
    shape = 4 / skew**2
    x = max(0.0, shape + z * math.copysign(1.0, skew) * math.sqrt(shape))
    return float(min(1.0, 2 * min(gamma.sf(x, shape), gamma.cdf(x, shape))))


def _contingency(pairs: list[tuple[int, int]], n: int, m: int) -> float:
    """Pearson's χ² of the 2 × K table, cells of which the smaller sample expects fewer than 20 being one."""
    kept, folded = [], [0, 0]
    for a, b in pairs:
        if (a + b) * min(n, m) / (n + m) >= 20:
            kept.append((a, b))
        else:
            folded = [folded[0] + a, folded[1] + b]
    if sum(folded):
        if sum(folded) * min(n, m) / (n + m) < 20:
            return 1.0
        kept.append((folded[0], folded[1]))
    if len(kept) < 2:
        return 1.0
    statistic = 0.0
    for a, b in kept:
        for have, size in ((a, n), (b, m)):
            expected = (a + b) * size / (n + m)
            statistic += (have - expected) ** 2 / expected
    return float(chi2.sf(statistic, len(kept) - 1))


def count_drifted(tests: Mapping[str, Mapping[str, Test]]) -> int:
    """The columns of all sources that alarm."""
    return sum(test.status == "alert" for columns in tests.values() for test in columns.values())
