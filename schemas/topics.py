"""The declared topics; `driftloop topics apply` makes a cluster match them.

Prefix and suffix are `connections.TopicNames`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DAY_MS = 86_400_000


@dataclass(frozen=True)
class TopicSpec:
    """One topic: `partitions` None means the setting `num_partitions`, `retention_ms` None means for ever.

    `key` says what producers key the messages by. Partition counts are fixed for a topic's life.
    """

    name: str
    partitions: int | None
    cleanup: Literal["delete", "compact"]
    retention_ms: int | None
    timestamp_type: Literal["LogAppendTime", "CreateTime"]
    key: str

    def num_partitions(self, setting: int) -> int:
        """Give the partition count under the setting `num_partitions`."""
        return setting if self.partitions is None else self.partitions

    def options(self) -> dict[str, str]:
        """Give the topic's configuration in Kafka's own words."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": "-1" if self.retention_ms is None else str(self.retention_ms),
            "message.timestamp.type": self.timestamp_type,
        }


_DECLARED = [
    # Inbound: never compacted, since a key's older events count too.
    TopicSpec("records", None, "delete", 7 * DAY_MS, "LogAppendTime", "record_id"),
    TopicSpec("predictions", None, "delete", 7 * DAY_MS, "LogAppendTime", "record_id"),
    TopicSpec("labels", None, "delete", 7 * DAY_MS, "LogAppendTime", "record_id"),
    # Outbound.
    TopicSpec("measurements", 4, "delete", 7 * DAY_MS, "CreateTime", "model"),
    TopicSpec("alerts", 4, "delete", 7 * DAY_MS, "CreateTime", "model"),
    TopicSpec("retrain-requests", 4, "delete", 7 * DAY_MS, "CreateTime", "model"),
    TopicSpec("retrain-events", 4, "delete", 7 * DAY_MS, "CreateTime", "job_id"),
    # One partition and for ever: its order is the arbiter of who is champion.
    TopicSpec("models", 1, "delete", None, "CreateTime", "model"),
    TopicSpec("specs", 1, "compact", None, "CreateTime", "model/spec_version"),
    TopicSpec("dead-letters", None, "delete", 7 * DAY_MS, "CreateTime", "model"),
    # Internal.
    TopicSpec("progress", None, "delete", DAY_MS, "CreateTime", "model"),
]

TOPICS: dict[str, TopicSpec] = {topic.name: topic for topic in _DECLARED}

# The monitor's consumer group, and the name that its state is kept under; prefixed like a topic.
MONITOR = "monitor"

INBOUND = ("records", "predictions", "labels")

WATERMARK_HEADER = "driftloop-watermark"
