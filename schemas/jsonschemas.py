"""The JSON Schemas of every event and of the spec's file; `python -m schemas.jsonschemas` writes them to `json/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec

from schemas.catalogue import PublishedSpec
from schemas.declarations import (
    DETECTORS,
    DRIFT_METHODS,
    METRICS,
    MULTIVARIATE_METHODS,
    FeatureType,
    LauncherName,
    Policy,
    RuleName,
    Severity,
    Task,
    TriggerName,
)
from schemas.events import (
    Alert,
    DeadLetter,
    Label,
    Measurement,
    Prediction,
    Progress,
    Record,
    RetrainEvent,
    RetrainRequest,
    RoleMap,
)
from schemas.topics import INBOUND

FOLDER = Path(__file__).parent / "json"

# By the topic on which they travel.
EVENT_TYPES: dict[str, type[msgspec.Struct]] = {
    "records": Record,
    "predictions": Prediction,
    "labels": Label,
    "measurements": Measurement,
    "alerts": Alert,
    "retrain-requests": RetrainRequest,
    "retrain-events": RetrainEvent,
    "models": RoleMap,
    "specs": PublishedSpec,
    "dead-letters": DeadLetter,
    "progress": Progress,
}

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_DURATION: dict[str, Any] = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|min|m|h|d|w)\s*$"}
_SIZE: dict[str, Any] = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([KMGT]i?)?B\s*$"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 1}


def export_schemas() -> dict[str, dict[str, Any]]:
    """Give every schema by file name without its ending: one a topic, and `model-spec` for the file."""
    exported = {
        name: {"$schema": _DIALECT, **_describe_wire(msgspec.json.schema(kind))} for name, kind in EVENT_TYPES.items()
    }
    exported["model-spec"] = {"$schema": _DIALECT, "title": "driftloop model spec", **_spec_schema()}
    return exported


def _describe_wire(schema: Any) -> Any:
    """Turn instants, integers in memory, into the texts that they are on the wire."""
    if isinstance(schema, list):
        return [_describe_wire(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    described = {key: _describe_wire(part) for key, part in schema.items()}
    return {**described, "type": "string"} if schema.get("format") == "date-time" else described


def _spec_schema() -> dict[str, Any]:
    kinds = [kind for kind in get_args(FeatureType) if kind != "auto"]
    feature = _mapping(
        type={"enum": kinds}, min=_NUMBER, max=_NUMBER, values=_list(_TEXT), policy={"enum": list(get_args(Policy))}
    )
    metrics = list(dict.fromkeys(metric for names in METRICS.values() for metric in names))
    columns = _mapping(label=_TEXT, score=_TEXT, prediction=_TEXT, id=_TEXT, ts=_TEXT, scores=_TEXT)
    triggers = {"enum": list(get_args(TriggerName))}
    rule = _mapping(
        ("when",), when={"enum": list(get_args(RuleName))}, **{"for": _COUNT},
        max_age={"anyOf": [_DURATION, _mapping(**dict.fromkeys(INBOUND, _DURATION))]},
        severity={"enum": list(get_args(Severity))}, report={"type": "boolean"},
    )  # fmt: skip
    share = {"type": "number", "minimum": 0, "maximum": 1}
    budget = {"type": "string", "pattern": r"^\d+(\.\d+)?\s+per\s+\S+$"}
    time_of_day = {"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d$"}
    return _mapping(
        ("model", "task", "reference", "windows"),
        model={"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"},
        task={"enum": list(get_args(Task))},
        reference=_mapping(file=_TEXT, sql=_TEXT, **{"from": _TEXT}, to=_TEXT, columns=columns, interval=_DURATION),
        windows=_mapping(
            ("size",), size=_DURATION, origin=_TEXT, lateness=_DURATION, min_rows=_COUNT,
            retention={"type": ["integer", "string"]}, idle=_DURATION,
        ),
        features={"type": "object", "additionalProperties": {"anyOf": [feature, {"enum": kinds}]}},
        segments=_list(_TEXT),
        drift=_mapping(
            method={"enum": list(DRIFT_METHODS)}, threshold={"anyOf": [{"const": "calibrated"}, _NUMBER]},
            false_alarms=budget,
            rows={"enum": ["independent", "blocks"]},
            multivariate=_list({"enum": list(MULTIVARIATE_METHODS)}),
        ),
        online=_list(
            _mapping(("detector", "on"), detector={"enum": list(DETECTORS)}, on=_TEXT, parameters={"type": "object"})
        ),
        performance=_mapping(
            metrics=_list({"enum": metrics}), estimate={"enum": ["cbpe", "dle", "none"]},
            limits={"type": "string", "pattern": r"^(none|calibrated|\d+(\.\d+)?sd)$"}, false_alarms=budget,
            min_label_coverage=share, baseline={"enum": ["no_change", "none"]},
        ),
        fairness=_mapping(demographic_parity=share, equal_opportunity=share, disparate_impact=share),
        alerts=_list(rule),
        retrain=_mapping(
            on={"anyOf": [triggers, _list(triggers)]}, **{"for": _COUNT}, schedule=_TEXT, new_labels=_COUNT,
            cooldown=_DURATION,
            budget=_mapping(jobs=_COUNT, gpu_hours={"type": "number", "minimum": 0}, per=_DURATION),
            quiet_hours=_mapping(("from", "to"), **{"from": time_of_day}, to=time_of_day, timezone=_TEXT),
            data=_mapping(window=_TEXT, replay=share, min_labels=_COUNT, folds={"type": "integer", "minimum": 0}),
            cost_aware=_mapping(("min_gain_per_hour",), min_gain_per_hour={"type": "number", "minimum": 0}),
            architecture=_TEXT,
            seed={"type": "integer", "minimum": 0},
            training=_mapping(
                start={"enum": ["scratch", "warm"]}, class_weights={"enum": ["none", "balanced"]}, epochs=_COUNT,
                batch_rows=_COUNT, learning_rate=_NUMBER, deterministic={"type": "boolean"},
                early_stopping={"anyOf": [{"enum": ["auto", "none"]}, _COUNT]},
            ),
            launcher={"enum": list(get_args(LauncherName))},
            promote=_mapping(
                confidence=_NUMBER, min_gain=_NUMBER, segment_tolerance=_NUMBER, max_latency=_DURATION, max_size=_SIZE,
                shadow={"type": "integer", "minimum": 0},
            ),
            rollback={"anyOf": [_mapping(**{"for": _COUNT}), {"const": False}]},
            resources=_mapping(
                accelerator={"enum": ["auto", "cpu", "cuda", "gpu"]}, gpus=_COUNT, processes=_COUNT, gpu_memory=_SIZE,
                cpus=_COUNT, memory=_SIZE, timeout=_DURATION,
            ),
            kubernetes=_mapping(
                ("image",), image=_TEXT, namespace=_TEXT, service_account=_TEXT,
                node_selector={"type": "object", "additionalProperties": _TEXT},
                tolerations=_list(
                    _mapping(
                        key=_TEXT, operator={"enum": ["Equal", "Exists"]}, value=_TEXT,
                        effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
                    )
                ),
                artifacts_claim=_TEXT,
            ),
        ),
        exact_rows={"type": "integer", "minimum": 100},
    )  # fmt: skip


def _mapping(required: tuple[str, ...] = (), /, **keys: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": keys, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def write_schemas(folder: Path = FOLDER) -> None:
    """Write every schema to `folder`."""
    folder.mkdir(exist_ok=True)
    for name, schema in export_schemas().items():
        (folder / f"{name}.json").write_text(json.dumps(schema, indent=2) + "\n")


if __name__ == "__main__":
    write_schemas()
