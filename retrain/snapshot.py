"""The rows that a job learns from and is judged on, as they stood in the store at one moment.

Owns their hash and the guard against leaks. Rows lie on disk and pass through memory in blocks, however many they are.
It must not change what they say.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrain.disk import BLOCK_ROWS, allocate, split_blocks, store_tables
from retrain.preprocessing import FeatureRows
from schemas.spec import FeatureSpec
from schemas.texts import TextColumn
from store.client import ClickHouse
from store.events import read_training_rows

# Identities are compared in parts of about so many, 32 MiB of hashes at a time.
_COMPARED_ROWS = 1 << 22


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Labelled rows of [start, end) in the order of (ts, record_id), and the hash of all that is learnt from.

    `table` has record_id, ts, label, `f:NAME` and `t:NAME`.
    """

    table: pa.Table
    start: int
    end: int
    sha256: str

    @property
    def num_rows(self) -> int:
        """Count the rows."""
        return int(self.table.num_rows)

    @property
    def labels(self) -> pa.ChunkedArray:
        """Return the labels: numbers for binary and regression, texts for multiclass."""
        return self.table["label"]

    def slice(self, start: int, end: int) -> Snapshot:
        """Return the rows at the places [start, end), not copied; all else stays that of the rows that were read."""
        return Snapshot(self.table.slice(start, end - start), self.start, self.end, self.sha256)

    def take(self, places: NDArray[np.int64]) -> Snapshot:
        """Return a copy of the rows at some ascending places; all else stays that of the rows that were read."""

        def choose(block: pa.Table, start: int) -> pa.Table:
            first, last = np.searchsorted(places, (start, start + len(block)))
            return block.take(pa.array(places[first:last] - start))

        return Snapshot(_copy(self.table, choose), self.start, self.end, self.sha256)

    def read_features(self) -> FeatureRows:
        """Return the rows' features."""
        return FeatureRows.of_table(self.table)


def take_snapshot(
    ch: ClickHouse, model: str, task: str, features: Mapping[str, FeatureSpec], start_ms: int, end_ms: int
) -> Snapshot:
    """Read the labelled rows of a model with start ≤ ts < end; equal rows in the store give an equal hash."""
    return build_snapshot(read_training_rows(ch, model, start_ms, end_ms), task, features, start_ms, end_ms)


def build_snapshot(
    blocks: Iterable[pa.Table], task: str, features: Mapping[str, FeatureSpec], start_ms: int, end_ms: int
) -> Snapshot:
    """Keep, deduplicate and hash rows with columns record_id, ts, `f:NAME`, `t:NAME`, label and label_text.

    They come in the order of (ts, record_id). Texts, images and embeddings are `t:` columns like categories, so they
    are hashed as what was sent. Raises Retryable where the disk is full.
    """
    table = _drop_repeated(store_tables(_arrange(block, task) for block in blocks))
    if not table.num_rows:
        table = _arrange(_EMPTY, task)
    names = sorted(f"{kind}:{name}" for name in features for kind in "ft")
    return Snapshot(table, start_ms, end_ms, _hash_rows(table, names))


def guard_against_leaks(train: Snapshot, gate: Snapshot) -> Snapshot:
    """Return the gate rows without records that are also trained on; ValueError unless training ends before the gate.

    A model that has seen the rows it is judged on would always win.
    """
    if train.end > gate.start:
        raise ValueError(f"training rows up to {train.end} reach into the gate rows from {gate.start}")
    judged = gate.table["record_id"].combine_chunks()
    trained = (block.filter(pc.is_in(block, value_set=judged)) for _, block in split_blocks(train.table["record_id"]))
    seen = pa.chunked_array([chunk for block in trained for chunk in block.chunks], judged.type).combine_chunks()
    if not len(seen):
        return gate
    kept = _copy(gate.table, lambda block, _: block.filter(pc.invert(pc.is_in(block["record_id"], value_set=seen))))
    return Snapshot(kept, gate.start, gate.end, gate.sha256)


_EMPTY = pa.table(
    {
        "record_id": pa.array([], pa.string()),
        "ts": pa.array([], pa.timestamp("ms", "UTC")),
        "label": pa.array([], pa.float64()),
        "label_text": pa.array([], pa.string()),
    }
)


def _arrange(block: pa.Table, task: str) -> pa.Table:
    """Return the labelled rows of a block, each column in the one type that it has in every block."""
    label = block["label_text"].cast(pa.large_string())
    if task != "multiclass":
        values = block["label"].cast(pa.float64()).fill_null(math.nan).to_numpy()
        label = pa.array(values, mask=np.isnan(values))
    # Large, since the images of a training are more than the two gigabytes of a plain one.
    columns = {"record_id": block["record_id"].cast(pa.large_string())}
    columns |= {"ts": block["ts"].cast(pa.timestamp("ms", "UTC")), "label": label}
    for name in block.column_names:
        if name[:2] in ("f:", "t:"):
            columns[name] = block[name].cast(pa.float64() if name[0] == "f" else pa.large_string())
    table = pa.table(columns)
    return table.filter(pc.is_valid(label)) if label.null_count else table


def _copy(table: pa.Table, choose: Callable[[pa.Table, int], pa.Table]) -> pa.Table:
    """Return what `choose` makes of each block of a table and the place of its first row."""
    copied = store_tables(choose(block, start) for start, block in split_blocks(table))
    return copied if copied.num_rows else table.slice(0, 0)


def _drop_repeated(table: pa.Table) -> pa.Table:
    """Keep the first row of each record_id: a producer's duplicate with another time is another row in the store."""
    hashes = allocate((table.num_rows,), np.uint64)
    for start, block in split_blocks(table):
        ids = TextColumn.of_arrow(block["record_id"].combine_chunks())
        hashes[start : start + len(ids)] = ids.hash(np.zeros(len(ids), np.uint64))
    repeated = _find_repeated(hashes)
    if not len(repeated):
        return table
    # Records that only share a hash are told apart by their names.
    seen: set[str] = set()

    def keep_first(block: pa.Table, start: int) -> pa.Table:
        kept = np.ones(len(block), np.bool_)
        for place in np.flatnonzero(np.isin(hashes[start : start + len(block)], repeated)):
            record_id = block["record_id"][int(place)].as_py()
            kept[place] = record_id not in seen
            seen.add(record_id)
        return block.filter(pa.array(kept))

    return _copy(table, keep_first)


def _find_repeated(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the values that occur more than once."""
    num_parts = -(-len(hashes) // _COMPARED_ROWS)
    found = [np.empty(0, np.uint64)]
    for part in range(num_parts):
        blocks = (hashes[start : start + BLOCK_ROWS] for start in range(0, len(hashes), BLOCK_ROWS))
        chosen = np.concatenate([block[block % num_parts == part] for block in blocks]) if num_parts > 1 else hashes
        ordered = np.sort(chosen)
        found.append(np.unique(ordered[1:][ordered[1:] == ordered[:-1]]))
    return np.concatenate(found)


def _hash_rows(table: pa.Table, names: list[str]) -> str:
    """Hash ids, times, labels and the named feature columns, each with its name; a missing column hashes as such."""
    digest = hashlib.sha256(f"rows {table.num_rows}\n".encode())
    for name in ("ts", "record_id", "label", *(name for name in names if name in table.column_names)):
        column = table[name]
        if column.null_count == len(column):
            continue  # in the store a feature that is always missing is no feature
        digest.update(f"\n{name}\n".encode())
        for view in _VIEWS[str(column.type)]:
            for part in column.chunks:
                digest.update(view(part))
    return digest.hexdigest()


def _view_numbers(column: pa.Array) -> memoryview:
    values = column.cast(pa.float64()).fill_null(math.nan).to_numpy().astype("<f8", copy=True)
    # One bit pattern for every NaN.
    values[np.isnan(values)] = np.nan
    return memoryview(values)


def _view_lengths(column: pa.Array) -> memoryview:
    return memoryview(pc.binary_length(column).fill_null(-1).to_numpy().astype("<i8"))


def _view_texts(column: pa.Array) -> memoryview:
    known = column.drop_null()
    _, ends, data = known.buffers()
    if not len(known) or data is None:
        return memoryview(b"")
    places = np.frombuffer(ends, np.int64, len(known) + 1, known.offset * 8)
    return memoryview(data)[places[0] : places[-1]]


def _view_times(column: pa.Array) -> memoryview:
    return memoryview(column.cast(pa.int64()).to_numpy().astype("<i8"))


# What of a column of each type is hashed, one after the other, each over all rows.
_VIEWS: Mapping[str, tuple[Callable[[pa.Array], memoryview], ...]] = {
    "double": (_view_numbers,),
    "large_string": (_view_lengths, _view_texts),
    "timestamp[ms, tz=UTC]": (_view_times,),
}
