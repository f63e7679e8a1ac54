"""Distances against Evidently's own values, p-values against SciPy and against what they promise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from measures.drift import measure_distance
from measures.evidently_distances import compute_distance, warm_up

Sample = NDArray[Any]


@pytest.fixture(scope="module", autouse=True)
def _evidently() -> None:
    warm_up()


def _numbers() -> dict[str, tuple[Sample, Sample]]:
    rng = np.random.default_rng(7)
    return {
        "shifted": (rng.normal(size=3000), rng.normal(0.2, 1.1, size=1700)),
        "heavy tails": (rng.standard_cauchy(size=2000), rng.standard_cauchy(size=900)),
        "few values": (rng.integers(0, 6, 1200).astype(float), rng.integers(1, 8, 800).astype(float)),
        "zero-inflated": (
            rng.exponential(size=1500) * (rng.random(1500) < 0.1),
            rng.exponential(size=800) * (rng.random(800) < 0.2),
        ),
        "small reference": (rng.normal(size=300), rng.normal(size=300)),
        "constant": (np.full(100, 3.0), np.full(50, 3.5)),
        # Shares below 1e-4 change what PSI takes for an empty bin.
        "rare bins": (rng.normal(size=30_000), rng.standard_t(3, size=900)),
    }


def _categories() -> dict[str, tuple[Sample, Sample]]:
    rng = np.random.default_rng(8)
    letters = np.array([f"c{i}" for i in range(60)], dtype=object)
    return {
        "few": (letters[rng.integers(0, 4, 2500)], letters[rng.integers(0, 5, 900)]),
        "many": (letters[rng.integers(0, 60, 2500)], letters[rng.integers(10, 60, 900)]),
        "strings of fixed width": (letters[rng.integers(0, 3, 500)].astype(str), letters[:3].astype(str)),
        "constant": (np.full(40, "a", dtype=object), np.full(30, "b", dtype=object)),
        "rare": (letters[np.repeat([0, 1, 2], [20_000, 2, 1])], letters[np.repeat([0, 3], [30_000, 1])]),
    }


def _call_evidently(name: str, reference: Sample, current: Sample, feature_type: str) -> float:
    from evidently.legacy.calculations.stattests.registry import get_stattest
    from evidently.legacy.core import ColumnType

    test = get_stattest(pd.Series(reference), pd.Series(current), feature_type, name)
    return float(test(pd.Series(reference), pd.Series(current), ColumnType(feature_type), None).drift_score)


@pytest.mark.parametrize("method", ["wasserstein", "jensenshannon", "psi"])
@pytest.mark.parametrize("case", _numbers())
def test_numbers_equal_evidently(case: str, method: str) -> None:
    reference, current = _numbers()[case]
    expected = _call_evidently(method, reference, current, "num")
    assert measure_distance(reference, current, "number", method).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("method", ["jensenshannon", "psi"])
@pytest.mark.parametrize("case", _categories())
def test_categories_equal_evidently(case: str, method: str) -> None:
    reference, current = _categories()[case]
    expected = _call_evidently(method, reference, current, "cat")
    assert measure_distance(reference, current, "category", method).value == pytest.approx(expected, rel=1e-12)


def _draw_numbers(rng: np.random.Generator) -> Sample:
    """A column of any of the shapes that columns have, or a mixture of two of them."""
    num_rows = int(rng.choice([1, 2, 3, 7, 30, 200, 1500]))
    shapes: list[Callable[[], Sample]] = [
        lambda: rng.normal(rng.normal(), rng.exponential(), num_rows),
        lambda: rng.standard_cauchy(num_rows) * 10.0 ** rng.integers(-3, 6),
        lambda: rng.integers(0, rng.integers(1, 60), num_rows).astype(float),
        lambda: np.round(rng.normal(size=num_rows), 1),
        lambda: rng.exponential(size=num_rows) * (rng.random(num_rows) < 0.1),
        lambda: np.full(num_rows, float(rng.choice([0.0, -0.0, 3.5, 1e300, -1e-300]))),
        lambda: rng.normal(rng.choice([0.0, 1e4, -1e9]), 1e-3, num_rows),
        lambda: np.array([*rng.normal(size=num_rows - 1), 1e12 * rng.normal()]),
    ]
    values = shapes[rng.integers(len(shapes))]()
    other = shapes[rng.integers(len(shapes))]()
    mixed = np.where(rng.random(num_rows) < rng.choice([0.0, 0.0, 0.5]), other, values)
    mixed[rng.random(num_rows) < rng.choice([0.0, 0.1, 0.7])] = rng.choice([np.nan, np.inf, -np.inf])
    return mixed


@pytest.mark.parametrize("seed", range(300))
def test_numbers_of_any_shape_equal_evidently(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, current = _draw_numbers(rng), _draw_numbers(rng)
    known, seen = (np.sort(side[np.isfinite(side)]) for side in (reference, current))
    for method in ("wasserstein", "jensenshannon", "psi"):
        measured = measure_distance(reference, current, "number", method).value
        if not len(known) or not len(seen):
            assert math.isnan(measured)
            continue
        expected = compute_distance(method, known, seen, "number")
        assert measured == pytest.approx(expected, rel=1e-11, abs=1e-12, nan_ok=True), method


@pytest.mark.parametrize("seed", range(100))
def test_categories_of_any_kind_equal_evidently(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = np.array([None, *(f"c{i}" for i in range(int(rng.choice([1, 2, 5, 40, 400]))))], dtype=object)
    sides = []
    for _ in range(2):
        first, end = sorted(rng.integers(0, len(names) + 1, 2))
        chosen = names[first : max(end, first + 1)] if first < len(names) else names
        sides.append(chosen[rng.integers(0, len(chosen), int(rng.choice([1, 2, 10, 300, 3000])))])
    reference, current = sides
    known, seen = (side[side != None] for side in sides)  # noqa: E711 - element by element
    for method in ("jensenshannon", "psi"):
        measured = measure_distance(reference, current, "category", method).value
        if not len(known) or not len(seen):
            assert math.isnan(measured)
            continue
        expected = _call_evidently(method, known, seen, "cat")
        assert measured == pytest.approx(expected, rel=1e-11, abs=1e-12), method


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.repeat(1.0 + np.arange(21) * np.finfo(float).eps, 40_000), "Too many bins"),
        (np.linspace(-0.9, 0.9, 30) * np.finfo(float).max, "cannot convert float NaN"),
    ],
)
def test_without_room_for_bins_numbers_are_compared_value_by_value(values: Sample, reason: str) -> None:
    reference, current = values, values[: len(values) // 3]
    for method in ("jensenshannon", "psi"):
        with np.errstate(all="ignore"), pytest.raises(ValueError, match=reason):
            _call_evidently(method, reference, current, "num")
        expected = _call_evidently(method, reference, current, "cat")
        assert measure_distance(reference, current, "number", method).value == pytest.approx(expected, rel=1e-12)


def test_equal_samples_of_unequal_sizes_have_no_distance() -> None:
    values = np.random.default_rng(3).normal(size=700)
    for times in (1, 2, 7):
        for method in ("wasserstein", "ks"):
            assert measure_distance(values, np.repeat(values, times), "number", method).value == 0.0


@pytest.mark.parametrize("case", ["shifted", "few values", "small reference"])
def test_ks_equals_evidently_and_carries_the_statistic(case: str) -> None:
    reference, current = _numbers()[case]
    measured = measure_distance(reference, current, "number", "ks")
    assert measured.p_value == _call_evidently("ks", reference, current, "num")
    assert measured.value == stats.ks_2samp(reference, current).statistic
    assert measured.drifted == (measured.p_value <= 0.05)


@pytest.mark.parametrize("num_values", [3, 200, 1 << 40])
def test_ks_of_many_rows_equals_scipy(num_values: int) -> None:
    rng = np.random.default_rng(num_values)
    reference = rng.integers(0, num_values, 12_000).astype(float)
    for num_rows in (9_000, 12_000, 31_000):
        current = np.floor(rng.integers(0, num_values, num_rows) * 0.97)
        expected = stats.ks_2samp(reference, current)
        measured = measure_distance(reference, current, "number", "ks")
        assert measured.value == pytest.approx(expected.statistic, rel=1e-12)
        assert measured.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_values_equal_evidently_s_public_report() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's own, while it renders
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        rng = np.random.default_rng(9)

        def sample(num_rows: int, shift: float) -> pd.DataFrame:
            amount = rng.normal(shift, 1.0, num_rows)
            amount[::40] = np.nan
            amount[5] = np.inf
            country = rng.choice(["DE", "FR", "PL"], num_rows, p=[0.5 + shift, 0.3, 0.2 - shift]).astype(object)
            country[::30] = None
            return pd.DataFrame({"amount": amount, "country": country})

        reference, current = sample(1500, 0.0), sample(1200, 0.1)
        definition = DataDefinition(numerical_columns=["amount"], categorical_columns=["country"])
        # Above 1,000 reference rows Evidently's default methods are ours.
        columns = [("amount", "auto"), ("country", "auto"), ("amount", "psi"), ("country", "psi"), ("amount", "ks")]
        metrics = [ValueDrift(column=name, method=None if how == "auto" else how) for name, how in columns]
        report = Report(metrics).run(
            Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
        )
        reported = [float(each["value"]) for each in report.dict()["metrics"]]
    for (name, how), expected in zip(columns, reported, strict=True):
        kind = "number" if name == "amount" else "category"
        measured = measure_distance(reference[name].to_numpy(), current[name].to_numpy(), kind, how)
        value = measured.value if measured.p_value is None else measured.p_value
        assert value == pytest.approx(expected, rel=1e-12), (name, how)


def test_chisquare_is_the_contingency_test() -> None:
    for reference, current in _categories().values():
        measured = measure_distance(reference, current, "category", "chisquare")
        table = pd.crosstab(np.repeat(["r", "c"], [len(reference), len(current)]), np.concatenate([reference, current]))
        expected = stats.chi2_contingency(table.to_numpy(), correction=False)
        assert measured.value == pytest.approx(expected.statistic, rel=1e-12)
        assert measured.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_chisquare_keeps_its_level_where_evidently_s_does_not() -> None:
    """Reference of 1,000 rows, windows of 5,000, no drift: level .05 must mean about one window in twenty."""
    rng = np.random.default_rng(10)
    shares = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    names = np.array(list("abcdef"), dtype=object)
    num_ours = num_evidently = 0
    for _ in range(200):
        reference = names[rng.choice(6, 1000, p=shares)]
        current = names[rng.choice(6, 5000, p=shares)]
        num_ours += measure_distance(reference, current, "category", "chisquare").drifted
        num_evidently += _call_evidently("chisquare", reference, current, "cat") < 0.05
    # 200 windows at .05: 10 ± 3.1; 20 is 3.2 standard deviations up.
    assert num_ours <= 20
    assert num_evidently >= 100
