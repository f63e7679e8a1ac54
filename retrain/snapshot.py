"""The rows that a job learns from and is judged on, as they stood in the store at one moment.

Owns their hash and the guard against leaks. It must not change what the rows say.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrain.preprocessing import FeatureRows
from schemas.spec import FeatureSpec
from store.client import ClickHouse
from store.events import read_training_rows


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Labelled rows of [start, end) in the order of (ts, record_id), and the hash of all that is learnt from."""

    table: pa.Table
    labels: pa.Array
    start: int
    end: int
    sha256: str

    @property
    def num_rows(self) -> int:
        """Count the rows."""
        return int(self.table.num_rows)

    def take(self, places: NDArray[np.int64]) -> Snapshot:
        """Return the rows at some ascending places; start, end and hash stay those of the rows that were read.

        Rows that lie together are not copied.
        """
        num_rows = len(places)
        if num_rows == 0 or places[-1] - places[0] + 1 == num_rows:
            first = int(places[0]) if num_rows else 0
            table, labels = self.table.slice(first, num_rows), self.labels.slice(first, num_rows)
            return Snapshot(table, labels, self.start, self.end, self.sha256)
        chosen = pa.array(places)
        return Snapshot(self.table.take(chosen), self.labels.take(chosen), self.start, self.end, self.sha256)

    def read_features(self) -> FeatureRows:
        """Return the rows' features."""
        return FeatureRows.of_table(self.table)


def take_snapshot(
    ch: ClickHouse, model: str, task: str, features: Mapping[str, FeatureSpec], start_ms: int, end_ms: int
) -> Snapshot:
    """Read the labelled rows of a model with start ≤ ts < end; equal rows in the store give an equal hash."""
    return build_snapshot(read_training_rows(ch, model, start_ms, end_ms), task, features, start_ms, end_ms)


def build_snapshot(
    table: pa.Table, task: str, features: Mapping[str, FeatureSpec], start_ms: int, end_ms: int
) -> Snapshot:
    """Order, deduplicate and hash rows with columns record_id, ts, `f:NAME`, `t:NAME`, label and label_text.

    Texts, images and embeddings are `t:` columns like categories, so they are hashed as what was sent.
    """
    # Rows cannot be ordered where a column of theirs, such as images, is more than two gigabytes of plain strings.
    for place, name in enumerate(table.column_names):
        if name.startswith("t:"):
            table = table.set_column(place, name, table[name].cast(pa.large_string()))
    # Each step copies the rows, so it is left out where it would change nothing.
    if not _is_in_order(table):
        table = table.sort_by([("ts", "ascending"), ("record_id", "ascending")])
    is_labelled = pc.is_valid(_read_labels(table, task))
    if not pc.all(is_labelled).as_py():
        table = table.filter(is_labelled)
    if pc.count_distinct(table["record_id"]).as_py() < table.num_rows:
        # A producer's duplicate with another time is another row in the store; the first in time counts.
        table = table.filter(pa.array(~table["record_id"].to_pandas().duplicated().to_numpy()))
    labels = _read_labels(table, task)
    names = sorted(f"{kind}:{name}" for name in features for kind in "ft")
    return Snapshot(table, labels, start_ms, end_ms, _hash_rows(table, labels, names))


def guard_against_leaks(train: Snapshot, gate: Snapshot) -> Snapshot:
    """Return the gate rows without records that are also trained on; ValueError unless training ends before the gate.

    A model that has seen the rows it is judged on would always win.
    """
    if train.end > gate.start:
        raise ValueError(f"training rows up to {train.end} reach into the gate rows from {gate.start}")
    seen = pc.is_in(gate.table["record_id"], value_set=train.table["record_id"].combine_chunks())
    if not pc.any(seen).as_py():
        return gate
    kept = pc.invert(seen)
    return Snapshot(
        gate.table.filter(kept), gate.labels.filter(kept.combine_chunks()), gate.start, gate.end, gate.sha256
    )


def _is_in_order(table: pa.Table) -> bool:
    """Say whether rows are in the order of (ts, record_id), as the store gives them."""
    steps = np.diff(table["ts"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_numpy())
    if (steps < 0).any():
        return False
    ties = np.flatnonzero(steps == 0)
    ids = table["record_id"]
    return not len(ties) or bool(pc.all(pc.less_equal(ids.take(pa.array(ties)), ids.take(pa.array(ties + 1)))).as_py())


def _read_labels(table: pa.Table, task: str) -> pa.Array:
    """Return numbers for binary and regression, texts for multiclass; null where there is none (or NaN)."""
    if task == "multiclass":
        return table["label_text"].cast(pa.string()).combine_chunks()
    values = table["label"].cast(pa.float64()).fill_null(math.nan).to_numpy()
    return pa.array(values, mask=np.isnan(values))


def _hash_rows(table: pa.Table, labels: pa.Array, names: list[str]) -> str:
    """Hash ids, times, labels and the named feature columns, each with its name; a missing column hashes as such."""
    digest = hashlib.sha256(f"rows {table.num_rows}\n".encode())
    digest.update(table["ts"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_numpy().astype("<i8").tobytes())
    for name in ("record_id", "label", *(name for name in names if name in table.column_names)):
        # One copy at a time: a column in one piece.
        column = labels if name == "label" else table[name].combine_chunks()
        if column.null_count == len(column):
            continue  # in the store a feature that is always missing is no feature
        digest.update(f"\n{name}\n".encode())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            lengths = pc.binary_length(column).fill_null(-1)
            digest.update(lengths.to_numpy().astype("<i8").tobytes())
            known = column.drop_null().cast(pa.large_binary())
            _, ends, data = known.buffers()
            if len(known):
                places = np.frombuffer(ends, np.int64, len(known) + 1, known.offset * 8)
                digest.update(memoryview(data)[places[0] : places[-1]])
        else:
            values = column.cast(pa.float64()).fill_null(math.nan).to_numpy().astype("<f8")
            # One bit pattern for every NaN.
            digest.update(np.where(np.isnan(values), np.nan, values).tobytes())
    return digest.hexdigest()
