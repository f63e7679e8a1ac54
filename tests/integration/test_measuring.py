"""Windows measured and judged on a real store by real processes, against what pandas, SciPy and scikit-learn say."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftloop.references import freeze_reference, hash_reference, split_columns
from schemas.clock import SystemClock
from schemas.connections import ClickHouseConnection, KafkaConnection, Runtime, TopicNames
from schemas.errors import Retryable
from schemas.events import Alert, RetrainRequest, RoleMap
from schemas.inference import find_dimensions, infer_features, summarise_reference
from schemas.spec import PublishedSpec, complete_spec, parse_spec
from store.client import ClickHouse
from store.detectors import DetectorKey, read_last_state
from store.reference import insert_reference
from streams import finding
from streams.processes import ProcessPool
from streams.state import StateStore
from tests import truth
from tests.stored import JOB, KEY, StoredMonitor, StoredStream, run_store, start_pool

SIZE_MS, START_MS = truth.SIZE_MS, truth.START_MS
ROWS = 400
# Of a row of the stream everything else is a feature.
OUTCOMES = ("ts", "id", "y_pred", "y_proba", "repaid")


@pytest.fixture(scope="module")
def measured_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ClickHouseConnection, ProcessPool]]:
    """One server and one pool for all: a process takes seconds to import what it measures with."""
    with run_store(tmp_path_factory.mktemp("clickhouse")) as connection:
        pool = start_pool(connection)
        yield connection, pool
        pool.close()


class World:
    """An emptied store with a published spec, a stream and a monitor."""

    def __init__(
        self, connection: ClickHouseConnection, pool: ProcessPool, spec: str, known: truth.Truth, parts: int = 1
    ) -> None:
        self.connection = connection
        self.ch = ClickHouse(connection)
        self._empty()
        self.truth = known
        self.published = self._publish(spec)
        self.stream = StoredStream(self.ch, self.published, parts)
        self.pool = pool
        self.monitor = StoredMonitor(self.connection, self.pool, parts)

    def _empty(self) -> None:
        tables = self.ch.query(
            "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree' "
            "AND name != 'migrations'"
        )
        for (name,) in tables:
            self.ch.command("TRUNCATE TABLE {name:Identifier}", {"name": name})

    def _publish(self, text: str) -> PublishedSpec:
        spec = parse_spec(text, "credit.yaml")
        table = split_columns(self.truth.reference, spec, "reference")
        features = infer_features(table.features, spec.features)
        spec = complete_spec(spec, features, "credit.yaml", find_dimensions(table.features, features))
        frozen = freeze_reference(table, spec, KEY)
        reference_hash = hash_reference(frozen)
        insert_reference(self.ch, reference_hash, frozen)
        summary = summarise_reference(frozen, spec, frozen["score"].tolist(), frozen["prediction"].tolist())
        return PublishedSpec(
            spec=spec,
            spec_version=1,
            effective_from=0,
            published_at=0,
            reference_hash=reference_hash,
            reference_rows=len(frozen),
            cuts=summary.cuts,
            categories=summary.categories,
            segment_values=summary.segment_values,
        )

    def rows_of(self, window: int) -> pd.DataFrame:
        start = START_MS + window * SIZE_MS
        return self.truth.stream[self.truth.stream["ts"].between(start, start + SIZE_MS - 1)]

    def send(self, window: int, kinds: tuple[str, ...] = ("records", "predictions", "labels")) -> None:
        self.send_rows(self.rows_of(window), kinds)

    def send_rows(self, rows: pd.DataFrame, kinds: tuple[str, ...], sink: bool = True, version: str = "") -> None:
        for kind in kinds:
            values = [json.dumps(make_event(kind, row, version)).encode() for row in rows.to_dict("records")]
            for part in range(self.stream.num_partitions):
                self.stream.send(kind, values[part :: self.stream.num_partitions], part, sink)  # type: ignore[arg-type]

    def close_window(self, window: int) -> None:
        """Say that the window is over, and look."""
        self.stream.send_watermark(START_MS + (window + 1) * SIZE_MS)
        self.monitor.look(self.published)

    def look(self) -> str:
        return self.monitor.look(self.published)

    def read_tested(self) -> dict[tuple[int, str, str, str, str], float]:
        """What is measured of counts."""
        return {
            key: value for key, value in self.read_measured().items() if key[4].endswith(("_counts", "num_drifted"))
        }

    def read_measured(self) -> dict[tuple[int, str, str, str, str], float]:
        rows = self.ch.query(
            "SELECT toUnixTimestamp64Milli(window_start), segment, kind, feature, metric, value FROM measurements_now "
            "WHERE kind != 'quality' OR model_version = ''"
        )
        return {(row[0], row[1], row[2], row[3], row[4]): row[5] for row in rows}

    def read_one(self, sql: str) -> Any:
        rows = self.ch.query(sql)
        assert len(rows) == 1, rows
        return rows[0][0] if len(rows[0]) == 1 else rows[0]

    def alerts(self, rule: str) -> list[tuple[str, int]]:
        """State and window number of each state change, as stored."""
        rows = self.ch.query(
            "SELECT state, toUnixTimestamp64Milli(window_start) FROM alerts WHERE rule = {rule:String} "
            "ORDER BY window_start, indexOf(['pending', 'firing', 'resolved'], state)",
            {"rule": rule},
        )
        return [(state, (start - START_MS) // SIZE_MS) for state, start in rows]

    def close(self) -> None:
        self.monitor.close()
        self.ch.close()


def make_event(kind: str, row: dict[str, Any], version: str = "") -> dict[str, Any]:
    event: dict[str, Any] = {"record_id": row["id"], "model": truth.MODEL, "ts": row["ts"]}
    if kind == "records":
        features = {name: row[name] for name in row if name not in OUTCOMES}
        return {**event, "features": {name: None if value != value else value for name, value in features.items()}}
    if kind == "predictions":
        event |= {"prediction": row["y_pred"], "score": row["y_proba"]}
        return {**event, "model_version": version} if version else event
    return {**event, "label": row["repaid"]}


def harm(known: truth.Truth, *windows: int) -> truth.Truth:
    """Turn the labels of some windows around, and their scores to the middle, so that the estimate falls too."""
    stream = known.stream.copy()
    index = (stream["ts"] - START_MS) // SIZE_MS
    hit = index.isin(windows)
    stream.loc[hit, "repaid"] = 1 - stream.loc[hit, "repaid"]
    stream.loc[hit, "y_proba"] = np.round(0.5 + (stream.loc[hit, "y_proba"] - 0.5) / 20, 6)
    stream["y_pred"] = (stream["y_proba"] >= 0.5).astype(int)
    return truth.Truth(known.reference, stream)


def send_with_shadow(world: World, shadow: truth.Truth, *windows: int) -> None:
    """Version 7 is the champion and says what the truth has; `external` is its shadow and says something else."""
    roles = {"champion": "7", "shadow": "external"}
    world.monitor.roles.maps.append(RoleMap(model=truth.MODEL, epoch=1, roles=roles, at=START_MS, changed_at=0))
    for window in windows:
        world.send(window, ("records",))
        world.send_rows(world.rows_of(window), ("predictions",), version="7")
        start = START_MS + window * SIZE_MS
        world.send_rows(shadow.stream[shadow.stream["ts"].between(start, start + SIZE_MS - 1)], ("predictions",))
        world.close_window(window)


@pytest.fixture
def open_world(measured_store: tuple[ClickHouseConnection, ProcessPool]) -> Iterator[Any]:
    opened: list[World] = []

    def open_one(known: truth.Truth, spec: str = truth.SPEC, parts: int = 1) -> World:
        opened.append(World(*measured_store, spec, known, parts))
        return opened[-1]

    yield open_one
    for world in opened:
        world.close()


def test_values_equal_the_recomputation_and_late_rows_restate_them(open_world: Any) -> None:
    world = open_world(truth.make_truth(num_windows=2, rows_per_window=ROWS), parts=2)
    rows = world.rows_of(0)
    world.send_rows(rows.iloc[: ROWS // 2], ("records", "predictions", "labels"))
    world.close_window(0)
    assert world.read_one("SELECT value, revision FROM measurements_now WHERE kind = 'quality' AND metric = 'num_rows' "
                          "AND model_version = ''") == (ROWS // 2, 1)  # fmt: skip
    world.send_rows(rows.iloc[ROWS // 2 :], ("records", "predictions", "labels"))
    world.send(1)
    world.close_window(1)
    differences = truth.compare(truth.compute_expected(world.truth), world.read_measured())
    assert not differences, "\n".join(differences[:20])
    revisions = world.ch.query(
        "SELECT revision, value FROM measurements WHERE kind = 'quality' AND metric = 'num_rows' "
        "AND model_version = '' AND window_start = fromUnixTimestamp64Milli({start:Int64}, 'UTC') ORDER BY revision",
        {"start": START_MS},
    )
    assert revisions == [(1, ROWS // 2), (2, ROWS)]


def test_what_came_too_late_is_stored_and_not_measured(open_world: Any) -> None:
    """Too late within one flush, and for one version but not yet for another: each has an end of its own."""
    known = truth.make_truth(num_windows=4, rows_per_window=ROWS)
    world = open_world(known, truth.SPEC.replace("lateness: 300s", "lateness: 300s, retention: 1"))
    first, later = world.rows_of(0).to_dict("records"), world.rows_of(3).to_dict("records")
    in_time, too_late = first[: ROWS // 2], first[ROWS // 2 :]

    def encode(kind: str, rows: list[dict[str, Any]], version: str = "") -> list[bytes]:
        return [json.dumps(make_event(kind, row, version)).encode() for row in rows]

    world.stream.send("records", encode("records", [*in_time, *later, *too_late]))
    as_a = encode("predictions", [*in_time, *later, *too_late], "a")
    world.stream.send("predictions", as_a + encode("predictions", first, "b"))
    world.close_window(3)
    counted = world.ch.query(
        "SELECT kind, metric, model_version, num_rows FROM measurements_now WHERE segment = '' AND "
        "kind IN ('quality', 'drift', 'estimate') AND window_start = fromUnixTimestamp64Milli({start:Int64}, 'UTC')",
        {"start": START_MS},
    )
    assert {kind for kind, *_ in counted} == {"quality", "drift", "estimate"}
    assert {(version, num_rows) for _, _, version, num_rows in counted} == {
        ("", ROWS // 2), ("a", ROWS // 2), ("b", ROWS)
    }  # fmt: skip
    assert world.read_one("SELECT count() FROM records") == 2 * ROWS


def test_looking_again_measures_and_says_nothing_new(open_world: Any) -> None:
    world = open_world(harm(truth.make_truth(num_windows=2, rows_per_window=ROWS), 1))
    for window in (0, 1):
        world.send(window)
        world.close_window(window)
    before = (
        world.ch.query("SELECT * FROM measurements ORDER BY ALL"),
        world.ch.query("SELECT * FROM alerts ORDER BY ALL"),
    )
    sent = {topic: len(events) for topic, events in world.monitor.sent.events.items()}
    world.look()
    assert {topic: len(events) for topic, events in world.monitor.sent.events.items()} == sent
    again = StoredMonitor(world.connection, world.pool)
    again.look(world.published)
    assert before == (
        world.ch.query("SELECT * FROM measurements ORDER BY ALL"),
        world.ch.query("SELECT * FROM alerts ORDER BY ALL"),
    )
    # A monitor that starts may follow one that died between storing and sending: it sends again, under the same ids.
    ids = {each.transition_id for each in world.monitor.sent.events["alerts"] if isinstance(each, Alert)}
    assert {each.transition_id for each in again.sent.events["alerts"] if isinstance(each, Alert)} == ids
    assert "measurements" not in again.sent.events
    again.close()


def test_harm_fires_on_the_estimate_and_resolves_on_labels(open_world: Any) -> None:
    spec = truth.SPEC + "retrain: {on: [harm]}\n"
    world = open_world(harm(truth.make_truth(num_windows=5, rows_per_window=ROWS), 2), spec)
    for window in range(5):
        world.send(window, ("records", "predictions"))
        if window:
            world.send(window - 1, ("labels",))
        world.close_window(window)
        if window == 2:  # before any label of this window
            assert world.alerts("harm") == [("firing", 2)]
            assert world.read_one("SELECT kind FROM alerts WHERE rule = 'harm'") == "estimate"
    assert world.alerts("harm") == [("firing", 2), ("resolved", 3)]
    firing = next(
        each for each in world.monitor.sent.events["alerts"] if isinstance(each, Alert) and each.rule == "harm"
    )
    assert "estimated ROC AUC" in firing.reason
    assert firing.harm is not None
    assert firing.harm > 0
    assert firing.evidence["composition"]
    (request,) = world.monitor.sent.events["retrain-requests"]
    assert isinstance(request, RetrainRequest)
    assert request.trigger_alert_id == firing.alert_id
    assert request.first_window_start == START_MS + 2 * SIZE_MS
    statuses = world.ch.query(
        "SELECT kind, status FROM measurements_now WHERE metric = 'roc_auc' AND segment = '' "
        "AND window_start = fromUnixTimestamp64Milli({start:Int64}, 'UTC') ORDER BY kind",
        {"start": START_MS + 2 * SIZE_MS},
    )
    assert statuses == [("estimate", "alert"), ("performance", "alert")]


def test_a_window_waits_for_the_sink(open_world: Any) -> None:
    world = open_world(truth.make_truth(num_windows=1, rows_per_window=ROWS))
    world.send(0, ("records", "labels"))
    world.send_rows(world.rows_of(0), ("predictions",), sink=False)
    world.stream.send_watermark(START_MS + SIZE_MS, sink=False)
    assert world.look() == "waiting"
    assert set(world.read_measured()) == set(world.read_tested())
    world.stream.catch_up()
    world.look()
    differences = truth.compare(truth.compute_expected(world.truth), world.read_measured())
    assert not differences, "\n".join(differences[:20])


def test_partial_labels_decide_nothing_until_enough_have_come(open_world: Any) -> None:
    world = open_world(truth.make_truth(num_windows=1, rows_per_window=ROWS))
    rows = world.rows_of(0)
    world.send(0, ("records", "predictions"))
    world.send_rows(rows.iloc[: ROWS // 2], ("labels",))
    world.close_window(0)
    read = (
        "SELECT status, label_coverage, revision FROM measurements_now "
        "WHERE kind = 'performance' AND metric = 'roc_auc' AND segment = ''"
    )
    assert world.read_one(read) == ("partial", 0.5, 1)
    world.send_rows(rows.iloc[ROWS // 2 :], ("labels",))
    world.look()
    assert world.read_one(read)[1:] == (1.0, 2)
    differences = truth.compare(truth.compute_expected(world.truth), world.read_measured())
    assert not differences, "\n".join(differences[:20])


REALIZED = (
    "SELECT num_rows, label_coverage FROM measurements_now WHERE kind = 'performance' AND metric = 'roc_auc' "
    "AND segment = '' AND window_start = fromUnixTimestamp64Milli({start:Int64}, 'UTC')"
)


@pytest.fixture
def only_new_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all labels that were dealt with had come long ago."""
    monkeypatch.setattr(finding, "LABEL_OVERLAP_MS", 0)


def test_a_prediction_that_came_too_late_joins_the_label_that_came_before_it(
    open_world: Any, only_new_labels: None
) -> None:
    world = open_world(
        truth.make_truth(num_windows=4, rows_per_window=ROWS),
        truth.SPEC.replace("lateness: 300s", "lateness: 300s, retention: 1"),
    )
    rows = world.rows_of(0)
    world.send_rows(rows, ("records", "labels"))
    world.send_rows(rows.iloc[: ROWS // 2], ("predictions",))
    for window in (1, 2, 3):
        world.send(window)
        world.close_window(window)
    assert world.ch.query(REALIZED, {"start": START_MS}) == [(ROWS // 2, 1.0)]
    world.send_rows(rows.iloc[ROWS // 2 :], ("predictions",), sink=False)
    world.look()
    assert world.read_one("SELECT count() FROM dead_letters WHERE reason = 'too_late'") == ROWS // 2
    world.stream.catch_up()
    world.look()
    assert world.ch.query(REALIZED, {"start": START_MS}) == [(ROWS, 1.0)]


def test_a_record_that_comes_later_says_the_segment_of_what_is_labelled(open_world: Any, only_new_labels: None) -> None:
    """Late, the window is measured again; too late, it is not: either way the realized performance is."""
    world = open_world(
        truth.make_truth(num_windows=4, rows_per_window=ROWS),
        truth.SPEC.replace("lateness: 300s", "lateness: 300s, retention: 1"),
    )
    read = (
        "SELECT sum(num_rows) FROM measurements_now WHERE kind = 'performance' AND metric = 'roc_auc' "
        f"AND segment != '' AND window_start = fromUnixTimestamp64Milli({START_MS}, 'UTC')"
    )
    rows = world.rows_of(0)
    world.send_rows(rows, ("predictions", "labels"))
    world.send_rows(rows.iloc[: ROWS // 4], ("records",))
    world.send(1)
    world.close_window(0)
    assert world.read_one(read) == ROWS // 4
    world.send_rows(rows.iloc[ROWS // 4 : ROWS // 2], ("records",))
    world.look()
    assert world.read_one(read) == ROWS // 2
    for window in (2, 3):
        world.send(window)
        world.close_window(window)
    world.send_rows(rows.iloc[ROWS // 2 :], ("records",))
    assert world.read_one("SELECT count() FROM dead_letters WHERE reason = 'too_late'") == ROWS // 2
    world.look()
    assert world.read_one(read) == ROWS


@pytest.mark.parametrize("exact_rows", [100, 50_000])
@pytest.mark.parametrize("is_measured_first", [True, False])
def test_a_record_that_came_too_late_says_no_segment_of_what_was_counted(
    open_world: Any, exact_rows: int, is_measured_first: bool
) -> None:
    """Of a window or of its sample, and whether it was measured before or after the record was stored."""
    spec = truth.SPEC.replace("lateness: 300s", "lateness: 300s, retention: 1") + f"exact_rows: {exact_rows}\n"
    world = open_world(truth.make_truth(num_windows=4, rows_per_window=ROWS), spec)
    rows = world.rows_of(0)
    world.send_rows(rows, ("predictions",))
    world.send_rows(rows.iloc[: ROWS // 2], ("records",))
    for window in (1, 2, 3):
        world.send(window)
    if is_measured_first:
        world.close_window(3)
    world.send_rows(rows.iloc[ROWS // 2 :], ("records",))
    world.close_window(3)
    in_time = set(rows["id"].iloc[: ROWS // 2])
    sample = world.ch.query(
        "SELECT record_id FROM predictions WHERE ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC') "
        "ORDER BY sipHash64(record_id), record_id LIMIT {limit:UInt32}",
        {"end": START_MS + SIZE_MS, "limit": exact_rows},
    )
    assert world.read_one(
        "SELECT sum(num_rows) FROM measurements_now WHERE kind = 'drift' AND feature = 'score' AND segment != '' "
        f"AND window_start = fromUnixTimestamp64Milli({START_MS}, 'UTC')"
    ) == sum(record_id in in_time for (record_id,) in sample)


def test_old_labels_are_measured_after_a_look_that_broke_off(open_world: Any, only_new_labels: None) -> None:
    """The log goes away between a window's measurement and that of its labels, which came long before."""
    world = open_world(truth.make_truth(num_windows=3, rows_per_window=ROWS))
    world.send_rows(world.rows_of(1), ("labels",))
    world.send(0)
    world.close_window(0)
    world.send(2, ("labels",))
    world.look()
    world.send(1, ("records", "predictions"))
    world.monitor.sent.num_until_away = 1
    with pytest.raises(Retryable):
        world.close_window(1)
    assert world.ch.query(REALIZED, {"start": START_MS + SIZE_MS}) == []
    world.look()
    assert world.ch.query(REALIZED, {"start": START_MS + SIZE_MS}) == [(ROWS, 1.0)]


def test_the_champion_speaks_and_a_shadow_opens_no_alert(open_world: Any) -> None:
    known = truth.make_truth(num_windows=2, rows_per_window=ROWS)
    bad = harm(known, 1)
    world = open_world(known)
    send_with_shadow(world, bad, 0, 1)
    statuses = world.ch.query(
        "SELECT model_version, status FROM measurements_now WHERE kind = 'estimate' AND metric = 'roc_auc' "
        "AND segment = '' AND window_start = fromUnixTimestamp64Milli({start:Int64}, 'UTC') ORDER BY model_version",
        {"start": START_MS + SIZE_MS},
    )
    assert statuses == [("7", "ok"), ("external", "alert")]
    assert world.alerts("harm") == []


def test_detectors_are_fed_once_in_order_whatever_is_measured_again(open_world: Any) -> None:
    spec = truth.SPEC.replace("on: score}", "on: score}, {detector: ddm, on: error}")
    world = open_world(harm(truth.make_truth(num_windows=3, rows_per_window=ROWS), 2), spec)
    for window in range(3):
        world.send(window, ("records", "predictions"))
        world.close_window(window)
    for window in (1, 0, 2):  # labels of the first window come last but one
        world.send(window, ("labels",))
        world.look()
        fed = read_last_state(world.ch, DetectorKey(truth.MODEL, "external", "ddm", "error"))
        assert (None if fed is None else fed.num_updates) == {1: None, 0: 2 * ROWS, 2: 3 * ROWS}[window]
    late = world.rows_of(0).head(5).assign(id=[f"late-{row}" for row in range(5)])
    world.send_rows(late, ("records", "predictions", "labels"))
    world.look()
    for detector, on in (("adwin", "score"), ("ddm", "error")):
        state = read_last_state(world.ch, DetectorKey(truth.MODEL, "external", detector, on))
        assert state is not None
        assert (state.window_start, state.num_updates) == (START_MS + 2 * SIZE_MS, 3 * ROWS)
    ordered = world.truth.stream.sort_values(["ts", "id"], ignore_index=True)
    errors = (ordered["repaid"] != ordered["y_pred"]).astype(int)
    assert [
        row[0] for row in world.ch.query("SELECT row_number FROM detections WHERE detector = 'ddm' ORDER BY 1")
    ] == (detect_drifts(errors))


def detect_drifts(errors: pd.Series[int]) -> list[int]:
    from river.drift.binary import DDM

    detector, found = DDM(), []
    for number, error in enumerate(errors.tolist()):
        detector.update(error)
        if detector.drift_detected:
            found.append(number)
    return found


def test_a_killed_measuring_process_costs_one_look(open_world: Any) -> None:
    world = open_world(truth.make_truth(num_windows=1, rows_per_window=ROWS))
    world.send(0)
    (pid,) = world.pool.list_pids()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Retryable):
        world.close_window(0)
    world.look()
    differences = truth.compare(truth.compute_expected(world.truth), world.read_measured())
    assert not differences, "\n".join(differences[:20])


def test_a_window_of_which_every_row_counts_elsewhere_is_measured_and_done(
    measured_store: tuple[ClickHouseConnection, ProcessPool],
) -> None:
    """Version 8 scored some records again, more than an hour later: the log has them first in window 0."""
    world = World(*measured_store, truth.SPEC, truth.make_truth(5, ROWS))
    some = world.rows_of(0).head(5)
    for window, rows in ((0, some), (4, some.assign(ts=some["ts"] + 4 * SIZE_MS))):
        world.send(window)
        world.send_rows(rows, ("predictions",), version="8")
    world.close_window(4)
    world.look()
    measured = world.ch.query(
        "SELECT window_start, num_rows, status, label_coverage, revision FROM measurements "
        "WHERE model_version = '8' AND kind = 'performance' AND metric = 'roc_auc' AND segment = '' "
        "ORDER BY window_start SETTINGS final = 0"
    )
    assert [row[1:] for row in measured] == [(5, "too_few_rows", 1.0, 1), (0, "partial", 0.0, 1)]


def make_state_store(world: World, folder: Path) -> StateStore:
    runtime = Runtime(KafkaConnection("127.0.0.1:9"), world.connection, TopicNames(), str(folder), str(folder), KEY, 1)
    return StateStore(runtime, world.ch, JOB, SystemClock())


def test_no_identity_is_deleted_while_the_markers_time_is_before_its_end(
    measured_store: tuple[ClickHouseConnection, ProcessPool], tmp_path: Path
) -> None:
    world = World(*measured_store, truth.SPEC, truth.make_truth(1, ROWS))
    state = make_state_store(world, tmp_path)
    windows = world.stream.published.spec.windows
    expired_ms = START_MS + SIZE_MS + windows.retention * SIZE_MS

    def delete_expired() -> int:
        state.delete_expired(list(world.stream._partitions.values()), world.stream.catalogue)
        ((num_ids,),) = world.ch.query("SELECT sum(length(hashes)) FROM identities")
        return int(num_ids)

    world.send(0)
    num_ids = delete_expired()
    assert num_ids >= ROWS
    # Whoever begins at the marker reads this again, and before it perhaps a duplicate.
    world.stream.send_watermark(expired_ms, flush=False)
    assert delete_expired() == num_ids
    world.stream.send_watermark(expired_ms)
    assert delete_expired() == 0


def test_no_summary_is_deleted_before_its_window_is_measured(
    measured_store: tuple[ClickHouseConnection, ProcessPool], tmp_path: Path
) -> None:
    num_windows, retention = 6, 2
    spec = truth.SPEC.replace("lateness: 300s", f"lateness: 300s, retention: {retention}") + "drift: {threshold: 0.1}\n"
    world = World(*measured_store, spec, truth.make_truth(num_windows, ROWS))
    state = make_state_store(world, tmp_path)

    def delete_expired() -> set[int]:
        state.delete_expired(list(world.stream._partitions.values()), world.stream.catalogue)
        rows = world.ch.query("SELECT DISTINCT toUnixTimestamp64Milli(window_start) FROM summaries")
        return {(start - START_MS) // SIZE_MS for (start,) in rows}

    world.send(0)
    world.close_window(0)
    for window in range(1, num_windows):
        world.send(window)
    world.stream.send_watermark(START_MS + num_windows * SIZE_MS)
    # Far beyond the retention, but nothing has looked at the windows from 1 on.
    assert delete_expired() == set(range(1, num_windows))
    world.look()
    assert delete_expired() == set(range(num_windows - retention, num_windows))
    measured = world.ch.query(
        "SELECT uniqExact(window_start) FROM measurements WHERE kind = 'quality' AND metric = 'num_rows'"
    )
    assert measured == [(num_windows,)]
