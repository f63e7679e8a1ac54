"""Tells of rollbacks: stores the alert, sends it, and resolves it when the version that came back does well.

Owns the order (first the store, then the log) and the repeating after a restart. Ids follow from the role map, so
whatever is told twice is the same message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from retrain.promotion import Roles
from retrain.role_maps import CHAMPION, find_beginning
from retrain.rollback_alerts import RULE, describe_recovery, describe_successor, fire_alert, resolve_alert
from schemas.clock import Clock
from schemas.connections import Runtime
from schemas.events import Alert, RoleMap, encode_event
from schemas.spec import PublishedSpec
from store.alerts import insert_alerts, read_last_alerts, read_transitions
from store.client import ClickHouse
from store.log import Producer
from store.measurements import read_performance

log = logging.getLogger(__name__)

# What is sent again after a restart: longer than any restart takes, shorter than the log's retention.
_REPEAT_MS = 24 * 3_600_000
# The window is measured and no limit is broken; without limits nothing can be.
_FINE = ("ok", "uncalibrated")
_TIMEOUT_S = 30.0


class RollbackTeller:
    """Keeps the alerts of rollbacks as the role maps have it; nothing is remembered that cannot be read again."""

    def __init__(
        self,
        runtime: Runtime,
        ch: ClickHouse,
        roles: Roles,
        find_spec: Callable[[str], PublishedSpec | None],
        clock: Clock,
    ) -> None:
        self._topic = runtime.topics("alerts")
        self._producer = Producer(runtime.kafka)
        self._ch, self._roles, self._find_spec, self._clock = ch, roles, find_spec, clock
        self._told: dict[str, int] = {}
        self._open: dict[str, RoleMap] = {}

    def tell(self, model: str) -> None:
        """Fire the alert of the model's last rollback if it has not fired, and resolve it if it is over."""
        newest = next((each for each in reversed(self._roles.list_history(model)) if each.cause == RULE), None)
        if newest is None:
            return
        if self._told.get(model) != newest.epoch:
            self._take_up(newest)
            self._told[model] = newest.epoch
        if model in self._open:
            self._settle(self._open[model])

    def close(self) -> None:
        """Leave the broker."""
        self._producer.close()

    def _take_up(self, role_map: RoleMap) -> None:
        """
        1. fire, unless the store has it;
        2. send again what was stored lately, in case a process died between storing and sending;
        3. keep it in mind while it is not resolved.
        """
        fired = fire_alert(role_map)
        last = read_last_alerts(self._ch, role_map.model).get((RULE, ""))
        if last is None or last.alert_id != fired.alert_id:
            insert_alerts(self._ch, [fired])
            log.info("%s: alert %s is firing: %s", role_map.model, RULE, fired.reason)
            self._send([fired])
        else:
            since = self._clock.now_ms() - _REPEAT_MS
            self._send(
                [each for each in read_transitions(self._ch, role_map.model, [fired.alert_id]) if each.at >= since]
            )
        if last is None or last.alert_id != fired.alert_id or last.state != "resolved":
            self._open[role_map.model] = role_map

    def _settle(self, role_map: RoleMap) -> None:
        found = self._find_end(role_map)
        if found is None:
            return
        reason, window = found
        resolved = resolve_alert(fire_alert(role_map), reason, window, self._clock.now_ms())
        insert_alerts(self._ch, [resolved])
        log.info("%s: alert %s is resolved: %s", role_map.model, RULE, reason)
        self._send([resolved])
        del self._open[role_map.model]

    def _find_end(self, role_map: RoleMap) -> tuple[str, tuple[int, int]] | None:
        model, restored = role_map.model, role_map.roles[CHAMPION]
        beginning = find_beginning(self._roles.list_history(model), CHAMPION)
        if beginning is None or beginning.epoch != role_map.epoch:
            current = self._roles.find_current(model)
            assert current is not None, "the rollback itself is a role map"
            evidence = role_map.evidence
            window = (int(evidence["window_start"]), int(evidence["window_end"]))
            return describe_successor(current.roles[CHAMPION], current.reason), window
        published = self._find_spec(model)
        if published is None:
            return None
        metric = published.spec.performance.metrics[0]
        for row in read_performance(self._ch, model, metric, role_map.at):
            if row.kind == "performance" and row.model_version == restored and row.status in _FINE:
                window = (row.window_start, row.window_end)
                return describe_recovery(restored, window), window
        return None

    def _send(self, alerts: list[Alert]) -> None:
        for each in alerts:
            self._producer.produce(self._topic, each.model, encode_event(each))
        self._producer.flush(_TIMEOUT_S)
