"""`driftloop init`: a spec to start from, guessed from a table."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from driftloop.replay.source import match_pattern, read_times, require_column
from schemas.declarations import FeatureSpec
from schemas.errors import ConfigurationError
from schemas.inference import infer_features
from schemas.spec import parse_spec

GUESSES = {
    "label": ("label", "target", "y", "y_true"),
    "score": ("score", "y_proba", "y_pred_proba", "predicted_probability", "proba"),
    "prediction": ("prediction", "y_pred", "predicted"),
    "id": ("id", "record_id"),
    "ts": ("ts", "time", "timestamp", "event_time"),
}
CLASSES_MAX = 50
# Window sizes to choose from, and the rows that a window should have on average.
SIZES_MS = {"1h": 3_600_000, "6h": 21_600_000, "1d": 86_400_000, "1w": 604_800_000, "30d": 2_592_000_000}
WINDOW_ROWS = 500


@dataclass(frozen=True, slots=True)
class Roles:
    """Columns as named on the command line; None is to be guessed."""

    label: str | None = None
    score: str | None = None
    prediction: str | None = None
    id: str | None = None
    ts: str | None = None


def write_spec(
    frame: pd.DataFrame, data: Path, model: str | None, task: str | None, roles: Roles, output: Path | None, force: bool
) -> tuple[Path, str]:
    """Write the spec; gives its path and the task. ConfigurationError when the file is there already."""
    if frame.empty:
        raise ConfigurationError("has no rows to guess from", file=str(data))
    columns = find_columns(frame, data, roles)
    name = model or re.sub(r"[^A-Za-z0-9_.-]", "_", data.name.split(".")[0])
    path = output or data.parent / f"{name}.yaml"
    if path.exists() and not force:
        raise ConfigurationError("the file is there already", file=str(path), remedy="Use --force to replace it")
    task = task or guess_task(frame, columns)
    taken = {*columns.values(), *match_pattern(frame, columns.get("scores"), data).values()}
    features = infer_features(frame[[c for c in frame.columns if c not in taken]], {})
    size = choose_size(frame, columns.get("ts"), data)
    text = render(name, task, os.path.relpath(data, path.parent), columns, size, features)
    parse_spec(text, str(path))
    path.write_text(text)
    return path, task


def find_columns(frame: pd.DataFrame, data: Path, roles: Roles) -> dict[str, str]:
    """Column by role; a score that is a pattern such as `proba_*` has the role `scores`."""
    found: dict[str, str] = {}
    for role, guesses in GUESSES.items():
        named = getattr(roles, role)
        if role == "score" and named and "*" in named:
            found["scores"] = named
            continue
        require_column(frame, named, data)
        column = named or next((guess for guess in guesses if guess in frame.columns), None)
        if column:
            found[role] = column
    return found


def guess_task(frame: pd.DataFrame, columns: dict[str, str]) -> str:
    """binary for a label of 0 and 1, multiclass for few values or scores by class, else regression."""
    if "scores" in columns:
        return "multiclass"
    column = columns.get("label") or columns.get("prediction")
    if column is None:
        return "binary" if "score" in columns else "regression"
    values = frame[column].dropna().unique()
    if set(values.tolist()) <= {0, 1}:
        return "binary"
    is_text = not pd.api.types.is_numeric_dtype(frame[column])
    whole = not is_text and bool((frame[column].dropna() % 1 == 0).all())
    return "multiclass" if (is_text or whole) and len(values) <= CLASSES_MAX else "regression"


def choose_size(frame: pd.DataFrame, column: str | None, data: Path) -> str:
    """The smallest window that has rows enough to be judged, by the table's times; an hour without them."""
    if column is None:
        return "1h"
    try:
        ts_ms = read_times(frame, column, data)
    except ConfigurationError:
        # A guessed column may be none of times; `apply` tells.
        return "1h"
    span_ms = int(ts_ms.max() - ts_ms.min())
    return next((size for size, ms in SIZES_MS.items() if len(ts_ms) * ms >= WINDOW_ROWS * span_ms), "30d")


def render(
    model: str, task: str, reference: str, columns: dict[str, str], size: str, features: dict[str, FeatureSpec]
) -> str:
    """The spec as YAML, with what people change most in sight."""
    named = {role: column for role, column in columns.items() if role != column}
    source: dict[str, object] = {"file": reference}
    if named:
        source["columns"] = named
    if "ts" not in columns:
        source["interval"] = "1s"
    lines = {name: {"type": feature.type} for name, feature in features.items()}

    def dump(value: object) -> str:
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
        return text.strip().removesuffix("...").strip()

    body = [
        f"model: {dump(model)}",
        f"task: {task}",
        f"reference: {dump(source)}",
        f"windows: {{size: {size}}}",
        "features:",
    ]
    body += [f"  {dump(name)}: {dump(feature)}" for name, feature in lines.items()]
    body += [
        "# Uncomment what you need; see docs/spec.md.",
        "# segments: []",
        "# drift: {method: auto, threshold: calibrated}",
        "# performance: {limits: calibrated, min_label_coverage: 0.9}",
        "# alerts: [{when: harm, for: 1, severity: high}, {when: drift, for: 1, severity: info}]",
        "# retrain: {on: [harm], cooldown: 6h, architecture: auto}",
    ]
    return "\n".join(body) + "\n"
