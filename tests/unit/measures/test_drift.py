"""Degenerate columns have results, never exceptions; wrong questions have clear answers."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest

from measures.drift import AUTO, METHODS, Kind, measure_distance

EMPTY = np.array([], dtype=float)
NUMBERS: dict[str, Any] = {
    "empty": EMPTY,
    "all missing": np.array([np.nan, np.nan]),
    "all infinite": np.array([np.inf, -np.inf]),
    "one row": np.array([1.5]),
    "constant": np.full(30, 7.0),
    "constant zero": np.array([0.0, -0.0, 0.0]),
    "two adjacent floats": np.repeat([1.0, np.nextafter(1.0, 2.0)], 20),
    "thirty adjacent floats": 1.0 + np.arange(30) * np.finfo(float).eps,
    "as wide as floats go": np.linspace(-1.0, 1.0, 50) * sys.float_info.max,
    "tiny": np.arange(40) * 5e-324,
}
CATEGORIES: dict[str, Any] = {
    "empty": np.array([], dtype=object),
    "all missing": np.array([None, np.nan, None], dtype=object),
    "one row": np.array(["a"], dtype=object),
    "constant": np.array(["a"] * 20, dtype=object),
    "all distinct": np.array([f"id{i}" for i in range(300)], dtype=object),
    "mixed types": np.array(["1", 1, True, 2.5, "a", None], dtype=object),
    "fixed width": np.array(["a", "bb"]),
}
NO_ROWS = {"empty", "all missing", "all infinite"}


def _combinations(columns: dict[str, Any], kind: Kind) -> list[tuple[str, str, str]]:
    methods = [name for name, method in METHODS.items() if kind in method.kinds]
    return [(before, after, method) for before in columns for after in columns for method in methods]


@pytest.mark.parametrize("kind", ["number", "category"])
def test_degenerate_columns(kind: Kind) -> None:
    columns = NUMBERS if kind == "number" else CATEGORIES
    for before, after, method in _combinations(columns, kind):
        case = (before, after, method)
        measured = measure_distance(columns[before], columns[after], kind, method)
        if before in NO_ROWS or after in NO_ROWS:
            assert math.isnan(measured.value), case
            assert measured.p_value is None, case
            assert not measured.drifted, case
        elif before == after:
            assert measured.value == pytest.approx(0.0, abs=1e-12), case
            assert measured.p_value in (None, 1.0), case
            assert not measured.drifted, case
        else:
            assert measured.value >= 0.0 or "as wide as floats go" in case, case


def test_auto_is_a_distance_however_small_the_reference() -> None:
    numbers, names = np.arange(10.0), np.array(list("abcab"), dtype=object)
    assert measure_distance(numbers, numbers, "number").metric == AUTO["number"] == "wasserstein"
    assert measure_distance(names, names, "category").metric == AUTO["category"] == "jensenshannon"


def test_missing_values_are_left_out_on_both_sides() -> None:
    clean = measure_distance(np.arange(50.0), np.arange(20.0), "number")
    dirty = measure_distance(
        np.concatenate([np.arange(50.0), [np.nan, np.inf]]),
        np.concatenate([[-np.inf, np.nan], np.arange(20.0)]),
        "number",
    )
    assert dirty == clean
    names = np.array(["a", "b", "b"], dtype=object)
    with_missing = np.array([None, "a", "b", np.nan, "b"], dtype=object)
    assert measure_distance(with_missing, names, "category").value == 0.0


def test_threshold_is_reached_at_equality() -> None:
    reference, current = np.array([0.0, 2.0]), np.array([1.0, 3.0])  # standard deviation 1, shift 1
    assert measure_distance(reference, current, "number", threshold=1.0).drifted
    assert not measure_distance(reference, current, "number", threshold=1.0 + 1e-9).drifted


def test_p_values_drift_below_their_threshold() -> None:
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=300), rng.normal(1.0, 1.0, size=300)
    reference = rng.normal(size=300)
    assert not measure_distance(reference, near, "number", "ks").drifted
    measured = measure_distance(reference, far, "number", "ks")
    assert measured.drifted
    assert measured.threshold == 0.05
    assert not measure_distance(reference, far, "number", "ks", threshold=0.0).drifted


@pytest.mark.parametrize(("kind", "method"), [("number", "chisquare"), ("category", "ks"), ("number", "mmd")])
def test_unsuitable_methods_are_refused_by_name(kind: Kind, method: str) -> None:
    with pytest.raises(ValueError, match=rf"{method}.*{kind}.*use auto, "):
        measure_distance(EMPTY, EMPTY, kind, method)
