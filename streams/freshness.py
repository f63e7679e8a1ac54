"""Judges how old the data of models is: opens an alert where a topic is without events, resolves it when they come.

The clock is asked for the time of an alert only: that nothing has come is known from stage 1's markers
(`streams.logic.freshness`). Nothing is remembered but what was sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from schemas import identity
from schemas.clock import Clock
from schemas.events import Alert
from schemas.instants import format_instant
from schemas.spec import ModelHistory, ModelSpec
from store.alerts import LastAlert, read_last_of_rule
from store.client import ClickHouse
from store.summaries import read_markers
from streams.announcing import Announcer
from streams.logic.alerts import Standing
from streams.logic.freshness import RULE, AgeLimit, Change, TopicAge, find_age, follow_topic, list_limits
from streams.logic.policy import name_rules
from streams.outlet import Outlet
from streams.wording import describe_freshness


class FreshnessJudge:
    """Judges many models at once; for one thread."""

    def __init__(
        self,
        ch: ClickHouse,
        job: str,
        topic_of: Mapping[str, str],
        partitions: Callable[[], Mapping[tuple[str, str], int]],
        outlet: Outlet,
        clock: Clock,
    ) -> None:
        """`topic_of` names the inbound topics; `partitions` gives the present ones' sizes by (topic, topic_id)."""
        self._ch = ch
        self._job = job
        self._topic_of = topic_of
        self._partitions = partitions
        self._announcer = Announcer(ch, outlet, clock)
        self._clock = clock
        self._repeated: set[str] = set()

    def judge(self, histories: Mapping[str, ModelHistory]) -> list[Alert]:
        """Store and send the state changes of models that follow from what is read; models without the rule are free.

        What an earlier process stored and may not have sent is sent again, once. Raises `Retryable` when something
        outside is away; the next call goes on.
        """
        # A rule that was taken out of a spec may have left an alert open.
        ruled = {model: each for model, each in histories.items() if any(list_limits(v.spec) for v in each.versions)}
        self._repeated &= ruled.keys()
        if not ruled:
            return []
        # Before the alerts: what comes meanwhile can only resolve what opens, at the next look.
        sizes, markers = self._partitions(), read_markers(self._ch, self._job)
        last = read_last_of_rule(self._ch, RULE)
        alerts = []
        for model, history in ruled.items():
            spec, limits = history.latest.spec, list_limits(history.latest.spec)
            declared_ms = history.versions[0].published_at
            made = []
            for topic, name in self._topic_of.items():
                age, limit, known = find_age(markers, model, name, sizes), limits.get(topic), last.get((model, topic))
                changes = follow_topic(age, limit, declared_ms, _stand(known))
                made += [self._make_alert(spec, topic, change, limit, age, known) for change in changes]
            self._announce(spec, made)
            alerts += made
        return alerts

    def _announce(self, spec: ModelSpec, alerts: list[Alert]) -> None:
        try:
            if spec.model not in self._repeated:
                self._announcer.repeat(spec, lambda rule: rule == RULE)
            self._announcer.announce(spec, alerts)
        except BaseException:
            # What was stored may not have been sent.
            self._repeated.discard(spec.model)
            raise
        self._repeated.add(spec.model)

    def _make_alert(
        self,
        spec: ModelSpec,
        topic: str,
        change: Change,
        limit: AgeLimit | None,
        age: TopicAge | None,
        last: LastAlert | None,
    ) -> Alert:
        name = identity.alert_id(spec.model, RULE, topic, change.first_ms)
        severity = next((rule.severity for _, rule in name_rules(spec) if rule.when == RULE), None)
        if severity is None or (change.state == "resolved" and last is not None):
            # Whoever was told that it fires is told that it is over.
            assert last is not None, "without a rule nothing opens"
            severity = last.severity
        newest_ms = None if age is None else age.newest_ms
        return Alert(
            alert_id=name,
            # One of each state: it does not matter which event was the newest when somebody looked.
            transition_id=identity.transition_id(name, change.state, change.first_ms, 0),
            model=spec.model,
            model_version="",
            rule=RULE,
            kind="quality",
            feature="",
            metric="age_s",
            segment=topic,
            severity=severity,
            state=change.state,
            value=(change.until_ms - change.first_ms) / 1000 if change.state == "firing" else None,
            threshold=None if limit is None else limit.max_age_ms / 1000,
            harm=None,
            reason=describe_freshness(topic, change, limit, newest_ms),
            window_start=change.first_ms,
            window_end=change.until_ms,
            at=self._clock.now_ms(),
            evidence={
                "newest_event_at": None if newest_ms is None else format_instant(newest_ms),
                "read_to": None if age is None else format_instant(age.read_to_ms),
            },
        )


def _stand(last: LastAlert | None) -> Standing | None:
    if last is None:
        return None
    assert last.state in ("pending", "firing", "resolved")
    return Standing(last.state, last.first_window_start, last.window_start)  # type: ignore[arg-type]
