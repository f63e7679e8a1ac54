"""What the change of one column alone would cost, against the same by weights."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from measures.blame import resample_cells, share_effects
from measures.performance import measure_performance

NUM_ROWS = 20_000


def make_reference() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cells of a column on which the model does worse the higher they are, and of an idle one; label, score."""
    rng = np.random.default_rng(3)
    hard, idle = rng.choice(4, NUM_ROWS, p=[0.4, 0.3, 0.2, 0.1]), rng.choice(3, NUM_ROWS)
    logit = rng.normal(0.0, 2.0, NUM_ROWS)
    label = (rng.random(NUM_ROWS) < 1 / (1 + np.exp(-logit))).astype(float)
    score = 1 / (1 + np.exp(-(logit + hard * rng.normal(0.0, 1.5, NUM_ROWS))))
    return hard, idle, label, np.round(score, 6)


@pytest.mark.parametrize(("metric", "weigh"), [("roc_auc", roc_auc_score), ("log_loss", log_loss)])
def test_resampling_is_weighting(metric: str, weigh: object) -> None:
    hard, idle, label, score = make_reference()
    rng = np.random.default_rng(4)
    windows = {"hard": rng.choice(4, 5_000, p=[0.1, 0.1, 0.2, 0.6]), "idle": rng.choice(3, 5_000, p=[0.8, 0.1, 0.1])}
    harms = {}
    before = measure_performance("binary", label, scores=score, metrics=[metric])[metric]
    for name, cells in (("hard", hard), ("idle", idle)):
        chosen = resample_cells(cells, windows[name], 2.0 * label + score)
        assert chosen is not None
        shares = np.bincount(windows[name]) / len(windows[name])
        found = np.bincount(cells[chosen], minlength=len(shares)) / NUM_ROWS
        assert np.abs(found - shares).max() < 2 / NUM_ROWS
        weights = (shares / (np.bincount(cells) / NUM_ROWS))[cells]
        after = measure_performance("binary", label[chosen], scores=score[chosen], metrics=[metric])[metric]
        assert after == pytest.approx(weigh(label, score, sample_weight=weights), abs=2e-3)  # type: ignore[operator]
        harms[name] = before - after if metric == "roc_auc" else after - before
    assert harms["hard"] > 10 * abs(harms["idle"])
    assert share_effects(harms)["hard"] > 0.9


def test_what_cannot_be_said_is_not() -> None:
    """Cells that the reference lacks are left out; without any other there is nothing to take."""
    cells, order = np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3])
    assert resample_cells(cells, np.array([2, 2, 0]), order).tolist() == [0, 1, 1]  # type: ignore[union-attr]
    assert resample_cells(cells, np.array([2, 2]), order) is None
    assert resample_cells(cells, cells[:0], order) is None
    assert resample_cells(cells[:0], cells, order[:0]) is None
    assert share_effects({"a": -1.0}) == {}
