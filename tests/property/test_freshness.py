"""Whatever comes, is read late or judged by whom: an alert of freshness tells of a true silence, and tells it once."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.clock import ManualClock
from store.summaries import Marker, Place
from streams.logic.alerts import Standing
from streams.logic.freshness import AgeLimit, Change, find_age, follow_topic
from streams.logic.watermarks import EVERY_VERSION, INPUTS, Watermarks

MODEL, TOPIC, TOPIC_ID = "m", "predictions", "life-1"
SIZES = {(TOPIC, TOPIC_ID): 2}
MAX_AGE_MS = 10
START_MS = 1_000

partitions = st.integers(0, 1)
# What happens: time passes; an event of the model, one of another, or a watermark message is appended to a partition;
# a reader reads some messages, looks whether that was all, and makes durable what it knows, or all of that; the rule is
# taken out or put back; somebody judges.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 8)),
        st.tuples(st.just("append"), partitions, st.sampled_from([MODEL, "other", EVERY_VERSION])),
        st.tuples(st.just("read"), partitions, st.integers(1, 3)),
        st.tuples(st.just("look"), partitions),
        st.tuples(st.just("flush"), partitions),
        st.tuples(st.just("serve"), partitions),
        st.just(("toggle",)),
        st.just(("judge",)),
    ),
    min_size=25,
    max_size=60,
)


@dataclass
class Reader:
    """Stage 1 in one partition: `position` in the log, and what it would put into its marker."""

    position: int = 0
    at_end_at: int = 0
    watermarks: Watermarks = field(default_factory=Watermarks)


class World:
    """Two partitions, their log and their readers, the markers in the store, and what was said."""

    def __init__(self, limit: AgeLimit, declared_ms: int) -> None:
        self.limit, self.declared_ms = limit, declared_ms
        self.is_asked = True
        self.clock = ManualClock(START_MS)
        self.log: list[list[tuple[int, str]]] = [[], []]
        self.readers = [Reader(), Reader()]
        self.markers: dict[int, Marker] = {}
        self.said: list[Change] = []

    def take(self, step: tuple) -> None:  # type: ignore[type-arg]
        getattr(self, step[0])(*step[1:])

    def wait(self, ms: int) -> None:
        self.clock.advance_ms(ms)

    def append(self, partition: int, what: str) -> None:
        self.log[partition].append((self.clock.now_ms(), what))

    def read(self, partition: int, num: int) -> None:
        reader = self.readers[partition]
        for at, what in self.log[partition][reader.position : reader.position + num]:
            reader.position += 1
            if what == EVERY_VERSION:
                reader.watermarks.raise_to(MODEL, EVERY_VERSION, at, at)
            else:
                for version in (INPUTS, "7"):
                    reader.watermarks.raise_to(what, version, at, at)

    def look(self, partition: int) -> None:
        reader = self.readers[partition]
        if reader.position == len(self.log[partition]):
            reader.at_end_at = self.clock.now_ms()

    def flush(self, partition: int) -> None:
        reader = self.readers[partition]
        place = Place(TOPIC, TOPIC_ID, partition)
        self.markers[partition] = Marker(place, reader.position, reader.watermarks.dump(), reader.at_end_at)

    def serve(self, partition: int) -> None:
        self.read(partition, len(self.log[partition]))
        self.look(partition)
        self.flush(partition)

    def toggle(self) -> None:
        self.is_asked = not self.is_asked

    def judge(self) -> list[Change]:
        age = find_age(self.markers.values(), MODEL, TOPIC, SIZES)
        standing = None
        if self.said:
            last = self.said[-1]
            standing = Standing(last.state, last.first_ms, last.first_ms)
        made = follow_topic(age, self.limit if self.is_asked else None, self.declared_ms, standing)
        for each in made:
            self.check(each)
            self.said.append(each)
        return made

    def catch_up(self) -> None:
        for partition in (0, 1):
            self.serve(partition)

    def check(self, change: Change) -> None:
        """Compare with all that was ever appended, read or not."""
        events = [at for part in self.log for at, what in part if what == MODEL]
        if change.state == "firing":
            assert change.first_ms in (*events, self.declared_ms)
            assert not [at for at in events if change.first_ms < at < change.first_ms + MAX_AGE_MS]
            assert self.clock.now_ms() - change.first_ms >= MAX_AGE_MS
        elif change.cause == "came":
            assert change.until_ms in events
            assert change.until_ms > change.first_ms


@settings(max_examples=300)
@given(steps, st.booleans(), st.sampled_from([0, START_MS]))
def test_an_alert_tells_of_a_true_silence_once(story: list, is_named: bool, declared_ms: int) -> None:  # type: ignore[type-arg]
    world = World(AgeLimit(MAX_AGE_MS, is_named), declared_ms)
    for step in story:
        world.take(step)
    told = [(each.state, each.first_ms) for each in world.said]
    assert len(set(told)) == len(told)
    assert [state for state, _ in told] == (["firing", "resolved"] * len(told))[: len(told)]
    assert [first for _, first in told] == sorted(first for _, first in told)


@given(steps, st.booleans())
def test_a_silence_is_noticed_and_so_is_its_end(story: list, is_named: bool) -> None:  # type: ignore[type-arg]
    world = World(AgeLimit(MAX_AGE_MS, is_named), START_MS)
    for step in story:
        if step != ("toggle",):
            world.take(step)
    world.wait(MAX_AGE_MS)
    world.catch_up()
    world.judge()
    has_events = any(what == MODEL for part in world.log for _, what in part)
    assert bool(world.said and world.said[-1].state == "firing") == (has_events or is_named)
    assert world.judge() == []
    world.append(0, MODEL)
    world.catch_up()
    world.judge()
    assert not world.said or world.said[-1].state == "resolved"


@given(steps, st.booleans())
def test_who_reads_one_partition_no_more_to_its_end_says_nothing(story: list, was_read: bool) -> None:  # type: ignore[type-arg]
    """However old what it has read is: that is lag, and lag is no silence."""
    world = World(AgeLimit(MAX_AGE_MS, True), START_MS)
    if was_read:
        world.catch_up()
    for step in story:
        if step not in (("look", 1), ("serve", 1)):
            world.take(step)
    assert world.said == []
