"""The gate: better passes, equal and worse do not, and the words say why."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from retrain.gate import PROMISE, GateRows, Verdict, judge_challenger
from retrain.gate_budgets import Cost, judge_cost, measure_cost, without_times
from retrain.gate_groups import judge_fairness, judge_segments
from retrain.gate_rows import OTHER, arrange_segments
from retrain.preprocessing import FeatureRows
from schemas.clock import SystemClock
from schemas.spec import FairnessSpec, PromoteSpec

ROWS = 4_000


def squash(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def make_binary(noise_champion: float, noise_challenger: float) -> GateRows:
    """Labels from a logit that each model sees through noise of its own."""
    rng = np.random.default_rng(5)
    logit = 2 * rng.normal(size=ROWS)
    labels = (rng.random(ROWS) < squash(logit)).astype(float)
    champion, challenger = (
        squash(logit + noise * rng.normal(size=ROWS)) for noise in (noise_champion, noise_challenger)
    )
    return GateRows("binary", labels, champion, challenger)


def test_better_challenger_passes() -> None:
    verdict = judge_challenger(make_binary(1.0, 0.2), PromoteSpec(), 100)
    assert verdict.passed
    assert verdict.words.startswith("Passed: AUC 0.")
    assert "of the champion on 4,000 later rows" in verdict.words
    assert verdict.metrics["roc_auc_gain_lower"] > 0 < verdict.metrics["log_loss_recalibrated_gain_lower"]
    gain = verdict.metrics["roc_auc"] - verdict.metrics["champion_roc_auc"]
    assert verdict.metrics["roc_auc_gain"] == pytest.approx(gain, abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "objection"),
    [
        (make_binary(0.2, 1.0), "its gain in AUC is below 0.003 and the gain in AUC is not surely above 0"),
        (make_binary(0.5, 0.5), "its gain in AUC is below 0.003"),
        (make_binary(0.55, 0.5), "is not surely"),
    ],
    ids=["worse", "equal", "hardly better"],
)
def test_no_better_challenger_is_refused(rows: GateRows, objection: str) -> None:
    verdict = judge_challenger(rows, PromoteSpec(), 100)
    assert not verdict.passed
    assert verdict.words.startswith("Refused: AUC 0.")
    assert objection in verdict.words


def test_identical_model_is_refused() -> None:
    rows = make_binary(0.5, 0.5)
    verdict = judge_challenger(GateRows("binary", rows.labels, rows.champion, rows.champion), PromoteSpec(), 100)
    assert not verdict.passed
    assert verdict.metrics["roc_auc_gain"] == verdict.metrics["roc_auc_gain_upper"] == 0.0


def test_better_ranking_with_a_spoilt_calibration_is_refused() -> None:
    rows = make_binary(1.0, 0.2)
    overconfident = squash(12 * np.log(rows.challenger / (1 - rows.challenger)))
    verdict = judge_challenger(GateRows("binary", rows.labels, rows.champion, overconfident), PromoteSpec(), 100)
    assert not verdict.passed
    assert verdict.metrics["roc_auc_gain_lower"] > 0
    assert "not accepted because its log loss is not surely below the recalibrated champion's" in verdict.words


def test_champion_is_recalibrated_before_log_losses_are_compared() -> None:
    """A shift of the base rate spoils the champion's log loss; beating that is no merit of the challenger."""
    rows = make_binary(0.8, 0.2)
    shifted = squash(np.log(rows.champion / (1 - rows.champion)) + 3)
    overconfident = squash(3 * np.log(rows.challenger / (1 - rows.challenger)))
    verdict = judge_challenger(GateRows("binary", rows.labels, shifted, overconfident), PromoteSpec(), 100)
    assert verdict.metrics["champion_log_loss"] > verdict.metrics["log_loss"] + 0.1
    assert verdict.metrics["log_loss"] > verdict.metrics["champion_log_loss_recalibrated"]
    assert not verdict.passed


def test_too_few_common_rows_are_refused() -> None:
    rows = make_binary(1.0, 0.2)
    champion = np.where(np.arange(ROWS) < 50, rows.champion, np.nan)
    verdict = judge_challenger(GateRows("binary", rows.labels, champion, rows.challenger), PromoteSpec(), 100)
    assert not verdict.passed
    assert verdict.words == "Refused: champion and challenger scored 50 labelled rows in common, 100 are needed."


def test_one_class_only_is_refused() -> None:
    rows = make_binary(1.0, 0.2)
    verdict = judge_challenger(GateRows("binary", np.ones(ROWS), rows.champion, rows.challenger), PromoteSpec(), 100)
    assert not verdict.passed
    assert "AUC is undefined on these rows" in verdict.words


@pytest.mark.parametrize(("share", "passes"), [(0.9, True), (0.995, False), (1.0, False), (1.1, False)])
def test_regression_needs_a_hundredth_less_error(share: float, passes: bool) -> None:
    rng = np.random.default_rng(1)
    labels, error = rng.normal(size=ROWS), rng.normal(size=ROWS)
    verdict = judge_challenger(
        GateRows("regression", labels, labels + error, labels + share * error), PromoteSpec(), 100
    )
    assert verdict.passed is passes
    assert "mean absolute error" in verdict.words


@pytest.mark.parametrize(("accuracy", "passes"), [(0.85, True), (0.8, False), (0.7, False)])
def test_multiclass_is_judged_by_accuracy(accuracy: float, passes: bool) -> None:
    rng = np.random.default_rng(2)
    classes = ("a", "b", "c")
    labels = rng.choice(classes, ROWS).astype(object)
    right = np.array([classes.index(label) for label in labels])

    def predict(share: float) -> np.ndarray:
        wrong = (right + rng.integers(1, 3, ROWS)) % 3
        return np.eye(3)[np.where(rng.random(ROWS) < share, right, wrong)]

    rows = GateRows("multiclass", labels, predict(0.8), predict(accuracy), classes)
    assert judge_challenger(rows, PromoteSpec(), 100).passed is passes


def split(rows: GateRows, worse_in: str = "", share: float = 0.2) -> GateRows:
    """The rows over three countries; in one of them the challenger says the opposite."""
    rng = np.random.default_rng(8)
    country = rng.choice(["DE", "FR", "US"], ROWS, p=[0.7 - share, 0.3, share]).astype(object)
    challenger = np.where(country == worse_in, 1 - rows.challenger, rows.challenger)
    return dataclasses.replace(rows, challenger=challenger, segments={"country": country})


def failed(verdict: Verdict) -> list[tuple[str, str]]:
    return [(gate.name, gate.segment) for gate in verdict.gates if not gate.passed]


def test_every_segment_is_a_gate() -> None:
    verdict = judge_challenger(split(make_binary(2.0, 0.2)), PromoteSpec(), 100)
    assert verdict.passed
    assert {gate.segment for gate in verdict.gates if gate.name == "segment"} == {
        "country=DE",
        "country=FR",
        "country=US",
    }
    assert "; none of 3 segments surely worse" in verdict.words


def test_better_on_average_but_worse_for_a_segment_is_refused() -> None:
    verdict = judge_challenger(split(make_binary(2.0, 0.05), "US", share=0.08), PromoteSpec(), 100)
    assert failed(verdict) == [("segment", "country=US")]
    assert "for country=US its AUC is surely worse by more than 0.01" in verdict.words
    assert "1 of 3 segments surely worse" in verdict.words
    tolerant = judge_challenger(split(make_binary(2.0, 0.05), "US", share=0.08), PromoteSpec(segment_tolerance=1), 100)
    assert tolerant.passed


def test_segment_with_too_few_rows_is_not_judged() -> None:
    rows = split(make_binary(2.0, 0.05), "US", share=0.02)
    verdict = judge_challenger(rows, PromoteSpec(), 100)
    assert np.count_nonzero(rows.segments["country"] == "US") < 100
    assert "country=US" not in {gate.segment for gate in verdict.gates}
    assert verdict.passed


def test_equal_challenger_seldom_fails_for_a_segment() -> None:
    """The gates of segments hold together: of 40 sets of 10 equal segments few have one that fails."""
    num_failed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        logit = 2 * rng.normal(size=1_000)
        labels = (rng.random(1_000) < squash(logit)).astype(float)
        champion, challenger = (squash(logit + 0.3 * rng.normal(size=1_000)) for _ in range(2))
        keys = (np.arange(1_000) % 10).astype(str).astype(object)
        rows = GateRows("binary", labels, champion, challenger, segments={"key": keys})
        gates = judge_segments(rows, PromoteSpec(segment_tolerance=0.0), 50)
        assert len(gates) == 10
        num_failed += any(not gate.passed for gate in gates)
    # One-sided 2.5 % is 1 of 40; bounds by the normal distribution on 100 rows are not exact.
    assert num_failed <= 4


def test_unfair_challenger_is_refused_unless_the_champion_is_as_unfair() -> None:
    rows = split(make_binary(2.0, 0.2))
    favoured = np.where(rows.segments["country"] == "DE", np.maximum(rows.challenger, 0.6), rows.challenger)
    unfair = dataclasses.replace(rows, challenger=favoured)
    limits = FairnessSpec(demographic_parity=0.2, equal_opportunity=0.2, disparate_impact=0.8)
    gates = {gate.name: gate for gate in judge_fairness(unfair, limits, 100)}
    assert set(gates) == {"demographic_parity", "equal_opportunity", "disparate_impact"}
    assert not gates["demographic_parity"].passed
    assert not gates["disparate_impact"].passed
    assert all(gate.passed for gate in judge_fairness(rows, limits, 100))
    as_unfair = dataclasses.replace(unfair, champion=favoured)
    assert all(gate.passed for gate in judge_fairness(as_unfair, limits, 100))
    # What the champion sent counts, not what its score would say.
    sent = np.where(rows.segments["country"] == "DE", 1.0, 0.0)
    assert all(
        gate.passed for gate in judge_fairness(dataclasses.replace(unfair, champion_predictions=sent), limits, 100)
    )


def test_segments_of_the_reference_are_kept_and_others_are_the_rest() -> None:
    found = {"country": {"a": "DE", "b": "XX"}}
    assert arrange_segments(found, {"country": ["DE"]}, ["a", "b", "c"])["country"].tolist() == ["DE", OTHER, None]
    assert arrange_segments(found, {}, ["a", "b", "c"])["country"].tolist() == ["DE", "XX", None]


def test_budgets_are_gates_only_where_they_are_declared() -> None:
    cost = Cost(latency_ms_p99=3.5, rows_per_s=1e5, size_bytes=5_000)
    assert judge_cost(cost, PromoteSpec()) == []
    gates = judge_cost(cost, PromoteSpec(max_latency_ms=3, max_size_bytes=5_000))
    assert [(gate.name, gate.passed, gate.value, gate.limit) for gate in gates] == [
        ("latency", False, 3.5, 3.0),
        ("size", True, 5_000.0, 5_000.0),
    ]
    verdict = judge_challenger(make_binary(1.0, 0.2), PromoteSpec(max_latency_ms=3), 100, cost=cost)
    assert failed(verdict) == [("latency", "")]
    assert verdict.words.endswith("because scoring one row takes more than 3 ms in 99 of 100 cases.")
    assert without_times(verdict.gates[-1]).value is None


def test_cost_is_measured_row_by_row_and_in_a_batch() -> None:
    clock = SystemClock()
    seen: list[int] = []

    def score(rows: FeatureRows) -> None:
        seen.append(rows.num_rows)
        until_s = clock.monotonic_s() + 0.002
        while clock.monotonic_s() < until_s:
            pass

    rows = FeatureRows({"x": np.arange(50.0)}, {"t": pa.array(["a"] * 50)}, 50)
    cost = measure_cost(score, rows, 7, clock)
    assert seen == [1] * 320 + [50]
    assert cost.latency_ms_p99 >= 2
    assert 0 < cost.rows_per_s <= 25_000
    assert cost.size_bytes == 7


def test_promise_is_the_lower_bound_of_the_challengers_own_metric() -> None:
    verdict = judge_challenger(make_binary(1.0, 0.2), PromoteSpec(), 100)
    assert verdict.metrics["roc_auc"] - 0.03 < verdict.metrics[PROMISE] < verdict.metrics["roc_auc"]
    rng = np.random.default_rng(1)
    labels, error = rng.normal(size=ROWS), rng.normal(size=ROWS)
    worse = judge_challenger(GateRows("regression", labels, labels + error, labels + error / 2), PromoteSpec(), 100)
    assert worse.metrics["mae"] < worse.metrics[PROMISE] < worse.metrics["mae"] + 0.03
