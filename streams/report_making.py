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
from store.reports import read_unreported
from store.windows import read_measured_windows
from streams.logic.policy import name_rules
from streams.report_process import ReportedAlert, ReportProcess, ReportTask

log = logging.getLogger(__name__)

# What fired before is history: a monitor that was away for longer makes no reports of it.
_AGE_MS_MAX = 3 * DAY_MS
# A window of 50,000 rows and 16 features takes some 12 s of a processor that nobody else wants.
_TIMEOUT_S = 120.0
_NUM_ATTEMPTS_MAX = 3
# After the first failure, and four times as long after the next.
_BACKOFF_S = 10.0

_Window = tuple[str, int]


@dataclass(frozen=True, slots=True)
class MissingReport:
    """A window (its start in epoch ms) that a report is to be made of, for all alerts that began in it."""

    published: PublishedSpec
    window_start: int
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
        self._failures: dict[_Window, _Failures] = {}

    def find(self, histories: Mapping[str, ModelHistory]) -> list[MissingReport]:
        """Return the reports of the models that are due: of windows whose rows are measured, so stored, oldest first.

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
        windows: dict[_Window, list[ReportedAlert]] = {}
        for each in read_unreported(self._ch, self._clock.now_ms() - _AGE_MS_MAX):
            if (each.model, each.rule) in wanted:
                alert = ReportedAlert(each.alert_id, each.transition_id)
                windows.setdefault((each.model, each.first_window_start), []).append(alert)
        self._failures = {window: each for window, each in self._failures.items() if window in windows}
        return [
            MissingReport(histories[model].in_force(start), start, alerts)
            for (model, start), alerts in windows.items()
            if self._is_due((model, start)) and self._is_measured(model, start)
        ]

    def make(self, missing: MissingReport) -> None:
        """Make a report in a process of its own and wait for it; what goes wrong is logged and remembered."""
        model, started_s = missing.published.model, self._clock.monotonic_s()
        names = ", ".join(alert.alert_id[:12] for alert in missing.alerts)
        task = ReportTask(
            self._ch.connection, encode_published(missing.published), missing.window_start, missing.alerts
        )
        reason = self._process.run(task, self._timeout_s)
        took_s = self._clock.monotonic_s() - started_s
        if not reason:
            log.info("%s: the report of alert %s is stored (%.1f s)", model, names, took_s)
            return
        window = (model, missing.window_start)
        num = self._failures[window].num + 1 if window in self._failures else 1
        pause_s = _BACKOFF_S * 4 ** (num - 1)
        self._failures[window] = _Failures(num, self._clock.monotonic_s() + pause_s)
        then = f"again in {pause_s:g} s" if num < _NUM_ATTEMPTS_MAX else "it is not tried again"
        log.warning("%s: the report of alert %s is not made: %s; %s", model, names, reason, then)

    def close(self) -> None:
        """End the process that runs, if any; none is started from now on."""
        self._process.close()

    def _is_due(self, window: _Window) -> bool:
        failures = self._failures.get(window)
        return failures is None or (failures.num < _NUM_ATTEMPTS_MAX and self._clock.monotonic_s() >= failures.next_s)

    def _is_measured(self, model: str, start: int) -> bool:
        """Say whether a window is measured: an alert may open from counts, before the sink has stored the rows."""
        return any(window[0] == start for window in read_measured_windows(self._ch, model, start))
