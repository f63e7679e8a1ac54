"""Finds fired alerts that have no report yet, and has the reports made, one after the other.

Which are missing is asked of the store; only failures are remembered, and lost without harm. It must not judge:
alerts do not rest on reports, and two workers may make the same one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.clock import Clock
from schemas.declarations import DAY_MS
from schemas.spec import ModelHistory, PublishedSpec, encode_published
from store.client import ClickHouse
from store.reports import name_rows, read_unreported
from store.windows import read_measured_windows
from streams.logic.policy import name_rules
from streams.report_process import ReportedAlert, ReportProcess, ReportTask

log = logging.getLogger(__name__)

# What fired before is history: a monitor that was away for longer makes no reports of it.
_AGE_MS_MAX = 3 * DAY_MS
# A window of 50,000 rows and 19 features took 22 s of a processor that nobody else wanted, and 37 s of a shared one.
_TIMEOUT_S = 120.0
_NUM_ATTEMPTS_MAX = 3
# After the first failure, and four times as long after the next.
_BACKOFF_S = 10.0

# A model, a window by its start, and a segment.
_Subject = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class MissingReport:
    """A window (its start in epoch ms) that a report is to be made of, for all alerts of a segment that began there."""

    published: PublishedSpec
    window_start: int
    segment: str
    alerts: list[ReportedAlert]


@dataclass(slots=True)
class _Failures:
    num: int
    next_s: float


class ReportMaker:
    """Makes reports; `find` and `make` by one thread, `close` by any."""

    def __init__(self, ch: ClickHouse, clock: Clock, timeout_s: float = _TIMEOUT_S) -> None:
        self._ch = ch
        self._clock = clock
        self._timeout_s = timeout_s
        self._process = ReportProcess()
        self._failures: dict[_Subject, _Failures] = {}

    def find(self, histories: Mapping[str, ModelHistory]) -> list[MissingReport]:
        """Return the reports of the models that are due: of windows whose rows are measured, so stored.

        Those of all rows come first, and what fired first.

        Those that failed wait for their time, or for ever after the last attempt. Raises `Retryable`.
        """
        wanted = {
            (model, name)
            for model, history in histories.items()
            for name, rule in name_rules(history.latest.spec)
            if rule.report
        }
        if not wanted:
            return []
        found: dict[_Subject, list[ReportedAlert]] = {}
        for each in read_unreported(self._ch, self._clock.now_ms() - _AGE_MS_MAX):
            if (each.model, each.rule) in wanted:
                alert = ReportedAlert(each.alert_id, each.transition_id)
                found.setdefault((each.model, each.first_window_start, name_rows(each.segment)), []).append(alert)
        self._failures = {subject: each for subject, each in self._failures.items() if subject in found}
        return [
            MissingReport(histories[model].in_force(start), start, segment, alerts)
            for (model, start, segment), alerts in found.items()
            if self._is_due((model, start, segment)) and self._is_measured(model, start)
        ]

    def make(self, missing: MissingReport) -> None:
        """Make a report in a process of its own and wait for it; what goes wrong is logged and remembered.

        Raises `Retryable` when the store is away, which is no failure of this report.
        """
        model, started_s = missing.published.model, self._clock.monotonic_s()
        names = ", ".join(alert.alert_id[:12] for alert in missing.alerts)
        task = ReportTask(
            self._ch.connection,
            encode_published(missing.published),
            missing.window_start,
            missing.segment,
            missing.alerts,
        )
        reason = self._process.run(task, self._timeout_s)
        took_s = self._clock.monotonic_s() - started_s
        if not reason:
            log.info("%s: the report of alert %s is stored (%.1f s)", model, names, took_s)
            return
        subject = (model, missing.window_start, missing.segment)
        num = self._failures[subject].num + 1 if subject in self._failures else 1
        pause_s = _BACKOFF_S * 4 ** (num - 1)
        self._failures[subject] = _Failures(num, self._clock.monotonic_s() + pause_s)
        then = f"again in {pause_s:g} s" if num < _NUM_ATTEMPTS_MAX else "it is not tried again"
        log.warning("%s: the report of alert %s is not made: %s; %s", model, names, reason, then)

    def close(self) -> None:
        """End the process that runs, if any; none is started from now on."""
        self._process.close()

    def _is_due(self, subject: _Subject) -> bool:
        failures = self._failures.get(subject)
        return failures is None or (failures.num < _NUM_ATTEMPTS_MAX and self._clock.monotonic_s() >= failures.next_s)

    def _is_measured(self, model: str, start: int) -> bool:
        """Say whether a window is measured: an alert may open from counts, before the sink has stored the rows."""
        return any(window[0] == start for window in read_measured_windows(self._ch, model, start))
