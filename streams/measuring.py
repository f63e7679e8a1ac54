"""What a measuring process does: read one window's rows, measure, give rows back. It stores and judges nothing.

Measuring is heavy (reading, sorting, joins) and runs in spawned processes, each with a ClickHouse client and the
references it has met. Results are pure functions of what is stored, so a process that dies is simply asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from schemas.clock import SystemClock
from schemas.connections import ClickHouseConnection
from schemas.events import Measurement
from schemas.spec import ModelHistory, PublishedSpec, decode_published
from store.client import ClickHouse
from store.event_reads import input_source
from store.summaries import SummaryRow, read_summaries
from store.windows import read_label_counts
from streams.comparing import Comparer, CompareTask
from streams.explaining import Explanation, explain_features
from streams.feeding import Feed, feed_window
from streams.logic.baseline import measure_no_change
from streams.logic.distances import SampledRows, measure_inputs, measure_outputs
from streams.logic.drift_tests import attach_tests, count_windows, merge_counts
from streams.logic.fairness import measure_opportunity, measure_parity
from streams.logic.loss_inputs import attach_features
from streams.logic.measured import WindowContext
from streams.logic.outcomes import find_labelled, measure_estimated, measure_realized
from streams.logic.quality import choose_inputs, make_marker, measure_quality, measure_volume
from streams.logic.rows import Rows
from streams.logic.summaries import Merged, merge_rows
from streams.logic.together import measure_inputs_together
from streams.reading import Place, Source, WindowReader
from streams.references import References

log = logging.getLogger(__name__)


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


class WindowMeasurer:
    """Measures windows of any model; one per process, not for several threads."""

    def __init__(self, connection: ClickHouseConnection, privacy_key: bytes) -> None:
        self._ch = ClickHouse(connection)
        self._privacy_key = privacy_key
        self._references = References(self._ch)
        self._reader = WindowReader(self._ch)
        self._clock = SystemClock()
        self._comparer = Comparer(self._ch, self._references, self._clock)

    def compare_windows(self, task: CompareTask) -> list[Measurement]:
        """Test the counts of windows, single and merged; see `Comparer.compare`."""
        return self._comparer.compare(task)

    def measure_window(self, task: WindowTask) -> Measured:
        """Measure what needs no labels: quality, drift of inputs and outputs, estimates, detectors."""
        published = decode_published(task.published)
        summaries, own_hashes = self._reader.call_all(
            partial(self._read_summaries, task, published), partial(self._references.read_own_hashes, published.model)
        )
        merged = _merge(task, published, summaries)
        inputs = choose_inputs(merged, task.topic_of["records"])
        source = self._choose_source(task, published, inputs)
        context = WindowContext(
            published, task.window_start, task.window_end, task.covered, task.revision, self._clock.now_ms(), source
        )
        sizes = dict(self._list_versions(task, published, merged))
        rows = self._reader.read(context, source, list(sizes), task.below)
        found = measure_quality(context, inputs, merged)
        feeds: list[Feed | None] = []
        num_rows = _count(context, rows.inputs, None if inputs is None else inputs.num_rows)
        current = self._sample(context, rows.inputs)
        if len(rows.inputs):
            reference = self._references.read(published, published.reference_hash)
            found += measure_volume(context, num_rows, reference.rows.ts)
            found += measure_inputs(context, reference, current, num_rows)
            found += measure_inputs_together(context, reference, current, num_rows)
            feeds += self._feed(context, rows.inputs, "", lambda on: on not in ("score", "error"))
        for version, size in sizes.items():
            outputs = rows.outputs[version]
            sampled = current if outputs is rows.inputs else self._sample(context, outputs)
            found += measure_parity(context, sampled.rows, sampled.parts, _count(context, outputs, size), version)
            found += self._measure_version(context, version, size, sampled, rows.inputs, own_hashes.get(version, ""))
            feeds += self._feed(context, outputs, version, lambda on: on == "score")
        if published.spec.drift.threshold == "calibrated":
            counts = merge_counts(count_windows(summaries, published, task.topic_of["records"]).values())
            found = attach_tests(found, self._comparer.compare_window(context, counts, own_hashes))
        return _collect(found, make_marker(context, num_rows, len(rows.inputs)), feeds)

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
        rows, own_hashes = self._reader.call_all(
            partial(self._reader.read_labelled, context, task.model_version),
            partial(self._references.read_own_hashes, published.model),
        )
        if task.feeds_only:
            if not len(rows):
                return Measured([], None, [])
            return _collect([], None, self._feed(context, rows, task.model_version, lambda on: on == "error"))
        profile = self._references.profile(published, own_hashes.get(task.model_version, ""))
        is_whole = len(rows) < spec.exact_rows
        num_rows = len(rows) if is_whole else task.num_predictions
        # All that was counted may count in another window, where the log has it first: that is said, too.
        found_coverage = float(find_labelled(rows).mean()) if len(rows) else 0.0
        coverage = found_coverage if is_whole else task.label_coverage
        found = measure_realized(context, profile, rows, num_rows, coverage, task.model_version)
        parts = rows.split({key: published.segment_values.get(key, []) for key in spec.segments})
        found += measure_opportunity(context, rows, parts, num_rows, coverage, task.model_version)
        found += measure_no_change(context, rows, num_rows, coverage, task.model_version)
        primary = spec.performance.metrics[0]
        marker = next(each for each in found if each.metric == primary and not each.segment)
        return _collect([each for each in found if each is not marker], marker, [])

    def explain_window(self, task: WindowTask, features: Sequence[str]) -> list[Explanation]:
        """Say how some features of a window differ from the reference, and what the change of each alone would cost."""
        published = decode_published(task.published)
        context = WindowContext(published, task.window_start, task.window_end, task.covered, task.revision, 0)
        reference = self._references.read(published, published.reference_hash).rows
        merged = _merge(task, published, self._read_summaries(task, published))
        inputs = choose_inputs(merged, task.topic_of["records"])
        source = self._choose_source(task, published, inputs)
        rows = self._reader.read(context, source, [], task.below).inputs
        return explain_features(published, reference, rows, features)

    def _read_summaries(self, task: WindowTask, published: PublishedSpec) -> list[SummaryRow]:
        return read_summaries(self._ch, task.job, published.model, task.window_start, task.window_end)

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
        self, context: WindowContext, version: str, size: int, current: SampledRows, inputs: Rows, own_hash: str
    ) -> list[Measurement]:
        published = context.published
        num_rows = _count(context, current.rows, size)
        reference = self._references.read(published, own_hash or published.reference_hash)
        profile = self._references.profile(published, own_hash)
        return [
            *measure_outputs(context, reference, current, num_rows, version),
            *measure_estimated(context, profile, self._attach(context, current.rows, inputs), num_rows, version),
        ]

    def _attach(self, context: WindowContext, outputs: Rows, inputs: Rows) -> Rows:
        """Losses are estimated from features, which other estimates do without."""
        return attach_features(outputs, inputs) if context.spec.performance.estimate == "dle" else outputs

    def _sample(self, context: WindowContext, rows: Rows) -> SampledRows:
        known = context.published.segment_values
        return SampledRows(rows, {key: known.get(key, []) for key in context.spec.segments})

    def _feed(
        self, context: WindowContext, rows: Rows, model_version: str, is_meant: Callable[[str], bool]
    ) -> list[Feed | None]:
        return [
            feed_window(self._ch, context, rows, online, model_version, self._privacy_key)
            for online in context.spec.online
            if is_meant(online.on)
        ]


# One per process: what a pool's tasks are run with.
_measurer: WindowMeasurer | None = None


def start_process(connection: ClickHouseConnection, privacy_key: bytes) -> None:
    """Prepare a spawned process: a store client, and a memory of references."""
    global _measurer
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    _measurer = WindowMeasurer(connection, privacy_key)


def compare_windows(task: CompareTask) -> list[Measurement]:
    """Run in a process of the pool: see `WindowMeasurer.compare_windows`."""
    return _get_measurer().compare_windows(task)


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


def _merge(task: WindowTask, published: PublishedSpec, rows: Sequence[SummaryRow]) -> list[Merged]:
    merged = merge_rows(rows, ModelHistory([published]))
    return [each for each in merged if each.window_end == task.window_end]


def _count(context: WindowContext, rows: Rows, counted: int | None) -> int:
    """Give how many rows there are: of a sample what stage 1 counted."""
    return len(rows) if len(rows) < context.spec.exact_rows or counted is None else counted
