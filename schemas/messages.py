"""Consecutive Kafka messages of one partition as columns, cheap to build from either client."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(slots=True)
class MessageBatch:
    """`offsets` int64[n], `timestamps` int64[n] (ms) and `values` have one entry a message.

    `headers` has only the messages with headers, `keys` only those without a value (or whatever the caller has), both
    by index.
    """

    topic: str
    topic_id: str
    partition: int
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    values: list[bytes | None]
    headers: dict[int, list[tuple[str, bytes]]] = field(default_factory=dict)
    keys: dict[int, bytes | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)
