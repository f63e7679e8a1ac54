"""Specs: what the file may say, what it defaults to, and how mistakes are told."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.declarations import DRIFT_METHODS
from schemas.errors import ConfigurationError
from schemas.spec import (
    AlertRule,
    Catalogue,
    FalseAlarms,
    FeatureSpec,
    OnlineSpec,
    complete_spec,
    decode_published,
    encode_published,
    parse_spec,
    split_key,
)
from tests.samples import publish

SMALLEST = """\
model: fraud
task: binary
reference: {file: reference.parquet}
windows: {size: 1h}
"""
LARGEST = """\
model: fraud
task: binary
reference:
  from: 2026-01-01
  to: 2026-02-01T00:00:00+01:00
  columns: {label: repaid, score: y_proba, prediction: y_pred}
  interval: 1s
windows: {size: 1h, origin: 2026-01-01, lateness: 5m, min_rows: 50, retention: 30 windows, idle: 10s}
features:
  amount: {type: number, min: 0}
  country: {type: category, policy: hash}
  age: {min: 0}
segments: [country]
drift: {method: auto, threshold: calibrated, false_alarms: 1 per 30d, rows: independent}
online: [{detector: adwin, on: score, parameters: {delta: 0.01}}]
performance: {metrics: [roc_auc], estimate: cbpe, limits: 3sd, min_label_coverage: 0.9}
alerts: [{when: harm, for: 2, severity: critical}]
retrain: {on: [harm], cooldown: 6h, architecture: mlp, resources: {memory: 4GiB}, promote: {confidence: 0.95}}
exact_rows: 1000
"""


def test_smallest_spec_takes_the_defaults():
    spec = parse_spec(SMALLEST, "fraud.yaml")
    assert (spec.windows.size_ms, spec.windows.lateness_ms, spec.windows.origin_ms) == (3_600_000, 60_000, 0)
    assert (spec.windows.min_rows, spec.windows.retention, spec.windows.idle_ms) == (100, 30, 30_000)
    assert spec.performance.metrics[0] == "roc_auc"
    assert (spec.performance.estimate, spec.performance.limits) == ("cbpe", "calibrated")
    assert spec.alerts == [AlertRule(when="harm", severity="high"), AlertRule(when="drift", severity="info")]
    assert (spec.retrain, spec.features, spec.exact_rows) == (None, {}, 50_000)
    assert spec.drift.false_alarms == FalseAlarms(1.0, 30 * 86_400_000)


def test_largest_spec():
    spec = parse_spec(LARGEST, "fraud.yaml")
    assert (spec.reference.from_, spec.reference.to) == (1_767_225_600_000, 1_769_900_400_000)
    assert (spec.reference.columns.label, spec.reference.interval_ms) == ("repaid", 1000)
    assert spec.windows.origin_ms == 1_767_225_600_000
    assert spec.features["age"] == FeatureSpec(type="auto", min=0)
    assert spec.features["country"].policy == "hash"
    assert spec.online == [OnlineSpec(detector="adwin", on="score", parameters={"delta": 0.01})]
    assert spec.alerts == [AlertRule(when="harm", for_=2, severity="critical")]
    assert spec.retrain is not None
    assert (spec.retrain.cooldown_ms, spec.retrain.resources.memory_bytes) == (21_600_000, 4 * 2**30)


def test_alerts_of_harm_and_drift_have_reports_unless_told_otherwise():
    fair = SMALLEST + "segments: [country]\nfairness: {demographic_parity: 0.1}\n"
    rules = "alerts: [{when: harm}, {when: drift, report: false}, {when: fairness}]\n"
    assert [rule.report for rule in parse_spec(fair + rules, "f").alerts] == [True, False, False]
    asked = parse_spec(fair + rules.replace("fairness}", "fairness, report: yes}"), "f")
    assert [rule.report for rule in asked.alerts] == [True, False, True]
    with pytest.raises(ConfigurationError, match=r"f:\d+: alerts\[1\].report: true or false is expected"):
        parse_spec(fair + rules.replace("false", "often"), "f")


@pytest.mark.parametrize("method", DRIFT_METHODS)
def test_every_drift_method_can_be_asked_for(method):
    spec = parse_spec(SMALLEST + f"drift: {{method: {method}, threshold: 0.02}}\n", "f")
    assert (spec.drift.method, spec.drift.threshold) == (method, 0.02)


def test_fairness():
    fair = SMALLEST + "segments: [country]\nfairness: {demographic_parity: 0.1, disparate_impact: 0.8}\n"
    spec = parse_spec(fair, "f")
    assert (spec.fairness.demographic_parity, spec.fairness.equal_opportunity) == (0.1, None)
    assert spec.fairness.disparate_impact == 0.8
    for text, message in (
        (fair.replace("segments: [country]\n", ""), "fairness: there are no groups to compare"),
        (fair.replace("binary", "regression"), "fairness: fairness is measured of binary models"),
        (fair.replace("0.8", "8"), "fairness.disparate_impact: "),
        (fair.replace("disparate_impact", "impact"), "fairness.impact: there is no key 'impact' here"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            parse_spec(text, "f")


def test_other_references_and_tasks():
    spec = parse_spec(
        SMALLEST.replace("{file: reference.parquet}", '{sql: "SELECT 1"}').replace("binary", "regression"), "f"
    )
    assert (spec.reference.sql, spec.reference.file) == ("SELECT 1", None)
    assert (spec.performance.metrics[0], spec.performance.estimate) == ("mae", "none")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size: 1h", "size: 1", "fraud.yaml:8: windows.size: '1' is no duration. Write a number and a unit"),
        ("segments:", "segmets:", "fraud.yaml:13: segmets: there is no key 'segmets' here. Did you mean 'segments'?"),
        (
            "task: binary",
            "task: binry",
            "fraud.yaml:2: task: 'binry' is not one of binary, multiclass, regression. Did you",
        ),
        ("task: binary\n", "", "fraud.yaml:1: task: this key is missing. Write `task: binary`"),
        (
            "min: 0}\n  country",
            "mn: 0}\n  country",
            "fraud.yaml:10: features.amount.mn: there is no key 'mn' here. Did you",
        ),
        (
            "category, policy",
            "number, policy",
            "fraud.yaml:11: features.country.policy: `hash` needs a feature of type",
        ),
        ("number, min: 0", "number, min: 0, max: -1", "fraud.yaml:10: features.amount.max: `max` is below `min`"),
        ("amount:", "score:", "fraud.yaml:10: features.score: 'score' names the model's output, no feature"),
        ("  to: 2026", "  to: 2025", "fraud.yaml:5: reference.to: `to` is not after `from`"),
        ("  interval", "  file: x\n  interval", "fraud.yaml:4: reference: exactly one source is needed"),
        ("2026-01-01\n", "2026-13-01\n", "fraud.yaml:4: reference.from: '2026-13-01' cannot be read"),
        (
            "{method: auto, threshold: calibrated,",
            "{method: g_test, threshold: 5,",
            "fraud.yaml:14: drift.threshold: g_test is judged by a p-value, which is at most 1. Write 0.05.",
        ),
        (
            "method: auto",
            "method: helinger",
            "fraud.yaml:14: drift.method: 'helinger' is not one of auto, jensenshannon, psi, kl_div, hellinger, ",
        ),
        (
            "estimate: cbpe",
            "estimate: dle",
            "fraud.yaml:16: performance.estimate: 'dle' is not an estimate of a binary model: cbpe, none",
        ),
        ("1 per 30d", "often", "fraud.yaml:14: drift.false_alarms: 'often' is no budget. Write `1 per 30d`."),
        ("adwin", "adwim", "fraud.yaml:15: online[0].detector: 'adwim' is not one of"),
        ("on: score", "on: country", "fraud.yaml:15: online[0].on: 'country' is of type category"),
        ("[roc_auc]", "[mae]", "fraud.yaml:16: performance.metrics[0]: 'mae' is not a metric of a binary model:"),
        ("3sd", "tight", "fraud.yaml:16: performance.limits: 'tight' is no limit. Write 3sd, calibrated, or none."),
        (
            "when: harm",
            "when: ham",
            "fraud.yaml:17: alerts[0].when: 'ham' is not one of harm, drift, fairness, freshness. Did you mean 'harm'?",
        ),
        (
            "when: harm",
            "when: fairness",
            "fraud.yaml:17: alerts[0].when: no fairness is measured. Declare a limit, such as",
        ),
        ("on: [harm]", "on: [drift]", "fraud.yaml:18: retrain.on[0]: no alert rule opens on 'drift'"),
        ("cooldown: 6h", "schedule: daily", "fraud.yaml:18: retrain.schedule: 'daily' is no cron line: five fields"),
        (
            "cooldown: 6h",
            "schedule: '0 3 30 2 *'",
            "fraud.yaml:18: retrain.schedule: '0 3 30 2 *' is no cron line: failed to find",
        ),
        ("cooldown: 6h", "schedule: '0 25 * * *'", "fraud.yaml:18: retrain.schedule: '0 25 * * *' is no cron line"),
        ("cooldown: 6h", "budget: {per: 1w}", "fraud.yaml:18: retrain.budget: a budget needs a limit"),
        (
            "cooldown: 6h",
            "quiet_hours: {from: 8, to: 18:00}",
            "fraud.yaml:18: retrain.quiet_hours.from: '8' is no time",
        ),
        (
            "cooldown: 6h",
            "quiet_hours: {from: 18:00, to: 18:00}",
            "fraud.yaml:18: retrain.quiet_hours.to: quiet hours",
        ),
        (
            "cooldown: 6h",
            "quiet_hours: {from: 08:00, to: 18:00, timezone: Berlin}",
            "fraud.yaml:18: retrain.quiet_hours.timezone: 'Berlin' is no time zone",
        ),
        ("cooldown: 6h", "cost_aware: {}", "fraud.yaml:18: retrain.cost_aware.min_gain_per_hour: this key is missing"),
        ("cooldown: 6h", "data: {window: 100 rows}, folds: 1", "fraud.yaml:18: retrain.folds: there is no key"),
        ("cooldown: 6h", "data: {window: some}", "fraud.yaml:18: retrain.data.window: 'some' says no rows"),
        ("cooldown: 6h", "data: {window: 0 rows}", "fraud.yaml:18: retrain.data.window: '0 rows' says no rows"),
        ("cooldown: 6h", "data: {replay: 1}", "fraud.yaml:18: retrain.data.replay: 1 is not between 0 and 0.9"),
        ("on: [harm]", "on: [fairness]", "fraud.yaml:18: retrain.on[0]: no alert rule opens on 'fairness'"),
        ("4GiB", "4", "fraud.yaml:18: retrain.resources.memory: '4' is no size"),
        ("0.9}", "90}", "fraud.yaml:16: performance.min_label_coverage: 90 is not between 0 and 1"),
        ("exact_rows: 1000", "model: again", "fraud.yaml:19: model: the key stands here twice"),
        ("[country]", "[country", "fraud.yaml:14: this is no YAML"),
        ("model: fraud", "model: a/b", "fraud.yaml:1: model: 'a/b' is no model name"),
    ],
)
def test_mistakes_name_file_line_and_key(old, new, message):
    assert old in LARGEST
    with pytest.raises(ConfigurationError) as caught:
        parse_spec(LARGEST.replace(old, new, 1), "fraud.yaml")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "text", ["", "- a", "7", "a: [", "\x00", "model: &a [*a]", "!!python/object:os.system {}", "? [a]\n: b"]
)
def test_no_spec_at_all(text):
    with pytest.raises(ConfigurationError):
        parse_spec(text, "fraud.yaml")


def test_completing_checks_the_detectors():
    spec = parse_spec(LARGEST.replace("on: score", "on: age"), "fraud.yaml")
    number, category = FeatureSpec(type="number"), FeatureSpec(type="category")
    assert complete_spec(spec, {"age": number}, "fraud.yaml").numeric_features == ["age"]
    with pytest.raises(ConfigurationError, match=r"fraud.yaml: online\[0\].on: 'age' is no numeric feature"):
        complete_spec(spec, {"age": category}, "fraud.yaml")


def test_published_specs_survive_the_topic():
    published = publish(LARGEST, cuts={"amount": [1.0, 2.0]}, categories={"country": ["DE"]})
    assert decode_published(encode_published(published)) == published
    assert split_key(published.key) == ("fraud", 1)


def test_windows_of_instants():
    published = publish(SMALLEST)
    starts = published.window_of(np.array([-1, 0, 3_599_999, 3_600_000], dtype=np.int64))
    assert starts.tolist() == [-3_600_000, 0, 0, 3_600_000]
    shifted = publish(SMALLEST.replace("{size: 1h}", "{size: 1h, origin: 1970-01-01T00:10:00Z}"))
    assert shifted.window_of(np.array([0, 600_000], dtype=np.int64)).tolist() == [-3_000_000, 600_000]


def test_catalogue_knows_what_is_in_force():
    catalogue = Catalogue()
    for version, start in ((2, 1_000), (1, 0), (3, 5_000)):
        catalogue.add(publish(SMALLEST, spec_version=version, effective_from=start))
    history = catalogue.get("fraud")
    assert history is not None
    assert [history.in_force(ts).spec_version for ts in (-5, 0, 999, 1_000, 4_999, 5_000)] == [1, 1, 1, 2, 2, 3]
    assert history.latest.spec_version == 3
    catalogue.remove("fraud", 3)
    assert catalogue.get("fraud").latest.spec_version == 2  # type: ignore[union-attr]
    catalogue.remove("fraud")
    catalogue.remove("nobody", 1)
    assert (catalogue.get("fraud"), catalogue.models()) == (None, [])
