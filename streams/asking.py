"""Asks for retraining: finds what may ask, lets the policy decide, stores the requests, and sends them.

Nothing is remembered but what was said in the log: causes and earlier requests are read from the store, so asking
again asks for nothing new. Requests are stored before they are sent, and those that no trainer has taken are sent
again by a monitor that starts; their ids do not change.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from schemas import identity
from schemas.clock import Clock
from schemas.events import RetrainRequest
from schemas.spec import ModelHistory, ModelSpec
from store.alerts import read_fired_alerts
from store.client import ClickHouse
from store.jobs import read_first_row_at
from store.retrain_requests import count_labels, insert_requests, read_requests, read_trained_to, read_untaken
from streams.logic.policy import (
    Asked,
    Cause,
    Decision,
    Fired,
    decide_retraining,
    find_alert_cause,
    find_labels_cause,
    find_schedule_cause,
)
from streams.outlet import Outlet

log = logging.getLogger(__name__)

# An alert that is over asks only if it fired this short ago: a section `retrain` that is added to a spec does not ask
# for what happened long before. Longer than any restart takes.
_RECENT_MS = 24 * 3_600_000


class LabelCount(NamedTuple):
    """How many labels have come since an event time (epoch ms)."""

    num_labels: int
    since: int


class Triggers(NamedTuple):
    """What a look at the store gives: what may ask, what was asked, and why other alerts are no cause."""

    causes: list[Cause]
    asked: list[Asked]
    passed_over: dict[str, str]
    labels: LabelCount | None


class Requester:
    """Makes the requests of models; safe to repeat, since their ids follow from what caused them."""

    def __init__(self, ch: ClickHouse, outlet: Outlet, clock: Clock) -> None:
        self._ch = ch
        self._outlet = outlet
        self._clock = clock
        self._said: dict[tuple[str, str, int], str] = {}

    def ask(self, history: ModelHistory, now_ms: int, judged_to: Mapping[str, int]) -> list[RetrainRequest]:
        """Make the requests that are due at an event time, the end of the newest measured window.

        1. read what may ask, and what was asked;
        2. decide;
        3. store the requests, wait for the store;
        4. send them, wait for the log.
        """
        spec = history.latest.spec
        if spec.retrain is None:
            return []
        triggers = read_triggers(self._ch, history, now_ms, judged_to, self._clock.now_ms())
        decisions = decide_retraining(triggers.causes, triggers.asked, spec.retrain)
        for each in decisions:
            self._say(spec, each)
        made = [(make_request(spec, each.cause, self._clock.now_ms()), each) for each in decisions if each.wanted]
        insert_requests(self._ch, [(request, each.cause.first, each.at) for request, each in made])
        requests = [request for request, _ in made]
        if requests:
            self._outlet.send("retrain-requests", requests, spec.model)
        return requests

    def repeat(self, model: str) -> None:
        """Send again what no trainer has taken, in case a process died between storing and sending."""
        untaken = set(read_untaken(self._ch, model))
        requests = [each.decode() for each in read_requests(self._ch, model) if each.request_id in untaken]
        if requests:
            self._outlet.send("retrain-requests", requests, model)

    def _say(self, spec: ModelSpec, decision: Decision) -> None:
        """Log a decision once, not at every look."""
        cause = decision.cause
        key = (spec.model, cause.rule, cause.first)
        if decision.state != "asked" and self._said.get(key) != decision.state:
            verb = "asked for" if decision.wanted else "not asked for"
            log.info("%s: retraining is %s: %s", spec.model, verb, decision.reason)
            self._said[key] = decision.state


def read_triggers(
    ch: ClickHouse, history: ModelHistory, now_ms: int, judged_to: Mapping[str, int], clock_ms: int
) -> Triggers:
    """Read what may ask for a retraining at an event time; `judged_to` as for `find_alert_cause`."""
    spec = history.latest.spec
    retrain = spec.retrain
    assert retrain is not None
    asked = [Asked(each.rule, each.first, each.due) for each in read_requests(ch, spec.model)]
    causes, passed_over = [], {}
    for alert in read_fired_alerts(ch, spec.model):
        if alert.resolved_window_start is not None and alert.fired_at < clock_ms - _RECENT_MS:
            continue
        fired = Fired(
            alert.rule,
            alert.segment,
            alert.alert_id,
            alert.first_window_start,
            alert.fired_window_end,
            alert.resolved_window_start,
        )
        cause = find_alert_cause(fired, spec, judged_to)
        if isinstance(cause, str):
            passed_over[alert.alert_id] = cause
        else:
            causes.append(Cause(cause.rule, cause.first, cause.due, cause.held_to, cause.alert_id, alert.reason))
    labels = None
    if retrain.schedule is not None or retrain.new_labels is not None:
        begun = read_first_row_at(ch, spec.model)
        if begun is not None and retrain.schedule is not None:
            since = max(begun, find_declared_from(history))
            causes += _list(find_schedule_cause(retrain.schedule, now_ms, since))
        if begun is not None and retrain.new_labels is not None:
            since = max([read_trained_to(ch, spec.model) or 0, *(each.due for each in asked)])
            labels = LabelCount(count_labels(ch, spec.model, since), since)
            causes += _list(find_labels_cause(retrain.new_labels, labels.num_labels, since, now_ms))
    return Triggers(causes, asked, passed_over, labels)


def find_declared_from(history: ModelHistory) -> int:
    """Return the event time (epoch ms) from which on the model has had its present schedule."""
    versions = sorted(history.versions, key=lambda each: each.spec_version, reverse=True)
    schedule = versions[0].spec.retrain.schedule if versions[0].spec.retrain else None
    since = versions[0].effective_from
    for published in versions[1:]:
        if published.spec.retrain is None or published.spec.retrain.schedule != schedule:
            break
        since = published.effective_from
    return since


def make_request(spec: ModelSpec, cause: Cause, clock_ms: int) -> RetrainRequest:
    """Give the request of a cause; but for the clock, always the same."""
    size_ms = spec.windows.size_ms
    return RetrainRequest(
        request_id=identity.request_id(spec.model, cause.rule, cause.first),
        model=spec.model,
        rule=cause.rule,
        trigger_alert_id=cause.alert_id,
        reason=cause.reason,
        # Of an alert the first window, to train on; of others when they asked, on the newest rows.
        first_window_start=cause.first if cause.alert_id else cause.due,
        first_window_end=(cause.first if cause.alert_id else cause.due) + size_ms,
        window_size_ms=size_ms,
        requested_at=clock_ms,
    )


def _list(cause: Cause | None) -> list[Cause]:
    return [] if cause is None else [cause]
