"""How far a window's inputs and outputs are from their reference: measurements of kind `drift`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from measures.drift import METHODS, Distance, Kind, measure_samples
from measures.samples import CategorySample, NumberSample, Sample, count_codes, sort_numbers
from schemas.events import Measurement
from schemas.spec import ModelSpec
from streams.logic.measured import WindowContext
from streams.logic.rows import Coded, Floats, Rows

Column = Floats | Coded

_NO_SAMPLE: dict[Kind, Sample] = {
    "number": NumberSample(np.empty(0)),
    "category": CategorySample((), np.empty(0, np.int64)),
}


class SampledRows:
    """Rows whose columns are made ready to be compared, whole and by segment, each when it is first asked for."""

    def __init__(self, rows: Rows, known: Mapping[str, Sequence[str]]) -> None:
        self.rows = rows
        self.parts = rows.split(known)
        self._columns: dict[Hashable, Column | None] = {}
        self._samples: dict[Hashable, Sample | None] = {}

    @property
    def num_bytes(self) -> int:
        """About the memory of the rows and of what was made of them so far."""
        columns: list[Column] = [*self.rows.numbers.values(), *self.rows.texts.values()]
        samples = [each for each in self._samples.values() if each is not None]
        parts = sum(each.nbytes for each in self.parts.values())
        return parts + sum(each.nbytes for each in columns) + sum(each.num_bytes for each in samples)

    def count(self, segment: str) -> int:
        """Give the number of rows of a segment, "" being all."""
        return len(self.rows) if not segment else len(self.parts.get(segment, ()))

    def find_column(self, name: str, kind: Kind) -> Column | None:
        """Give a feature, or `score` or `prediction`: as numbers or coded; None where no row has it."""
        key = (name, kind)
        if key not in self._columns:
            self._columns[key] = find_column(self.rows, name, kind)
        return self._columns[key]

    def share_vocabulary(self, name: str, other: SampledRows) -> None:
        """Code a category as other rows do, so that both can be compared count by count."""
        mine, theirs = self.find_column(name, "category"), other.find_column(name, "category")
        if isinstance(mine, Coded) and isinstance(theirs, Coded):
            self._columns[name, "category"] = mine.recode(theirs.vocabulary)

    def sample(self, name: str, kind: Kind, segment: str) -> Sample | None:
        """Give a column of a segment as a sample; None where no row at all has the column, or the segment no row."""
        key = (name, kind, segment)
        if key not in self._samples:
            self._samples[key] = self._make_sample(name, kind, segment)
        return self._samples[key]

    def _make_sample(self, name: str, kind: Kind, segment: str) -> Sample | None:
        column = self.find_column(name, kind)
        if column is None or (segment and segment not in self.parts):
            return None
        part = column[self.parts[segment]] if segment else column
        if isinstance(part, Coded):
            return CategorySample(part.vocabulary, count_codes(part.codes, len(part.vocabulary)))
        return sort_numbers(part)


def measure_inputs(
    context: WindowContext, reference: SampledRows, current: SampledRows, num_rows: int
) -> list[Measurement]:
    """Measure every stored feature that is a number, a boolean or a category, for the whole model and each segment.

    `current` is the window or its sample, `num_rows` how many rows the window has.
    """
    return _measure_columns(context, reference, current, list_features(context.spec), num_rows, "")


def measure_outputs(
    context: WindowContext, reference: SampledRows, current: SampledRows, num_rows: int, model_version: str
) -> list[Measurement]:
    """Measure a version's `score` and `prediction`, as far as reference or window have them."""
    columns = [
        (name, kind)
        for name, kind in list_outputs(context.spec)
        if reference.find_column(name, kind) is not None or current.find_column(name, kind) is not None
    ]
    return _measure_columns(context, reference, current, columns, num_rows, model_version)


def list_features(spec: ModelSpec) -> list[tuple[str, Kind]]:
    """Return the features whose drift is measured, and as what: booleans are categories of two values."""
    kinds: dict[str, Kind] = {"number": "number", "boolean": "category", "category": "category"}
    return [(name, kinds[each.type]) for name, each in spec.stored_features.items() if each.type in kinds]


def find_column(rows: Rows, name: str, kind: Kind) -> Column | None:
    """Return a column: as numbers, or coded from whatever it is where it counts as a category."""
    if name == "prediction" and rows.prediction_text is not None and kind == "category":
        return Coded.of(rows.prediction_text)
    numbers = {"score": rows.score, "prediction": rows.prediction}.get(name, rows.numbers.get(name))
    if kind == "number":
        return numbers
    texts = rows.texts.get(name)
    return texts if texts is not None or numbers is None else Coded.of(numbers)


def list_outputs(spec: ModelSpec) -> list[tuple[str, Kind]]:
    if spec.task == "multiclass":
        return [("prediction", "category")]
    return [("score", "number"), ("prediction", "category" if spec.task == "binary" else "number")]


def _measure_columns(
    context: WindowContext,
    reference: SampledRows,
    current: SampledRows,
    columns: Sequence[tuple[str, Kind]],
    num_rows: int,
    model_version: str,
) -> list[Measurement]:
    for name, kind in columns:
        if kind == "category":
            current.share_vocabulary(name, reference)
    # Segment by segment: what depends on the sizes of two samples is then computed once for all columns.
    return [
        _measure(context, reference, current, name, kind, segment, num_rows, model_version)
        for segment in ["", *current.parts]
        for name, kind in columns
    ]


def _measure(
    context: WindowContext,
    reference: SampledRows,
    current: SampledRows,
    feature: str,
    kind: Kind,
    segment: str,
    num_rows: int,
    model_version: str,
) -> Measurement:
    drift = context.spec.drift
    method = drift.method if drift.method == "auto" or kind in METHODS[drift.method].kinds else "auto"
    threshold = None if drift.threshold == "calibrated" else float(drift.threshold)
    before, after = (each.sample(feature, kind, segment) or _NO_SAMPLE[kind] for each in (reference, current))
    # A text column beside a number column of the same name would compare "1" with 1.0.
    distance = measure_samples(before, after, kind, method, threshold)
    has_reference = reference.count(segment) > 0 and reference.find_column(feature, kind) is not None
    is_test = distance.p_value is not None
    return context.make(
        "drift",
        distance.metric,
        distance.value,
        _judge(context.spec, has_reference, distance, len(after)),
        current.count(segment) if segment else num_rows,
        num_sampled=current.count(segment),
        model_version=model_version,
        segment=segment,
        feature=feature,
        p_value=distance.p_value,
        alpha=distance.threshold if is_test else None,
        threshold=distance.threshold,
    )


def _judge(spec: ModelSpec, has_reference: bool, distance: Distance, num_known: int) -> str:
    """A distance rests on the values, not on the rows that lack them."""
    if not has_reference:
        return "no_reference"
    if num_known < spec.windows.min_rows:
        return "too_few_rows"
    if spec.drift.threshold == "calibrated":
        # Until calibration exists, a fixed distance stands in for it, and the row says so.
        return "uncalibrated"
    return "alert" if distance.drifted else "ok"
