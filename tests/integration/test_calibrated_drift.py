"""Calibrated drift alerts from counts: before any row is stored, of merged windows, of what came late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from measures.budget import DAY_MS
from schemas.connections import ClickHouseConnection
from schemas.events import Alert
from schemas.inference import QUANTILES
from streams.processes import ProcessPool
from tests import truth
from tests.integration.test_measuring import ROWS, SIZE_MS, START_MS, World, harm, measured_store, send_with_shadow

__all__ = ["measured_store"]

# 3 features and 2 outputs, in the whole and in 5 segments; windows of 1,000 s at 3 scales.
LEVEL = 0.9 / 3 * (SIZE_MS / (30 * DAY_MS)) / (5 * 6)


@pytest.fixture
def open_world(measured_store: tuple[ClickHouseConnection, ProcessPool]) -> Iterator[Any]:
    opened: list[World] = []

    def open_one(known: truth.Truth, more: str = "", parts: int = 1) -> World:
        opened.append(World(*measured_store, truth.SPEC + more, known, parts))
        return opened[-1]

    yield open_one
    for world in opened:
        world.close()


def shift(known: truth.Truth, by_sd: float, *windows: int) -> truth.Truth:
    """Move the logarithm of `amount` in some windows by so many of its standard deviations."""
    stream = known.stream.copy()
    hit = ((stream["ts"] - START_MS) // SIZE_MS).isin(windows)
    stream.loc[hit, "amount"] *= np.exp(by_sd * np.log(known.reference["amount"]).std())
    return truth.Truth(known.reference, stream)


def read_firing(world: World) -> list[Alert]:
    sent = [each for each in world.monitor.sent.events.get("alerts", []) if isinstance(each, Alert)]
    return [each for each in sent if each.rule == "drift" and each.state == "firing" and not each.segment]


def measure_effect(known: truth.Truth, column: str, *windows: int) -> float:
    """The Kolmogorov-Smirnov distance at the reference's quantiles."""
    reference = known.reference[column].dropna().sort_values().to_numpy()
    numbers = (known.stream["ts"] - START_MS) // SIZE_MS
    current = known.stream.loc[numbers.isin(windows), column].dropna().to_numpy()
    cuts = [reference[int(np.ceil(len(reference) * q - 1e-9)) - 1] for q in QUANTILES]
    return max(abs(np.mean(reference <= cut) - np.mean(current <= cut)) for cut in cuts)


def test_an_alert_opens_before_any_row_is_stored(open_world: Any) -> None:
    known = shift(truth.make_truth(num_windows=6, rows_per_window=ROWS), 1.0, 1)
    world = open_world(known)
    world.send(0)
    world.close_window(0)
    assert world.alerts("drift") == []
    world.send_rows(world.rows_of(1), ("records", "predictions"), sink=False)
    world.stream.send_watermark(START_MS + 2 * SIZE_MS, sink=False)
    assert world.look() == "waiting"
    assert world.read_one("SELECT count() FROM records") == ROWS
    (firing,) = read_firing(world)
    assert (firing.feature, firing.metric, firing.window_start) == ("amount", "ks_counts", START_MS + SIZE_MS)
    assert firing.severity == "info"
    assert firing.value == pytest.approx(measure_effect(known, "amount", 1), abs=1e-12)
    assert firing.evidence["alpha"] == pytest.approx(LEVEL, rel=1e-12)
    assert firing.evidence["p_value"] <= LEVEL
    assert firing.reason.endswith("whether it hurts is not known")
    # As sure as an independent test of the same values.
    rows, reference = world.rows_of(1)["amount"].dropna(), known.reference["amount"].dropna()
    assert firing.evidence["p_value"] <= 3 * stats.mannwhitneyu(rows, reference).pvalue

    # Labels have come before, so that they, and not the estimate, will say whether it hurts.
    world.stream.catch_up()
    world.look()
    assert len(read_firing(world)) == 1
    world.send(1, ("labels",))
    world.look()
    first, assessed = read_firing(world)
    assert assessed.alert_id == first.alert_id
    assert assessed.transition_id != first.transition_id
    assert assessed.harm is not None
    assert assessed.reason.startswith("this drift goes on; no harm to performance is seen")
    assert "amount" in {each["feature"] for each in assessed.evidence["blame"]}
    world.look()
    assert len(read_firing(world)) == 2
    # The distance says how big; its verdict is the test's.
    distance = (
        "SELECT status, p_value, alpha FROM measurements_now WHERE feature = 'amount' AND segment = '' AND metric = "
    )
    start = f" AND window_start = fromUnixTimestamp64Milli({START_MS + SIZE_MS}, 'UTC') AND scale = 1"
    assert world.read_one(f"{distance}'wasserstein'{start}") == world.read_one(f"{distance}'ks_counts'{start}")


def test_many_windows_together_find_what_none_alone_does(open_world: Any) -> None:
    before = -(START_MS // SIZE_MS) % 6
    drifted = range(before, before + 6)
    known = shift(truth.make_truth(num_windows=40, rows_per_window=ROWS), 0.15, *drifted)
    world = open_world(known)
    for window in range(before + 6):
        world.send(window, ("records", "predictions"))
        world.close_window(window)
        assert bool(read_firing(world)) == (window == drifted[-1])
    (firing, *_) = read_firing(world)
    assert firing.evidence["num_windows"] == 6
    assert (firing.evidence["tested_from"], firing.evidence["tested_to"]) == (
        START_MS + before * SIZE_MS,
        START_MS + (before + 6) * SIZE_MS,
    )
    assert firing.value == pytest.approx(measure_effect(known, "amount", *drifted), abs=1e-12)
    assert firing.evidence["alpha"] == pytest.approx(6 * LEVEL, rel=1e-12)
    statuses = world.ch.query(
        "SELECT scale, groupUniqArray(status) FROM measurements_now WHERE feature = 'amount' AND segment = '' "
        "AND metric = 'ks_counts' GROUP BY scale ORDER BY scale"
    )
    assert dict(statuses)[1] == ["ok"]
    assert "alert" in dict(statuses)[6]


TESTED = (
    "SELECT * EXCEPT (covered, revision, computed_at, source) FROM measurements_now "
    "WHERE metric IN ('ks_counts', 'linf_counts', 'num_drifted') ORDER BY ALL"
)


def test_however_events_come_the_last_tests_are_the_same(open_world: Any) -> None:
    """All at once, or late, in another order, in two partitions, and looked at in between."""
    known = truth.make_truth(num_windows=8, rows_per_window=ROWS)
    whole = open_world(known)
    for window in range(8):
        whole.send(window, ("records", "predictions"))
    whole.close_window(7)
    expected = whole.ch.query(TESTED)
    scales = whole.ch.query("SELECT DISTINCT scale FROM measurements WHERE metric = 'num_drifted' ORDER BY scale")
    assert scales == [(1,), (6,)]

    parted = open_world(known, parts=2)
    for window in range(8):
        parted.send_rows(parted.rows_of(window).iloc[: ROWS // 3], ("predictions", "records"))
        parted.close_window(window)
    for window in reversed(range(8)):
        parted.send_rows(parted.rows_of(window).iloc[ROWS // 3 :], ("records", "predictions"))
        if window % 3 == 0:
            parted.look()
    parted.look()
    assert parted.read_one("SELECT max(revision) FROM measurements WHERE metric = 'num_drifted'") > 1
    assert parted.ch.query(TESTED) == expected


def test_a_shadow_opens_no_alert(open_world: Any) -> None:
    known = truth.make_truth(num_windows=4, rows_per_window=ROWS)
    bad = harm(known, 0, 1)
    world = open_world(known)
    send_with_shadow(world, bad, 0, 1)
    statuses = world.ch.query(
        "SELECT model_version, groupUniqArray(status) FROM measurements_now WHERE feature = 'score' AND segment = '' "
        "AND metric = 'ks_counts' AND scale = 1 GROUP BY model_version ORDER BY model_version"
    )
    assert statuses == [("7", ["ok"]), ("external", ["alert"])]
    assert world.alerts("drift") == []


def test_rows_are_measured_as_a_whole(open_world: Any) -> None:
    known = shift(truth.make_truth(num_windows=4, rows_per_window=ROWS), 1.5, 1)
    world = open_world(known, "drift: {multivariate: [domain_classifier, mmd, pca_reconstruction]}\n")
    for window in (0, 1):
        world.send(window, ("records", "predictions"))
        world.close_window(window)
    rows = world.ch.query(
        "SELECT metric, groupArray(p_value < 0.005), any(num_sampled) FROM "
        "(SELECT * FROM measurements_now WHERE kind = 'drift' AND feature = '' AND metric != 'num_drifted' "
        "ORDER BY window_start) GROUP BY metric ORDER BY metric"
    )
    assert rows[:2] == [("domain_classifier", [0, 1], ROWS), ("mmd", [0, 1], ROWS)]
    # One column alone does not move the relations that it sees.
    assert rows[2] == ("pca_reconstruction", [0, 0], ROWS)
