"""What a batch adds does not depend on how its events were put into tables, nor on their order within a message."""

from __future__ import annotations

import json
from typing import Any

from schemas.validation import validate
from store.summaries import Place, StoredPartition
from streams.logic.partition import Partition, Snapshot
from tests.samples import KEY, SPEC, START_MS, arrow_of, batch_of, catalogue_of, publish, record

EARLY_MS = START_MS - 3 * 3_600_000
CATALOGUE = catalogue_of(publish(SPEC.replace("size: 1h", "size: 1h, lateness: 1m, retention: 1")))
NUM = 400


def count(messages: list[Any], num_at_once: int, headers: Any = None) -> Snapshot:
    partition = Partition.restore(Place("records", "id", 0), "records", StoredPartition(None), 0, CATALOGUE)
    for first in range(0, len(messages), num_at_once):
        batch = batch_of(messages[first : first + num_at_once], headers, first)
        validated = validate("records", batch, CATALOGUE, KEY)
        partition.advance(partition.compute(batch, validated, CATALOGUE), first + len(batch))
    return partition.snapshot()


def describe(taken: Snapshot) -> list[tuple[int, int, int, int]]:
    counted = [(key.window_start, each.summary) for key, each in taken.summaries if not key.segment]
    return sorted((start, each.num_rows, each.num_duplicates, each.num_late) for start, each in counted)


def make_wide(number: int, **changes: Any) -> dict[str, Any]:
    """A record with features that no other has: some hundreds of them do not fit into one table."""
    names = {f"n{number}_{k}": 1 for k in range(26)}
    return record(record_id=f"r{number % (NUM // 2)}", features={"amount": 1.0, **names}, **changes)


def test_a_duplicate_is_found_in_another_table_of_the_batch() -> None:
    messages = [make_wide(number) for number in range(NUM)]
    assert len(validate("records", batch_of(messages), CATALOGUE, KEY).columns) > 1
    assert describe(count(messages, NUM)) == describe(count(messages, 50)) == [(START_MS, NUM // 2, NUM // 2, 0)]


def test_what_another_table_of_the_batch_makes_late_is_refused_whole() -> None:
    messages = [make_wide(number, ts=START_MS if number < NUM // 2 else EARLY_MS) for number in range(NUM)]
    taken = count(messages, NUM)
    assert describe(taken) == [(START_MS, NUM // 2, 0, 0)]
    assert {letter.reason for letter in taken.dead} == {"too_late"}
    assert [json.loads(letter.raw)["features"] for letter in taken.dead] == [
        message["features"] for message in messages[NUM // 2 :]
    ]


def test_the_rows_of_a_message_do_not_make_each_other_late() -> None:
    times = [EARLY_MS, START_MS, EARLY_MS + 1]
    rows = [record(record_id=f"r{number}", ts=ts) for number, ts in enumerate(times)]
    message = arrow_of([{**row, "features": {"amount": 1.0}} for row in rows])
    headers = [("content-type", b"application/vnd.apache.arrow.stream")]
    together, apart = count([message], 1, headers), count(rows, 1)
    assert describe(together) == [(EARLY_MS, 2, 0, 0), (START_MS, 1, 0, 0)]
    assert describe(apart) == [(EARLY_MS, 1, 0, 0), (START_MS, 1, 0, 0)]
    assert [letter.reason for letter in apart.dead] == ["too_late"]
