"""Freshness: whose events count, which topics are meant, and what becomes of an alert that nobody asks for any more."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigurationError
from schemas.spec import parse_spec
from store.summaries import Marker, Place
from streams.logic.alerts import Standing
from streams.logic.freshness import AgeLimit, Change, TopicAge, find_age, follow_topic, list_limits
from streams.logic.watermarks import EVERY_VERSION, INPUTS

SPEC = "model: m\ntask: binary\nreference: {file: r.parquet}\nwindows: {size: 1h}\n"
LIMIT = AgeLimit(60_000, is_named=False)
SIZES = {("t-records", "life-2"): 2, ("t-predictions", "life-2"): 1}


def limits(rule: str) -> dict[str, AgeLimit]:
    return list_limits(parse_spec(f"{SPEC}alerts: [{{when: harm}}, {{when: freshness, {rule}}}]\n", "m.yaml"))


def marker(partition: int, at_end_at: int, life: str = "life-2", **append_ms: int) -> Marker:
    versions = {name.strip("_"): (5, ms) for name, ms in append_ms.items()}
    return Marker(Place("t-records", life, partition), 1, {"m": versions, "other": {INPUTS: (5, 9_999)}}, at_end_at)


def test_one_duration_means_what_comes_by_itself_and_names_mean_themselves() -> None:
    assert limits("max_age: 1m") == {"records": LIMIT, "predictions": LIMIT}
    assert limits("max_age: {labels: 2d}") == {"labels": AgeLimit(172_800_000, is_named=True)}
    assert list_limits(parse_spec(SPEC, "m.yaml")) == {}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("severity: low", r"alerts\[1\].max_age: this key is missing. Say how long a topic may be without an event"),
        ("max_age: 1s", r"alerts\[1\].max_age: '1s' is too short to be noticed. Write 10s or more"),
        ("max_age: soon", r"alerts\[1\].max_age: 'soon' is no duration"),
        ("max_age: {}", r"alerts\[1\].max_age: no topic is named. Name some of records, predictions, labels"),
        ("max_age: {label: 1d}", r"alerts\[1\].max_age.label: there is no key 'label' here. Did you mean 'labels'?"),
        ("max_age: 1m, for: 2", r"alerts\[1\].for: a rule of freshness has no `for`"),
        ("max_age: 1m, report: no", r"alerts\[1\].report: a rule of freshness has no `report`"),
    ],
)
def test_mistakes_are_told(rule: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        limits(rule)


def test_no_other_rule_has_an_age_and_no_retraining_waits_for_freshness() -> None:
    with pytest.raises(ConfigurationError, match=r"alerts\[0\].max_age: a rule of harm has no `max_age`"):
        parse_spec(f"{SPEC}alerts: [{{when: harm, max_age: 1m}}]\n", "m.yaml")
    with pytest.raises(ConfigurationError, match=r"retrain.on\[0\]: 'freshness' is not one of harm, drift, fairness"):
        parse_spec(f"{SPEC}alerts: [{{when: freshness, max_age: 1m}}]\nretrain: {{on: [freshness]}}\n", "m.yaml")


def test_the_newest_event_and_the_slowest_partition_count() -> None:
    found = find_age([marker(0, 900, _=300, v1=400), marker(1, 800, v2=350)], "m", "t-records", SIZES)
    assert found == TopicAge(400, 800)


def test_watermark_messages_other_models_and_former_lives_are_no_events() -> None:
    floor = Marker(Place("t-records", "life-2", 0), 1, {"m": {EVERY_VERSION: (5, 700)}}, 900)
    former = [marker(index, 5_000, "life-1", _=4_000) for index in (0, 1)]
    assert find_age([floor, marker(1, 800), *former], "m", "t-records", SIZES) == TopicAge(None, 800)


@pytest.mark.parametrize(
    "known", [[], [marker(0, 900, _=300)], [marker(0, 900, _=300), marker(1, 0, _=1)], [marker(0, 9, "life-1")] * 2]
)
def test_nothing_is_known_before_every_partition_was_read_to_its_end(known: list[Marker]) -> None:
    assert find_age(known, "m", "t-records", SIZES) is None


def test_a_topic_that_is_not_there_has_no_age() -> None:
    assert find_age([marker(0, 900, _=300), marker(1, 900)], "m", "t-records", {}) is None


def test_before_the_first_event_only_what_is_named_is_waited_for_since_the_declaration() -> None:
    never = TopicAge(None, 200_000)
    assert follow_topic(never, LIMIT, 100_000, None) == []
    named = AgeLimit(60_000, is_named=True)
    assert follow_topic(never, named, 100_000, None) == [Change("firing", 100_000, 200_000, "silent")]
    assert follow_topic(never, named, 140_001, None) == []


def test_a_model_declared_anew_is_given_its_time() -> None:
    assert follow_topic(TopicAge(1_000, 200_000), LIMIT, 150_000, None) == []


def test_a_longer_limit_leaves_an_open_alert_open() -> None:
    standing = Standing("firing", 1_000, 1_000)
    assert follow_topic(TopicAge(1_000, 200_000), AgeLimit(10**9, is_named=False), 0, standing) == []


def test_what_nobody_asks_for_any_more_resolves_and_does_not_open_again_on_the_same_silence() -> None:
    age = TopicAge(1_000, 200_000)
    assert follow_topic(age, None, 0, Standing("firing", 1_000, 1_000)) == [Change("resolved", 1_000, 1_000, "unasked")]
    assert follow_topic(age, LIMIT, 0, Standing("resolved", 1_000, 1_000)) == []


def test_a_new_silence_that_began_while_nobody_looked_ends_one_alert_and_opens_another() -> None:
    found = follow_topic(TopicAge(50_000, 200_000), LIMIT, 0, Standing("firing", 1_000, 1_000))
    assert found == [Change("resolved", 1_000, 50_000, "came"), Change("firing", 50_000, 200_000, "silent")]
