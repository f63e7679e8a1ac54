"""A million events through kills of everything that counts and stores: all of it equals an offline recomputation.

Late, out of order, repeated, corrected, refused and too late, over four partitions. Then the same log without kills, by
one worker and by three, gives the same measurements to the last bit.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from store.client import ClickHouse
from tests.faults.arrivals import Message, make_stream
from tests.faults.installation import END_MS, Installation, run_installation
from tests.faults.kills import KINDS, Killer, Toll, plan_kills
from tests.faults.log_order import CountKey, Place, Refused, Replayed, replay
from tests.faults.models import MODELS, make_references, write_specs
from tests.faults.recomputation import Key, Row, recompute
from tests.faults.tables import find_stored
from tests.stacks import why_not

# Fewer are enough to look for something.
NUM_EVENTS = int(os.environ.get("DRIFTLOOP_LONG_EVENTS", "1000000"))
NUM_KILLS_EACH = 8
# Of each kind, in the middle of a write: half of those that are aimed at one.
NUM_HITS_MIN = 2
SEED = 4
# A machine that is busy with other things takes its time.
TIMEOUT_S = 1_800
FINISH_S = 900.0

# Sums of some thousand terms, in another order: the last digits of a double may differ.
TOLERANCE = 1e-11

MEASURED = """
    SELECT model, model_version, toUnixTimestamp64Milli(window_start), segment, feature, kind, metric, scale, value,
           lower, upper, threshold, status, source, num_rows, num_sampled, label_coverage, p_value, alpha
    FROM measurements_now
"""
# All but what depends on when it was measured, and how often.
EVERY_BIT = """
    SELECT * EXCEPT (covered, revision, computed_at) FROM measurements_now
    ORDER BY model, model_version, window_start, scale, segment, feature, kind, metric
"""
STORED = """
    SELECT model, record_id, model_version, toUnixTimestamp64Milli(ts), partition, offset, row FROM {table:Identifier}
"""

pytestmark = [
    pytest.mark.timeout(TIMEOUT_S),
    pytest.mark.skipif(
        os.environ.get("DRIFTLOOP_LONG_TESTS") != "1", reason="takes many minutes: set DRIFTLOOP_LONG_TESTS=1"
    ),
]


@dataclass(frozen=True)
class Stream:
    """What is sent, and the models that it is for."""

    messages: list[Message]
    references: dict[str, pd.DataFrame]
    specs: list[Path]

    def recompute(self, running: Installation) -> Replayed:
        known = {
            name: {key: set(self.references[name][key]) for key in model.segments} for name, model in MODELS.items()
        }
        return replay(running.read_log(), known)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    return make(NUM_EVENTS, tmp_path_factory.mktemp("specs"))


def make(num_events: int, folder: Path) -> Stream:
    references = make_references()
    messages = make_stream(num_events, SEED)
    return Stream(messages, references, write_specs(folder, references))


def test_no_kill_changes_what_comes_out(stream: Stream, tmp_path: Path) -> None:
    with run_installation(tmp_path / "run", stream.specs, num_monitors=2) as running:
        with telling_time("kills"):
            toll = send_through_kills(running, stream.messages, NUM_KILLS_EACH)
        check_toll(toll, NUM_KILLS_EACH, NUM_HITS_MIN)
        with telling_time("the rest"):
            running.finish(FINISH_S)
        check_everything(running, stream)


@pytest.mark.skipif(why_not("kafka") is not None, reason="KAFKA_HOME is not set, or there is no Java to run it")
def test_no_kill_changes_what_comes_out_on_apache_kafka(tmp_path: Path) -> None:
    """With fewer events: the broker makes no difference to how many there are."""
    stream = make(NUM_EVENTS // 10, tmp_path / "specs")
    with run_installation(tmp_path / "run", stream.specs, num_monitors=2, kind="kafka") as running:
        toll = send_through_kills(running, stream.messages, num_each=2)
        check_toll(toll, 2, num_hits_min=0)
        running.finish(FINISH_S)
        check_everything(running, stream)


def test_the_number_of_workers_changes_no_bit(stream: Stream, tmp_path: Path) -> None:
    tables = []
    for num_monitors in (1, 3):
        with run_installation(tmp_path / f"run-{num_monitors}", stream.specs, num_monitors) as running:
            with telling_time(f"{num_monitors} workers"):
                running.send(stream.messages)
                running.finish(FINISH_S)
            tables.append(running.store.query_arrow(EVERY_BIT))
            if num_monitors == 1:
                check_everything(running, stream)
    assert tables[0].num_rows > 0
    assert tables[0].equals(tables[1])


def send_through_kills(running: Installation, messages: list[Message], num_each: int) -> Toll:
    """Send everything, killing on the way."""
    rng = random.Random(SEED)
    plan = plan_kills(rng, num_each)
    # A piece before each kill, another while aiming, another while ClickHouse comes back; and some for the end.
    num_pieces = sum(1 + kill.is_aimed + (kill.kind == "clickhouse") for kill in plan) + 4
    pieces = iter(cut(messages, num_pieces))
    killer = Killer(running, rng, lambda: running.send(next(pieces, [])))
    for kill in plan:
        killer.strike(kill)
    for piece in pieces:
        running.send(piece)
    return killer.toll


@contextmanager
def telling_time(what: str) -> Iterator[None]:
    since_s = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - since_s:.1f} s")


def cut(messages: list[Message], num_pieces: int) -> Iterator[list[Message]]:
    source = iter(messages)
    while piece := list(islice(source, math.ceil(len(messages) / num_pieces))):
        yield piece


def check_toll(toll: Toll, num_each: int, num_hits_min: int) -> None:
    print(f"{len(toll.killed)} kills, {dict(toll.hits)} of them in the middle of a write")
    assert {kind: toll.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, num_each)
    assert min(toll.hits[kind] for kind in KINDS) >= num_hits_min


def check_everything(running: Installation, stream: Stream) -> None:
    """Compare all that there is in the end with its recomputation from the log as it stands."""
    with telling_time("deciding each event"):
        replayed = stream.recompute(running)
    assert {refused.reason for refused in replayed.refused.values()} >= {"too_late", "malformed", "unknown_model"}
    check_dead_letters(running.store, replayed.refused)
    check_stored(running.store, replayed)
    check_counts(running.store, replayed)
    with telling_time("recomputing"):
        expected = recompute(replayed, stream.references, END_MS)
    check_measurements(running.store, expected)
    print(
        f"{len(replayed.events)} events, {len(replayed.refused)} refused rows, {len(expected)} measurements are equal"
    )


def check_dead_letters(store: ClickHouse, expected: dict[Place, Refused]) -> None:
    """Each refused row once, at its place, with its reason and its bytes."""
    rows = store.query('SELECT topic, partition, offset, "row", reason, stage, raw, raw_encoding FROM dead_letters')
    assert len(rows) == len(expected)
    found = {(strip(row[0]), *row[1:4]): row[4:] for row in rows}
    assert found.keys() == expected.keys()
    for place, refused in expected.items():
        reason, stage, raw, encoding = found[place]
        assert (reason, stage) == (refused.reason, refused.stage), place
        if refused.raw is not None and encoding == "utf-8":
            assert raw.encode() == refused.raw, place


def check_stored(store: ClickHouse, replayed: Replayed) -> None:
    """Each valid event once, from the place that counts."""
    expected = find_stored(replayed)
    for table in ("records", "predictions", "labels"):
        found = store.query(STORED, {"table": table})
        events = {(e.model.name, e.record_id, e.version, e.ts, *e.place) for e in getattr(expected, table)}
        assert len(found) == len(events), table
        assert set(found) == events, table


def check_counts(store: ClickHouse, replayed: Replayed) -> None:
    """Each partition's summary of each window; those past retention may have been deleted, as measured."""
    rows = store.query(
        "SELECT topic, partition, model, model_version, segment, toUnixTimestamp64Milli(window_start), num_rows, "
        "num_duplicates, num_late FROM summaries"
    )
    found: dict[CountKey, tuple[int, ...]] = {(strip(row[0]), *row[1:6]): row[6:] for row in rows}  # type: ignore[misc]
    expected = {key: (c.num_rows, c.num_duplicates, c.num_late) for key, c in replayed.counts.items()}
    assert found.keys() <= expected.keys()
    kept = {key for key in expected if key[5] + MODELS[key[2]].size_ms + MODELS[key[2]].retention_ms > END_MS}
    assert kept
    assert kept <= found.keys()
    assert {key: found[key] for key in found if found[key] != expected[key]} == {}


def check_measurements(store: ClickHouse, expected: dict[Key, Row]) -> None:
    """Every measurement, and no other."""
    found = {Key(*row[:8]): Row(*row[8:]) for row in store.query(MEASURED)}
    assert not (missing := expected.keys() - found.keys()), f"{len(missing)} are missing, such as {min(missing)}"
    assert not (extra := found.keys() - expected.keys()), f"{len(extra)} are too many, such as {min(extra)}"
    differences = [
        f"{key}: {name} is {have}, expected {value}"
        for key, row in expected.items()
        for name, value, have in zip(Row._fields, row, found[key], strict=True)
        if not (is_equal_p if name == "p_value" else is_equal)(value, have)
    ]
    assert not differences, f"{len(differences)} differences:\n" + "\n".join(differences[:20])


def is_equal(value: Any, have: Any) -> bool:
    if isinstance(value, float) and isinstance(have, float):
        return math.isclose(value, have, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(value == have)


def is_equal_p(value: float | None, have: float | None) -> bool:
    """P-values that nobody would alarm at are approximate: up to twice nine times 0.001."""
    if value is None or have is None:
        return value is have
    return math.isclose(value, have, rel_tol=1e-6) or (min(value, have) > 0.2 and abs(value - have) <= 0.02)


def strip(topic: str) -> str:
    """Give the declared name of a topic."""
    return topic.removeprefix("t-")
