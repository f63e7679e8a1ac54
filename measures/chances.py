"""Metrics of rows of which each is positive with some chance: 0 or 1 where its label is known, between where not.

Owns what realized and estimated performance have in common. Rows are sorted before anything is summed: no value
depends on their order. Chances and scores are not missing here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Bins of equal width in which scores are compared with what came: ten, as is usual (Guo et al. 2017).
NUM_CALIBRATION_BINS = 10


def compute_average_precision(chances: Floats, scores: Floats) -> float:
    """Return the average precision, the area under the precision-recall curve in steps; NaN without positives.

    Σ (recall - recall before) · precision over falling scores, equal ones being one step, as scikit-learn's
    `average_precision_score`.
    """
    order = np.lexsort((chances, scores))[::-1]
    positives = np.cumsum(chances[order])
    total = float(positives[-1]) if len(positives) else 0.0
    if not total > 0.0:
        return math.nan
    ends = _find_ends(scores[order])
    at = positives[ends]
    return float((np.diff(at, prepend=0.0) * (at / (ends + 1.0))).sum()) / total


def compute_calibration_error(chances: Floats, scores: Floats) -> float:
    """Return the expected calibration error: the mean over rows of |share of positives - mean score| of their bin.

    Ten bins of equal width over 0 to 1, the last one closed (Naeini et al. 2015). NaN of no rows.
    """
    if not len(scores):
        return math.nan
    order = np.lexsort((chances, scores))
    sums = sum_bins(scores[order], scores[order] - chances[order])
    return float(np.abs(sums).sum()) / len(scores)


def sum_bins(ordered: Floats, values: Floats) -> Floats:
    """Return the sum of the values in each bin of the calibration error; rows ascend by score."""
    firsts = np.searchsorted(ordered, np.arange(NUM_CALIBRATION_BINS) / NUM_CALIBRATION_BINS, side="left")
    firsts[0] = 0
    sums: Floats = np.diff(np.append(0.0, np.cumsum(values))[np.append(firsts, len(values))])
    return sums


def place_rows(chances: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return each row's chance to score above a negative row and below a positive one, ties counting half.

    DeLong's placement values (1988), weighted by chances; NaN where there are no negatives or positives.
    """
    order = np.lexsort((chances, scores))
    ends = _find_ends(scores[order])
    widths = np.diff(ends, prepend=-1)
    above, below = np.empty(len(scores)), np.empty(len(scores))
    with np.errstate(invalid="ignore", divide="ignore"):
        for weights, places, is_above in ((1.0 - chances[order], above, True), (chances[order], below, False)):
            sums = np.cumsum(weights)[ends]
            inside = np.diff(sums, prepend=0.0)
            total = sums[-1] if len(sums) else math.nan
            beaten = (sums - inside if is_above else total - sums) + inside / 2.0
            places[order] = np.repeat(beaten / total, widths)
    return above, below


def _find_ends(ordered: Floats) -> NDArray[np.int64]:
    """Return where runs of equal values end."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.empty(0, np.int64)
