"""The further distances and tests: Evidently's values where it is right, both values where it is not."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats

from measures.drift import METHODS, Kind, measure_distance
from measures.evidently_distances import warm_up
from measures.quadratic_tails import tail_anderson_darling, tail_cramer_von_mises
from schemas.declarations import DRIFT_METHODS, P_VALUE_METHODS

Sample = NDArray[Any]


@pytest.fixture(scope="module", autouse=True)
def _evidently() -> None:
    warm_up()


def _call_evidently(name: str, reference: Sample, current: Sample, kind: Kind) -> float:
    from evidently.legacy.calculations.stattests.registry import get_stattest
    from evidently.legacy.core import ColumnType

    feature_type = "num" if kind == "number" else "cat"
    sides = pd.Series(reference.copy()), pd.Series(current.copy())  # Hellinger writes into its arguments
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's, of what Evidently still calls it with
        return float(get_stattest(*sides, feature_type, name)(*sides, ColumnType(feature_type), None).drift_score)


def _draw(seed: int, kind: Kind) -> tuple[Sample, Sample]:
    rng = np.random.default_rng(seed)
    sizes = rng.choice([2, 30, 300, 4000], 2)
    if kind == "category":
        names = np.array([f"c{i}" for i in range(int(rng.choice([2, 6, 80])))], dtype=object)
        return tuple(names[rng.integers(0, rng.integers(1, len(names) + 1), size)] for size in sizes)  # type: ignore[return-value]
    shapes = [
        lambda size: rng.normal(rng.normal(), 1.0 + rng.exponential(), size),
        lambda size: rng.exponential(size=size) * (rng.random(size) < 0.3),
        lambda size: rng.integers(0, 9, size).astype(float),
        lambda size: rng.standard_t(2, size) * 1e6,
        lambda size: np.full(size, 2.5),
    ]
    return shapes[rng.integers(len(shapes))](sizes[0]), shapes[rng.integers(len(shapes))](sizes[1])


def test_the_spec_knows_every_method() -> None:
    assert set(DRIFT_METHODS) == {"auto", *METHODS}
    assert set(P_VALUE_METHODS) == {name for name, method in METHODS.items() if method.yields_p_value}


@pytest.mark.parametrize("kind", ["number", "category"])
@pytest.mark.parametrize("seed", range(60))
def test_distances_equal_evidently(kind: Kind, seed: int) -> None:
    reference, current = _draw(seed, kind)
    for ours, theirs in (("kl_div", "kl_div"), ("hellinger", "hellinger"), ("energy", "ed")):
        if kind not in METHODS[ours].kinds:
            continue
        measured = measure_distance(reference, current, kind, ours).value
        expected = _call_evidently(theirs, reference, current, kind)
        if ours == "hellinger" and expected < 1e-3:
            # Theirs is the root of 1 - (nearly 1): half of the digits are gone. Squares have lost none.
            assert measured**2 == pytest.approx(expected**2, abs=1e-13)
        else:
            assert measured == pytest.approx(expected, rel=1e-9, abs=1e-9), ours


def test_a_hellinger_distance_of_nothing_is_not_rounding() -> None:
    """Of equal samples Evidently's is the root of a last digit now and then; ours is 0."""
    theirs = []
    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 50, 997 + seed)
        assert measure_distance(values.astype(float), values.astype(float), "number", "hellinger").value == 0.0
        theirs.append(_call_evidently("hellinger", values, values, "category"))
    assert 1e-9 < max(theirs) < 1e-7


@pytest.mark.parametrize("seed", range(40))
def test_category_distances_equal_their_definitions(seed: int) -> None:
    reference, current = _draw(seed, "category")
    table = pd.crosstab(np.repeat(["c", "r"], [len(current), len(reference)]), np.concatenate([current, reference]))
    after, before = table.to_numpy() / table.to_numpy().sum(axis=1, keepdims=True)
    found = {name: measure_distance(reference, current, "category", name).value for name in METHODS
             if "category" in METHODS[name].kinds}  # fmt: skip
    assert found["total_variation"] == pytest.approx(np.abs(before - after).sum() / 2, abs=1e-15)
    assert found["l_infinity"] == pytest.approx(np.abs(before - after).max(), abs=1e-15)
    assert found["l_infinity"] <= found["total_variation"] + 1e-15
    # Le Cam: H² ≤ TV ≤ H √(2 - H²).
    assert found["hellinger"] ** 2 <= found["total_variation"] + 1e-12
    assert found["total_variation"] <= found["hellinger"] * math.sqrt(2 - found["hellinger"] ** 2) + 1e-12
    if table.shape[1] > 1:
        expected = stats.chi2_contingency(table.to_numpy(), correction=False, lambda_="log-likelihood")
        tested = measure_distance(reference, current, "category", "g_test")
        assert tested.value == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
        assert tested.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_total_variation_is_a_distance_where_evidently_s_is_a_p_value() -> None:
    """Evidently's `TVD` is a permutation p-value from 1,000 draws: it cannot tell 10 points from 30."""
    names = np.array(["a", "b"], dtype=object)
    reference = names[np.repeat([0, 1], [500, 500])]
    for moved in (100, 300):
        current = names[np.repeat([0, 1], [500 - moved, 500 + moved])]
        assert measure_distance(reference, current, "category", "total_variation").value == pytest.approx(moved / 1000)
        assert _call_evidently("TVD", reference, current, "category") == 0.0


def test_g_keeps_its_level_where_evidently_s_does_not() -> None:
    rng = np.random.default_rng(3)
    names, shares = np.array(list("abcd"), dtype=object), [0.4, 0.3, 0.2, 0.1]
    num_ours = num_evidently = 0
    for _ in range(300):
        reference, current = (names[rng.choice(4, 1000, p=shares)] for _ in range(2))
        num_ours += measure_distance(reference, current, "category", "g_test", 0.05).drifted
        num_evidently += _call_evidently("g_test", reference, current, "category") < 0.05
    # 300 at .05: 15 ± 3.8.
    assert 3 <= num_ours <= 30
    assert num_evidently > 60
    with pytest.raises(ValueError, match="sum of the observed frequencies must agree"):
        _call_evidently("g_test", reference, current[:500], "category")


@pytest.mark.parametrize("seed", range(40))
def test_cramer_von_mises_equals_scipy_and_evidently_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_own, num_other = rng.choice([2, 5, 18, 40, 900, 5000], 2)
    reference, current = rng.normal(size=num_own), rng.normal(0.2 * rng.random(), 1.0, size=num_other)
    measured = measure_distance(reference, current, "number", "cramer_von_mises")
    expected = stats.cramervonmises_2samp(reference, current)
    assert measured.value == pytest.approx(expected.statistic, rel=1e-9)
    assert measured.p_value == pytest.approx(expected.pvalue, abs=1e-9)
    if max(num_own, num_other) > 20:  # below, Evidently's copy of SciPy's old code fails on NumPy 2
        theirs = _call_evidently("cramer_von_mises", reference, current, "number")
        assert measured.p_value == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_anderson_darling_equals_scipy_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_own, num_other = rng.choice([3, 5, 18, 40, 900, 5000], 2)
    reference, current = rng.normal(size=num_own), rng.normal(0.3 * rng.random(), 1.0, size=num_other)
    expected = _scipy_anderson(reference, current)
    measured = measure_distance(reference, current, "number", "anderson_darling")
    # SciPy's is standardized by the same mean, 1, and the same deviation, which the ratio gives away.
    again = measure_distance(current, reference, "number", "anderson_darling")
    assert again.value == pytest.approx(measured.value, rel=1e-12)
    deviation = (measured.value - 1.0) / expected
    assert 0.4 < deviation < 0.8
    assert measured.p_value == pytest.approx(
        tail_anderson_darling(1.0 + math.sqrt(2 * (math.pi**2 - 9) / 3) * expected), rel=1e-6
    )


def _scipy_anderson(reference: Sample, current: Sample) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's p-value is capped, and it says so
        return float(stats.anderson_ksamp([reference, current], variant="continuous").statistic)


def test_anderson_darling_has_p_values_where_evidently_s_end() -> None:
    rng = np.random.default_rng(11)
    reference = rng.normal(size=2000)
    for shift, low, high in ((0.0, 0.25, 1.0), (0.08, 0.001, 0.25), (0.4, 0.0, 1e-15)):
        current = reference + shift + rng.normal(scale=1e-3, size=2000)
        p_value = measure_distance(reference, current, "number", "anderson_darling").p_value
        assert p_value is not None
        assert low < p_value <= high
        theirs = _call_evidently("anderson", reference, current, "number")
        assert 0.001 <= theirs <= 0.25
        if low == 0.001:
            # Inside the table that SciPy interpolates, both say about the same.
            assert theirs == pytest.approx(p_value, rel=0.15)


TIED = {
    "95 % zeros": lambda rng, size: rng.exponential(size=size) * (rng.random(size) < 0.05),
    "two values": lambda rng, size: (rng.random(size) < 0.35).astype(float),
    "five values": lambda rng, size: rng.integers(0, 5, size).astype(float),
    "constant": lambda rng, size: np.full(size, 1.0),
}


@pytest.mark.parametrize("method", ["cramer_von_mises", "anderson_darling"])
@pytest.mark.parametrize("shape", TIED)
def test_ties_never_alarm_too_often(shape: str, method: str) -> None:
    rng = np.random.default_rng(5)
    alarms = [
        measure_distance(TIED[shape](rng, 900), TIED[shape](rng, 250), "number", method, 0.05).drifted
        for _ in range(600)
    ]
    # 600 at .05: 30 ± 5.3.
    assert sum(alarms) <= 46


def test_ties_make_evidently_s_tests_alarm() -> None:
    """On 95 % zeros, unchanged, Evidently's Cramér-von-Mises says drift nearly always; on two values Anderson's too."""
    rng = np.random.default_rng(6)
    zeros, coins = TIED["95 % zeros"], TIED["two values"]
    theirs = [_call_evidently("cramer_von_mises", zeros(rng, 900), zeros(rng, 250), "number") for _ in range(50)]
    assert sum(p_value <= 0.05 for p_value in theirs) > 40
    theirs = [_call_evidently("anderson", coins(rng, 900), coins(rng, 250), "number") for _ in range(600)]
    assert sum(p_value <= 0.05 for p_value in theirs) > 46


@pytest.mark.parametrize("method", ["cramer_von_mises", "anderson_darling"])
def test_levels_hold_without_ties(method: str) -> None:
    rng = np.random.default_rng(8)
    p_values = [
        measure_distance(rng.normal(size=400), rng.normal(size=120), "number", method).p_value for _ in range(2000)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4


def _sum_of_squares_tail(value: float, weights: Sample) -> float:
    """Imhof's inversion of the characteristic function, by quadrature."""

    def integrand(u: float) -> float:
        angle = 0.5 * np.arctan(weights * u).sum() - 0.5 * value * u
        return math.sin(angle) / (u * math.exp(0.25 * np.log1p((weights * u) ** 2).sum()))

    found, _ = integrate.quad(integrand, 0.0, np.inf, limit=2000, epsabs=1e-12)
    return 0.5 + found / math.pi


def test_tails_are_those_of_the_sums_of_squares() -> None:
    place = np.arange(1.0, 4001.0)
    laws = [(tail_cramer_von_mises, (place * math.pi) ** -2), (tail_anderson_darling, 1.0 / (place * (place + 1.0)))]
    for tail, weights in laws:
        mean = float(weights.sum())
        for value in (0.5 * mean, mean, 2.5 * mean, 6.0 * mean):
            # What the sum was cut of is nearly constant: its mean.
            rest = (1.0 / 6.0 if weights[1] < 0.1 else 1.0) - mean
            assert tail(value + rest) == pytest.approx(_sum_of_squares_tail(value, weights), abs=2e-7)
        assert tail(0.0) == 1.0


def test_far_tails_keep_their_digits() -> None:
    """Ever smaller, at the rate of the largest weight: exp(-x / 2w) for each x."""
    for tail, weight in ((tail_cramer_von_mises, math.pi**-2), (tail_anderson_darling, 0.5)):
        near, far = tail(60.0 * weight), tail(100.0 * weight)
        assert 0.0 < far < near < 1e-12
        assert far / near == pytest.approx(math.exp(-20.0) * math.sqrt(60 / 100), rel=0.02)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=40),
    st.lists(st.integers(-4, 4), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_methods_are_symmetric_or_not_and_never_depend_on_order(reference: Any, current: Any, random: Any) -> None:
    before, after = np.array(reference, dtype=float), np.array(current, dtype=float)
    for name, method in METHODS.items():
        for kind in method.kinds:
            sides = (before, after) if kind == "number" else (before.astype(str), after.astype(str))
            measured = measure_distance(*sides, kind, name)
            shuffled = (sides[0].copy(), sides[1].copy())
            for side in shuffled:
                random.shuffle(side)
            assert measure_distance(*shuffled, kind, name) == measured
            assert measured.value >= 0.0
            assert measured.p_value is None or 0.0 <= measured.p_value <= 1.0
            if name not in ("kl_div", "wasserstein", "jensenshannon", "psi"):
                swapped = measure_distance(sides[1], sides[0], kind, name)
                assert swapped.value == pytest.approx(measured.value, rel=1e-9, abs=1e-12)
            if sorted(reference) == sorted(current):
                assert measured.value == pytest.approx(0.0, abs=1e-12)
