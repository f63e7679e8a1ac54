"""Which rows a request trains on and is judged on, and whether they are there yet.

Owns the choice of windows and the words of waiting. It must not start anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from schemas.events import RetrainRequest
from schemas.instants import format_instant
from schemas.spec import ModelSpec, RetrainSpec
from store.client import ClickHouse
from store.jobs import (
    LabelCoverage,
    count_labelled,
    read_first_row_at,
    read_label_coverage,
    read_main_version,
    read_measured_to,
)

# Labels of one window come in many messages. Rows are taken when all are there, or when none has come
# for this long, so that what is learnt from does not depend on the moment of looking.
SETTLE_S = 3.0

# A request whose labels do not come for so long is given up.
WAIT_WINDOWS_MAX = 30
WAIT_CLOCK_MS_MAX = 30 * 86_400_000

# What asks for a training on the newest rows, since nothing says when the world changed.
TIMED = ("schedule", "new_labels")

# How far back such a request, or one by hand, looks for its last labelled window.
_SEARCH_WINDOWS_MAX = 100


class JobRanges(NamedTuple):
    """Rows to train on and to be judged on: start ≤ ts < end, epoch ms."""

    train_from: int
    train_to: int
    gate_from: int
    gate_to: int


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a look at the store gives: the rows to use, or the reason to wait.

    `counts` are the labels seen; while they grow and are not all, the rows have not settled.
    """

    ranges: JobRanges | None
    champion: str
    reason: str
    counts: tuple[LabelCoverage, ...] = ()
    measured_to: int | None = None

    @property
    def is_fully_labelled(self) -> bool:
        """Say whether every row has its label, so that no more can come."""
        return all(coverage.num_labels == coverage.num_rows for coverage in self.counts)


def check_readiness(ch: ClickHouse, request: RetrainRequest, spec: ModelSpec, champion: str | None) -> Readiness:
    """Look whether the rows of a request are measured and labelled; `champion` None: the model has no roles.

    A request for an alert trains on all that is stored up to the end of the alert's first window, or of as many windows
    more as it takes for `data.min_labels`, and gates on the window behind them.
    """
    measured_to = read_measured_to(ch, request.model)
    if find_change(request) is None:
        return _check_newest(ch, request, spec, champion, measured_to)
    data = (spec.retrain or RetrainSpec()).data
    since = request.first_window_start
    first_at = read_first_row_at(ch, request.model)
    train_from = _align(since if first_at is None else min(first_at, since), spec)
    # Rows of before a change that are only mixed in do not make enough.
    counted_from = since if data.window == "after_change" else train_from
    size_ms = request.window_size_ms
    train_to = request.first_window_end
    num_labels = 0
    for train_to in range(request.first_window_end, request.first_window_end + WAIT_WINDOWS_MAX * size_ms, size_ms):
        start = _limit_span(counted_from, train_to, spec)
        readiness = _check_windows(
            ch, request, spec, champion, measured_to, JobRanges(start, train_to, train_to, train_to + size_ms)
        )
        num_labels = count_labelled(ch, request.model, start, train_to)
        if readiness.reason or num_labels >= data.min_labels:
            break
    if readiness.ranges is None:
        if train_to > request.first_window_end:
            reason = (
                f"{readiness.reason}; before it there are fewer than the {data.min_labels:,} labels needed to train on"
            )
            return replace(readiness, reason=reason)
        return readiness
    if num_labels < data.min_labels:
        reason = f"waits for {data.min_labels:,} labels to train on ({num_labels:,} have come)"
        return Readiness(None, readiness.champion, reason, readiness.counts, measured_to)
    return replace(readiness, ranges=readiness.ranges._replace(train_from=_limit_span(train_from, train_to, spec)))


def find_change(request: RetrainRequest) -> int | None:
    """Return when the world changed (epoch ms), as far as the request says so: when its alert began."""
    return None if request.manual or request.rule in TIMED else request.first_window_start


def _check_windows(
    ch: ClickHouse,
    request: RetrainRequest,
    spec: ModelSpec,
    champion: str | None,
    measured_to: int | None,
    ranges: JobRanges,
) -> Readiness:
    """Look whether the last window to train on and the one to gate on are measured and labelled."""
    train_to, gate_to = ranges.train_to, ranges.gate_to
    start = train_to - request.window_size_ms
    name = champion or read_main_version(ch, request.model, start, train_to)
    needed = spec.performance.min_label_coverage
    window = format_instant(start)
    train = read_label_coverage(ch, request.model, name, start, train_to)
    if measured_to is None or measured_to < train_to or train.share < needed:
        have = _describe_coverage(train, needed, measured_to is not None and measured_to >= train_to)
        reason = f"waits until window {window} is labelled to train on, and the next to gate on ({have})"
        return Readiness(None, name, reason, (train,), measured_to)
    gate = read_label_coverage(ch, request.model, name, train_to, gate_to)
    if measured_to < gate_to or gate.share < needed:
        have = _describe_coverage(gate, needed, measured_to >= gate_to)
        gate_window = format_instant(train_to)
        reason = f"waits until window {gate_window} is labelled to gate on; {window} to train on is labelled ({have})"
        return Readiness(None, name, reason, (train, gate), measured_to)
    return Readiness(ranges, name, "", (train, gate), measured_to)


def _limit_span(train_from: int, train_to: int, spec: ModelSpec) -> int:
    """Return where the rows to train on begin, no sooner than the spec's window of time."""
    span_ms = (spec.retrain or RetrainSpec()).data.span_ms
    return train_from if span_ms is None else max(train_from, train_to - span_ms)


def find_overdue(request: RetrainRequest, measured_to: int | None, waited_ms: int) -> str:
    """Say why a request that still waits is given up, or nothing while it may wait on."""
    if measured_to is not None:
        num_windows = (measured_to - request.first_window_end) // request.window_size_ms
        if not request.manual and num_windows > WAIT_WINDOWS_MAX:
            return f"given up: {num_windows} windows later there are still too few labels (limit {WAIT_WINDOWS_MAX})"
    if waited_ms > WAIT_CLOCK_MS_MAX:
        return f"given up: it has waited for more than {WAIT_CLOCK_MS_MAX // 86_400_000} days"
    return ""


def _check_newest(
    ch: ClickHouse, request: RetrainRequest, spec: ModelSpec, champion: str | None, measured_to: int | None
) -> Readiness:
    """Gate on the last labelled window, and train on every row before it."""
    size_ms, needed = spec.windows.size_ms, spec.performance.min_label_coverage
    min_labels = (spec.retrain or RetrainSpec()).data.min_labels
    first_at = read_first_row_at(ch, request.model)
    if first_at is not None and measured_to is not None:
        train_from = _align(first_at, spec)
        gate_to = measured_to
        for _ in range(_SEARCH_WINDOWS_MAX):
            gate_from = gate_to - size_ms
            if gate_from <= train_from:
                break
            name = champion or read_main_version(ch, request.model, gate_from, gate_to)
            gate = read_label_coverage(ch, request.model, name, gate_from, gate_to)
            if gate.num_rows and gate.share >= needed:
                start = _limit_span(train_from, gate_from, spec)
                num_labels = count_labelled(ch, request.model, start, gate_from)
                if num_labels < min_labels:
                    reason = f"waits for {min_labels:,} labels to train on ({num_labels:,} have come)"
                    return Readiness(None, name, reason, (gate,), measured_to)
                return Readiness(JobRanges(start, gate_from, gate_from, gate_to), name, "", (gate,), measured_to)
            gate_to = gate_from
    reason = f"waits until two windows are measured, and the later one is labelled to gate on ({needed:.2f} needed)"
    return Readiness(None, champion or "", reason, (), measured_to)


def _align(ts_ms: int, spec: ModelSpec) -> int:
    windows = spec.windows
    return (ts_ms - windows.origin_ms) // windows.size_ms * windows.size_ms + windows.origin_ms


def _describe_coverage(coverage: LabelCoverage, needed: float, is_measured: bool) -> str:
    # Two digits, cut off: 0.899 must not read as the 0.90 that is waited for.
    share = f"{int(coverage.share * 100) / 100:.2f} of {needed:.2f} labelled"
    return share if is_measured else f"{share}, not over yet"
