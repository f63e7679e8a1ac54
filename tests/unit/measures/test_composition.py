"""Evidence that a person can read."""

from __future__ import annotations

import numpy as np

from measures.composition import MISSING, ShareChange, explain_composition


def test_numbers_read_like_their_codes_and_missing_is_a_value() -> None:
    reference = np.array([0.0] * 9 + [16.0])
    current = np.array([16.0] * 7 + [np.nan] * 2 + [1.5])
    assert explain_composition(reference, current, top=4) == [
        ShareChange("0", 0.9, 0.0),
        ShareChange("16", 0.1, 0.7),
        ShareChange(MISSING, 0.0, 0.2),
        ShareChange("1.5", 0.0, 0.1),
    ]


def test_equal_changes_go_by_name_and_unchanged_values_are_left_out() -> None:
    reference = np.array(["b"] * 2 + ["a"] * 7 + ["same"], dtype=object)
    current = np.array(["b"] * 3 + ["a"] * 6 + ["same"], dtype=object)
    assert [each.value for each in explain_composition(reference, current)] == ["a", "b"]


def test_none_and_nan_are_one_missing_value() -> None:
    reference = np.array([None, float("nan"), np.nan, "a"], dtype=object)
    current = np.array(["a", "a"], dtype=object)
    assert [str(each) for each in explain_composition(reference, current)] == [
        "(missing): 75.0% → 0.0%",
        "a: 25.0% → 100.0%",
    ]


def test_no_rows_explain_nothing() -> None:
    assert explain_composition(np.array([]), np.array([1.0])) == []
    assert explain_composition(np.array([1.0]), np.array([])) == []
