"""How two versions really did on the same records: their stored predictions and the labels that have come.

Owns which windows count and what is compared. It must not run a model, nor change roles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from measures.performance import higher_is_better
from measures.sampling import Comparison
from retrain.champion import arrange_champion, list_classes, read_champion_outputs
from retrain.gate_gain import METRIC_OF, compare
from retrain.gate_rows import GateRows
from schemas.spec import ModelSpec
from store.client import ClickHouse
from store.events import read_labelled
from store.pairs import PairedWindow, read_paired_windows

# The bootstrap of an AUC takes about a second on so many rows, in which the trainer gives no other sign of life. They
# are the first in the order of their hashes: the same sample for both versions.
_NUM_ROWS_MAX = 20_000
# How far back to look: labels of older windows no longer decide anything.
_NUM_WINDOWS_MAX = 100


@dataclass(frozen=True, slots=True)
class Realized:
    """Two versions on the rows that both scored; `difference` is positive where the second is better."""

    metric: str
    first: float
    second: float
    difference: float
    lower: float
    upper: float
    num_rows: int


def list_decided_windows(
    ch: ClickHouse, spec: ModelSpec, first: str, second: str, since_ms: int, until_ms: int
) -> list[PairedWindow]:
    """Return the whole windows of [since, until) that can be compared, in order of time.

    Both versions scored nearly the same records (as many as must be labelled: `min_label_coverage`), those are
    labelled to the same share, and they are at least `windows.min_rows`.
    """
    windows, needed = spec.windows, spec.performance.min_label_coverage
    since_ms = max(since_ms, until_ms - _NUM_WINDOWS_MAX * windows.size_ms)
    found = read_paired_windows(ch, spec.model, first, second, since_ms, until_ms, windows.size_ms, windows.origin_ms)
    return [
        each
        for each in found
        if each.window_start >= since_ms
        and each.window_end <= until_ms
        and each.num_both >= needed * each.num_first
        and each.num_labelled >= max(windows.min_rows, needed * each.num_both)
    ]


def compare_realized(
    ch: ClickHouse, spec: ModelSpec, first: str, second: str, windows: Sequence[PairedWindow], confidence: float
) -> Realized:
    """Compare two versions by the task's primary metric on the labelled records of these windows, paired."""
    rows = _read_rows(ch, spec, first, second, windows)
    found: Comparison = compare(rows, METRIC_OF[spec.task], rows.champion, confidence)
    return Realized(
        found.metric, found.champion, found.challenger, found.difference, found.lower, found.upper, len(rows)
    )


def falls_short(metric: str, value: float, promised: float) -> bool:
    """Say whether a realized value is on the wrong side of what was promised; NaN is not."""
    if math.isnan(value):
        return False
    return value < promised if higher_is_better(metric) else value > promised


def _read_rows(ch: ClickHouse, spec: ModelSpec, first: str, second: str, windows: Sequence[PairedWindow]) -> GateRows:
    limit = _NUM_ROWS_MAX // len(windows)
    by_first: list[pd.DataFrame] = []
    by_second: list[pd.DataFrame] = []
    labels: list[pd.Series] = []
    for window in windows:
        start, end = window.window_start, window.window_end
        table = read_labelled(ch, spec.model, first, start, end, limit=limit)
        labelled = table.filter(table["has_label"].cast(pa.bool_()))
        ids = labelled["record_id"]
        labels.append(labelled["label_text" if _is_text(spec) else "label"].to_pandas())
        by_first.append(read_champion_outputs(ch, spec.model, first, start, end, ids))
        by_second.append(read_champion_outputs(ch, spec.model, second, start, end, ids))
    truth = pd.concat(labels).to_numpy() if _is_text(spec) else pd.concat(labels).to_numpy(np.float64)
    outputs = [pd.concat(each) for each in (by_first, by_second)]
    classes: tuple[str, ...] = ()
    if _is_text(spec):
        classes = tuple(sorted({name for each in outputs for name in list_classes(each, truth, ())}))
    arranged = [arrange_champion(each, spec.task, classes) for each in outputs]
    return GateRows(spec.task, truth, arranged[0], arranged[1], classes or None).select_comparable()


def _is_text(spec: ModelSpec) -> bool:
    return spec.task == "multiclass"
