"""Events in the store: what is written is read back once, in one order, whoever wrote it and how often."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from schemas.columns import EventColumns
from schemas.connections import ClickHouseConnection
from schemas.texts import TextColumn
from store import event_reads
from store.client import ClickHouse
from store.event_reads import read_labelled, read_training_rows, read_window
from store.events import event_rows, insert_event_rows, insert_events
from store.migrations import migrate
from store.reference import insert_reference, read_reference
from tests.clickhouses import EmbeddedClickHouse

HOUR_MS = 3_600_000
START_MS = 1_767_225_600_000
TOPIC_ID = "00000000-0000-0001-0000-00000000000a"


@pytest.fixture(scope="module")
def ch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    server = EmbeddedClickHouse(Path(tmp_path_factory.mktemp("clickhouse")))
    server.start()
    store = ClickHouse(ClickHouseConnection(server.url))
    migrate(store)
    yield store
    store.close()
    server.stop()


def _records(model: str, ids: list[str], ts: list[int], offsets: list[int], **more: object) -> EventColumns:
    num_rows = len(ids)
    return EventColumns(
        kind="records",
        model=model,
        offset=np.array(offsets, np.int64),
        row=np.zeros(num_rows, np.int32),
        ts=np.array(ts, np.int64),
        record_id=TextColumn.of(ids),
        numbers={"amount": np.array([float(o) for o in offsets]), "hole": np.array([np.nan] + [1.0] * (num_rows - 1))},
        texts={"country": TextColumn.of([None if o % 3 == 0 else f"C{o % 3}" for o in offsets])},
        **more,  # type: ignore[arg-type]
    )


def _predictions(model: str, version: str, ids: list[str], ts: list[int], offsets: list[int]) -> EventColumns:
    events = _records(model, ids, ts, offsets)
    events.kind = "predictions"
    events.model_version = TextColumn.repeat(version, len(ids))
    events.prediction = np.array([float(o % 2) for o in offsets])
    events.score = np.array([o / 100 for o in offsets])
    events.scores = {"a": np.array([0.25] * len(ids))}
    events.has_features = np.ones(len(ids), np.bool_)
    return events


def _labels(model: str, ids: list[str], ts: list[int], offsets: list[int], labels: list[float]) -> EventColumns:
    return EventColumns(
        kind="labels",
        model=model,
        offset=np.array(offsets, np.int64),
        row=np.zeros(len(ids), np.int32),
        ts=np.array(ts, np.int64),
        record_id=TextColumn.of(ids),
        label=np.array(labels),
    )


def test_rows_come_back_with_their_features(ch: ClickHouse) -> None:
    events = _records("plain", ["a", "b", "c"], [START_MS + 1, START_MS + 2, START_MS + 3], [3, 4, 5])
    insert_events(ch, events, "records", TOPIC_ID, 0)
    rows = (
        read_window(ch, "plain", START_MS, START_MS + HOUR_MS, "records")
        .to_pandas()
        .set_index("record_id")
        .sort_index()
    )
    assert rows["f:amount"].tolist() == [3.0, 4.0, 5.0]
    assert np.isnan(rows["f:hole"].iloc[0])
    assert rows["t:country"].tolist() == [None, "C1", "C2"]
    ((instant, missing),) = ch.query(
        "SELECT toUnixTimestamp64Milli(ts), features['hole'] FROM records WHERE model = 'plain' AND record_id = 'a'"
    )
    assert instant == START_MS + 1
    assert missing is None


def test_equal_identities_count_once_in_a_plain_select_and_the_first_wins(ch: ClickHouse) -> None:
    for partition, offset in [(1, 7), (0, 9), (0, 8), (0, 9), (3, 0)]:  # written in no order, one of them twice
        insert_events(ch, _records("twice", ["a"], [START_MS], [offset]), "records", TOPIC_ID, partition)
    assert ch.query("SELECT count(), any(offset) FROM records WHERE model = 'twice'") == [(1, 8)]
    rows = read_window(ch, "twice", START_MS, START_MS + HOUR_MS, "records")
    assert rows.column("f:amount").to_pylist() == [8.0]


def test_rows_of_one_message_all_count(ch: ClickHouse) -> None:
    events = _records("chunk", ["a", "b", "a"], [START_MS] * 3, [5, 5, 5])
    events.row = np.arange(3, dtype=np.int32)
    events.numbers["amount"] = np.array([10.0, 11.0, 12.0])
    insert_events(ch, events, "records", TOPIC_ID, 0)
    rows = read_window(ch, "chunk", START_MS, START_MS + HOUR_MS, "records")
    assert sorted(rows.column("f:amount").to_pylist()) == [10.0, 11.0]


def test_a_duplicate_with_another_time_is_left_out_when_read(ch: ClickHouse) -> None:
    next_hour_ms = START_MS + HOUR_MS
    insert_events(ch, _records("moved", ["a", "b"], [START_MS, next_hour_ms], [1, 2]), "records", TOPIC_ID, 0)
    insert_events(ch, _records("moved", ["a"], [next_hour_ms + 5], [3]), "records", TOPIC_ID, 0)
    later = read_window(ch, "moved", next_hour_ms, next_hour_ms + HOUR_MS, "records", horizon_ms=HOUR_MS)
    assert later.column("record_id").to_pylist() == ["b"]
    first = read_window(ch, "moved", START_MS, next_hour_ms, "records", horizon_ms=HOUR_MS)
    assert first.column("record_id").to_pylist() == ["a"]


def test_only_rows_below_the_stamp_are_read(ch: ClickHouse) -> None:
    insert_events(ch, _records("stamp", ["a", "b", "c"], [START_MS] * 3, [1, 2, 3]), "records", TOPIC_ID, 0)
    insert_events(ch, _records("stamp", ["d"], [START_MS], [1]), "records", TOPIC_ID, 1)
    below = {("records", TOPIC_ID, 0): 3}
    rows = read_window(ch, "stamp", START_MS, START_MS + HOUR_MS, "records", below=below)
    assert sorted(rows.column("record_id").to_pylist()) == ["a", "b"]


def test_a_sample_is_the_same_for_everyone(ch: ClickHouse) -> None:
    ids = [f"r{n}" for n in range(200)]
    insert_events(ch, _records("sample", ids[100:], [START_MS] * 100, list(range(100))), "records", TOPIC_ID, 0)
    insert_events(ch, _records("sample", ids[:100], [START_MS] * 100, list(range(100))), "records", TOPIC_ID, 1)
    whole = read_window(ch, "sample", START_MS, START_MS + HOUR_MS, "records").column("record_id").to_pylist()
    some = read_window(ch, "sample", START_MS, START_MS + HOUR_MS, "records", limit=17).column("record_id").to_pylist()
    assert len(whole) == 200
    assert some == whole[:17]


def test_segments_are_what_was_sent_else_the_feature(ch: ClickHouse) -> None:
    events = _records(
        "segments",
        ["a", "b", "c", "d"],
        [START_MS] * 4,
        [1, 2, 3, 4],
        segment={"country": TextColumn.of(["C1", "XX", None, None])},
    )
    insert_events(ch, events, "records", TOPIC_ID, 0)

    def ids(segment: str, known: tuple[str, ...] = ()) -> list[str]:
        rows = read_window(
            ch, "segments", START_MS, START_MS + HOUR_MS, "records", segment=segment, segment_values=known
        )
        return sorted(rows.column("record_id").to_pylist())

    assert ids("country=C1") == ["a", "d"]
    assert ids("country=__other__", ("C1", "C2")) == ["b"]
    assert ids("amount=3") == ["c"]


def test_the_latest_label_counts_and_ties_go_to_the_larger_offset(ch: ClickHouse) -> None:
    insert_events(
        ch, _predictions("joined", "7", ["a", "b", "c"], [START_MS] * 3, [1, 2, 3]), "predictions", TOPIC_ID, 0
    )
    insert_events(ch, _predictions("joined", "8", ["a"], [START_MS], [4]), "predictions", TOPIC_ID, 0)
    insert_events(
        ch,
        _labels("joined", ["a", "a", "b", "b"], [200, 100, 300, 300], [1, 9, 6, 5], [1.0, 0.0, 1.0, 0.0]),
        "labels",
        TOPIC_ID,
        0,
    )
    rows = (
        read_labelled(ch, "joined", "7", START_MS, START_MS + HOUR_MS).to_pandas().set_index("record_id").sort_index()
    )
    assert rows["has_label"].tolist() == [True, True, False]
    assert rows["label"].tolist()[:2] == [1.0, 1.0]
    assert np.isnan(rows["label"].iloc[2])
    assert rows["score"].tolist() == [0.01, 0.02, 0.03]
    assert rows["s:a"].tolist() == [0.25] * 3


def test_training_rows_take_features_once_and_in_time_order(ch: ClickHouse) -> None:
    insert_events(
        ch, _predictions("train", "1", ["a", "b"], [START_MS + 5, START_MS + 1], [1, 2]), "predictions", TOPIC_ID, 0
    )
    insert_events(ch, _predictions("train", "2", ["a"], [START_MS + 5], [3]), "predictions", TOPIC_ID, 0)
    insert_events(ch, _labels("train", ["a", "b", "zzz"], [1, 1, 1], [1, 2, 3], [1.0, 0.0, 1.0]), "labels", TOPIC_ID, 0)
    rows = read_rows(ch, "train")
    assert rows.column("record_id").to_pylist() == ["b", "a"]
    assert rows.column("f:amount").to_pylist() == [2.0, 1.0]
    insert_events(ch, _records("train", ["b"], [START_MS + 1], [99]), "records", TOPIC_ID, 0)
    assert read_rows(ch, "train").column("f:amount").to_pylist() == [99.0]


def test_training_rows_do_not_depend_on_where_the_store_is_asked_in_parts(
    ch: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of seven hours, some sent again in another hour, some by two versions."""
    rng = np.random.default_rng(0)
    at = START_MS + rng.integers(0, 7 * HOUR_MS, 200)
    ids = [f"r{number}" for number in rng.integers(0, 120, 200)]
    for version, part, first in (("1", slice(0, 150), 0), ("2", slice(100, 200), 150)):
        offsets = list(range(first, first + part.stop - part.start))
        rows = _predictions("parts", version, ids[part], at[part].tolist(), offsets)
        insert_events(ch, rows, "predictions", TOPIC_ID, 0)
    names = sorted(set(ids))
    labels = _labels("parts", names, [1] * len(names), list(range(len(names))), [1.0] * len(names))
    insert_events(ch, labels, "labels", TOPIC_ID, 0)
    whole = read_rows(ch, "parts", 7 * HOUR_MS)
    assert whole.num_rows > 120
    order = list(zip(whole["ts"].to_pylist(), whole["record_id"].to_pylist(), strict=True))
    assert order == sorted(order)
    for num_rows in (1, 40, 90):
        monkeypatch.setattr(event_reads, "_SLICE_ROWS", num_rows)
        asked = list(read_training_rows(ch, "parts", START_MS, START_MS + 7 * HOUR_MS))
        assert len(asked) > 1
        pd.testing.assert_frame_equal(pa.concat_tables(asked).to_pandas(), whole.to_pandas())


def read_rows(ch: ClickHouse, model: str, span_ms: int = HOUR_MS) -> pa.Table:
    blocks = list(read_training_rows(ch, model, START_MS, START_MS + span_ms))
    return pa.concat_tables(blocks, promote_options="default")


def test_training_rows_are_joined_from_the_blocks_in_which_they_come(ch: ClickHouse) -> None:
    """Rows of more than one block of the server's; one feature is in the first of them only."""
    num_rows = 150_000
    ids, at = [f"r{row:06}" for row in range(num_rows)], (START_MS + np.arange(num_rows)).tolist()
    records = _records("blocks", ids, at, list(range(num_rows)))
    records.numbers["early"] = np.where(np.arange(num_rows) < 100, 7.0, np.nan)
    insert_events(ch, records, "records", TOPIC_ID, 0)
    places = list(range(num_rows))
    insert_events(ch, _labels("blocks", ids, at, places, [float(row % 2) for row in places]), "labels", TOPIC_ID, 0)
    rows = read_rows(ch, "blocks")
    assert rows["record_id"].num_chunks > 1
    assert rows["record_id"].to_pylist() == ids
    assert rows["f:amount"].to_pylist() == places
    assert rows["label"].to_pylist() == [float(row % 2) for row in places]
    early = rows["f:early"].to_pandas()
    assert early.notna().sum() == 100
    assert (early[:100] == 7.0).all()
    assert sum(block.num_rows for block in read_training_rows(ch, "blocks", 0, 1)) == 0


def test_blocks_of_several_models_and_partitions_go_in_one_insert(ch: ClickHouse) -> None:
    blocks = [
        event_rows(_records(f"many{n}", ["a"], [START_MS + n * 40 * 24 * HOUR_MS], [n]), "records", TOPIC_ID, n)
        for n in range(150)
    ]
    insert_event_rows(ch, "records", blocks)
    assert ch.query("SELECT count(), uniqExact(model) FROM records WHERE model LIKE 'many%'") == [(150, 150)]


def test_a_reference_comes_back_as_it_was_frozen(ch: ClickHouse) -> None:
    frame = pd.DataFrame(
        {
            "ts": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"], utc=True),
            "amount": [1.5, np.nan, -2.0],
            "flag": [True, False, True],
            "country": ["DE", None, "FR"],
            "label": [1, 0, 1],
            "score": [0.1, 0.2, 0.9],
            "prediction": ["yes", "no", "yes"],
            "scores:yes": [0.1, 0.2, 0.9],
        }
    )
    insert_reference(ch, "hash", frame)
    insert_reference(ch, "hash", frame)
    back = read_reference(ch, "hash")
    assert len(back) == 3
    assert back["ts"].tolist() == frame["ts"].tolist()
    for name in ("amount", "flag", "label", "score", "scores:yes"):
        np.testing.assert_array_equal(back[name].to_numpy(float), frame[name].to_numpy(float))
    assert back["country"].tolist() == ["DE", None, "FR"]
    assert back["prediction"].tolist() == ["yes", "no", "yes"]
