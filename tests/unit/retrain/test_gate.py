"""The gate: better passes, equal and worse do not, and the words say why."""

from __future__ import annotations

import numpy as np
import pytest

from retrain.gate import GateRows, judge_challenger
from schemas.spec import PromoteSpec

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
