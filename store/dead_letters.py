"""The table `dead_letters`: what was refused, for people to look at and to send again."""

from collections.abc import Sequence

import pyarrow as pa

from schemas.events import DeadLetter

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
