"""The oracle's second half: what must be stored, counted and measured in the end, given what became of every event.

Imports nothing of the product: pandas, NumPy, SciPy and scikit-learn only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tests.faults import formulas
from tests.faults.counted import CountTests, Test, count_drifted
from tests.faults.log_order import Event, Replayed, segment_of
from tests.faults.models import MODELS, VERSIONS, Model
from tests.faults.tables import Stored, find_stored, leave_out_repeated, name_roles, tabulate, take_once

OTHER = "__other__"
LABEL_COVERAGE_MIN = 0.9


class Key(NamedTuple):
    """What a measurement is of; `scale` windows from the first on are taken together."""

    model: str
    model_version: str
    window_start: int
    segment: str
    feature: str
    kind: str
    metric: str
    scale: int = 1


class Row(NamedTuple):
    """What it says; None is null."""

    value: float | None
    lower: float | None
    upper: float | None
    threshold: float | None
    status: str
    source: str
    num_rows: int
    num_sampled: int
    label_coverage: float | None
    p_value: float | None = None
    alpha: float | None = None


def recompute(replayed: Replayed, references: dict[str, pd.DataFrame], end_ms: int) -> dict[Key, Row]:
    """Give every measurement of every window; time has come to `end_ms`."""
    stored = find_stored(replayed)
    found: dict[Key, Row] = {}
    for model in MODELS.values():
        found.update(_Recomputation(model, references[model.name], replayed, stored, end_ms).run())
    return found


class _Recomputation:
    """One model."""

    def __init__(self, model: Model, reference: pd.DataFrame, replayed: Replayed, stored: Stored, end_ms: int) -> None:
        self.model = model
        self.reference = name_roles(model, reference)
        self.known = {key: sorted(set(self.reference[key].dropna())) for key in model.segments}
        self.limits = self._find_limits()
        self.confidence: formulas.Confidence | None = None
        if model.task == "binary":
            self.confidence = formulas.Confidence(
                self.reference["label"].to_numpy(), self.reference["score"].to_numpy()
            )
        mine = [event for event in replayed.events if event.model is model]
        self.source = "records" if any(event.topic == "records" for event in mine) else "predictions"
        sources = [e for e in mine if e.topic == self.source and e.body.get("features") is not None]
        counted = [e for e in sources if (e.is_counted if self.source == "records" else e.is_counted_input)]
        self.counted_inputs = tabulate(model, counted, is_input=True)
        self.inputs = tabulate(model, leave_out_repeated(counted, sources, any_version=True), is_input=True)
        outputs = [e for e in mine if e.topic == "predictions"]
        self.outputs = tabulate(model, leave_out_repeated([e for e in outputs if e.is_counted], outputs))
        label = {e.record_id: float(e.body["label"]) for e in stored.labels if e.model is model}
        predictions = [e for e in stored.predictions if e.model is model]
        self.num_stored = tabulate(model, predictions, label)
        self.stored = tabulate(model, take_once(predictions), label)
        # Which segment a prediction belongs to its record says: one that was counted, but for realized performance any.
        records = [e for e in mine if e.topic == "records"]
        counted = leave_out_repeated([e for e in records if e.is_counted], records)
        self.counted_segments = self._list_segment_values(counted)
        self.stored_segments = self._list_segment_values([e for e in stored.records if e.model is model])
        self.counts: dict[tuple[int, str], list[int]] = {}
        for (topic, _, name, version, segment, start), counts in replayed.counts.items():
            if name == model.name and not segment and (version or topic == self.source):
                total = self.counts.setdefault((start, version), [0, 0, 0])
                for index, number in enumerate((counts.num_rows, counts.num_duplicates, counts.num_late)):
                    total[index] += number
        self.counted_outputs = tabulate(model, [e for e in outputs if e.is_counted])
        self.tests: dict[tuple[int, str], dict[str, Test]] = {}
        self.spans = list(self._test_counts(end_ms)) if model.threshold is None else []

    def run(self) -> Iterator[tuple[Key, Row]]:
        yield from self.spans
        for start in sorted({start for start, _ in self.counts}):
            yield from self._measure_inputs(start)
            for version in VERSIONS[self.model.name]:
                if (start, version) in self.counts:
                    yield from self._measure_outputs(start, version)
                yield from self._measure_labels(start, version)

    # --- what needs counts alone

    def _test_counts(self, end_ms: int) -> Iterator[tuple[Key, Row]]:
        """Test the windows, single and merged, that are complete; those of single ones are kept in `tests`."""
        tests = CountTests(self.model, self.reference)
        starts = {start for start, _ in self.counts}
        for start, end, scale in tests.spans(starts, end_ms):
            found: dict[str, dict[str, Test]] = {}
            num_rows = 0
            for version in ("", *VERSIONS[self.model.name]):
                tables = self.counted_outputs if version else self.counted_inputs
                inside = [(each, version) for each in sorted(starts) if start <= each < end]
                parts = [tables[key] for key in inside if key in tables]
                if not parts:
                    continue
                rows = pd.concat(parts)
                num_rows = num_rows if version else len(rows)
                found[version] = tests.test(rows, version, scale)
                if scale == 1:
                    self.tests[start, version] = found[version]
                for name, test in found[version].items():
                    key = self._key(start, version, "", name, "drift", test.metric)
                    row = self._row(test.value, test.status, len(rows), threshold=test.threshold)
                    yield key._replace(scale=scale), row._replace(p_value=test.p_value, alpha=test.alpha, source="")
            key = self._key(start, "", "", "", "drift", "num_drifted")._replace(scale=scale)
            yield key, self._row(count_drifted(found), "ok", num_rows)._replace(source="")

    # --- what needs no labels

    def _measure_inputs(self, start: int) -> Iterator[tuple[Key, Row]]:
        counts = self.counts[start, ""]
        yield from self._tell_counts(start, "", counts)
        counted = self.counted_inputs.get((start, ""), self.counted_inputs[None])
        for name, declared in self.model.measured.items():
            column = counted[name]
            shares = {"null_share": int(column.isna().sum())}
            if declared.type == "category":
                shares["unseen_share"] = int((column.notna() & ~column.isin(self.reference[name].dropna())).sum())
            if declared.min is not None or declared.max is not None:
                low, high = declared.min or -math.inf, declared.max or math.inf
                shares["out_of_range_share"] = int(((column < low) | (column > high)).sum())
            if declared.values is not None:
                shares["out_of_range_share"] = int((column.notna() & ~column.isin(declared.values)).sum())
            for metric, count in shares.items():
                key = self._key(start, "", "", name, "quality", metric)
                yield key, self._row(count / counts[0], "ok", counts[0])
        rows = self._take_sample(self.inputs.get((start, ""), self.inputs[None]))
        num_rows = len(rows) if len(rows) < self.model.exact_rows else counts[0]
        status = "too_few_rows" if num_rows < self.model.min_rows else "ok"
        key = self._key(start, "", "", "", "quality", "num_rows")
        yield key, self._row(num_rows, status, num_rows, len(rows))
        if len(rows):
            # The reference has a row a second.
            key = self._key(start, "", "", "", "quality", "volume_ratio")
            yield key, self._row(num_rows / (self.model.size_ms / 1000), "ok", num_rows)
        kinds = {"number": "number", "boolean": "category", "category": "category"}
        for name, declared in self.model.measured.items():
            if declared.type in kinds:
                yield from self._measure_drift(start, "", rows, num_rows, name, kinds[declared.type])

    def _measure_outputs(self, start: int, version: str) -> Iterator[tuple[Key, Row]]:
        counts = self.counts[start, version]
        yield from self._tell_counts(start, version, counts)
        status = "too_few_rows" if counts[0] < self.model.min_rows else "ok"
        yield self._key(start, version, "", "", "quality", "num_rows"), self._row(counts[0], status, counts[0])
        rows = self._take_sample(self.outputs.get((start, version), self.outputs[None]))
        num_rows = len(rows) if len(rows) < self.model.exact_rows else counts[0]
        if self.model.task == "regression":
            yield from self._measure_drift(start, version, rows, num_rows, "prediction", "number")
            return
        yield from self._measure_drift(start, version, rows, num_rows, "score", "number")
        yield from self._measure_drift(start, version, rows, num_rows, "prediction", "category")
        assert self.confidence is not None
        for segment, part in self._split(rows, self.counted_segments[start]):
            size = len(part) if segment else num_rows
            for metric in self.model.metrics:
                value = self.confidence.estimate(metric, part["score"].to_numpy(), part["prediction"].to_numpy())
                lower, upper = (None, None) if segment else self.limits[metric]
                few = len(part) < self.model.min_rows
                status = "too_few_rows" if few else self._judge(metric, value, lower, upper)
                row = self._row(value, status, size, len(part), lower=lower, upper=upper)
                yield self._key(start, version, segment, "", "estimate", metric), row

    def _tell_counts(self, start: int, version: str, counts: list[int]) -> Iterator[tuple[Key, Row]]:
        for metric, count in (("num_duplicates", counts[1]), ("num_late", counts[2])):
            yield self._key(start, version, "", "", "quality", metric), self._row(count, "ok", counts[0])

    def _measure_drift(
        self, start: int, version: str, rows: pd.DataFrame, num_rows: int, name: str, kind: str
    ) -> Iterator[tuple[Key, Row]]:
        metric = "wasserstein" if kind == "number" else "jensenshannon"
        for segment, part in self._split(rows, self.counted_segments[start]):
            reference = self._take_segment(self.reference, segment)
            value = formulas.distance(kind, _column(reference, name, kind), _column(part, name, kind))
            if not len(reference):
                status = "no_reference"
            elif int(part[name].notna().sum()) < self.model.min_rows:
                status = "too_few_rows"
            else:
                status = "alert" if self.model.threshold is not None and value >= self.model.threshold else "ok"
            size = len(part) if segment else num_rows
            row = self._row(value, status, size, len(part), threshold=self.model.threshold or 0.1)
            if self.model.threshold is None and status == "ok":
                test = self.tests[start, version][name]
                row = row._replace(status=test.status, p_value=test.p_value, alpha=test.alpha)
            yield self._key(start, version, segment, name, "drift", metric), row

    # --- what needs labels

    def _measure_labels(self, start: int, version: str) -> Iterator[tuple[Key, Row]]:
        """Of all that is stored, also of what came too late to be counted: labels have no end."""
        everything = self.num_stored.get((start, version), self.num_stored[None])
        if not everything["label"].notna().any():
            return
        # It may be that all of them count in other windows.
        rows = self._take_sample(self.stored.get((start, version), self.stored[None]))
        is_whole = len(rows) < self.model.exact_rows
        for segment, part in self._split(rows, self.stored_segments[start]):
            labelled = part[part["label"].notna()]
            coverage = len(labelled) / len(part) if len(part) else 0.0
            num_rows = len(part)
            if not segment and not is_whole:
                num_rows = len(everything)
                coverage = float(everything["label"].notna().sum()) / num_rows
            yield from self._realize(start, version, segment, labelled, num_rows, coverage)

    def _realize(
        self, start: int, version: str, segment: str, labelled: pd.DataFrame, num_rows: int, coverage: float
    ) -> Iterator[tuple[Key, Row]]:
        label = labelled["label"].to_numpy()
        score = labelled["score"].to_numpy() if self.model.task == "binary" else None
        for metric in self.model.metrics:
            value = formulas.realized(metric, label, score, labelled["prediction"].to_numpy())
            lower, upper = (None, None) if segment else self.limits[metric]
            if coverage < LABEL_COVERAGE_MIN:
                status = "partial"
            elif len(labelled) < self.model.min_rows:
                status = "too_few_rows"
            else:
                status = self._judge(metric, value, lower, upper)
            row = self._row(value, status, num_rows, len(labelled), lower=lower, upper=upper, coverage=coverage)
            key = self._key(start, version, segment, "", "performance", metric)
            yield key, row._replace(source="predictions")

    def _judge(self, metric: str, value: float, lower: float | None, upper: float | None) -> str:
        if lower is None or upper is None:
            return "ok"
        return "alert" if formulas.is_harmful(metric, value, lower, upper) else "ok"

    def _find_limits(self) -> dict[str, tuple[float, float]]:
        """The reference has a row a second, and is cut as time is; its short last window counts."""
        window = np.arange(len(self.reference)) * 1000 // self.model.size_ms
        parts = [self.reference[window == number] for number in range(window.max() + 1)]
        binary = self.model.task == "binary"
        return {
            metric: formulas.limits(
                [
                    formulas.realized(
                        metric,
                        part["label"].to_numpy(dtype=float),
                        part["score"].to_numpy() if binary else None,
                        part["prediction"].to_numpy(dtype=float),
                    )
                    for part in parts
                ]
            )
            for metric in self.model.metrics
        }

    # --- rows

    def _take_sample(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The first rows in the order of (hash of the id, id), as many as are measured."""
        if len(rows) <= self.model.exact_rows:
            return rows
        hashes = formulas.sip_hash(rows["record_id"].tolist())
        return rows.assign(hash=hashes).sort_values(["hash", "record_id"]).head(self.model.exact_rows)

    def _split(self, rows: pd.DataFrame, values: dict[str, dict[str, str]]) -> Iterator[tuple[str, pd.DataFrame]]:
        """Give the rows, and those of each segment; `values` has by key what each record_id belongs to."""
        yield "", rows
        for key in self.model.segments:
            mine = rows.assign(**{key: [values[key].get(record_id) for record_id in rows["record_id"]]})
            for value in [*self.known[key], OTHER]:
                part = self._take_segment(mine, f"{key}={value}")
                if len(part):
                    yield f"{key}={value}", part

    def _take_segment(self, rows: pd.DataFrame, segment: str) -> pd.DataFrame:
        if not segment:
            return rows
        key, _, value = segment.partition("=")
        if value != OTHER:
            return rows[rows[key] == value]
        return rows[rows[key].notna() & ~rows[key].isin(self.known[key])]

    def _list_segment_values(self, records: list[Event]) -> dict[int, dict[str, dict[str, str]]]:
        """Give {window: {key: {record_id: value}}} of these records, the first in the log of those with one id."""
        values: dict[int, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
        for event in sorted(records, key=lambda e: e.place):
            for key in self.model.segments:
                if (value := segment_of(event, key)) is not None:
                    values[event.window][key].setdefault(event.record_id, value)
        return values

    def _key(self, start: int, version: str, segment: str, feature: str, kind: str, metric: str) -> Key:
        return Key(self.model.name, version, start, segment, feature, kind, metric)

    def _row(
        self,
        value: float,
        status: str,
        num_rows: int,
        num_sampled: int | None = None,
        *,
        lower: float | None = None,
        upper: float | None = None,
        threshold: float | None = None,
        coverage: float | None = None,
    ) -> Row:
        known = None if math.isnan(value) else float(value)
        sampled = num_rows if num_sampled is None else num_sampled
        return Row(known, lower, upper, threshold, status, self.source, num_rows, sampled, coverage)


def _column(rows: pd.DataFrame, name: str, kind: str) -> np.ndarray[Any, Any]:
    return rows[name].to_numpy(dtype=float) if kind == "number" else rows[name].to_numpy(dtype=object)
