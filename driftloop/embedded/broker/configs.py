"""Topic configurations: one table of the keys that exist, their defaults and what they accept."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from driftloop.embedded.broker.errors import Code, Refusal

LAST_INT64 = 2**63 - 1


class Kind(IntEnum):
    """Kafka's numbers for the type of a configuration."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    LONG = 5
    DOUBLE = 6
    LIST = 7


class Source(IntEnum):
    """Kafka's numbers for where a value comes from."""

    TOPIC = 1
    STATIC_BROKER = 4
    DEFAULT = 5


@dataclass(frozen=True)
class Option:
    """A configuration key; `accepts` is given the text that a client sent, and may raise ValueError."""

    default: str
    kind: Kind
    accepts: Callable[[str], bool]
    meaning: str


def _between(low: float, high: float) -> Callable[[str], bool]:
    return lambda text: low <= int(text) <= high


def _one_of(*words: str) -> Callable[[str], bool]:
    return lambda text: text in words


def _some_of(*words: str) -> Callable[[str], bool]:
    return lambda text: all(word.strip() in words for word in text.split(","))


_MS = _between(0, LAST_INT64)
_MS_OR_NEVER = _between(-1, LAST_INT64)
_POSITIVE_MS = _between(1, LAST_INT64)

# The defaults are Apache Kafka's, but for segment.bytes: retention and compaction work on whole segments, and what one
# machine holds is small. 16 MiB keep a start (which reads the last segment of each partition) under 20 ms a partition.
OPTIONS: dict[str, Option] = {
    "cleanup.policy": Option("delete", Kind.LIST, _some_of("delete", "compact"), "delete, compact, or both"),
    "compression.type": Option("producer", Kind.STRING, _one_of("producer"), "batches stay as producers made them"),
    "delete.retention.ms": Option("86400000", Kind.LONG, _MS, "how long compaction keeps a tombstone"),
    "max.compaction.lag.ms": Option(str(LAST_INT64), Kind.LONG, _POSITIVE_MS, "a record is compacted after this"),
    "max.message.bytes": Option("1048588", Kind.INT, _between(0, 2**31 - 1), "the largest batch"),
    "message.timestamp.after.max.ms": Option("3600000", Kind.LONG, _MS, "how far ahead a CreateTime may be"),
    "message.timestamp.before.max.ms": Option(str(LAST_INT64), Kind.LONG, _MS, "how far back a CreateTime may be"),
    "message.timestamp.type": Option("CreateTime", Kind.STRING, _one_of("CreateTime", "LogAppendTime"), "whose time"),
    "min.cleanable.dirty.ratio": Option("0.5", Kind.DOUBLE, lambda text: 0 <= float(text) <= 1, "when to compact"),
    "min.compaction.lag.ms": Option("0", Kind.LONG, _MS, "a record is not compacted before this"),
    "min.insync.replicas": Option("1", Kind.INT, _one_of("1"), "there is one replica"),
    "retention.bytes": Option("-1", Kind.LONG, _MS_OR_NEVER, "what a partition may hold; -1: no limit"),
    "retention.ms": Option("604800000", Kind.LONG, _MS_OR_NEVER, "how long records stay; -1: for ever"),
    "segment.bytes": Option("16777216", Kind.INT, _between(14, 2**31 - 1), "when a segment is sealed, by size"),
    "segment.ms": Option("604800000", Kind.LONG, _POSITIVE_MS, "when a segment is sealed, by age"),
}


def validate_options(overrides: Mapping[str, str | None]) -> dict[str, str]:
    """The overrides as they may be stored; raises Refusal(INVALID_CONFIG) naming the key and what it accepts."""
    valid = {}
    for name, text in overrides.items():
        option = OPTIONS.get(name)
        if option is None:
            raise Refusal(Code.INVALID_CONFIG, f"unknown topic configuration {name}")
        try:
            is_accepted = text is not None and option.accepts(text)
        except ValueError:
            is_accepted = False
        if text is None or not is_accepted:
            raise Refusal(Code.INVALID_CONFIG, f"{name} cannot be {text!r} ({option.meaning})")
        valid[name] = text
    return valid


class TopicConfig:
    """A topic's configuration, parsed; partitions share it and see every change at once."""

    def __init__(self, overrides: Mapping[str, str]) -> None:
        self.replace(overrides)

    def replace(self, overrides: Mapping[str, str]) -> None:
        """Puts other overrides in place; they have been validated."""
        self.overrides = dict(overrides)
        text = {name: option.default for name, option in OPTIONS.items()} | self.overrides
        policies = {word.strip() for word in text["cleanup.policy"].split(",")}
        self.is_compacted = "compact" in policies
        self.is_deleted = "delete" in policies
        self.uses_append_time = text["message.timestamp.type"] == "LogAppendTime"
        self.delete_retention_ms = int(text["delete.retention.ms"])
        self.max_compaction_lag_ms = int(text["max.compaction.lag.ms"])
        self.min_compaction_lag_ms = int(text["min.compaction.lag.ms"])
        self.min_dirty_ratio = float(text["min.cleanable.dirty.ratio"])
        self.max_message_bytes = int(text["max.message.bytes"])
        self.timestamp_after_max_ms = int(text["message.timestamp.after.max.ms"])
        self.timestamp_before_max_ms = int(text["message.timestamp.before.max.ms"])
        self.retention_bytes = int(text["retention.bytes"])
        self.retention_ms = int(text["retention.ms"])
        self.segment_bytes = int(text["segment.bytes"])
        self.segment_ms = int(text["segment.ms"])

    def describe(self, names: Iterable[str] | None) -> list[tuple[str, str, Kind, Source, str]]:
        """Name, value, kind, source and meaning of the named options, or of all."""
        wanted = OPTIONS.keys() if names is None else [name for name in names if name in OPTIONS]
        return [
            (
                name,
                self.overrides.get(name, OPTIONS[name].default),
                OPTIONS[name].kind,
                Source.TOPIC if name in self.overrides else Source.DEFAULT,
                OPTIONS[name].meaning,
            )
            for name in wanted
        ]
