"""Evidently's distances, called one at a time; with `measures.evidently_report` all that imports Evidently.

They are the definition of what `measures.distances` computes, and what tests and benchmarks hold it against. Nothing
that measures windows calls them: importing Evidently takes 3-10 s and 280 MB, so it is imported inside a function.
It must not use Evidently's presets or reports, whose rendering dominates their cost, nor its chi-square, G-test,
Mann-Whitney, TVD and MMD, which are wrong or unstable.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NAMES = ("wasserstein", "jensenshannon", "psi")


@functools.cache
def _load() -> Callable[[str, pd.Series[Any], pd.Series[Any], str], float]:
    """Import Evidently once and return a function (name, reference, current, feature type) → value."""
    with warnings.catch_warnings():
        # Evidently and what it imports use deprecated names of NumPy and pydantic while they load.
        warnings.simplefilter("ignore")
        from evidently.legacy.calculations import stattests
        from evidently.legacy.core import ColumnType
    tests = {
        "wasserstein": stattests.wasserstein_stat_test,
        "jensenshannon": stattests.jensenshannon_stat_test,
        "psi": stattests.psi_stat_test,
    }

    def call(name: str, reference: pd.Series[Any], current: pd.Series[Any], feature_type: str) -> float:
        return float(tests[name](reference, current, ColumnType(feature_type), None).drift_score)

    return call


def warm_up() -> None:
    """Import Evidently now (seconds), so that the first measurement does not wait for it. Safe to repeat."""
    _load()


def compute_distance(
    name: str, reference: NDArray[Any], current: NDArray[Any], kind: Literal["number", "category"]
) -> float:
    """Return Evidently's value of the distance `name` (one of NAMES) between two samples.

    Both are 1-D, not empty, finite and without missing values; categories come as integer codes.
    Pass sorted arrays where the last bits must not depend on the order of the rows. NaN where the
    distance overflows.
    """
    feature_type = "num" if kind == "number" else "cat"
    with np.errstate(all="ignore"):
        try:
            return _load()(name, pd.Series(reference), pd.Series(current), feature_type)
        except ValueError:
            # NumPy cannot lay Sturges bins over a range of a few adjacent floats, or of infinite
            # width; then each distinct value is its own bin, as for columns of ≤ 20 values.
            return _load()(name, pd.Series(reference), pd.Series(current), "cat")
