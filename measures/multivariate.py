"""Is a window different as a whole, though no column may be: in how its columns go together?

Owns the encoding of rows and three statistics of two samples. No alert rests on them: their p-values are of a single
comparison and not part of the false-alarm budget. All are deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special, stats

from measures.kernels import find_device, sum_kernels
from measures.performance import compute_roc_auc

Floats = NDArray[np.float64]

# Of each side; what more rows add is not worth its time (kernels grow with the square).
NUM_ROWS_MAX = 2_000
_NUM_CATEGORIES_MAX = 20
_NUM_FOLDS = 5
# The time grows with the square of the dimensions: with those of 1,000 squared 5 s on one core.
_NUM_SQUARED_MAX = 1_000
_SEED = 0
_NUM_PERMUTATIONS = 200
# Components are kept until they explain so much of the reference's variance, as NannyML does.
_EXPLAINED = 0.65


@dataclass(frozen=True, slots=True)
class Multivariate:
    """One statistic; `p_value` of "both samples come from one population", None where there is none."""

    value: float
    p_value: float | None


def encode_rows(reference: Mapping[str, NDArray[Any]], window: Mapping[str, NDArray[Any]]) -> tuple[Floats, Floats]:
    """Encode columns (floats, NaN missing; objects, None missing) of both sides as float64[rows, dimensions].

    Numbers are standardised by the reference, missing ones 0 with an indicator of their own; categories are indicators
    of the reference's 20 most frequent values, the rest, and missing. Columns that do not vary over both are left out.
    """
    parts: list[tuple[Floats, Floats]] = []
    for name, before in reference.items():
        after = window[name]
        if before.dtype.kind == "f":
            known = before[~np.isnan(before)]
            mean, deviation = (float(known.mean()), float(known.std()) or 1.0) if len(known) else (0.0, 1.0)
            parts += [_pair(lambda side: np.nan_to_num((side - mean) / deviation), before, after)]  # noqa: B023
            parts += [_pair(lambda side: np.isnan(side).astype(np.float64), before, after)]
            continue
        values, counts = np.unique(np.array([v for v in before.tolist() if v is not None], str), return_counts=True)
        kept = values[np.argsort(-counts, kind="stable")][:_NUM_CATEGORIES_MAX].tolist()
        texts = [np.array(["\0" if v is None else str(v) for v in side.tolist()]) for side in (before, after)]
        for value in [*kept, "\0"]:
            parts += [_pair(lambda side: (side == value).astype(np.float64), *texts)]  # noqa: B023
        parts += [_pair(lambda side: (~np.isin(side, [*kept, "\0"])).astype(np.float64), *texts)]  # noqa: B023
    varying = [(b, a) for b, a in parts if np.ptp(np.concatenate([b, a])) > 0]
    if not varying:
        return np.zeros((len(next(iter(reference.values()), ())), 0)), np.zeros(
            (len(next(iter(window.values()), ())), 0)
        )
    return np.column_stack([b for b, _ in varying]), np.column_stack([a for _, a in varying])


def classify_domains(reference: Floats, window: Floats) -> Multivariate:
    """How well a classifier tells window from reference: ROC AUC of predictions out of fold, 0.5 being not at all.

    Gradient-boosted trees in five interleaved folds. The one-sided p-value is Mann and Whitney's, as if the predictions
    were independent: an approximation. Lopez-Paz and Oquab, "Revisiting classifier two-sample tests" (2017).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, labels = np.vstack([reference, window]), np.repeat([0.0, 1.0], [len(reference), len(window)])
    # Interleaved within each side, so that every fold has its share of both.
    folds = np.concatenate([np.arange(len(side)) % _NUM_FOLDS for side in (reference, window)])
    scores = np.empty(len(rows))
    for fold in range(_NUM_FOLDS):
        model = HistGradientBoostingClassifier(
            max_iter=50, max_leaf_nodes=15, min_samples_leaf=20, early_stopping=False, random_state=_SEED
        )
        model.fit(rows[folds != fold], labels[folds != fold])
        scores[folds == fold] = model.predict_proba(rows[folds == fold])[:, 1]
    auc = compute_roc_auc(labels, scores)
    n, m = len(window), len(reference)
    z = (auc - 0.5) / math.sqrt((n + m + 1) / (12 * n * m))
    return Multivariate(auc, float(special.ndtr(-z)))


def classify_contents(reference: Floats, window: Floats) -> Multivariate:
    """The same for contents of many dimensions: how well a linear classifier tells window from reference.

    Ridge regression of the side on each dimension, and up to 1,000 of them on its square, all standardised, in five
    random folds; trees would take minutes for hundreds of dimensions. The p-value is that of 200 seeded permutations,
    for which only the right-hand sides of the regressions change: at least 1/201, and exact, as Mann and Whitney's is
    not here.
    """
    rows = np.vstack([reference, window])
    centred = rows - rows.mean(axis=0)
    if rows.shape[1] <= _NUM_SQUARED_MAX:
        centred = np.hstack([centred, centred**2])
    rows = centred - centred.mean(axis=0)
    rows /= np.where(rows.std(axis=0) > 1e-12, rows.std(axis=0), np.inf)
    # By chance and not by side: permuted sides then are what the sides could have been.
    folds = np.random.default_rng(_SEED).permutation(len(rows)) % _NUM_FOLDS
    assignments = _permute_sides(len(reference), len(window))
    sides = assignments - assignments.mean(axis=0)
    grams = [rows[folds == fold].T @ rows[folds == fold] for fold in range(_NUM_FOLDS)]
    moments = [rows[folds == fold].T @ sides[folds == fold] for fold in range(_NUM_FOLDS)]
    gram, moment = np.sum(grams, axis=0), np.sum(moments, axis=0)
    # As much as the data say of a dimension on average.
    ridge = max(float(np.trace(gram)) / len(gram), 1e-12) * np.eye(len(gram))
    scores = np.empty_like(sides)
    for fold in range(_NUM_FOLDS):
        weights = linalg.solve(gram - grams[fold] + ridge, moment - moments[fold], assume_a="pos")
        scores[folds == fold] = rows[folds == fold] @ weights
    # Of each assignment the area by Wilcoxon's rank sum.
    n, m = len(window), len(reference)
    areas = (np.sum(stats.rankdata(scores, axis=0) * assignments, axis=0) - n * (n + 1) / 2) / (n * m)
    return Multivariate(float(areas[0]), _rank_first(areas))


def measure_mmd(reference: Floats, window: Floats) -> Multivariate:
    """Maximum mean discrepancy, squared and unbiased, of a Gaussian kernel as wide as the median distance.

    The p-value is that of 200 seeded permutations, so at least 1/201. On the GPU where there is one, whose last digits
    may differ. Gretton et al., "A kernel two-sample test" (2012).
    """
    return measure_mmd_on(find_device(), reference, window)


def measure_mmd_on(device: str | None, reference: Floats, window: Floats) -> Multivariate:
    """The same on a device of torch, or with NumPy (None)."""
    m, n = len(reference), len(window)
    assignments = _permute_sides(m, n)
    within, between, outside = sum_kernels(np.vstack([reference, window]), assignments, device)
    found = within / (n * (n - 1)) + outside / (m * (m - 1)) - 2.0 * between / (n * m)
    return Multivariate(float(found[0]), _rank_first(found))


def _permute_sides(num_reference: int, num_window: int) -> Floats:
    """Give float64[rows, 1 + permutations]: 1 where a row is the window's, first as it is, then by chance."""
    is_window = np.repeat([0.0, 1.0], [num_reference, num_window])
    rng = np.random.default_rng(_SEED)
    return np.column_stack([is_window, *(rng.permutation(is_window) for _ in range(_NUM_PERMUTATIONS))])


def _rank_first(found: Floats) -> float:
    """Give the p-value of the first of values of which the others are permutations'."""
    return (1 + int(np.sum(found[1:] >= found[0]))) / (1 + _NUM_PERMUTATIONS)


def measure_reconstruction(reference: Floats, window: Floats) -> Multivariate:
    """How much worse the reference's principal components describe the window: the ratio of mean errors, 1 being alike.

    As many components as explain 65 % of the reference's variance; the error is the Euclidean distance. The p-value is
    a two-sided Welch test of the errors by the normal law. NannyML's data reconstruction with PCA.
    """
    mean = reference.mean(axis=0)
    _, singular, axes = np.linalg.svd(reference - mean, full_matrices=False)
    shares = np.cumsum(singular**2) / max(float(np.sum(singular**2)), 1e-300)
    kept = axes[: int(np.searchsorted(shares, _EXPLAINED)) + 1]
    errors = [np.linalg.norm((side - mean) - (side - mean) @ kept.T @ kept, axis=1) for side in (reference, window)]
    before, after = (float(each.mean()) for each in errors)
    spread = math.sqrt(sum(float(each.var(ddof=1)) / len(each) for each in errors))
    if before < 1e-9:
        return Multivariate(math.nan, None)
    p_value = 2.0 * float(special.ndtr(-abs(after - before) / spread)) if spread > 0 else None
    return Multivariate(after / before, p_value)


def measure_together(name: str, reference: Floats, window: Floats) -> Multivariate:
    """Measure one of STATISTICS, the same to the last bit whatever the machine has cores; KeyError for any other."""
    return _measure_alone(STATISTICS[name], reference, window)


def measure_contents(name: str, reference: Floats, window: Floats) -> Multivariate:
    """Measure one of CONTENT_STATISTICS, likewise."""
    return _measure_alone(CONTENT_STATISTICS[name], reference, window)


def _measure_alone(
    statistic: Callable[[Floats, Floats], Multivariate], reference: Floats, window: Floats
) -> Multivariate:
    from threadpoolctl import threadpool_limits

    # The order in which threads add decides the last digits.
    with threadpool_limits(1):
        return statistic(reference, window)


STATISTICS: dict[str, Callable[[Floats, Floats], Multivariate]] = {
    "domain_classifier": classify_domains,
    "mmd": measure_mmd,
    "pca_reconstruction": measure_reconstruction,
}
# Of the contents of one text, embedding or image feature, encoded by `measures.contents`.
CONTENT_STATISTICS: dict[str, Callable[[Floats, Floats], Multivariate]] = {
    "domain_classifier": classify_contents,
    "mmd": measure_mmd,
}


def _pair(encode: Callable[[NDArray[Any]], Floats], before: NDArray[Any], after: NDArray[Any]) -> tuple[Floats, Floats]:
    return encode(before), encode(after)
