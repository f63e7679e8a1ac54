"""How much worse than its reference is a model, in units of the metric?"""

from __future__ import annotations

import math

from measures.performance import higher_is_better


def estimate_harm(estimated: float | None, reference_mean: float, metric: str) -> float | None:
    """Return by how much `estimated` is worse than `reference_mean`, positive being worse.

    `estimated` may be realized or estimated without labels. None where either is unknown (None, NaN).

    >>> round(estimate_harm(0.80, 0.90, "roc_auc"), 6), round(estimate_harm(12.0, 10.0, "mae"), 6)
    (0.1, 2.0)
    """
    if estimated is None or math.isnan(estimated) or math.isnan(reference_mean):
        return None
    difference = reference_mean - estimated
    return difference if higher_is_better(metric) else -difference
