"""The survey finds every model that needs a look, and leaves alone those that do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from schemas.connections import ClickHouseConnection
from schemas.spec import ModelHistory, PublishedSpec, parse_spec
from store.client import ClickHouse
from store.judgements import insert_judgement
from store.markers import write_sink_marker
from store.migrations import migrate
from store.summaries import Marker, Place, SummaryRow, insert_markers, insert_summaries, read_markers
from streams.surveying import Surveyor
from tests.clickhouses import EmbeddedClickHouse

JOB = "monitor"
HOUR_MS = 3_600_000
PLACE = Place("predictions", "00000000-0000-0001-0000-00000000000a", 0)
MODELS = ("a", "b", "c'\n\"{")
# A whole hour, not so long ago that the store would drop what was computed then.
OPEN_MS = time.time_ns() // 1_000_000 // HOUR_MS * HOUR_MS
CLOSED_MS, NOW_MS = OPEN_MS - HOUR_MS, OPEN_MS + 1_000


def make_history(model: str, version: int = 1) -> ModelHistory:
    text = "model: m\ntask: binary\nreference: {file: r.parquet}\nwindows: {size: 1h, lateness: 0s, idle: 1d}\n"
    spec = parse_spec(text, "m.yaml")
    published = PublishedSpec(
        spec=spec, spec_version=version, effective_from=0, published_at=0, reference_hash="h", reference_rows=1
    )
    return ModelHistory([replace(published, spec=replace(spec, model=model))])


class World:
    """A store with markers of one partition that knows all models at one instant."""

    def __init__(self, connection: ClickHouseConnection) -> None:
        self.ch = ClickHouse(connection)
        for table in (
            "summaries",
            "stage1_markers",
            "measurements",
            "judgements",
            "labels",
            "dead_letters",
            "sink_markers",
        ):
            self.ch.command("TRUNCATE TABLE {name:Identifier}", {"name": table})
        self.histories = {model: make_history(model) for model in MODELS}
        topic_of = {"records": "records", "predictions": PLACE.topic}
        self.next_ends: dict[str, int] = {}
        self.surveyor = Surveyor(
            self.ch, JOB, topic_of, lambda: {(PLACE.topic, PLACE.topic_id): 1}, lambda model: self.next_ends.get(model)
        )
        self.mark(NOW_MS)

    def mark(self, watermark_ms: int, offset: int = 100) -> None:
        watermarks = {model: {"1": (watermark_ms, 0)} for model in MODELS}
        insert_markers(self.ch, JOB, [Marker(PLACE, offset, watermarks)])

    def count(self, model: str, start_ms: int, stamp: int, size_ms: int = HOUR_MS) -> None:
        row = SummaryRow(PLACE, model, "1", 1, "", start_ms, start_ms + size_ms, stamp, 1, 0, 0, b"")
        insert_summaries(self.ch, JOB, [row])

    def measure(self, model: str, start_ms: int, covered: int) -> None:
        """As the row that says that a window is measured."""
        moment = {"window_start": _instant(start_ms), "window_end": _instant(start_ms + HOUR_MS)}
        row = {"model": model, "kind": "quality", "metric": "num_rows", "covered": covered, "revision": 1}
        self.ch.insert_rows("measurements", [row | moment | {"spec_version": 1, "computed_at": _instant(NOW_MS)}])

    def label(self, model: str, record_id: str, at_ms: int) -> None:
        row = {"model": model, "record_id": record_id, "ts": _instant(at_ms), "label": 1.0}
        self.ch.insert_rows("labels", [row | {"ingested_at": _instant(at_ms)}])

    def find(self) -> set[str]:
        return self.surveyor.find(self.histories)


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseConnection]:
    server = EmbeddedClickHouse(Path(tmp_path_factory.mktemp("clickhouse")))
    server.start()
    known = ClickHouseConnection(server.url)
    store = ClickHouse(known)
    migrate(store)
    store.close()
    yield known
    server.stop()


@pytest.fixture
def world(connection: ClickHouseConnection) -> Iterator[World]:
    made = World(connection)
    yield made
    made.ch.close()


def test_models_without_anything_new_are_left_alone(world: World) -> None:
    assert world.find() == set()
    for model in MODELS:
        world.count(model, OPEN_MS, 50)
    assert world.find() == set()


def test_a_complete_window_is_found_until_it_is_measured_as_far_as_it_is_counted(world: World) -> None:
    world.count("a", CLOSED_MS, 40)
    world.count("b", OPEN_MS, 50)
    assert world.find() == {"a"}
    assert world.find() == {"a"}
    world.measure("a", CLOSED_MS, 40)
    assert world.find() == set()
    world.count("a", CLOSED_MS, 60)  # something came late
    assert world.find() == {"a"}


def test_a_window_is_found_when_time_has_come_to_its_end(world: World) -> None:
    world.count(MODELS[2], OPEN_MS, 50)
    assert world.find() == set()
    world.mark(OPEN_MS + HOUR_MS, offset=101)
    assert world.find() == {MODELS[2]}


def test_a_merged_window_is_found_when_it_ends_without_events(world: World) -> None:
    world.next_ends["a"] = OPEN_MS + HOUR_MS
    assert world.find() == set()
    world.mark(OPEN_MS + HOUR_MS, offset=101)
    assert world.find() == {"a"}


def test_a_window_of_a_spec_that_is_not_in_force_is_left_alone(world: World) -> None:
    world.count("a", CLOSED_MS, 40, size_ms=HOUR_MS // 2)
    assert world.find() == set()


def test_new_labels_are_found_once(world: World) -> None:
    world.label("a", "r1", NOW_MS)
    assert world.find() == {"a"}
    assert world.find() == set()
    world.label("a", "r2", NOW_MS + 1)
    world.label("gone", "r1", NOW_MS)
    assert world.find() == {"a"}


def test_predictions_that_came_too_late_are_found_when_they_are_stored(world: World) -> None:
    place = {"topic": PLACE.topic, "topic_id": PLACE.topic_id, "partition": 0}
    letter = {"model": "a", "reason": "too_late", "at": _instant(NOW_MS), **place, "offset": 7, "row": 0}
    world.ch.insert_rows("dead_letters", [letter])
    write_sink_marker(world.ch, PLACE.topic, PLACE.topic_id, 0, 7, NOW_MS)
    assert world.find() == set()
    write_sink_marker(world.ch, PLACE.topic, PLACE.topic_id, 0, 8, NOW_MS)
    assert world.find() == {"a"}
    assert world.find() == set()


def test_labels_of_a_model_taken_over_again_are_found_again(world: World) -> None:
    """Meanwhile another worker may have measured a window, and died before its labels."""
    world.label("a", "r1", NOW_MS)
    assert world.find() == {"a"}
    taken = world.histories.pop("a")
    assert world.find() == set()
    world.histories["a"] = taken
    assert world.find() == {"a"}


def test_a_new_spec_is_found_once(world: World) -> None:
    world.find()
    world.histories["b"] = make_history("b", version=2)
    assert world.find() == {"b"}
    assert world.find() == set()


def test_a_model_taken_over_is_found_if_not_all_of_it_is_judged(world: World) -> None:
    for model in ("a", "b"):
        world.count(model, CLOSED_MS, 40)
        world.measure(model, CLOSED_MS, 40)
    insert_judgement(world.ch, "b", NOW_MS, NOW_MS)
    assert world.find() == {"a"}
    # Its own worker judges what it measures.
    assert world.find() == set()
    # Given away and taken over again.
    taken = world.histories.pop("a")
    assert world.find() == set()
    world.histories["a"] = taken
    assert world.find() == {"a"}


def test_markers_are_read_for_one_model_or_all(world: World) -> None:
    (whole,) = read_markers(world.ch, JOB)
    assert whole.watermarks.keys() == set(MODELS)
    for model in MODELS:
        (one,) = read_markers(world.ch, JOB, model=model)
        assert one.watermarks == {model: whole.watermarks[model]}
        assert (one.place, one.next_offset) == (whole.place, whole.next_offset)
    (none,) = read_markers(world.ch, JOB, model="d")
    assert none.watermarks == {}
