"""Distances against Evidently's own values, p-values against SciPy and against what they promise."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from measures.drift import measure_distance, warm_up

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
    }


def _categories() -> dict[str, tuple[Sample, Sample]]:
    rng = np.random.default_rng(8)
    letters = np.array([f"c{i}" for i in range(60)], dtype=object)
    return {
        "few": (letters[rng.integers(0, 4, 2500)], letters[rng.integers(0, 5, 900)]),
        "many": (letters[rng.integers(0, 60, 2500)], letters[rng.integers(10, 60, 900)]),
        "strings of fixed width": (letters[rng.integers(0, 3, 500)].astype(str), letters[:3].astype(str)),
        "constant": (np.full(40, "a", dtype=object), np.full(30, "b", dtype=object)),
    }


def _call_evidently(name: str, reference: Sample, current: Sample, feature_type: str) -> float:
    from evidently.legacy.calculations.stattests.registry import get_stattest
    from evidently.legacy.core import ColumnType

    test = get_stattest(pd.Series(reference), pd.Series(current), feature_type, name)
    return float(test(pd.Series(reference), pd.Series(current), ColumnType(feature_type), None).drift_score)


@pytest.mark.parametrize("method", ["wasserstein", "jensenshannon", "psi"])
@pytest.mark.parametrize("case", _numbers())
def test_numbers_equal_evidently_exactly(case: str, method: str) -> None:
    reference, current = (np.sort(side) for side in _numbers()[case])
    assert measure_distance(reference, current, "number", method).value == _call_evidently(
        method, reference, current, "num"
    )


@pytest.mark.parametrize("method", ["jensenshannon", "psi"])
@pytest.mark.parametrize("case", _categories())
def test_categories_equal_evidently_but_for_the_order_of_its_sums(case: str, method: str) -> None:
    reference, current = _categories()[case]
    expected = _call_evidently(method, reference, current, "cat")
    assert measure_distance(reference, current, "category", method).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", ["shifted", "few values", "small reference"])
def test_ks_equals_evidently_and_carries_the_statistic(case: str) -> None:
    reference, current = _numbers()[case]
    measured = measure_distance(reference, current, "number", "ks")
    assert measured.p_value == _call_evidently("ks", reference, current, "num")
    assert measured.value == stats.ks_2samp(reference, current).statistic
    assert measured.drifted == (measured.p_value <= 0.05)


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
