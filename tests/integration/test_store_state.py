"""Stage 1's state in the store: several partitions are read at once, each with what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from schemas.connections import ClickHouseConnection
from store.client import ClickHouse
from store.expiry import count_state, delete_ids, delete_windows
from store.migrations import migrate
from store.partitions import load_partitions
from store.summaries import (
    IdBlock,
    Marker,
    Place,
    StoredPartition,
    SummaryRow,
    insert_ids,
    insert_markers,
    insert_summaries,
)
from tests.clickhouses import EmbeddedClickHouse

JOB = "monitor"
HOUR_MS = 3_600_000
TOPIC_ID = "00000000-0000-0001-0000-00000000000a"
OTHER_ID = "00000000-0000-0001-0000-00000000000b"


@pytest.fixture(scope="module")
def ch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    server = EmbeddedClickHouse(Path(tmp_path_factory.mktemp("clickhouse")))
    server.start()
    store = ClickHouse(ClickHouseConnection(server.url))
    migrate(store)
    yield store
    store.close()
    server.stop()


def make_row(place: Place, stamp: int, state: bytes) -> SummaryRow:
    return SummaryRow(place, "m", "1", 1, "", 0, 3_600_000, stamp, 1, 0, 0, state)


def make_ids(hashes: list[int], ordinals: list[int], with_inputs: bool = False) -> IdBlock:
    return IdBlock("m", "1", 0, 3_600_000, np.array(hashes, np.uint64), np.array(ordinals, np.int64), with_inputs)


def read_numbered(stored: StoredPartition) -> dict[int, int]:
    return {
        int(identity): int(ordinal)
        for block in stored.ids
        for identity, ordinal in zip(block.hashes, block.ordinals, strict=True)
    }


def test_each_partition_gets_its_newest_rows_and_the_identities_below_its_marker(ch: ClickHouse) -> None:
    marked, unmarked, empty = Place("t'1", TOPIC_ID, 0), Place("t'1", TOPIC_ID, 1), Place("t'2", TOPIC_ID, 0)
    unasked, former = Place("t'1", TOPIC_ID, 2), Place("t'1", OTHER_ID, 0)
    every = [marked, unmarked, unasked, former]
    insert_summaries(ch, JOB, [make_row(place, 10, b"old") for place in every])
    insert_summaries(ch, JOB, [make_row(marked, 20, b"new\xff"), make_row(unmarked, 21, b"new")])
    insert_summaries(ch, "another", [make_row(marked, 99, b"another")])
    insert_ids(ch, JOB, [(place, make_ids([1, 2], [5, 6])) for place in every])
    insert_ids(ch, JOB, [(marked, make_ids([2**64 - 1, 4], [19, 20], True)), (marked, make_ids([5], [21]))])
    insert_ids(ch, "another", [(marked, make_ids([6], [7]))])
    newest = Marker(marked, 40, {"m": {"1": (3, 4)}}, 0, 20)
    insert_markers(ch, JOB, [Marker(marked, 8, {}, 0, 4), newest, Marker(former, 50, {}, 0, 30)])

    loaded = load_partitions(ch, JOB, [empty, marked, unmarked], 1000)

    assert list(loaded) == [empty, marked, unmarked]
    assert loaded[marked].marker == newest
    assert [(row.stamp, row.state) for row in loaded[marked].summaries] == [(20, b"new\xff")]
    assert read_numbered(loaded[marked]) == {1: 5, 2: 6, 2**64 - 1: 19}
    assert [block.hashes.tolist() for block in loaded[marked].ids if block.with_inputs] == [[2**64 - 1]]
    # Without a marker nothing is known to be complete: the log is read from its beginning, and brings the identities.
    assert loaded[unmarked].marker is None
    assert [(row.stamp, row.state) for row in loaded[unmarked].summaries] == [(21, b"new")]
    assert loaded[unmarked].ids == []
    assert (loaded[empty].marker, loaded[empty].summaries, loaded[empty].ids) == (None, [], [])
    # What is further behind than that does not count any more.
    assert read_numbered(load_partitions(ch, JOB, [marked], 10)[marked]) == {2**64 - 1: 19}


def test_identities_are_read_in_groups_of_bounded_size(ch: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [Place("many", TOPIC_ID, partition) for partition in range(5)]
    insert_markers(ch, JOB, [Marker(place, 1000, {}, 0, 1000) for place in places])
    for size, place in zip((3, 4, 12, 1, 2), places, strict=True):
        block = make_ids(list(range(place.partition * 100, place.partition * 100 + size)), list(range(size)))
        insert_ids(ch, JOB, [(place, block)])
    expected = [list(range(100 * p, 100 * p + size)) for p, size in enumerate((3, 4, 12, 1, 2))]
    asked: list[str] = []
    query = ch.query_arrow
    monkeypatch.setattr(ch, "query_arrow", lambda sql, parameters: asked.append(sql) or query(sql, parameters))
    for num_ids_max, num_groups in ((1000, 1), (10, 3), (1, 5)):
        monkeypatch.setattr("store.partitions._NUM_IDS_MAX", num_ids_max)
        asked.clear()
        loaded = load_partitions(ch, JOB, places, 1000)
        assert [[h for b in loaded[place].ids for h in b.hashes.tolist()] for place in places] == expected
        assert len(asked) == num_groups


def test_loading_no_partitions_asks_for_nothing(ch: ClickHouse) -> None:
    assert load_partitions(ch, JOB, [], 1000) == {}


def test_what_expired_is_deleted_for_many_models_at_once(ch: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.expiry._NUM_SOURCES_MAX", 3)
    place, other = Place("expiring", TOPIC_ID, 0), Place("expiring", TOPIC_ID, 1)
    # Names that would be mixed up if they were only joined.
    sources = [(f"m{number}", version) for number in range(4) for version in ("", "1\t'", "2\n")]
    hours = range(1, 4)
    insert_summaries(
        ch,
        "expiry",
        [
            SummaryRow(each, model, version, 1, "", (end - 1) * HOUR_MS, end * HOUR_MS, 1, 1, 0, 0, b"")
            for each in (place, other)
            for model, version in sources
            for end in hours
        ],
    )
    identity = np.array([1], np.uint64)
    insert_ids(
        ch,
        "expiry",
        [
            (each, IdBlock(model, version, 0, end * HOUR_MS, identity, np.array([100 + end])))
            for each in (place, other)
            for model, version in sources
            for end in hours
        ],
    )
    # Each source has come to another hour; the last one is not known at all.
    before = {source: number % 4 * HOUR_MS for number, source in enumerate(sources[:-1])}

    delete_windows(ch, "expiry", "expiring", before)
    delete_ids(ch, "expiry", place, before, 0)

    def read(table: str, column: str, where: str) -> set[tuple[str, str, int]]:
        rows = ch.query(
            f"SELECT model, model_version, toUnixTimestamp64Milli({column}) FROM {table} "
            f"WHERE job = 'expiry' AND {where}"
        )
        return {(model, version, end // HOUR_MS) for model, version, end in rows}

    left = {(*source, end) for source in sources for end in hours if end * HOUR_MS > before.get(source, 0)}
    assert read("summaries", "window_end", "1") == left
    assert read("identities", "expires_at", "partition = 0") == left
    assert read("identities", "expires_at", "partition = 1") == {(*source, end) for source in sources for end in hours}
    # Of those that are too many events ago nothing is left, whatever their window.
    delete_ids(ch, "expiry", place, before, 103)
    left = {(*source, end) for *source, end in left if end == 3}
    assert read("identities", "expires_at", "partition = 0") == left
    assert count_state(ch, "expiry") == (12, 36 + len(left))
