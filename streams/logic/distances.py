"""How far a window's inputs and outputs are from their reference: measurements of kind `drift`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from measures.drift import METHODS, Distance, Kind, measure_distance
from schemas.events import Measurement
from schemas.spec import ModelSpec
from streams.logic.measured import WindowContext
from streams.logic.rows import Rows, list_segments

Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows a window has and whether all of them are at hand."""

    num_rows: int
    num_sampled: int


def measure_inputs(context: WindowContext, reference: Rows, current: Rows, num_rows: int) -> list[Measurement]:
    """Measure every stored feature that is a number, a boolean or a category, for the whole model and each segment.

    `current` is the window or its sample, `num_rows` how many rows the window has.
    """
    return [
        _measure(context, before, after, name, kind, segment, "", counted)
        for segment, old, new, counted in _split(context, reference, current, num_rows)
        for name, kind in list_features(context.spec)
        for before, after in [(find_column(old, name, kind), find_column(new, name, kind))]
    ]


def measure_outputs(
    context: WindowContext, reference: Rows, current: Rows, num_rows: int, model_version: str
) -> list[Measurement]:
    """Measure a version's `score` and `prediction`, as far as reference or window have them."""
    found = []
    for segment, old, new, counted in _split(context, reference, current, num_rows):
        for name, kind, before, after in _list_outputs(context.spec, old, new):
            if before is not None or after is not None:
                found.append(_measure(context, before, after, name, kind, segment, model_version, counted))
    return found


def list_features(spec: ModelSpec) -> list[tuple[str, Kind]]:
    """Return the features whose drift is measured, and as what: booleans are categories of two values."""
    kinds: dict[str, Kind] = {"number": "number", "boolean": "category", "category": "category"}
    return [(name, kinds[each.type]) for name, each in spec.stored_features.items() if each.type in kinds]


def find_column(rows: Rows, name: str, kind: Kind) -> Column | None:
    """Return a feature's column: as numbers, or as whatever it is where it counts as a category."""
    if kind == "number":
        return rows.numbers.get(name)
    return rows.texts.get(name, rows.numbers.get(name))


def _split(
    context: WindowContext, reference: Rows, current: Rows, num_rows: int
) -> Iterator[tuple[str, Rows, Rows, Counted]]:
    """The whole model, then each segment of which the window has any row."""
    yield "", reference, current, Counted(num_rows, len(current))
    known = context.published.segment_values
    for segment in list_segments({key: known.get(key, []) for key in context.spec.segments}):
        rows = current.in_segment(segment, known)
        if len(rows):
            yield segment, reference.in_segment(segment, known), rows, Counted(len(rows), len(rows))


def _list_outputs(spec: ModelSpec, old: Rows, new: Rows) -> list[tuple[str, Kind, Column | None, Column | None]]:
    if spec.task == "multiclass":
        return [("prediction", "category", old.prediction_text, new.prediction_text)]
    kind: Kind = "category" if spec.task == "binary" else "number"
    return [("score", "number", old.score, new.score), ("prediction", kind, old.prediction, new.prediction)]


def _measure(
    context: WindowContext,
    before: Column | None,
    after: Column | None,
    feature: str,
    kind: Kind,
    segment: str,
    model_version: str,
    counted: Counted,
) -> Measurement:
    drift = context.spec.drift
    method = drift.method if drift.method == "auto" or kind in METHODS[drift.method].kinds else "auto"
    threshold = None if drift.threshold == "calibrated" else float(drift.threshold)
    empty = np.array([], dtype=np.float64 if kind == "number" else object)
    # A text column beside a number column of the same name would compare "1" with 1.0.
    distance = measure_distance(
        empty if before is None else before, empty if after is None else after, kind, method, threshold
    )
    is_test = distance.p_value is not None
    return context.make(
        "drift",
        distance.metric,
        distance.value,
        _judge(context.spec, before, distance, 0 if after is None else _count_known(after)),
        counted.num_rows,
        num_sampled=counted.num_sampled,
        model_version=model_version,
        segment=segment,
        feature=feature,
        p_value=distance.p_value,
        alpha=distance.threshold if is_test else None,
        threshold=distance.threshold,
    )


def _count_known(values: Column) -> int:
    """Count what is there: a distance rests on the values, not on the rows that lack them."""
    if values.dtype.kind == "f":
        return int(np.count_nonzero(~np.isnan(values)))
    return sum(value is not None for value in values.tolist())


def _judge(spec: ModelSpec, before: Column | None, distance: Distance, num_known: int) -> str:
    if before is None or len(before) == 0:
        return "no_reference"
    if num_known < spec.windows.min_rows:
        return "too_few_rows"
    if spec.drift.threshold == "calibrated":
        # Until calibration exists, a fixed distance stands in for it, and the row says so.
        return "uncalibrated"
    return "alert" if distance.drifted else "ok"
