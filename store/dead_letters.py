"""The table `dead_letters`: what was refused, for people to look at and to send again."""

from collections.abc import Sequence

import pyarrow as pa

from schemas.events import DeadLetter
from store.client import ClickHouse
from store.markers import Place

_TEXTS = ("model", "reason", "message", "raw", "raw_encoding", "path", "stage", "topic", "topic_id")


def dead_letter_rows(letters: Sequence[DeadLetter]) -> pa.Table:
    """Rows of the table, in the given order."""
    columns = {name: pa.array([getattr(letter, name) for letter in letters], pa.string()) for name in _TEXTS}
    return pa.table(
        columns
        | {
            "at": pa.array([letter.at for letter in letters], pa.timestamp("ms", "UTC")),
            "partition": pa.array([letter.partition for letter in letters], pa.uint32()),
            "offset": pa.array([letter.offset for letter in letters], pa.uint64()),
            "row": pa.array([letter.row for letter in letters], pa.uint32()),
        }
    )


def read_late_ends(ch: ClickHouse, topics: Sequence[str], model: str | None = None) -> dict[str, dict[Place, int]]:
    """Return by model, of one or all, the offset behind the last event of each partition that came too late."""
    rows = ch.query(
        """
        SELECT model, topic, topic_id, partition, max(offset) + 1
        FROM dead_letters
        WHERE topic IN {topics:Array(String)} AND reason = 'too_late'
          AND ({model:String} = '' OR model = {model:String})
        GROUP BY model, topic, topic_id, partition
        SETTINGS final = 0
        """,
        {"topics": list(topics), "model": model or ""},
    )
    ends: dict[str, dict[Place, int]] = {}
    for name, topic, topic_id, partition, end in rows:
        ends.setdefault(name, {})[topic, str(topic_id), int(partition)] = int(end)
    return ends
