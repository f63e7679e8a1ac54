"""What asks for a retraining: alerts of the declared rules, schedules and labels, within cooldown and budget."""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.spec import ModelSpec, parse_spec
from streams.logic.policy import (
    Asked,
    Cause,
    Fired,
    decide_retraining,
    find_alert_cause,
    find_labels_cause,
    find_next_slot,
    find_schedule_cause,
)

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS


def spec(retrain: str = "on: [harm]") -> ModelSpec:
    text = (
        "model: fraud\ntask: binary\nreference: r.parquet\nwindows: {size: 1h}\nsegments: [country]\n"
        "fairness: {demographic_parity: 0.1}\nalerts: [{when: harm}, {when: drift}, {when: fairness}]\n"
        f"retrain: {{{retrain}}}\n"
    )
    return parse_spec(text, "fraud.yaml")


def fired(hour: int, rule: str = "harm", segment: str = "", resolved: int | None = None) -> Fired:
    """An alert about the window that begins at an hour."""
    over = None if resolved is None else resolved * HOUR_MS
    return Fired(rule, segment, f"{rule}-{segment}-{hour}", hour * HOUR_MS, (hour + 1) * HOUR_MS, over)


def ask(*alerts: Fired, retrain: str = "on: [harm]", now: int = 0, asked: tuple[Asked, ...] = ()) -> list[int]:
    """The hours, in event time, at which alerts ask, given that windows up to `now` are decided."""
    declared = spec(retrain)
    assert declared.retrain is not None
    causes = [find_alert_cause(each, declared, {"harm": now * HOUR_MS, "drift": now * HOUR_MS}) for each in alerts]
    decided = decide_retraining([each for each in causes if isinstance(each, Cause)], asked, declared.retrain)
    return [each.at // HOUR_MS for each in decided if each.wanted]


def test_only_declared_rules_and_whole_models_ask() -> None:
    assert ask(fired(0)) == [1]
    assert ask(fired(0, rule="drift")) == []
    assert ask(fired(0, rule="drift"), retrain="on: [harm, drift]") == [1]
    assert ask(fired(0, segment="country=DE")) == []
    # An alert of fairness is always about a segment key.
    assert ask(fired(0, rule="fairness", segment="country"), retrain="on: [fairness]") == [1]
    said = find_alert_cause(fired(0, rule="drift"), spec(), {})
    assert said == "rule drift is not among those that retrain (harm)"


def test_the_cooldown_counts_from_the_last_alert_that_asked() -> None:
    over = {"resolved": 1}
    assert ask(fired(0, **over), fired(5, resolved=6)) == [1]
    assert ask(fired(0, **over), fired(6, resolved=7)) == [1, 7]
    # The one at 5 did not ask, so it does not begin a cooldown of its own.
    assert ask(fired(0, **over), fired(5, resolved=6), fired(6, resolved=7)) == [1, 7]
    assert ask(fired(3, resolved=4), fired(0, rule="drift"), fired(1, segment="country=DE")) == [4]


def test_an_alert_that_still_stands_when_the_cooldown_is_over_asks_then() -> None:
    asked = (Asked("harm", 0, HOUR_MS),)
    assert ask(fired(5), now=6, asked=asked) == []
    assert ask(fired(5), now=7, asked=asked) == [7]
    assert ask(fired(5, resolved=6), now=20, asked=asked) == []
    # And one that has asked does not ask again, however long it stands.
    assert ask(fired(0), now=100, asked=asked) == []


def test_an_alert_must_have_stood_for_as_many_windows_as_declared() -> None:
    retrain = "on: [harm], for: 3"
    assert [ask(fired(4), retrain=retrain, now=now) for now in (5, 6, 7)] == [[], [], [7]]
    assert ask(fired(4, resolved=6), retrain=retrain, now=50) == []
    assert ask(fired(4, resolved=7), retrain=retrain, now=50) == [7]


def test_a_budget_of_requests_is_counted_over_the_time_before() -> None:
    retrain = "on: [harm], cooldown: 1h, budget: {jobs: 2, per: 1d}"
    asked = (Asked("harm", 0, 1 * HOUR_MS), Asked("schedule", 9, 9 * HOUR_MS))
    assert ask(fired(12, resolved=13), retrain=retrain, asked=asked) == []
    assert ask(fired(24, resolved=25), retrain=retrain, asked=asked) == [25]
    assert ask(fired(12), retrain=retrain, asked=asked, now=24) == []
    assert ask(fired(12), retrain=retrain, asked=asked, now=25) == [25]
    declared = spec(retrain)
    assert declared.retrain is not None
    cause = find_alert_cause(fired(12, resolved=13), declared, {})
    assert isinstance(cause, Cause)
    (decision,) = decide_retraining([cause], asked, declared.retrain)
    assert (decision.state, decision.reason) == ("budget", "the budget of 2 requests is used up (43200 s are left)")


def test_a_schedule_asks_once_for_its_newest_time_since_the_data_began() -> None:
    monday = int(datetime(2026, 1, 5, 3, tzinfo=UTC).timestamp() * 1000)
    line = "0 3 * * 1"
    assert find_schedule_cause(line, monday - 1, monday - HOUR_MS) is None
    assert find_schedule_cause(line, monday, monday) is None
    for now in (monday, monday + 1, monday + 999, monday + WEEK_MS - 1):
        cause = find_schedule_cause(line, now, 0)
        assert cause is not None
        assert (cause.rule, cause.first, cause.due) == ("schedule", monday, monday)
    assert find_next_slot(line, monday) == monday + WEEK_MS
    declared = spec('schedule: "0 3 * * 1", cooldown: 1d')
    assert declared.retrain is not None
    cause = find_schedule_cause(line, monday + HOUR_MS, 0)
    assert cause is not None
    (decision,) = decide_retraining([cause], [], declared.retrain)
    assert (decision.wanted, decision.at) == (True, monday)
    (again,) = decide_retraining([cause], [Asked("schedule", monday, monday)], declared.retrain)
    assert again.state == "asked"
    (held,) = decide_retraining([cause], [Asked("harm", 0, monday - HOUR_MS)], declared.retrain)
    assert held.state == "cooldown"


def test_new_labels_ask_when_there_are_enough() -> None:
    assert find_labels_cause(100, 99, 0, HOUR_MS) is None
    cause = find_labels_cause(100, 1_234, 5, HOUR_MS)
    assert cause is not None
    assert (cause.first, cause.due) == (5, HOUR_MS)
    assert cause.reason == "1,234 labels have come since the last training, 100 are enough"
