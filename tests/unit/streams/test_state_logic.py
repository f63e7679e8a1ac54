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
    """Many small batches with repetitions in and between them, some expired or too old: as one by one would."""
    rng = random.Random(5)
    num_events_max = 900
    seen, plain, watermark, ordinal = SeenIds(num_events_max), dict[int, tuple[int, int]](), 0, 0
    for _ in range(600):
        size = rng.randrange(1, 30)
        hashes = np.array([rng.choice([rng.randrange(300), rng.randrange(2**64)]) for _ in range(size)], np.uint64)
        passed = np.array([watermark + step for step in range(size)])
        ordinals = ordinal + np.cumsum([rng.randrange(1, 4) for _ in range(size)])
        expires_at = passed + np.array([rng.randrange(1, 2000) for _ in range(size)])
        expected = []
        events = zip(hashes.tolist(), expires_at.tolist(), passed.tolist(), ordinals.tolist(), strict=True)
        for identity, expiry, before, number in events:
            known_until, known_at = plain.get(identity, (-1, 0))
            is_new = known_until <= before or number - known_at > num_events_max
            expected.append(is_new)
            if is_new:
                plain[identity] = expiry, number
        is_new = seen.find_new(hashes, expires_at, ordinals, passed)
        assert is_new.tolist() == expected
        for expiry in sorted(set(expires_at[is_new].tolist())):
            own = is_new & (expires_at == expiry)
            seen.add(hashes[own], ordinals[own], expiry, watermark)
        watermark, ordinal = watermark + size, int(ordinals[-1])
        if rng.random() < 0.3:
            seen.forget(watermark, ordinal)
            alive = sum(until > watermark and ordinal - at <= num_events_max for until, at in plain.values())
            assert len(seen) == alive


def test_the_memory_is_the_same_whatever_the_order_it_is_loaded_in() -> None:
    rng = random.Random(6)
    hashes = np.array([rng.randrange(500) for _ in range(2000)], np.uint64)
    expires_at, ordinals = [rng.randrange(10, 2000) for _ in range(20)], np.arange(2000)
    forwards, backwards = SeenIds(), SeenIds()
    for begin in range(0, 2000, 100):
        block = slice(begin, begin + 100)
        forwards.add(hashes[block], ordinals[block], expires_at[begin // 100], 0)
    for begin in reversed(range(0, 2000, 100)):
        block = slice(begin, begin + 100)
        backwards.add(hashes[block], ordinals[block], expires_at[begin // 100], 0)
    asked = np.arange(700, dtype=np.uint64)
    for watermark in (0, 500, 1500):
        arguments = asked, np.full(700, 9999), np.full(700, 2000), np.full(700, watermark)
        assert forwards.find_new(*arguments).tolist() == backwards.find_new(*arguments).tolist()


def test_the_memory_forgets_what_has_expired_and_what_is_too_old() -> None:
    seen = SeenIds(5000)
    hashes = np.arange(1000, dtype=np.uint64) * np.uint64(2**64 // 1000)
    seen.add(hashes, np.arange(1000), 50, 0)
    seen.forget(49, 1000)
    assert len(seen) == 1000
    seen.forget(49, 5500)
    assert len(seen) == 500
    seen.forget(50, 5500)
    assert len(seen) == 0


def test_the_memory_does_not_grow_with_what_has_expired() -> None:
    """Without anyone asking it to forget: a full table leaves out what cannot be seen before it grows."""
    seen = SeenIds()
    rng = np.random.default_rng(1)
    for step in range(200):
        hashes = rng.integers(0, 2**64, 500, np.uint64)
        seen.add(hashes, np.arange(step * 500, (step + 1) * 500), step + 4, step)
    assert len(seen) < 20_000


def test_a_large_memory_remembers_all_and_forgets_all() -> None:
    """Through many splits, with hashes that have their first bits in common among them."""
    rng = np.random.default_rng(2)
    hashes = np.unique(np.concatenate((rng.integers(0, 2**64, 150_000, np.uint64), np.arange(30_000, dtype=np.uint64))))
    rng.shuffle(hashes)
    seen = SeenIds()
    for begin in range(0, len(hashes), 7_000):
        part = hashes[begin : begin + 7_000]
        asked = np.full(len(part), 99), np.arange(begin, begin + len(part)), np.zeros(len(part), np.int64)
        assert seen.find_new(part, *asked).all()
        seen.add(part, asked[1], 99, 0)
    assert len(seen) == len(hashes)
    ordinals, watermark = np.full(len(hashes), len(hashes)), np.zeros(len(hashes), np.int64)
    assert not seen.find_new(hashes, ordinals, ordinals, watermark).any()
    seen.forget(99, len(hashes))
    assert len(seen) == 0
    assert seen.find_new(hashes, ordinals, ordinals, watermark).all()
