"""Reads a window's rows for all that is measured of them, with as few queries as it takes, and those at the same time.

Owns which rows are whose: inputs once per record, outputs per version, and what segment a record belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.spec import PublishedSpec
from store.client import ClickHouse
from store.events import read_labelled, read_segment_values, read_window
from streams.logic.measured import WindowContext
from streams.logic.rows import Coded, Rows, from_window

Place = tuple[str, str, int]
Ends = Mapping[str, Mapping[Place, int]]
Source = Literal["records", "predictions"]

# Queries of one window under way at once; a fifth gains nothing on the machines seen.
_NUM_THREADS = 4


@dataclass(frozen=True, slots=True)
class WindowRows:
    """The rows of a window, or of each the same sample: features once per record, and what each version said."""

    inputs: Rows
    outputs: Mapping[str, Rows]


class WindowReader:
    """Reads windows of any model; for one thread at a time."""

    def __init__(self, ch: ClickHouse) -> None:
        self._ch = ch
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="reading")

    def call_all(self, *calls: Callable[[], Any]) -> list[Any]:
        """Run calls at the same time and give what each returns; raises what the first of them raises."""
        return [future.result() for future in [self._threads.submit(call) for call in calls]]

    def read(self, context: WindowContext, source: Source, versions: Sequence[str], below: Ends) -> WindowRows:
        """Read what stage 1 counted: inputs from `source`, outputs of each version.

        `below` has by version ('': inputs) the offsets below which rows of the window were counted, not too late.
        """
        if source == "predictions" and len(versions) == 1 and below.get("") == below.get(versions[0]):
            version = versions[0]
            table = self._read(context, "predictions", version, below, with_features=True)
            outputs = from_window(table)
            inputs = self._find_inputs(context, table, outputs, below)
            rows = WindowRows(inputs, {version: outputs})
        else:
            inputs_table, *tables = self.call_all(
                partial(self._read, context, source, None, below, with_features=True),
                *(partial(self._read, context, "predictions", version, below) for version in versions),
            )
            rows = WindowRows(
                from_window(inputs_table), {v: from_window(t) for v, t in zip(versions, tables, strict=True)}
            )
        self._join_segments(context, source, rows, below)
        return rows

    def read_labelled(self, context: WindowContext, model_version: str) -> Rows:
        """Read a version's rows with the labels that there are."""
        spec = context.spec
        table = read_labelled(
            self._ch,
            spec.model,
            model_version,
            context.window_start,
            context.window_end,
            limit=spec.exact_rows,
            horizon_ms=find_horizon_ms(context.published),
            segment_keys=spec.segments,
        )
        rows = from_window(table)
        if len(rows):
            # Segments belong to records; a model without them has them in its predictions. Of all that is stored, as
            # the rows are: what this measurement covers grows with it.
            self._fill_segments(context, rows, "records", None, wins=True)
            self._fill_segments(context, rows, "predictions", None)
        return rows

    def _read(
        self,
        context: WindowContext,
        source: Source,
        model_version: str | None,
        below: Ends,
        *,
        with_features: bool = False,
    ) -> pa.Table:
        spec = context.spec
        return read_window(
            self._ch,
            spec.model,
            context.window_start,
            context.window_end,
            source,
            model_version=model_version,
            below=below.get(model_version or "", {}),
            limit=spec.exact_rows,
            horizon_ms=find_horizon_ms(context.published),
            with_features=with_features,
            segment_keys=spec.segments,
        )

    def _find_inputs(self, context: WindowContext, table: pa.Table, rows: Rows, below: Ends) -> Rows:
        """Of a single version's rows those that carry features are the inputs, unless only a sample was read."""
        has_features = table.column("has_features").to_numpy(zero_copy_only=False)
        if has_features.all():
            return rows
        if len(rows) < context.spec.exact_rows:
            return rows.take(has_features)
        return from_window(self._read(context, "predictions", None, below, with_features=True))

    def _join_segments(self, context: WindowContext, source: Source, rows: WindowRows, below: Ends) -> None:
        """Give rows that do not say their segment the one that the record has elsewhere; records know best."""
        outputs = list(rows.outputs.values())
        if source == "records":
            self._fill_segments(context, rows.inputs, "predictions", below, outputs[0] if len(outputs) == 1 else None)
            for each in outputs:
                self._fill_segments(context, each, "records", below, rows.inputs, wins=True)
        if len(outputs) > 1:  # another version's prediction may say it
            for each in [*outputs, *([rows.inputs] if source == "predictions" else [])]:
                self._fill_segments(context, each, "predictions", below)

    def _fill_segments(
        self,
        context: WindowContext,
        rows: Rows,
        source: Source,
        below: Ends | None,
        known: Rows | None = None,
        *,
        wins: bool = False,
    ) -> None:
        """Take missing segments from `source`, or all where its own `wins`; `known` are its rows, where at hand.

        `below` as of `read`, None for all that is stored: what came too late must not say more the later one asks.
        """
        for key in context.spec.segments:
            own = rows.segments.get(key)
            if own is not None and not wins and not own.is_missing.any():
                continue
            if known is not None and len(known) < context.spec.exact_rows and key in known.segments:
                found = _match(rows, known, known.segments[key])
            else:
                found = _spell(rows, self._read_segment_values(context, source, key, below))
            rows.segments[key] = found if own is None else _prefer(found, own) if wins else _prefer(own, found)

    def _read_segment_values(
        self, context: WindowContext, source: Source, key: str, below: Ends | None
    ) -> Mapping[str, str]:
        window = (context.spec.model, context.window_start, context.window_end)
        if below is None:
            return read_segment_values(self._ch, *window, source, [key])[key]
        if source == "records":
            horizon_ms = find_horizon_ms(context.published)
            return read_segment_values(
                self._ch, *window, source, [key], below=below.get("", {}), horizon_ms=horizon_ms
            )[key]
        ends: dict[Place, int] = {}
        for of_version in below.values():
            for place, end in of_version.items():
                ends[place] = max(end, ends.get(place, 0))
        return read_segment_values(self._ch, *window, source, [key], below=ends)[key]


def find_horizon_ms(published: PublishedSpec) -> int:
    """How far around a window an earlier event of the same identity is looked for: as far as stage 1 remembers."""
    return published.spec.windows.retention * published.window_size_ms


def _match(rows: Rows, known: Rows, values: Coded) -> Coded:
    """Give each row the value of the record of the same id."""
    ids = (pa.array(each.record_id, pa.string()) for each in (rows, known))
    places = pc.index_in(next(ids), value_set=next(ids)).fill_null(-1).to_numpy(zero_copy_only=False)
    return Coded(np.append(values.codes, np.int32(-1))[places], values.vocabulary)


def _spell(rows: Rows, values: Mapping[str, str]) -> Coded:
    assert rows.record_id is not None
    return Coded.of(np.array([values.get(record_id) for record_id in rows.record_id.tolist()], dtype=object))


def _prefer(first: Coded, second: Coded) -> Coded:
    """Give the first's values, and where they are missing the second's."""
    if not first.is_missing.any():
        return first
    return Coded.of(np.where(first.is_missing, second.decode(), first.decode()))
