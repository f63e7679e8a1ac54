"""How often the choice of rows is right, in many small worlds, and on how many rows candidates should be compared.

A logistic regression stands for the network, since it is trained in milliseconds; the choice is the job's own.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from retrain import candidates
from retrain.candidates import choose_rows
from retrain.snapshot import Snapshot
from schemas.spec import DataSpec

Floats = NDArray[np.float64]

CHANGE, NUM_OLD, NUM_NEW, NUM_TEST, WIDTH = 1_000_000, 4_000, 500, 5_000, 20
# How far the relation moves at the change, in units of itself: old rows help most where it stays, and hurt most at the
# end.
MOVES = (0.0, 0.15, 0.25, 0.35, 0.5, 0.8)
NUM_WORLDS_A_MOVE = 40


def make_rows(weights: Floats, num_rows: int, start: int, rng: np.random.Generator) -> pa.Table:
    inputs = rng.normal(size=(num_rows, WIDTH))
    labels = (rng.random(num_rows) < 1 / (1 + np.exp(-inputs @ weights))).astype(float)
    columns = {f"f:x{place}": inputs[:, place] for place in range(WIDTH)}
    return pa.table(
        {"ts": pa.array(start + np.arange(num_rows), pa.timestamp("ms", "UTC")), "label": labels, **columns}
    )


def read(rows: Snapshot) -> tuple[Floats, Floats]:
    inputs = np.stack([rows.table[f"f:x{place}"].to_numpy() for place in range(WIDTH)], axis=1)
    return inputs, rows.table["label"].to_numpy()


def measure(name: str, rows: Snapshot, validation: Snapshot) -> float:
    """Train on rows by Newton's method, with a ridge of 1; the log loss on others."""
    inputs, labels = read(rows)
    weights = np.zeros(WIDTH)
    for _ in range(6):
        shares = 1 / (1 + np.exp(-inputs @ weights))
        curvature = (inputs * (shares * (1 - shares))[:, None]).T @ inputs + np.eye(WIDTH)
        weights -= np.linalg.solve(curvature, inputs.T @ (shares - labels) + weights)
    inputs, labels = read(validation)
    logits = inputs @ weights
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def choose_often(seed: int) -> tuple[float, float]:
    """Return how often the better rows were chosen, and what the choices lose on new rows against the better ones."""
    rng = np.random.default_rng(seed)
    rights, losses = [], []
    for move in np.repeat(MOVES, NUM_WORLDS_A_MOVE):
        before, step = rng.normal(size=(2, WIDTH)) * 2 / np.sqrt(WIDTH)
        after = before + move * step
        table = pa.concat_tables(
            [make_rows(before, NUM_OLD, CHANGE - NUM_OLD, rng), make_rows(after, NUM_NEW, CHANGE, rng)]
        )
        train = Snapshot(table, 0, CHANGE + NUM_NEW, "")
        test = Snapshot(make_rows(after, NUM_TEST, CHANGE + NUM_NEW, rng), 0, CHANGE, "")
        _, choice = choose_rows(train, CHANGE, DataSpec(), "binary", 1, measure)
        assert choice.losses
        of = {
            window: measure("", choose_rows(train, CHANGE, DataSpec(window=window), "binary", 1, measure)[0], test)
            for window in ("all", "after_change")
        }
        rights.append(of[choice.window] == min(of.values()))
        losses.append(of[choice.window] - min(of.values()))
    return float(np.mean(rights)), float(np.mean(losses))


def test_three_tenths_of_the_newer_rows_choose_right_more_often_than_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    right, loss = choose_often(1)
    monkeypatch.setattr(candidates, "_VALIDATION_SHARE", 0.1)
    monkeypatch.setattr(candidates, "_MIN_VALIDATION_ROWS", 50)
    right_on_a_tenth, loss_on_a_tenth = choose_often(1)
    print(f"right {right:.3f} and {right_on_a_tenth:.3f}, loss {loss:.5f} and {loss_on_a_tenth:.5f}")
    assert right > right_on_a_tenth + 0.03
    assert loss < 0.75 * loss_on_a_tenth
