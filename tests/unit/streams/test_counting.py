"""What the agent does with a message that cannot be counted, and with a topic of which nothing can be decoded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from faust.types import TP

from schemas.catalogue import Catalogue
from schemas.clock import ManualClock
from schemas.connections import ClickHouseConnection, KafkaConnection, Runtime, TopicNames
from schemas.events import DeadLetter
from schemas.messages import MessageBatch
from schemas.validation import Validated
from store.client import ClickHouse
from store.summaries import Place
from streams.counting import Counting, Owned
from streams.logic.breaker import NUM_MESSAGES_MIN, Breaker
from streams.logic.deltas import Delta
from streams.logic.partition import Partition
from streams.logic.watermarks import Watermarks

PLACE = Place("records", "00000000-0000-0000-0000-000000000001", 0)


class PoisonedPartition(Partition):
    """Cannot count one value, as a defect would have it."""

    def compute(self, batch: MessageBatch, validated: Validated, catalogue: Catalogue) -> Delta:
        if b"poison" in batch.values:
            raise ZeroDivisionError("by poison")
        return super().compute(batch, validated, catalogue)


def make_counting(tmp_path: Path) -> Counting:
    runtime = Runtime(
        KafkaConnection("127.0.0.1:1"), ClickHouseConnection("http://127.0.0.1:1"), TopicNames(), str(tmp_path),
        str(tmp_path), b"k",
    )  # fmt: skip
    specs: Any = SimpleNamespace(catalogue=Catalogue(), refresh=lambda: None)
    return Counting(None, runtime, ClickHouse(runtime.clickhouse), "job", specs, ManualClock())


def make_batch(values: list[bytes | None]) -> MessageBatch:
    offsets = np.arange(10, 10 + len(values))
    return MessageBatch(PLACE.topic, PLACE.topic_id, 0, offsets, offsets + 1000, values)


def test_a_poisoned_message_becomes_a_dead_letter_and_the_others_count(tmp_path: Path) -> None:
    async def run() -> Partition:
        counting = make_counting(tmp_path)
        partition = PoisonedPartition(PLACE, "records", 10, 10, Watermarks())
        owned = Owned(partition)
        counting._owned[TP("records", 0)] = owned
        try:
            await counting._count(owned, make_batch([b"{", b"[]", b"poison", b"{", b"{"]))
        finally:
            counting.close()
        return partition

    partition = asyncio.run(run())
    taken = partition.snapshot()
    assert partition.next_offset == 15
    assert [letter.reason for letter in taken.dead if letter.offset == 12] == ["unprocessable"]
    assert {letter.offset for letter in taken.dead} >= {10, 12, 13, 14}


def make_letter(offset: int, reason: str) -> DeadLetter:
    return DeadLetter(
        model="", reason=reason, message="", raw="", stage="validate", at=0, topic="records", topic_id="", partition=0,
        offset=offset, row=0,
    )  # fmt: skip


def test_the_breaker_opens_when_nearly_nothing_can_be_decoded() -> None:
    breaker = Breaker()
    half = NUM_MESSAGES_MIN // 2
    assert not breaker.note(half, [make_letter(offset, "malformed") for offset in range(half)])
    assert breaker.note(half, [make_letter(offset, "unknown_encoding") for offset in range(half)])


def test_late_events_unknown_models_and_field_errors_do_not_open_it() -> None:
    breaker = Breaker()
    for reason in ("too_late", "unknown_model", "missing_field"):
        letters = [make_letter(offset, reason) for offset in range(NUM_MESSAGES_MIN)]
        assert not breaker.note(NUM_MESSAGES_MIN, letters)
