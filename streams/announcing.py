"""Announces what was judged: alerts are stored, then sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from schemas.clock import Clock
from schemas.events import Alert
from schemas.spec import ModelSpec
from store.alerts import insert_alerts, read_last_alerts, read_transitions
from store.client import ClickHouse
from streams.outlet import Outlet

log = logging.getLogger(__name__)

# What is sent again after a restart: longer than any restart takes, shorter than the log's retention.
_REPEAT_MS = 24 * 3_600_000


class Announcer:
    """Announces state changes; safe to repeat, since their ids do not change."""

    def __init__(self, ch: ClickHouse, outlet: Outlet, clock: Clock) -> None:
        self._ch = ch
        self._outlet = outlet
        self._clock = clock

    def announce(self, spec: ModelSpec, alerts: Sequence[Alert]) -> None:
        """Store state changes and wait for the store; send them and wait for the log."""
        if alerts:
            insert_alerts(self._ch, alerts)
            for each in alerts:
                log.info("%s: alert %s is %s: %s", spec.model, each.rule, each.state, each.reason)
            self._send(spec, alerts)

    def repeat(self, spec: ModelSpec, is_meant: Callable[[str], bool]) -> None:
        """Send the newest alerts of the rules meant again, in case a process died between storing and sending."""
        last = read_last_alerts(self._ch, spec.model)
        meant = [each.alert_id for each in last.values() if is_meant(each.rule)]
        transitions = read_transitions(self._ch, spec.model, meant)
        since = self._clock.now_ms() - _REPEAT_MS
        recent = [each for each in transitions if each.at >= since]
        if recent:
            self._send(spec, recent)

    def _send(self, spec: ModelSpec, alerts: Sequence[Alert]) -> None:
        self._outlet.send("alerts", alerts, spec.model)
