"""Watermarks, the memory of identities, and windows: the small pieces that stage 1's state is made of."""

from __future__ import annotations

import random

import numpy as np

from streams.logic.dedup import Asked, Hashes, Ints, Mask, SeenIds
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


def ask(seen: SeenIds, hashes: Hashes, expires_at: Ints, ordinals: Ints, watermark: Ints) -> Mask:
    """Tell which are first occurrences as inputs, and see that they are the same as outputs of a version."""
    size = len(hashes)
    version = np.full(size, seen.number("a"))
    asked = Asked(hashes, expires_at, ordinals, version, watermark, np.ones(size, np.bool_), watermark)
    as_output, as_input = seen.find_new(asked)
    assert as_output.tolist() == as_input.tolist()
    return as_input


def add(seen: SeenIds, hashes: Hashes, ordinals: Ints, expires_at: int, watermark: int) -> None:
    seen.add(hashes, ordinals, expires_at, "a", True, lambda _: watermark)


def test_the_memory_agrees_with_dictionaries() -> None:
    """Many small batches with repetitions in and between them, some expired or too old: as one by one would.

    Of several versions, each with a time of its own, of some that have a table of their own, and of no output at all.
    """
    rng = random.Random(5)
    num_events_max = 900
    seen, ordinal = SeenIds(num_events_max), 0
    versions = [f"v{number}" for number in range(300)]
    for version in versions:
        seen.number(version)
    chosen = ["v0", "v1", "v254", "v255", "v299"]
    plain: dict[tuple[str, int], tuple[int, int]] = {}
    time = dict.fromkeys(["", *versions], 0)
    for _ in range(1500):
        size = rng.randrange(1, 30)
        hashes = [rng.choice([rng.randrange(300), rng.randrange(2**64)]) for _ in range(size)]
        version = [rng.choice([*chosen, "v0", "v0", ""]) for _ in range(size)]
        asks_input = [not name or rng.random() < 0.8 for name in version]
        watermark = [time[name] + step for step, name in enumerate(version)]
        input_watermark = [time[""] + 5 + step for step in range(size)]
        ordinals = (ordinal + np.cumsum([rng.randrange(1, 4) for _ in range(size)])).tolist()
        expires_at = [input_watermark[0] + rng.randrange(1, 2000) for _ in range(size)]
        expected: list[tuple[bool, bool]] = []
        for index, identity in enumerate(hashes):
            answers = []
            asked = ((version[index], bool(version[index]), watermark), ("", asks_input[index], input_watermark))
            for stream, does_ask, passed in asked:
                known_until, known_at = plain.get((stream, identity), (passed[index], 0))
                is_repeated = known_until > passed[index] and ordinals[index] - known_at <= num_events_max
                answers.append(does_ask and not is_repeated)
                if answers[-1]:
                    plain[stream, identity] = expires_at[index], ordinals[index]
            expected.append((answers[0], answers[1]))
        columns = Asked(
            np.array(hashes, np.uint64), np.array(expires_at), np.array(ordinals),
            np.array([seen.number(name) if name else -1 for name in version]), np.array(watermark),
            np.array(asks_input), np.array(input_watermark),
        )  # fmt: skip
        is_new, is_new_input = seen.find_new(columns)
        assert list(zip(is_new.tolist(), is_new_input.tolist(), strict=True)) == expected
        for index in np.flatnonzero(is_new | is_new_input).tolist():
            name = version[index] if is_new[index] else ""
            block = slice(index, index + 1)
            with_inputs = bool(name and is_new_input[index])
            seen.add(
                columns.hashes[block], columns.ordinals[block], expires_at[index], name, with_inputs, time.__getitem__
            )
        ordinal = ordinals[-1]
        # A version's time may stand still, or be behind that of the inputs.
        time |= {name: max(time[name], passed) for name, passed in zip(version, watermark, strict=True) if name != "v1"}
        time[""] = input_watermark[-1]
        if rng.random() < 0.3:
            seen.forget(time.__getitem__, ordinal)
            alive = {
                (identity, at)
                for (stream, identity), (until, at) in plain.items()
                if until > time[stream] and ordinal - at <= num_events_max
            }
            # An event of a version with a table of its own takes an entry in each.
            assert len(alive) <= len(seen) <= 2 * len(alive)


def test_the_memory_is_the_same_whatever_the_order_it_is_loaded_in() -> None:
    rng = random.Random(6)
    hashes = np.array([rng.randrange(500) for _ in range(2000)], np.uint64)
    expires_at, ordinals = [rng.randrange(10, 2000) for _ in range(20)], np.arange(2000)
    streams = [rng.choice([("a", True), ("a", False), ("", False), ("b", True)]) for _ in range(20)]
    memories = SeenIds(), SeenIds()
    for seen, begins in zip(memories, (range(0, 2000, 100), reversed(range(0, 2000, 100))), strict=True):
        seen.number("a")
        for begin in begins:
            block, number = slice(begin, begin + 100), begin // 100
            seen.add(hashes[block], ordinals[block], expires_at[number], *streams[number], lambda _: 0)
    asked = np.arange(700, dtype=np.uint64)
    for watermark in (0, 500, 1500):
        for version in ("a", "b"):
            answers = [
                seen.find_new(
                    Asked(
                        asked,
                        np.full(700, 9999),
                        np.full(700, 2000),
                        np.full(700, seen.number(version)),
                        np.full(700, watermark),
                        np.ones(700, np.bool_),
                        np.full(700, watermark),
                    )
                )
                for seen in memories
            ]
            assert [column.tolist() for column in answers[0]] == [column.tolist() for column in answers[1]]


def test_the_memory_forgets_what_has_expired_and_what_is_too_old() -> None:
    seen = SeenIds(5000)
    hashes = np.arange(1000, dtype=np.uint64) * np.uint64(2**64 // 1000)
    add(seen, hashes, np.arange(1000), 50, 0)
    seen.forget(lambda _: 49, 1000)
    assert len(seen) == 1000
    seen.forget(lambda _: 49, 5500)
    assert len(seen) == 500
    seen.forget({"": 50, "a": 49}.__getitem__, 5500)
    assert len(seen) == 500
    seen.forget(lambda _: 50, 5500)
    assert len(seen) == 0


def test_an_event_that_counts_as_output_and_as_input_takes_one_entry() -> None:
    seen, hashes = SeenIds(), np.arange(100, dtype=np.uint64)
    add(seen, hashes, np.arange(100), 50, 0)
    assert len(seen) == 100
    # Another version scores them again: they count as its output alone.
    seen.add(hashes, np.arange(100, 200), 50, "b", False, lambda _: 0)
    assert len(seen) == 200


def test_the_memory_does_not_grow_with_what_has_expired() -> None:
    """Without anyone asking it to forget: a full table leaves out what cannot be seen before it grows."""
    seen = SeenIds()
    rng = np.random.default_rng(1)
    for step in range(200):
        hashes = rng.integers(0, 2**64, 500, np.uint64)
        add(seen, hashes, np.arange(step * 500, (step + 1) * 500), step + 4, step)
    assert len(seen) < 20_000


def test_one_identity_counted_over_and_over_in_a_batch_makes_no_search_longer() -> None:
    """It expires before each next event, so that all of them count: with a search through all it would take minutes."""
    size = 300_000
    time = np.arange(size)
    assert ask(SeenIds(), np.full(size, 7, np.uint64), time, time, time).all()


def test_a_large_memory_remembers_all_and_forgets_all() -> None:
    """Through many splits, with hashes that have their first bits in common among them."""
    rng = np.random.default_rng(2)
    hashes = np.unique(np.concatenate((rng.integers(0, 2**64, 150_000, np.uint64), np.arange(30_000, dtype=np.uint64))))
    rng.shuffle(hashes)
    seen = SeenIds()
    for begin in range(0, len(hashes), 7_000):
        part = hashes[begin : begin + 7_000]
        asked = np.full(len(part), 99), np.arange(begin, begin + len(part)), np.zeros(len(part), np.int64)
        assert ask(seen, part, *asked).all()
        add(seen, part, asked[1], 99, 0)
    assert len(seen) == len(hashes)
    ordinals, watermark = np.full(len(hashes), len(hashes)), np.zeros(len(hashes), np.int64)
    assert not ask(seen, hashes, ordinals, ordinals, watermark).any()
    seen.forget(lambda _: 99, len(hashes))
    assert len(seen) == 0
    assert ask(seen, hashes, ordinals, ordinals, watermark).all()
