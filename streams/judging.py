"""Judges what was measured of a model: opens and resolves alerts, asks for retraining.

How old the data is, which no window tells, `freshness` judges. Nothing is remembered between two calls: windows and
alerts are read from the store, what follows is stored there first and sent then. Judging again what was judged changes
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from schemas import identity
from schemas.clock import Clock
from schemas.errors import Retryable
from schemas.events import Alert, RoleMap
from schemas.spec import AlertRule, ModelHistory, ModelSpec, PublishedSpec, Severity
from store.alerts import LastAlert, read_last_alerts
from store.client import ClickHouse
from store.judgements import insert_judgement, read_newest_measured_at
from store.measurements import (
    DriftRow,
    FairnessRow,
    PerformanceRow,
    has_labels,
    read_drift,
    read_fairness,
    read_most_drifted,
    read_performance,
)
from streams.announcing import Announcer
from streams.asking import Requester
from streams.evidence import list_explained, list_limits, list_tested
from streams.explaining import Explanation
from streams.logic.alerts import AGAIN, Decision, Observation, Standing, Transition, advance
from streams.logic.assessing import find_news
from streams.logic.drift_decisions import Window, decide_windows, group_by_window
from streams.logic.freshness import RULE as FRESHNESS
from streams.logic.policy import name_rules
from streams.logic.verdicts import JudgedWindow, choose_headline, judge_harm
from streams.outlet import Outlet
from streams.wording import describe_drift, describe_fairness, describe_harm

log = logging.getLogger(__name__)

_EARLIEST_MS = 0

# The inputs that explain a window, those that drifted most: by composition, and by what the change of each would cost.
_NUM_EXPLAINED = 5

# Drift is measured again within the retention only; what is older was judged long ago.
_NUM_DRIFT_WINDOWS = 200

Explain = Callable[[PublishedSpec, int, int, Sequence[str]], list[Explanation]]


class Roles(Protocol):
    """Who has which role at an event time; as new as its owner keeps it."""

    def at(self, model: str, ts_ms: int) -> RoleMap | None: ...


class Judge:
    """Judges models; for several threads, one per model."""

    def __init__(self, ch: ClickHouse, outlet: Outlet, roles: Roles, explain: Explain, clock: Clock) -> None:
        self._ch = ch
        self._announcer = Announcer(ch, outlet, clock)
        self._requester = Requester(ch, outlet, clock)
        self._roles = roles
        self._explain = explain
        self._clock = clock

    def judge(self, history: ModelHistory, newest_start: int) -> list[Alert]:
        """Store and send the state changes that follow from what is measured now, and the retrain requests.

        `newest_start` is the start of the newest measured window (epoch ms).

        1. read the last alert of each rule and segment, and the windows since then;
        2. decide each window, and let the alert machine say what follows;
        3. store the state changes, wait for the store;
        4. send them, wait for the log;
        5. store and send the retrain requests that are due;
        6. store up to where this was judged.
        """
        spec = history.latest.spec
        measured_at = read_newest_measured_at(self._ch, spec.model)
        last = read_last_alerts(self._ch, spec.model)
        since = min(
            (_read_from(last, name, "") for name, rule in name_rules(spec) if rule.when in ("harm", "drift")), default=0
        )
        windows = self._read_windows(spec, since)
        alerts: list[Alert] = []
        # Per rule the end of the newest window that was decided.
        judged_to: dict[str, int] = {}
        for name, rule in name_rules(spec):
            if rule.when == "harm":
                alerts += self._judge_harm(history, name, rule, last.get((name, "")), windows, judged_to)
            elif rule.when == "drift":
                alerts += self._judge_drift(history, name, rule, last, windows, newest_start, judged_to)
            elif rule.when == "fairness":
                alerts += self._judge_fairness(spec, name, rule, last, judged_to)
        self._announcer.announce(spec, alerts)
        self._requester.ask(history, newest_start + spec.windows.size_ms, judged_to)
        insert_judgement(self._ch, spec.model, measured_at, self._clock.now_ms())
        return alerts

    def repeat(self, history: ModelHistory) -> None:
        """Send the newest alerts and requests again, in case a process died between storing and sending."""
        self._announcer.repeat(history.latest.spec, lambda rule: rule != FRESHNESS)
        self._requester.repeat(history.latest.model)

    def _read_windows(self, spec: ModelSpec, since_ms: int) -> dict[Window, JudgedWindow]:
        """Decide every window since then, each by the version that speaks for it."""
        metric = spec.performance.metrics[0]
        labelled = has_labels(self._ch, spec.model)
        by_window: dict[Window, dict[str, dict[str, PerformanceRow]]] = {}
        for row in read_performance(self._ch, spec.model, metric, since_ms):
            versions = by_window.setdefault((row.window_start, row.window_end), {})
            versions.setdefault(row.model_version, {})[row.kind] = row
        judged = {}
        for window, versions in by_window.items():
            sizes = {name: max(row.num_rows for row in rows.values()) for name, rows in versions.items()}
            version = self._find_headline(spec.model, window[0], sizes)
            rows = versions.get(version, {})
            verdict = judge_harm(metric, rows.get("performance"), rows.get("estimate"), has_labels=labelled)
            judged[window] = JudgedWindow(*window, version, verdict)
        return judged

    def _find_headline(self, model: str, window_start: int, num_rows: Mapping[str, int]) -> str:
        """Return the version that speaks for a window, given how many rows each has there; '' without any."""
        roles = self._roles.at(model, window_start)
        champion = None if roles is None else roles.roles.get("champion")
        return choose_headline(champion, num_rows) or ""

    def _judge_harm(
        self,
        history: ModelHistory,
        name: str,
        rule: AlertRule,
        last: LastAlert | None,
        windows: Mapping[Window, JudgedWindow],
        judged_to: dict[str, int],
    ) -> list[Alert]:
        observations = [
            Observation(*window, each.verdict.decision, each.verdict.reading.revision if each.verdict.reading else 0)
            for window, each in sorted(windows.items())
        ]
        _note_decided(judged_to, name, observations)
        spec = history.latest.spec
        alerts = []
        for transition in advance(observations, _stand(last), rule.for_):
            judged = windows.get((transition.window_start, transition.window_end))
            verdict = None if judged is None else judged.verdict
            version = "" if judged is None else judged.model_version
            explained = self._explain_window(history, transition) if transition.state == "firing" else []
            reading = None if verdict is None else verdict.reading
            alerts.append(
                self._make_alert(
                    spec,
                    name,
                    "",
                    transition,
                    severity=rule.severity,
                    model_version=version,
                    kind=reading.kind if reading else "performance",
                    metric=spec.performance.metrics[0],
                    value=reading.value if reading else None,
                    threshold=verdict.threshold if verdict else None,
                    harm=verdict.harm if verdict else None,
                    reason=describe_harm(spec.performance.metrics[0], transition, verdict, version, explained),
                    evidence=list_limits(reading) | list_explained(explained),
                )
            )
        return alerts

    def _judge_drift(
        self,
        history: ModelHistory,
        name: str,
        rule: AlertRule,
        last: Mapping[tuple[str, str], LastAlert],
        windows: Mapping[Window, JudgedWindow],
        newest_start: int,
        judged_to: dict[str, int],
    ) -> list[Alert]:
        spec = history.latest.spec
        segments = {segment for rule_name, segment in last if rule_name == name} | {""}
        since = min(_read_from(last, name, segment) for segment in segments)
        since = max(since, newest_start - _NUM_DRIFT_WINDOWS * spec.windows.size_ms)
        by_segment = self._read_drift(spec, since)
        alerts = []
        for segment in sorted(segments | set(by_segment)):
            standing = last.get((name, segment))
            decided = decide_windows(by_segment.get(segment, {}), _stand(standing))
            readings = {(each.observation.window_start, each.observation.window_end): each.reading for each in decided}
            transitions = advance([each.observation for each in decided], _stand(standing), rule.for_)
            if not segment:
                _note_decided(judged_to, name, [each.observation for each in decided])
            if standing is not None and not segment and (news := find_news(standing, windows)):
                transitions = [news, *transitions]
            for transition in transitions:
                window = (transition.window_start, transition.window_end)
                reading, judged = readings.get(window), windows.get(window)
                # Before the rows are stored there is nothing to explain with, and nothing known of harm.
                is_known = transition.state == "firing" and not segment and judged is not None
                is_over = transition.cause == "relieved"
                explained = self._explain_window(history, transition) if is_known and not is_over else []
                alerts.append(
                    self._make_drift_alert(spec, name, rule, segment, transition, standing, reading, judged, explained)
                )
        return alerts

    def _read_drift(self, spec: ModelSpec, since_ms: int) -> dict[str, dict[Window, list[DriftRow]]]:
        """Per segment and window what was tested: inputs, and outputs of the version that speaks; no shadow's."""
        rows = read_drift(self._ch, spec.model, since_ms, is_calibrated=spec.drift.threshold == "calibrated")
        found: dict[str, dict[Window, list[DriftRow]]] = {}
        for window, tested in group_by_window(rows, spec.windows.size_ms).items():
            sizes = {row.model_version: row.num_rows for row in tested if row.model_version and not row.segment}
            version = self._find_headline(spec.model, window[0], sizes)
            for row in tested:
                if row.model_version in ("", version):
                    found.setdefault(row.segment, {}).setdefault(window, []).append(row)
        return found

    def _make_drift_alert(
        self,
        spec: ModelSpec,
        name: str,
        rule: AlertRule,
        segment: str,
        transition: Transition,
        standing: LastAlert | None,
        row: DriftRow | None,
        judged: JudgedWindow | None,
        explained: Sequence[Explanation],
    ) -> Alert:
        verdict = None if judged is None else judged.verdict
        severity = rule.severity
        if transition.state == "resolved" and standing is not None:
            # Whoever was told that it fires is told that it is over.
            severity = standing.severity
        elif verdict is not None and verdict.decision == "alert" and not segment:
            severity = _raise_severity(spec, rule)
        return self._make_alert(
            spec,
            name,
            segment,
            transition,
            severity=severity,
            model_version=row.model_version if row else "",
            kind="drift",
            metric=row.metric if row else "",
            feature=row.feature if row else "",
            value=row.value if row else None,
            threshold=row.threshold if row else None,
            harm=verdict.harm if verdict else None,
            reason=describe_drift(spec, transition, row, judged, explained),
            evidence=list_tested(row) | list_explained(explained),
        )

    def _judge_fairness(
        self,
        spec: ModelSpec,
        name: str,
        rule: AlertRule,
        last: Mapping[tuple[str, str], LastAlert],
        judged_to: dict[str, int],
    ) -> list[Alert]:
        """One alert a segment key: a window is unfair where any disparity of the version that speaks is."""
        since = min(_read_from(last, name, key) for key in spec.segments)
        by_key: dict[str, dict[Window, list[FairnessRow]]] = {}
        for row in read_fairness(self._ch, spec.model, since):
            by_key.setdefault(row.segment, {}).setdefault((row.window_start, row.window_end), []).append(row)
        alerts = []
        for key, by_window in sorted(by_key.items()):
            observations, readings = [], {}
            for window, rows in sorted(by_window.items()):
                version = self._find_headline(spec.model, window[0], {row.model_version: row.num_rows for row in rows})
                mine = [row for row in rows if row.model_version == version]
                if mine:
                    # The first that is unfair, by name.
                    readings[window] = row = min(mine, key=lambda each: (each.status != "alert", each.metric))
                    decision: Decision = "alert" if row.status == "alert" else "ok"
                    observations.append(Observation(*window, decision, max(each.revision for each in mine)))
            standing = last.get((name, key))
            _note_decided(judged_to, name, observations)
            for transition in advance(observations, _stand(standing), rule.for_):
                reading = readings.get((transition.window_start, transition.window_end))
                alerts.append(
                    self._make_alert(
                        spec,
                        name,
                        key,
                        transition,
                        severity=rule.severity,
                        model_version=reading.model_version if reading else "",
                        kind="fairness",
                        metric=reading.metric if reading else "",
                        value=reading.value if reading else None,
                        threshold=reading.threshold if reading else None,
                        harm=None,
                        reason=describe_fairness(transition, reading, key),
                    )
                )
        return alerts

    def _make_alert(
        self, spec: ModelSpec, rule: str, segment: str, transition: Transition, *, severity: Severity, **told: Any
    ) -> Alert:
        name = identity.alert_id(spec.model, rule, segment, transition.first_window_start)
        return Alert(
            alert_id=name,
            transition_id=identity.transition_id(
                name,
                transition.cause if transition.cause in AGAIN else transition.state,
                transition.window_start,
                transition.revision,
            ),
            model=spec.model,
            rule=rule,
            segment=segment,
            severity=severity,
            state=transition.state,
            window_start=transition.window_start,
            window_end=transition.window_end,
            at=self._clock.now_ms(),
            revision=transition.revision,
            **{"feature": "", **told},
        )

    def _explain_window(self, history: ModelHistory, transition: Transition) -> list[Explanation]:
        """Say what a window is made of and which change hurts; an alert goes out without it rather than not at all."""
        published = history.in_force(transition.window_start)
        drifted = read_most_drifted(self._ch, published.model, transition.window_start, _NUM_EXPLAINED)
        if not drifted:
            return []
        features = [feature for feature, _, _ in drifted]
        try:
            return self._explain(published, transition.window_start, transition.window_end, features)
        except Retryable as error:
            log.warning("%s: the alert goes out without evidence: %s", published.model, error)
            return []


def _read_from(last: Mapping[tuple[str, str], LastAlert], rule: str, segment: str) -> int:
    """Return the first window that the rule needs: an open alert's first one, or the one that settled the last."""
    alert = last.get((rule, segment))
    if alert is None:
        return _EARLIEST_MS
    return alert.window_start if alert.state == "resolved" else alert.first_window_start


def _note_decided(judged_to: dict[str, int], rule: str, observations: Sequence[Observation]) -> None:
    """Keep the end of the newest window of a rule that was decided."""
    ends = [each.window_end for each in observations if each.decision != "unknown"]
    judged_to[rule] = max([judged_to.get(rule, 0), *ends])


def _stand(last: LastAlert | None) -> Standing | None:
    if last is None:
        return None
    assert last.state in ("pending", "firing", "resolved")
    return msgspec.convert(
        {
            "state": last.state,
            "first_window_start": last.first_window_start,
            "window_start": last.window_start,
        },
        Standing,
    )


def _raise_severity(spec: ModelSpec, rule: AlertRule) -> Severity:
    """Drift that hurts is as urgent as harm itself."""
    order: list[Severity] = ["info", "low", "high", "critical"]
    harm = [each.severity for _, each in name_rules(spec) if each.when == "harm"] or ["high"]
    return max([rule.severity, harm[0]], key=order.index)
