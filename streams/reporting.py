"""A window and its reference as frames, and Evidently's report of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from measures.drift import Kind
from measures.evidently_report import make_report
from schemas.errors import ConfigurationError
from schemas.instants import format_instant
from schemas.spec import PublishedSpec
from store.client import ClickHouse
from store.event_reads import input_source, read_window
from store.reference import read_reference
from store.windows import read_label_counts
from streams.logic.distances import find_column, list_features, list_outputs
from streams.logic.rows import Coded, Rows, from_reference, from_window


def report_window(ch: ClickHouse, published: PublishedSpec, start_ms: int, version: str = "", segment: str = "") -> str:
    """Return the HTML report of the window that starts then, with the outputs of a version, else of the largest.

    Of all rows that are stored, or of the sample that is measured; with `segment`, such as "country=DE", of its rows on
    both sides. ConfigurationError where there are none.
    """
    spec, end_ms = published.spec, start_ms + published.window_size_ms
    source = input_source(ch, spec.model, start_ms, end_ms)
    key = segment.partition("=")[0]
    known = published.segment_values.get(key, [])
    rows = from_window(
        read_window(
            ch, spec.model, start_ms, end_ms, source,
            limit=spec.exact_rows, segment=segment or None, segment_values=known,
        )
    )  # fmt: skip
    if not len(rows):
        of = f"{spec.model!r}, {segment}," if segment else f"{spec.model!r}"
        raise ConfigurationError(
            f"no rows of {of} are stored from {format_instant(start_ms)} on",
            key="--window",
            remedy="driftloop models shows the last measured window",
        )
    version = version or _find_largest(ch, published, start_ms)
    outputs = from_window(
        read_window(
            ch, spec.model, start_ms, end_ms, "predictions",
            model_version=version, limit=spec.exact_rows, with_features=False,
        )
    )  # fmt: skip
    features, told = list_features(spec), list_outputs(spec)
    window = _tabulate(rows, features).merge(_tabulate(outputs, told), how="left", on="record_id")
    compared = from_reference(read_reference(ch, published.reference_hash), [key] if segment else [])
    if segment:
        compared = compared.take(compared.split({key: known}).get(segment, np.zeros(0, np.int64)))
    reference = _tabulate(compared, [*features, *told])
    numbers = [name for name, kind in [*features, *told] if kind == "number"]
    categories = [name for name, kind in [*features, *told] if kind == "category"]
    return make_report(reference, window, numbers, categories, spec.drift.method)


def _find_largest(ch: ClickHouse, published: PublishedSpec, start_ms: int) -> str:
    windows = published.spec.windows
    end_ms = start_ms + published.window_size_ms
    counts = read_label_counts(ch, published.model, windows.size_ms, windows.origin_ms, start_ms, end_ms)
    return max(counts, key=lambda each: (each.num_predictions, each.model_version)).model_version if counts else ""


def _tabulate(rows: Rows, columns: Sequence[tuple[str, Kind]]) -> pd.DataFrame:
    """Give columns as Evidently takes them, categories as texts; those that no row has are left out."""
    frame: dict[str, object] = {} if rows.record_id is None else {"record_id": rows.record_id}
    for name, kind in columns:
        column = find_column(rows, name, kind)
        if isinstance(column, Coded):
            frame[name] = [None if value is None else _write(value) for value in column.decode().tolist()]
        elif column is not None:
            frame[name] = column
    return pd.DataFrame(frame)


def _write(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)
