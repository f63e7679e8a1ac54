"""Statistics of whole rows: blind to nothing that changes how columns go together, quiet where nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from measures.multivariate import STATISTICS, encode_rows, measure_mmd, measure_reconstruction, measure_together

NUM_ROWS = 600


def draw(rng: np.random.Generator, correlation: float, num: int = NUM_ROWS) -> dict[str, np.ndarray]:
    """Two numbers whose own distributions do not depend on their correlation, and a category apart."""
    a = rng.normal(size=num)
    b = correlation * a + np.sqrt(1 - correlation**2) * rng.normal(size=num)
    kind = np.where(rng.random(num) < 0.5, "x", "y").astype(object)
    b[rng.random(num) < 0.05] = np.nan
    return {"a": a, "b": b, "kind": kind}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_changed_correlation_is_seen_and_chance_is_not(name: str) -> None:
    rng = np.random.default_rng(1)
    quiet, values = [], []
    for _ in range(10):
        same = STATISTICS[name](*encode_rows(draw(rng, 0.9), draw(rng, 0.9)))
        assert same.p_value is not None
        quiet.append(same.p_value)
        values.append(same.value)
    changed = STATISTICS[name](*encode_rows(draw(rng, 0.9), draw(rng, -0.9)))
    assert changed.p_value is not None
    assert changed.p_value <= 0.005
    # Levels hold: that two of 10 windows reach 1 % has a chance of 0.4 %.
    assert np.sum(np.array(quiet) <= 0.01) <= 1
    assert changed.value > max(values)


@pytest.mark.parametrize("name", STATISTICS)
def test_the_same_rows_give_the_same_bits(name: str) -> None:
    sides = encode_rows(draw(np.random.default_rng(2), 0.5), draw(np.random.default_rng(3), 0.2))
    assert measure_together(name, *sides) == measure_together(name, *sides)


def test_mmd_is_its_definition() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(40, 3)), rng.normal(0.5, 1.0, size=(30, 3))
    rows = np.vstack([x, y])
    distances = cdist(rows, rows, "sqeuclidean")
    kernel = np.exp(-distances / np.median(distances[np.triu_indices(70, 1)]))
    xx, yy, xy = kernel[:40, :40], kernel[40:, 40:], kernel[:40, 40:]
    expected = (xx.sum() - 40) / (40 * 39) + (yy.sum() - 30) / (30 * 29) - 2 * xy.mean()
    assert measure_mmd(x, y).value == pytest.approx(expected, abs=1e-12)


def test_rows_off_the_references_plane_are_reconstructed_worse() -> None:
    rng = np.random.default_rng(5)
    plane = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(500, 6))
    assert measure_reconstruction(plane, plane).value == pytest.approx(1.0)
    assert measure_reconstruction(plane, plane + rng.normal(size=plane.shape)).value > 1.5


def test_what_does_not_vary_is_left_out() -> None:
    side = {"a": np.ones(10), "kind": np.array(["x"] * 10, object)}
    before, after = encode_rows(side, side)
    assert before.shape == after.shape == (10, 0)
    unseen = {"a": np.ones(10), "kind": np.array(["new"] * 10, object)}
    before, after = encode_rows(side, unseen)
    # The known value and the rest.
    assert before.tolist() == [[1.0, 0.0]] * 10
    assert after.tolist() == [[0.0, 1.0]] * 10
