"""The model spec's file: YAML to a `ModelSpec`, with messages that name file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

import msgspec

from schemas.alertfile import read_alerts
from schemas.declarations import (
    ARCHITECTURES,
    DETECTORS,
    DRIFT_METHODS,
    ESTIMATES,
    METRICS,
    MULTIVARIATE_METHODS,
    P_VALUE_METHODS,
    RESERVED_FEATURES,
    AlertRule,
    DriftSpec,
    FairnessSpec,
    FalseAlarms,
    FeatureSpec,
    FeatureType,
    ModelSpec,
    OnlineSpec,
    PerformanceSpec,
    Policy,
    PromoteSpec,
    ReferenceColumns,
    ReferenceSource,
    RetrainSpec,
    RollbackSpec,
    Task,
    TrainingSpec,
    TriggerName,
    WindowSpec,
    default_performance,
)
from schemas.descriptors import derive_features
from schemas.errors import ConfigurationError
from schemas.launchfile import LAUNCH_KEYS, read_launch
from schemas.retrainfile import TRIGGER_KEYS, read_triggers
from schemas.units import parse_duration_ms
from schemas.yamlnodes import Section, Value, read_document

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_FALSE_ALARMS = re.compile(r"(\d+(?:\.\d+)?)\s+per\s+(\S+)", re.ASCII)
_LIMITS = re.compile(r"none|calibrated|\d+(?:\.\d+)?sd", re.ASCII)
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_FEATURE_TYPES = [name for name in get_args(FeatureType) if name != "auto"]
_KEYS = [
    "model", "task", "reference", "windows", "features", "segments", "drift", "online", "performance", "fairness",
    "alerts", "retrain", "exact_rows",
]  # fmt: skip

SpecPart = TypeVar("SpecPart", bound=msgspec.Struct)


def parse_spec(text: str, file: str) -> ModelSpec:
    """Read a model spec, its defaults filled in; ConfigurationError for the first mistake."""
    document = read_document(text, file).allow(_KEYS)
    model = document.require("model", "Begin with `model: NAME`.")
    if not _MODEL_NAME.fullmatch(model.text()):
        model.fail(f"{model.text()!r} is no model name", "Use letters, digits, `.`, `_` and `-`, at most 128.")
    task = _choose_task(document)
    features = {name: _read_feature(name, value) for name, value in _section(document, "features")}
    fairness = _read_fairness(document, task)
    alerts = read_alerts(document.get("alerts"), fairness)
    return _build(
        ModelSpec,
        model=model.text(),
        task=task,
        reference=_read_reference(document.require("reference", "Write `reference: {file: reference.parquet}`.")),
        windows=_read_windows(document.require("windows", "Write `windows: {size: 1h}`.").section()),
        features=features,
        segments=[value.text() for value in _list(document, "segments")],
        drift=_read_drift(_section(document, "drift")),
        online=[_read_online(value.section(), features) for value in _list(document, "online")],
        performance=_read_performance(_section(document, "performance"), task),
        fairness=fairness,
        alerts=alerts,
        retrain=_read_retrain(document.get("retrain"), alerts, task),
        exact_rows=_maybe(document.get("exact_rows"), lambda value: value.count(low=100)),
    )


def complete_spec(
    spec: ModelSpec, features: dict[str, FeatureSpec], file: str, num_dimensions: Mapping[str, int] | None = None
) -> ModelSpec:
    """Give the spec with all its features, their types known, and with the descriptors of what is no number.

    `num_dimensions` are those of the reference's embeddings. ConfigurationError where a descriptor's name is taken, or
    online detectors do not fit.
    """
    completed = msgspec.structs.replace(spec, features=derive_features(features, num_dimensions or {}, file))
    for position, online in enumerate(completed.online):
        if online.on not in ("score", "error", *completed.numeric_features):
            raise ConfigurationError(
                f"{online.on!r} is no numeric feature",
                file=file,
                key=f"online[{position}].on",
                remedy=f"Use score, error, or one of {', '.join(completed.numeric_features) or 'no feature'}.",
            )
    return completed


def _choose_task(document: Section) -> Task:
    task: Any = document.require("task", "Write `task: binary`, multiclass or regression.").choice(get_args(Task))
    return task  # type: ignore[no-any-return]


def _read_reference(value: Value) -> ReferenceSource:
    if not value.is_section():
        return ReferenceSource(file=value.text())
    section = value.section().allow(["file", "sql", "from", "to", "columns", "interval"])
    sources = [name for name in ("file", "sql", "from") if name in section]
    if len(sources) != 1:
        value.fail("exactly one source is needed", "Write {file: …}, {sql: …}, or {from: …, to: …}.")
    since, until = _maybe(section.get("from"), Value.instant), _maybe(section.get("to"), Value.instant)
    if (since is None) != (until is None):
        value.fail("`from` and `to` belong together", "Write {from: 2026-01-01, to: 2026-02-01}.")
    if since is not None and since >= until:
        section.require("to", "").fail("`to` is not after `from`")
    names = [field.name for field in msgspec.structs.fields(ReferenceColumns)]
    columns = {name: column.text() for name, column in _section(section, "columns").allow(names)}
    if "scores" in columns and columns["scores"].count("*") != 1:
        _section(section, "columns").require("scores", "").fail(
            "the pattern needs one `*`, which stands for the class", "Write proba_*."
        )
    return ReferenceSource(
        file=_maybe(section.get("file"), Value.text),
        sql=_maybe(section.get("sql"), Value.text),
        from_=since,
        to=until,
        columns=ReferenceColumns(**columns),
        interval_ms=_maybe(section.get("interval"), Value.duration_ms),
    )


def _read_windows(section: Section) -> WindowSpec:
    section.allow(["size", "origin", "lateness", "min_rows", "retention", "idle"])
    size_ms = section.require("size", "Write `windows: {size: 1h}`.").duration_ms()
    lateness = section.get("lateness")
    return _build(
        WindowSpec,
        size_ms=size_ms,
        origin_ms=_maybe(section.get("origin"), Value.instant),
        lateness_ms=_read_lateness(lateness) if lateness else size_ms // 60,
        min_rows=_maybe(section.get("min_rows"), lambda value: value.count(low=1)),
        retention=_maybe(section.get("retention"), _read_retention),
        idle_ms=_maybe(section.get("idle"), Value.duration_ms),
    )


def _read_lateness(value: Value) -> int:
    return 0 if value.text() in ("0", "0s") else value.duration_ms()


def _read_retention(value: Value) -> int:
    """Accept both `30` and `30 windows`."""
    text = value.text().removesuffix("windows").strip()
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        value.fail(f"{value.text()!r} is no number of windows", "Write a whole number from 1 to 10000.")
    return int(text)


def _read_feature(name: str, value: Value) -> FeatureSpec:
    if name in RESERVED_FEATURES:
        value.fail(f"{name!r} names the model's output, no feature", "Rename the feature where events are produced.")
    if not value.is_section():
        kind: Any = value.choice(_FEATURE_TYPES)
        return FeatureSpec(type=kind)
    section = value.section().allow(["type", "min", "max", "values", "policy"])
    kind = _maybe(section.get("type"), lambda given: given.choice(_FEATURE_TYPES)) or "auto"
    policy: Any = _maybe(section.get("policy"), lambda given: given.choice(get_args(Policy)))
    if policy in ("hash", "mask") and kind == "auto":
        kind = "category"
    if policy in ("hash", "mask") and kind not in ("category", "text"):
        section.require("policy", "").fail(
            f"`{policy}` needs a feature of type category or text", "Say `type: category`, or use `policy: drop`."
        )
    low, high = _maybe(section.get("min"), Value.number), _maybe(section.get("max"), Value.number)
    if low is not None and high is not None and low > high:
        section.require("max", "").fail("`max` is below `min`")
    for name in ("min", "max"):
        if name in section and kind not in ("number", "auto"):
            section.require(name, "").fail(f"a feature of type {kind} has no `{name}`")
    values = [item.text() for item in _list(section, "values")] or None
    return FeatureSpec(type=kind, min=low, max=high, values=values, policy=policy)


def _read_drift(section: Section) -> DriftSpec:
    section.allow(["method", "threshold", "false_alarms", "rows", "multivariate"])
    method = _maybe(section.get("method"), lambda value: value.choice(DRIFT_METHODS))
    threshold = _maybe(section.get("threshold"), _read_threshold)
    if method in P_VALUE_METHODS and isinstance(threshold, float) and threshold > 1:
        section.require("threshold", "").fail(f"{method} is judged by a p-value, which is at most 1", "Write 0.05.")
    return _build(
        DriftSpec,
        method=method,
        threshold=threshold,
        false_alarms=_maybe(section.get("false_alarms"), _read_false_alarms),
        rows=_maybe(section.get("rows"), lambda value: value.choice(["independent", "blocks"])),
        multivariate=_maybe(section.get("multivariate"), _read_multivariate),
    )


def _read_multivariate(value: Value) -> list[str]:
    return [each.choice(MULTIVARIATE_METHODS) for each in value.items()]


def _read_threshold(value: Value) -> str | float:
    return "calibrated" if value.text() == "calibrated" else value.number(low=1e-12)


def _read_false_alarms(value: Value) -> FalseAlarms:
    match = _FALSE_ALARMS.fullmatch(value.text())
    try:
        if match is None or float(match[1]) <= 0:
            raise ValueError(f"{value.text()!r} is no budget")
        return FalseAlarms(count=float(match[1]), per_ms=parse_duration_ms(match[2]))
    except ValueError as error:
        value.fail(str(error), "Write `1 per 30d`.")


def _read_online(section: Section, features: dict[str, FeatureSpec]) -> OnlineSpec:
    section.allow(["detector", "on", "parameters"])
    on = section.require("on", "Say what it watches: score, error, or a numeric feature.")
    known = features.get(on.text())
    if known is not None and not known.is_numeric and known.type != "auto":
        on.fail(f"{on.text()!r} is of type {known.type}", "Use score, error, or a numeric feature.")
    parameters: dict[str, Any] = {}
    for name, value in _section(section, "parameters"):
        parameters[name] = value.plain()
        if not isinstance(parameters[name], str | int | float | bool):
            value.fail("a parameter is a number, true, false or a text")
    detector = section.require("detector", f"Choose one of {', '.join(DETECTORS)}.").choice(DETECTORS)
    return OnlineSpec(detector=detector, on=on.text(), parameters=parameters)


def _read_performance(section: Section, task: Task) -> PerformanceSpec:
    section.allow(["metrics", "estimate", "limits", "false_alarms", "min_label_coverage", "baseline"])
    given: dict[str, Any] = {}
    metrics = _list(section, "metrics")
    if metrics:
        given["metrics"] = [value.choice(METRICS[task], f"a metric of a {task} model:") for value in metrics]
    estimate = section.get("estimate")
    if estimate is not None:
        given["estimate"] = estimate.choice(ESTIMATES[task], f"an estimate of a {task} model:")
    limits = section.get("limits")
    if limits is not None:
        given["limits"] = limits.text()
        if not _LIMITS.fullmatch(given["limits"]):
            limits.fail(f"{given['limits']!r} is no limit", "Write 3sd, calibrated, or none.")
    false_alarms = section.get("false_alarms")
    if false_alarms is not None:
        given["false_alarms"] = _read_false_alarms(false_alarms)
    coverage = section.get("min_label_coverage")
    if coverage is not None:
        given["min_label_coverage"] = coverage.number(low=0, high=1)
    baseline = section.get("baseline")
    if baseline is not None:
        given["baseline"] = baseline.choice(["no_change", "none"])
    return default_performance(task, **given)


def _read_fairness(document: Section, task: Task) -> FairnessSpec:
    value = document.get("fairness")
    if value is None:
        return FairnessSpec()
    if task != "binary":
        value.fail("fairness is measured of binary models")
    if not _list(document, "segments"):
        value.fail("there are no groups to compare", "Declare `segments: [FEATURE]`.")
    names = [field.name for field in msgspec.structs.fields(FairnessSpec)]
    section = value.section().allow(names)
    return FairnessSpec(**{name: limit.number(low=0, high=1) for name, limit in section})


def _read_retrain(value: Value | None, alerts: list[AlertRule], task: Task) -> RetrainSpec | None:
    if value is None or (not value.is_section() and value.plain() is False):
        return None
    section = value.section().allow(
        [*TRIGGER_KEYS, "architecture", "seed", "training", "promote", "rollback", *LAUNCH_KEYS]
    )
    on = section.get("on")
    names: list[Any] | None = None
    if on is not None:
        names = []
        for item in on.items() if on.is_list() else [on]:
            names.append(item.choice(get_args(TriggerName)))
            if all(rule.when != names[-1] for rule in alerts):
                item.fail(f"no alert rule opens on {names[-1]!r}", f"Add `alerts: [{{when: {names[-1]}}}]`.")
    architecture = section.get("architecture")
    name = "auto" if architecture is None else architecture.text()
    if architecture is not None and name not in ARCHITECTURES and not _FACTORY.fullmatch(name):
        architecture.fail(f"{name!r} is no architecture", f"Use {', '.join(ARCHITECTURES)}, or your module:factory.")
    retrain = _build(
        RetrainSpec,
        on=names,
        **read_triggers(section),
        architecture=_maybe(architecture, Value.text),
        seed=_maybe(section.get("seed"), lambda given: given.count(low=0)),
        training=_read_training(_section(section, "training"), task),
        **read_launch(section),
        promote=_read_promote(_section(section, "promote")),
    )
    rollback = section.get("rollback")
    if rollback is None:
        return retrain
    return msgspec.structs.replace(retrain, rollback=_read_rollback(rollback))


def _read_promote(section: Section) -> PromoteSpec:
    section.allow(["confidence", "min_gain", "segment_tolerance", "max_latency", "max_size", "shadow"])
    return _build(
        PromoteSpec,
        confidence=_maybe(section.get("confidence"), lambda given: given.number(low=0.5, high=0.9999)),
        min_gain=_maybe(section.get("min_gain"), lambda given: given.number(low=0)),
        segment_tolerance=_maybe(section.get("segment_tolerance"), lambda given: given.number(low=0)),
        max_latency_ms=_maybe(section.get("max_latency"), Value.duration_ms),
        max_size_bytes=_maybe(section.get("max_size"), Value.size_bytes),
        shadow=_maybe(section.get("shadow"), lambda given: given.count(low=0, high=1000)),
    )


def _read_rollback(value: Value) -> RollbackSpec | None:
    if not value.is_section():
        # YAML reads `off` as false.
        if value.plain() is not False:
            value.fail("a rollback is a section or off", "Write `rollback: {for: 2}` or `rollback: off`.")
        return None
    section = value.section().allow(["for"])
    return _build(RollbackSpec, for_=_maybe(section.get("for"), lambda given: given.count(high=1000)))


def _read_training(section: Section, task: Task) -> TrainingSpec:
    section.allow(
        ["start", "class_weights", "epochs", "batch_rows", "learning_rate", "early_stopping", "deterministic"]
    )
    weights = section.get("class_weights")
    if weights is not None and weights.choice(["none", "balanced"]) == "balanced" and task == "regression":
        weights.fail("a regression has no classes", "Leave it out, or write none.")
    return _build(
        TrainingSpec,
        start=_maybe(section.get("start"), lambda given: given.choice(["scratch", "warm"])),
        class_weights=_maybe(weights, Value.text),
        epochs=_maybe(section.get("epochs"), lambda given: given.count(high=10_000)),
        batch_rows=_maybe(section.get("batch_rows"), lambda given: given.count(high=1_000_000)),
        learning_rate=_maybe(section.get("learning_rate"), lambda given: given.number(low=1e-9, high=10)),
        early_stopping=_maybe(section.get("early_stopping"), _read_early_stopping),
        deterministic=_maybe(section.get("deterministic"), Value.flag),
    )


def _read_early_stopping(value: Value) -> str | int:
    return value.text() if value.text() in ("auto", "none") else value.count(high=10_000)


def _section(parent: Section, name: str) -> Section:
    """Give a section that may be left out: then it is empty."""
    value = parent.get(name)
    return value.section() if value is not None else parent.empty(name)


def _list(parent: Section, name: str) -> list[Value]:
    value = parent.get(name)
    return value.items() if value is not None else []


def _maybe(value: Value | None, read: Any) -> Any:
    """Read a value that may be left out."""
    return None if value is None else read(value)


def _build(part: type[SpecPart], **given: Any) -> SpecPart:
    """Make a part of the spec; what is None was left out and takes the part's default."""
    return part(**{name: value for name, value in given.items() if value is not None})
