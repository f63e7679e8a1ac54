"""What a measuring process does: read one window's rows, measure, give rows back. It stores and judges nothing.

Measuring is heavy (reading, sorting, joins) and runs in spawned processes, each with a ClickHouse client and the
references it has met. Results are pure functions of what is stored, so a process that dies is simply asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from measures.composition import MISSING, explain_composition
from schemas.clock import SystemClock
from schemas.connections import ClickHouseConnection
from schemas.events import Measurement
from schemas.spec import ModelHistory, PublishedSpec, decode_published
from store.client import ClickHouse
from store.event_reads import input_source
from store.events import read_labelled, read_window
from store.summaries import read_summaries
from store.windows import read_label_counts, read_segment_values
from streams.feeding import Feed, feed_window
from streams.logic.distances import find_column, list_features, measure_inputs, measure_outputs
from streams.logic.measured import WindowContext
from streams.logic.outcomes import find_labelled, measure_estimated, measure_realized
from streams.logic.quality import choose_inputs, make_marker, measure_quality
from streams.logic.rows import Rows, Texts, from_window
from streams.logic.summaries import Merged, merge_rows
from streams.references import References

log = logging.getLogger(__name__)

Place = tuple[str, str, int]
Source = Literal["records", "predictions"]

# Features with more distinct values are told by their median instead of their most changed values.
_NUM_VALUES_MAX = 20


@dataclass(frozen=True, slots=True)
class WindowTask:
    """One window to measure: `published` is the encoded spec in force.

    `below` has by version ('': inputs) the offsets below which rows of the window were counted, not too late.
    `topic_of` maps `records` and `predictions` to the topics' names.
    """

    published: bytes
    job: str
    topic_of: Mapping[str, str]
    window_start: int
    window_end: int
    covered: int
    revision: int
    below: Mapping[str, Mapping[Place, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelTask:
    """One window and version to measure on its labels; with `online`, only to feed those error detectors."""

    published: bytes
    window_start: int
    window_end: int
    model_version: str
    covered: int
    revision: int
    label_coverage: float
    num_predictions: int
    feeds_only: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What a window gave: `marker` is to be stored after everything else; None where there was nothing to measure."""

    measurements: list[Measurement]
    marker: Measurement | None
    feeds: list[Feed]


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one feature of a window differs from its reference, in words and as data."""

    feature: str
    words: str
    values: list[dict[str, float | str]]


class WindowMeasurer:
    """Measures windows of any model; one per process, not for several threads."""

    def __init__(self, connection: ClickHouseConnection, privacy_key: bytes) -> None:
        self._ch = ClickHouse(connection)
        self._privacy_key = privacy_key
        self._references = References(self._ch)
        self._clock = SystemClock()

    def measure_window(self, task: WindowTask) -> Measured:
        """Measure what needs no labels: quality, drift of inputs and outputs, estimates, detectors."""
        published = decode_published(task.published)
        merged = self._merge(task, published)
        inputs = choose_inputs(merged, task.topic_of["records"])
        source = self._choose_source(task, published, inputs)
        context = WindowContext(
            published, task.window_start, task.window_end, task.covered, task.revision, self._clock.now_ms(), source
        )
        segments = self._read_segments(context, source)
        found = measure_quality(context, inputs, merged)
        rows = self._read_rows(context, source, None, task.below, segments)
        num_rows = len(rows) if len(rows) < published.spec.exact_rows or inputs is None else inputs.num_rows
        if len(rows):
            reference = self._references.read(published, published.reference_hash)
            found += measure_inputs(context, reference, rows, num_rows)
        feeds = [
            self._feed(context, rows, index, "")
            for index, online in enumerate(published.spec.online)
            if online.on not in ("score", "error")
        ]
        for version, size in self._list_versions(task, published, merged):
            found += self._measure_version(context, version, size, task.below, segments, feeds)
        marker = make_marker(context, num_rows, len(rows))
        return _collect(found, marker, feeds)

    def measure_labels(self, task: LabelTask) -> Measured:
        """Measure a version's realized performance and feed error detectors, or (`feeds_only`) just the latter."""
        published = decode_published(task.published)
        spec = published.spec
        context = WindowContext(
            published,
            task.window_start,
            task.window_end,
            task.covered,
            task.revision,
            self._clock.now_ms(),
            "predictions",
        )
        table = read_labelled(
            self._ch,
            spec.model,
            task.model_version,
            task.window_start,
            task.window_end,
            limit=spec.exact_rows,
            horizon_ms=_horizon_ms(published),
        )
        if table.num_rows == 0:
            return Measured([], None, [])
        rows = from_window(table)
        if task.feeds_only:
            feeds = [
                self._feed(context, rows, index, task.model_version)
                for index, online in enumerate(spec.online)
                if online.on == "error"
            ]
            return _collect([], None, feeds)
        rows.segments = _join_segments(rows, self._read_segments(context, "records"))
        reference_hash, is_own = self._references.find_hash(published, task.model_version)
        profile = self._references.profile(published, reference_hash, is_own=is_own)
        is_whole = len(rows) < spec.exact_rows
        num_rows = len(rows) if is_whole else task.num_predictions
        coverage = float(find_labelled(rows).mean()) if is_whole else task.label_coverage
        found = measure_realized(context, profile, rows, num_rows, coverage, task.model_version)
        primary = spec.performance.metrics[0]
        marker = next(each for each in found if each.metric == primary and not each.segment)
        return _collect([each for each in found if each is not marker], marker, [])

    def explain_window(self, task: WindowTask, features: Sequence[str]) -> list[Explanation]:
        """Say how the composition of some features of a window differs from the reference."""
        published = decode_published(task.published)
        context = WindowContext(published, task.window_start, task.window_end, task.covered, task.revision, 0)
        reference = self._references.read(published, published.reference_hash)
        inputs = choose_inputs(self._merge(task, published), task.topic_of["records"])
        source = self._choose_source(task, published, inputs)
        rows = self._read_rows(context, source, None, task.below, {})
        return [_explain(published, reference, rows, feature) for feature in features]

    def _merge(self, task: WindowTask, published: PublishedSpec) -> list[Merged]:
        rows = read_summaries(self._ch, task.job, published.model, task.window_start)
        merged = merge_rows(rows, ModelHistory([published]))
        return [each for each in merged if each.window_end == task.window_end]

    def _choose_source(self, task: WindowTask, published: PublishedSpec, inputs: Merged | None) -> Source:
        if inputs is None:
            return input_source(self._ch, published.model, task.window_start, task.window_end)
        return "records" if inputs.topic == task.topic_of["records"] else "predictions"

    def _list_versions(
        self, task: WindowTask, published: PublishedSpec, merged: Sequence[Merged]
    ) -> list[tuple[str, int]]:
        """The versions that predicted in the window, and how often; asked of the store where nothing was counted."""
        if merged:
            return [(each.model_version, each.num_rows) for each in merged if each.model_version and not each.segment]
        windows = published.spec.windows
        counts = read_label_counts(
            self._ch, published.model, windows.size_ms, windows.origin_ms, task.window_start, task.window_end
        )
        return [(each.model_version, each.num_predictions) for each in counts]

    def _measure_version(
        self,
        context: WindowContext,
        version: str,
        size: int,
        below: Mapping[str, Mapping[Place, int]],
        segments: Mapping[str, Mapping[str, str]],
        feeds: list[Feed | None],
    ) -> list[Measurement]:
        published = context.published
        rows = self._read_rows(context, "predictions", version, below, segments)
        num_rows = len(rows) if len(rows) < published.spec.exact_rows else size
        reference_hash, is_own = self._references.find_hash(published, version)
        reference = self._references.read(published, reference_hash)
        profile = self._references.profile(published, reference_hash, is_own=is_own)
        feeds += [
            self._feed(context, rows, index, version)
            for index, online in enumerate(published.spec.online)
            if online.on == "score"
        ]
        return [
            *measure_outputs(context, reference, rows, num_rows, version),
            *measure_estimated(context, profile, rows, num_rows, version),
        ]

    def _read_rows(
        self,
        context: WindowContext,
        source: Source,
        model_version: str | None,
        below: Mapping[str, Mapping[Place, int]],
        segments: Mapping[str, Mapping[str, str]],
    ) -> Rows:
        spec = context.spec
        table = read_window(
            self._ch,
            spec.model,
            context.window_start,
            context.window_end,
            source,
            model_version=model_version,
            below=below.get(model_version or "", {}),
            limit=spec.exact_rows,
            horizon_ms=_horizon_ms(context.published),
            with_features=model_version is None,
        )
        rows = from_window(table)
        rows.segments = _join_segments(rows, segments)
        return rows

    def _read_segments(self, context: WindowContext, source: Source) -> Mapping[str, Mapping[str, str]]:
        """Segments belong to records; a model without them has them in its predictions."""
        keys = context.spec.segments
        if not keys:
            return {}
        window = (context.spec.model, context.window_start, context.window_end)
        found = read_segment_values(self._ch, *window, source, keys)
        if source == "records":
            sent = read_segment_values(self._ch, *window, "predictions", keys)
            found = {key: {**sent[key], **found[key]} for key in keys}
        return found

    def _feed(self, context: WindowContext, rows: Rows, index: int, model_version: str) -> Feed | None:
        return feed_window(self._ch, context, rows, context.spec.online[index], model_version, self._privacy_key)


# One per process: what a pool's tasks are run with.
_measurer: WindowMeasurer | None = None


def start_process(connection: ClickHouseConnection, privacy_key: bytes) -> None:
    """Prepare a spawned process: a store client, and a memory of references."""
    global _measurer
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    _measurer = WindowMeasurer(connection, privacy_key)


def measure_window(task: WindowTask) -> Measured:
    """Run in a process of the pool: see `WindowMeasurer.measure_window`."""
    return _get_measurer().measure_window(task)


def measure_labels(task: LabelTask) -> Measured:
    """Run in a process of the pool: see `WindowMeasurer.measure_labels`."""
    return _get_measurer().measure_labels(task)


def explain_window(task: WindowTask, features: Sequence[str]) -> list[Explanation]:
    """Run in a process of the pool: see `WindowMeasurer.explain_window`."""
    return _get_measurer().explain_window(task, features)


def _get_measurer() -> WindowMeasurer:
    assert _measurer is not None, "start_process prepares the process"
    return _measurer


def _collect(found: list[Measurement], marker: Measurement | None, feeds: Sequence[Feed | None]) -> Measured:
    given = [each for each in feeds if each is not None]
    return Measured([*found, *(each.measurement for each in given)], marker, given)


def _horizon_ms(published: PublishedSpec) -> int:
    """How far around a window an earlier event of the same identity is looked for: as far as stage 1 remembers."""
    return published.spec.windows.retention * published.window_size_ms


def _join_segments(rows: Rows, segments: Mapping[str, Mapping[str, str]]) -> dict[str, Texts]:
    assert rows.record_id is not None
    return {
        key: np.array([values.get(record_id) for record_id in rows.record_id.tolist()], dtype=object)
        for key, values in segments.items()
    }


def _explain(published: PublishedSpec, reference: Rows, rows: Rows, feature: str) -> Explanation:
    kind = dict(list_features(published.spec)).get(feature, "category")
    before, after = find_column(reference, feature, kind), find_column(rows, feature, kind)
    if before is None or after is None:
        return Explanation(feature, f"{feature} cannot be compared: one side has no values", [])
    if kind == "number" and len(np.unique(before[~np.isnan(before)])) > _NUM_VALUES_MAX:
        old, new = float(np.nanmedian(before)), float(np.nanmedian(after)) if not np.isnan(after).all() else np.nan
        words = f"{feature}: the median went from {old:.6g} in the reference to {new:.6g}"
        return Explanation(feature, words, [{"value": "median", "reference": old, "window": new}])
    changes = explain_composition(before, after, top=4)
    words = ", ".join(
        f"{'missing' if each.value == MISSING else each.value} is {each.window_share:.1%} of the window "
        f"({each.reference_share:.1%} of the reference)"
        for each in changes
    )
    values = cast(
        "list[dict[str, float | str]]",
        [
            {"value": each.value, "reference_share": each.reference_share, "window_share": each.window_share}
            for each in changes
        ],
    )
    return Explanation(feature, f"{feature}: {words}", values)
