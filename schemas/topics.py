"""The declared topics; `driftloop topics apply` makes a cluster match them.

Prefix and suffix are `connections.TopicNames`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DAY_MS = 86_400_000
# A message may have 10 MB (`codecs.MESSAGE_BYTES_MAX`). Room above it for the batch's own bytes, and for a message that
# is a little too large to become a dead letter with a reason.
INBOUND_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class TopicSpec:
    """One topic: `partitions` None means the setting `num_partitions`, `retention_ms` None means for ever.

    `key` says what producers key the messages by. Partition counts are fixed for a topic's life. `message_bytes`
    is the largest batch that brokers take, None for their own default (1 MiB).
    """

    name: str
    partitions: int | None
    cleanup: Literal["delete", "compact"]
    retention_ms: int | None
    timestamp_type: Literal["LogAppendTime", "CreateTime"]
    key: str
    message_bytes: int | None = None

    def num_partitions(self, setting: int) -> int:
        """Give the partition count under the setting `num_partitions`."""
        return setting if self.partitions is None else self.partitions

    def options(self) -> dict[str, str]:
        """Give the topic's configuration in Kafka's own words."""
        options = {
            "cleanup.policy": self.cleanup,
            "retention.ms": "-1" if self.retention_ms is None else str(self.retention_ms),
            "message.timestamp.type": self.timestamp_type,
        }
        return options if self.message_bytes is None else options | {"max.message.bytes": str(self.message_bytes)}


_DECLARED = [
    # Inbound: never compacted, since a key's older events count too.
    TopicSpec("records", None, "delete", 7 * DAY_MS, "LogAppendTime", "record_id", INBOUND_BYTES),
    TopicSpec("predictions", None, "delete", 7 * DAY_MS, "LogAppendTime", "record_id", INBOUND_BYTES),
    TopicSpec("labels", None, "delete", 7 * DAY_MS, "LogAppendTime", "record_id", INBOUND_BYTES),
    # Outbound.
    TopicSpec("measurements", 4, "delete", 7 * DAY_MS, "CreateTime", "model"),
    TopicSpec("alerts", 4, "delete", 7 * DAY_MS, "CreateTime", "model"),
    TopicSpec("retrain-requests", 4, "delete", 7 * DAY_MS, "CreateTime", "model"),
    # The broker's clock is the one that all workers share: a claim lapses by it.
    TopicSpec("retrain-events", 4, "delete", 7 * DAY_MS, "LogAppendTime", "job_id"),
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
