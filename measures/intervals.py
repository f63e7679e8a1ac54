"""How far could a metric be off, for having been measured on these rows only?

Owns standard errors and 95 % intervals in closed form: no resampling, no seed, the cost of a sort. A row may be
positive with a chance between 0 and 1 (`measures.chances`): what holds for labels then holds for estimates, whose
interval is that of the metric which labels of these rows would show. Rows are taken for independent draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from measures.chances import place_rows, sum_bins

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
_Z = float(special.ndtri(0.5 + CONFIDENCE / 2.0))

# Mean, variance and third cumulant of |x|, x standard normal.
_HALF_NORMAL = (math.sqrt(2.0 / math.pi), 1.0 - 2.0 / math.pi, math.sqrt(2.0 / math.pi) * (4.0 / math.pi - 1.0))
# A bin that is so many standard deviations off has the other sign by chance in at most one of 700 windows.
_SURELY_OFF = 3.0


@dataclass(frozen=True, slots=True)
class Interval:
    """The standard error of a metric and its interval of 95 %; all NaN where they are not known."""

    error: float
    lower: float
    upper: float


UNKNOWN = Interval(math.nan, math.nan, math.nan)


def bound_share(share: float, num_rows: float) -> Interval:
    """Give Wilson's interval (1927) of a share of so many rows."""
    if not num_rows > 0.0 or math.isnan(share):
        return UNKNOWN
    square = _Z**2 / num_rows
    middle = (share + square / 2.0) / (1.0 + square)
    half = math.sqrt(share * (1.0 - share) * square + square**2 / 4.0) / (1.0 + square)
    error = math.sqrt(share * (1.0 - share) / num_rows)
    return Interval(error, max(0.0, middle - half), min(1.0, middle + half))


def bound_unit(value: float, error: float, num_rows: float) -> Interval:
    """Give the interval of a value between 0 and 1 that has this standard error: Wilson's of as many rows as have it.

    `num_rows` stands in where the error is 0, as it is at 0 and 1.
    """
    if math.isnan(value) or math.isnan(error):
        return UNKNOWN
    spread = value * (1.0 - value)
    found = bound_share(min(1.0, max(0.0, value)), spread / error**2 if error > 0.0 and spread > 0.0 else num_rows)
    return Interval(error, found.lower, found.upper)


def bound_mean(mean: float, mean_square: float, num_rows: float) -> Interval:
    """Give the normal interval of a mean of values that are not negative, from their mean and mean square."""
    if not num_rows > 1.0 or math.isnan(mean):
        return UNKNOWN
    error = math.sqrt(max(0.0, mean_square - mean**2) / (num_rows - 1.0))
    return Interval(error, max(0.0, mean - _Z * error), mean + _Z * error)


def bound_roc_auc(chances: Floats, scores: Floats) -> Interval:
    """Give DeLong's standard error (1988) of the area under the ROC curve, and the interval by `bound_unit`."""
    num_positive = float(np.sort(chances).sum())
    num_negative = len(chances) - num_positive
    if not min(num_positive, num_negative) > 1.0:
        return UNKNOWN
    above, below = place_rows(chances, scores)
    area = float(np.sort(chances * above).sum()) / num_positive
    variance = float(np.sort(chances * (above - area) ** 2).sum()) / (num_positive * (num_positive - 1.0))
    variance += float(np.sort((1.0 - chances) * (below - area) ** 2).sum()) / (num_negative * (num_negative - 1.0))
    return bound_unit(area, math.sqrt(variance), min(num_positive, num_negative))


def bound_calibration_error(labels: Floats, scores: Floats) -> Interval:
    """Give the interval of the calibration error that so scored rows have in these bins, of labels 0 and 1.

    Let D_b be the mean gap (score - label) of a bin times its share of rows, ε_b what chance adds to it, σ_b² the
    variance of that. The error E = Σ |D_b| is measured as Σ |D_b + ε_b|, which is too large by chance. Above it,
    |D + ε| ≥ |D| + sign(D) ε: what E exceeds the measured value by is at most a mean of independent gaps, signed by
    their bins, with the variance (mean square gap - E²) / n. Below it, |D + ε| ≤ |D| + |ε|, and = |D| + sign(D) ε where
    chance has not turned the sign, as it has not where |D + ε| > 3 σ: what the value exceeds E by is at most a sum of
    half normal and, of such bins, normal variables, whose quantile is Cornish and Fisher's with three cumulants. Both
    hold whatever the model is, so the interval is rather wide; at a measured value near what chance makes of 0 it
    reaches down to 0. σ_b² is taken from the gaps, and from the scores where these say more: a few rows without
    positives would look certain.
    """
    num_rows = len(scores)
    if num_rows < 2:
        return UNKNOWN
    order = np.lexsort((labels, scores))
    score, gap = scores[order], scores[order] - labels[order]
    means = np.abs(sum_bins(score, gap)) / num_rows
    squares = np.maximum(sum_bins(score, gap**2), sum_bins(score, score * (1.0 - score))) / num_rows
    variances = np.maximum(0.0, squares - means**2) / num_rows
    value = float(means.sum())
    error = math.sqrt(max(0.0, float(squares.sum()) - value**2) / num_rows)
    is_off = means > _SURELY_OFF * np.sqrt(variances)
    spreads = np.sqrt(np.where(is_off, 0.0, variances))
    variance = float(variances[is_off].sum() + _HALF_NORMAL[1] * (spreads**2).sum())
    excess = 0.0
    if variance > 0.0:
        skew = _HALF_NORMAL[2] * float((spreads**3).sum()) / variance**1.5
        excess = _HALF_NORMAL[0] * float(spreads.sum()) + math.sqrt(variance) * (_Z + (_Z**2 - 1.0) * skew / 6.0)
    return Interval(error, max(0.0, value - excess), min(1.0, value + _Z * error))


def bound_counts(true_positives: float, false_positives: float, false_negatives: float) -> dict[str, Interval]:
    """Give the intervals of precision, recall and F1 of one class.

    F1 = 2a/(2a + b) rises with a/(a + b), a hits and b misses of either kind: Wilson's interval of that share, mapped.
    """
    num_misses = false_positives + false_negatives
    share = _divide(true_positives, true_positives + num_misses)
    plain = bound_share(share, true_positives + num_misses)
    return {
        "precision": _bound_ratio(true_positives, true_positives + false_positives),
        "recall": _bound_ratio(true_positives, true_positives + false_negatives),
        "f1": Interval(plain.error * 2.0 / (1.0 + share) ** 2, _to_f1(plain.lower), _to_f1(plain.upper)),
    }


def bound_macro(confusion: Floats, values: Mapping[str, float]) -> dict[str, Interval]:
    """Give the intervals of macro precision, recall and F1 by the delta method on rows of (label, predicted) counts.

    Each row moves only the classes that it is labelled and predicted as, so that the table of counts says it all.
    """
    hits, labelled, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = (labelled + predicted) > 0
    num_classes, num_rows = int(np.count_nonzero(occurs)), float(confusion.sum())
    found = {}
    for name, by_label, by_predicted in (("precision", 0.0, 1.0), ("recall", 1.0, 0.0), ("f1", 0.5, 0.5)):
        size = by_label * labelled + by_predicted * predicted
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(size > 0, hits / size, 0.0)
            weight = np.where(size > 0, 1.0 / size, 0.0)
        influence = -(by_label * share * weight)[:, None] - (by_predicted * share * weight)[None, :]
        influence = (influence + np.diag(weight)) / max(num_classes, 1)
        variance = float((confusion * influence**2).sum())
        found[name] = bound_unit(values.get(name, math.nan), math.sqrt(variance), num_rows)
    return found


def bound_macro_roc_auc(chances: Floats, scores: Floats) -> Interval:
    """Give DeLong's standard error of the mean of the areas of each class against the rest, their covariance included.

    Both are (rows, classes). A row that is of class t adds how it moves every area; what is known of a row are chances.
    """
    num_rows, num_classes = chances.shape
    totals = np.sort(chances, axis=0).sum(axis=0)
    if not num_rows or not np.all((totals > 1.0) & (num_rows - totals > 1.0)):
        return UNKNOWN
    areas = np.empty(num_classes)
    as_member, as_other = np.empty_like(chances), np.empty_like(chances)
    for column in range(num_classes):
        above, below = place_rows(chances[:, column], scores[:, column])
        areas[column] = float(np.sort(chances[:, column] * above).sum()) / totals[column]
        as_member[:, column] = (above - areas[column]) / totals[column]
        as_other[:, column] = (below - areas[column]) / (num_rows - totals[column])
    moved = (as_other.sum(axis=1, keepdims=True) - as_other + as_member) / num_classes
    variance = float(np.sort((chances * moved**2).sum(axis=1)).sum())
    return bound_unit(float(areas.mean()), math.sqrt(variance), float(min(totals.min(), (num_rows - totals).min())))


def bound_errors(errors: Floats, labels: Floats) -> dict[str, Interval]:
    """Give the intervals of RMSE and R² from the errors and labels of a regression, by the delta method."""
    num_rows = len(errors)
    if num_rows < 2:
        return {}
    squares = np.sort(errors**2)
    mean, mean_square = float(squares.sum()) / num_rows, float((squares**2).sum()) / num_rows
    plain = bound_mean(mean, mean_square, num_rows)
    rmse = math.sqrt(mean)
    found = {"rmse": Interval(_divide(plain.error, 2.0 * rmse), math.sqrt(plain.lower), math.sqrt(plain.upper))}
    spreads = (labels - float(np.sort(labels).sum()) / num_rows) ** 2
    total = float(np.sort(spreads).sum())
    if total > 0.0:
        left = float(squares.sum()) / total
        error = math.sqrt(float(np.sort((errors**2 - left * spreads) ** 2).sum())) / total
        found["r2"] = Interval(error, 1.0 - left - _Z * error, min(1.0, 1.0 - left + _Z * error))
    return found


def _bound_ratio(hits: float, trials: float) -> Interval:
    return bound_share(_divide(hits, trials), trials)


def _to_f1(share: float) -> float:
    return 2.0 * share / (1.0 + share)


def _divide(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0.0 else math.nan
