"""Which rows are learnt from: the share of old ones, where the cut lies, and what decides."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from retrain.candidates import choose_rows, cross_validate
from retrain.snapshot import Snapshot, build_snapshot
from schemas.spec import DataSpec, FeatureSpec

CHANGE = 10_000


def make_rows(num_before: int, num_after: int) -> Snapshot:
    """Rows one ms apart, the first from after the change at CHANGE."""
    num_rows = num_before + num_after
    ts = CHANGE - num_before + np.arange(num_rows)
    table = pa.table(
        {
            "record_id": [f"r{place:06}" for place in range(num_rows)],
            "ts": pa.array(ts, pa.timestamp("ms", "UTC")),
            "f:amount": np.arange(num_rows, dtype=np.float64),
            "label": (np.arange(num_rows) % 2).astype(np.float64),
            "label_text": pa.nulls(num_rows, pa.string()),
        }
    )
    return build_snapshot([table], "binary", {"amount": FeatureSpec(type="number")}, int(ts[0]), int(ts[-1]) + 1)


def times(rows: Snapshot) -> np.ndarray:
    found: np.ndarray = rows.table["ts"].cast(pa.int64()).to_numpy()
    return found


class Measured:
    """Stands for training: a loss for rows that have older ones among them all, and one for the others."""

    def __init__(self, of_all: float, of_newer: float, num_before: int) -> None:
        self.losses, self.num_before = (of_all, of_newer), num_before
        self.seen: list[tuple[Snapshot, Snapshot]] = []

    def __call__(self, name: str, rows: Snapshot, validation: Snapshot) -> float:
        self.seen.append((rows, validation))
        return self.losses[int((times(rows) < CHANGE).sum() < self.num_before)]


def never(name: str, rows: Snapshot, validation: Snapshot) -> float:
    raise AssertionError("nothing is to be compared")


@pytest.mark.parametrize(("of_all", "of_newer", "window"), [(0.5, 0.4, "after_change"), (0.4, 0.5, "all"),
                                                            (0.4, 0.4, "all"), (math.inf, 0.4, "after_change"),
                                                            (math.inf, math.inf, "all")])  # fmt: skip
def test_the_smaller_loss_wins_on_rows_that_neither_has_seen(of_all: float, of_newer: float, window: str) -> None:
    train = make_rows(3000, 1000)
    measure = Measured(of_all, of_newer, 3000)
    rows, choice = choose_rows(train, CHANGE, DataSpec(), "binary", 7, measure)
    assert choice.window == window
    assert choice.num_rows == rows.num_rows == (1250 if window == "after_change" else 4000)
    for seen, validation in measure.seen:
        assert times(validation).tolist() == list(range(CHANGE + 700, CHANGE + 1000))
        assert times(seen).max() < CHANGE + 700
    # What is learnt from in the end has the validation rows in it.
    assert times(rows).max() == CHANGE + 999
    assert set(choice.list_metrics()) == {
        f"candidate_{name}_log_loss"
        for name, loss in (("all", of_all), ("after_change", of_newer))
        if math.isfinite(loss)
    }
    assert "and 175 older ones" in choice.words


def test_after_a_change_older_rows_are_mixed_in_by_their_share_and_by_the_seed() -> None:
    train = make_rows(3000, 1000)
    data = DataSpec(window="after_change", replay=0.2)
    rows, choice = choose_rows(train, CHANGE, data, "binary", 7, never)
    assert (choice.num_rows, choice.num_replayed, (times(rows) < CHANGE).mean()) == (1250, 250, 0.2)
    assert (np.diff(times(rows)) > 0).all()
    again, _ = choose_rows(train, CHANGE, data, "binary", 7, never)
    other, _ = choose_rows(train, CHANGE, data, "binary", 8, never)
    assert times(again).tolist() == times(rows).tolist() != times(other).tolist()
    # Not more than there are, and none where none are wanted.
    few, _ = choose_rows(make_rows(50, 1000), CHANGE, data, "binary", 7, never)
    assert few.num_rows == 1050
    none, _ = choose_rows(train, CHANGE, DataSpec(window="after_change", replay=0.0), "binary", 7, never)
    assert none.num_rows == 1000
    assert none.sha256 == train.sha256  # the hash is of what was read


def test_without_a_change_or_enough_rows_nothing_is_compared() -> None:
    for train, change in (
        (make_rows(3000, 1000), None),
        (make_rows(3000, 499), CHANGE),
        (make_rows(99, 1000), CHANGE),
        (make_rows(0, 1000), CHANGE),
    ):
        rows, choice = choose_rows(train, change, DataSpec(min_labels=1), "binary", 7, never)
        assert (rows, choice.window) == (train, "all")
    rows, choice = choose_rows(make_rows(3000, 1000), CHANGE, DataSpec(window="1500 rows"), "binary", 7, never)
    assert (rows.num_rows, times(rows).min()) == (1500, CHANGE - 500)
    rows, choice = choose_rows(make_rows(3000, 1000), CHANGE, DataSpec(window="30d"), "binary", 7, never)
    assert rows.num_rows == 4000  # read by time already


def test_folds_train_on_what_is_before_and_measure_on_what_is_behind() -> None:
    seen: list[tuple[int, int]] = []
    names: list[str] = []

    def measure(name: str, rows: Snapshot, validation: Snapshot) -> float:
        names.append(name)
        assert times(rows).max() < times(validation).min()
        seen.append((rows.num_rows, validation.num_rows))
        return float(len(seen))

    found = cross_validate(make_rows(0, 1000), 3, "binary", measure)
    assert names == ["fold_1", "fold_2", "fold_3"]
    assert seen == [(250, 250), (500, 250), (750, 250)]
    assert found == {"fold_1_log_loss": 1.0, "fold_2_log_loss": 2.0, "fold_3_log_loss": 3.0, "folds_log_loss": 2.0}
