"""Compares what stage 1 counted with references: the tests that open drift alerts, before any row has to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from schemas.clock import Clock
from schemas.events import Measurement
from schemas.spec import decode_published
from store.client import ClickHouse
from store.summaries import read_summaries
from streams.logic.completeness import WindowState
from streams.logic.drift_tests import (
    WindowCounts,
    count_windows,
    drop_unknown_segments,
    make_marker,
    measure_tests,
    merge_counts,
)
from streams.logic.measured import WindowContext
from streams.logic.significance import make_budget
from streams.logic.summaries import part_of
from streams.references import References


@dataclass(frozen=True, slots=True)
class CompareTask:
    """Windows, single and merged, to test: all under `published` (encoded), `states` with what they cover.

    `topic_of` maps `records` and `predictions` to the topics' names.
    """

    published: bytes
    job: str
    topic_of: Mapping[str, str]
    states: tuple[WindowState, ...]


class Comparer:
    """Tests windows of any model; for one thread at a time."""

    def __init__(self, ch: ClickHouse, references: References, clock: Clock) -> None:
        self._ch = ch
        self._references = references
        self._clock = clock

    def compare(self, task: CompareTask) -> list[Measurement]:
        """Test each of the windows; the last row of each is its marker (see `store.windows`)."""
        published = decode_published(task.published)
        first, end = min(each.window_start for each in task.states), max(each.window_end for each in task.states)
        rows = read_summaries(self._ch, task.job, published.model, first, end)
        windows = count_windows(rows, published, task.topic_of["records"])
        own_hashes = self._references.read_own_hashes(published.model)
        found: list[Measurement] = []
        for state in task.states:
            counts = merge_counts(
                window for start, window in windows.items() if state.window_start <= start < state.window_end
            )
            context = WindowContext(
                published, state.window_start, state.window_end, state.covered, state.revision + 1,
                self._clock.now_ms(), scale=state.scale,
            )  # fmt: skip
            tested = list(self.compare_window(context, counts, own_hashes))
            inputs = counts.get("")
            num_rows = inputs.num_rows.get("", 0) if inputs is not None else 0
            found += [*tested, make_marker(context, tested, num_rows)]
        return found

    def compare_window(
        self, context: WindowContext, counts: WindowCounts, own_hashes: Mapping[str, str]
    ) -> Iterator[Measurement]:
        """Test the inputs and each version's outputs of one window; `own_hashes` name versions' own references."""
        published = context.published
        budget = make_budget(published)
        drop_unknown_segments(counts, published.spec.segments)
        for version, source in sorted(counts.items()):
            reference = self._references.count(
                published, own_hashes.get(version) or published.reference_hash, part_of(version), context.scale
            )
            yield from measure_tests(context, version, source, reference, budget.level(context.scale))
