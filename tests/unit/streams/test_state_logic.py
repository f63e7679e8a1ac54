"""Watermarks, the memory of identities, and windows: the small pieces that stage 1's state is made of."""

from __future__ import annotations

import random

import numpy as np

from streams.logic.dedup import SeenIds
from streams.logic.watermarks import EVERY_VERSION, UNKNOWN_MS, Watermarks, list_sources, run_watermark


def test_the_watermark_before_each_event_is_what_had_passed_by_then() -> None:
    own, offset = np.array([10, 5, 30, 20]), np.array([1, 2, 4, 9])
    before, after = run_watermark(7, own, offset, [(3, 25), (50, 99)])
    assert before.tolist() == [7, 10, 25, 30]
    assert after == 99


def test_a_watermark_message_holds_for_versions_not_yet_seen() -> None:
    watermarks = Watermarks()
    assert watermarks.get("m", "a") == UNKNOWN_MS
    watermarks.raise_to("m", EVERY_VERSION, 50, 1)
    watermarks.raise_to("m", "a", 40, 2)
    assert (watermarks.get("m", "a"), watermarks.get("m", "b"), watermarks.get("n", "a")) == (50, 50, UNKNOWN_MS)
    assert Watermarks(watermarks.dump()).dump() == watermarks.dump()
    sources = list_sources(watermarks.dump(), "m")
    assert {version: source.watermark_ms for version, source in sources.items()} == {"a": 50}
    assert list_sources({"m": {EVERY_VERSION: (50, 1)}}, "m")[""].watermark_ms == 50
    assert list_sources({}, "m") == {}


def test_the_memory_agrees_with_a_dictionary() -> None:
    """Many small batches with repetitions in and between them, some expired: as one event after the other would."""
    rng = random.Random(5)
    seen, plain, watermark = SeenIds(), dict[int, int](), 0
    for _ in range(200):
        size = rng.randrange(1, 30)
        hashes = np.array([rng.randrange(300) for _ in range(size)], np.uint64)
        passed = np.array([watermark + step for step in range(size)])
        expires_at = passed + np.array([rng.randrange(1, 400) for _ in range(size)])
        expected = []
        for identity, expiry, before in zip(hashes.tolist(), expires_at.tolist(), passed.tolist(), strict=True):
            is_new = plain.get(identity, -1) <= before
            expected.append(is_new)
            if is_new:
                plain[identity] = max(expiry, plain.get(identity, -1))
        is_new = seen.find_new(hashes, expires_at, passed)
        assert is_new.tolist() == expected
        seen.add(hashes[is_new], expires_at[is_new])
        watermark += size
        seen.forget(watermark)


def test_the_memory_forgets_what_has_expired() -> None:
    seen = SeenIds()
    seen.add(np.arange(1000, dtype=np.uint64), np.full(1000, 50))
    seen.forget(49)
    assert len(seen) == 1000
    seen.forget(50)
    assert len(seen) == 0
