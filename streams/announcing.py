"""Announces what was judged: alerts are stored, then sent, then the retrain requests that follow from them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from schemas import identity
from schemas.clock import Clock
from schemas.events import Alert, RetrainRequest
from schemas.spec import ModelSpec
from store.alerts import insert_alerts, read_fired_alerts, read_last_alerts, read_transitions
from store.client import ClickHouse
from streams.logic.policy import Fired, decide_retraining, name_rules
from streams.outlet import Outlet

log = logging.getLogger(__name__)

# What is sent again after a restart: longer than any restart takes, shorter than the log's retention.
_REPEAT_MS = 24 * 3_600_000


class Announcer:
    """Announces state changes; safe to repeat, since their ids and those of the requests do not change."""

    def __init__(self, ch: ClickHouse, outlet: Outlet, clock: Clock) -> None:
        self._ch = ch
        self._outlet = outlet
        self._clock = clock

    def announce(self, spec: ModelSpec, alerts: Sequence[Alert]) -> None:
        """Store state changes and wait for the store; send them and wait for the log; then send the requests."""
        if alerts:
            insert_alerts(self._ch, alerts)
            for each in alerts:
                log.info("%s: alert %s is %s: %s", spec.model, each.rule, each.state, each.reason)
            self._send(spec, alerts)

    def repeat(self, spec: ModelSpec) -> None:
        """Send the newest alerts and their requests again, in case a process died between storing and sending."""
        last = read_last_alerts(self._ch, spec.model)
        transitions = read_transitions(self._ch, spec.model, [each.alert_id for each in last.values()])
        since = self._clock.now_ms() - _REPEAT_MS
        recent = [each for each in transitions if each.at >= since]
        if recent:
            self._send(spec, recent)

    def _send(self, spec: ModelSpec, alerts: Sequence[Alert]) -> None:
        self._outlet.send("alerts", alerts, spec.model)
        requests = self._make_requests(spec, [each for each in alerts if each.state == "firing"])
        if requests:
            self._outlet.send("retrain-requests", requests, spec.model)

    def _make_requests(self, spec: ModelSpec, firing: Sequence[Alert]) -> list[RetrainRequest]:
        if spec.retrain is None or not firing:
            return []
        rules = [name for name, rule in name_rules(spec) if rule.when in spec.retrain.on]
        fired = {each.alert_id: Fired(*each) for each in read_fired_alerts(self._ch, spec.model)}
        requests = []
        for alert in firing:
            this = fired[alert.alert_id]
            decision = decide_retraining(this, fired.values(), rules, spec.retrain.cooldown_ms)
            verb = "asked for" if decision.wanted else "not asked for"
            log.info("%s: retraining is %s: %s", spec.model, verb, decision.reason)
            if decision.wanted:
                requests.append(_make_request(spec, alert, this, self._clock.now_ms()))
        return requests


def _make_request(spec: ModelSpec, alert: Alert, fired: Fired, now_ms: int) -> RetrainRequest:
    size_ms = spec.windows.size_ms
    return RetrainRequest(
        request_id=identity.request_id(spec.model, alert.rule, fired.first_window_start),
        model=spec.model,
        rule=alert.rule,
        trigger_alert_id=alert.alert_id,
        reason=alert.reason,
        first_window_start=fired.first_window_start,
        first_window_end=fired.first_window_start + size_ms,
        window_size_ms=size_ms,
        requested_at=now_ms,
    )
