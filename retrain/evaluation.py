"""A challenger before the gates: the gate rows with all that champion, challenger and segments say of them.

Owns the gathering; the rules are `gate`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.champion import arrange_challenger, arrange_champion, list_classes, read_champion_outputs
from retrain.gate import Verdict, judge_challenger
from retrain.gate_budgets import Cost, measure_cost
from retrain.gate_rows import GateRows, arrange_segments
from retrain.order import JobOrder
from retrain.snapshot import Snapshot
from retrain.target import Scored
from retrain.trained_model import TrainedModel
from schemas.clock import Clock
from schemas.spec import RetrainSpec
from store.client import ClickHouse
from store.events import input_source, read_segment_values


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a challenger said of the gate rows, what that is worth, and what it costs."""

    scored: Scored
    verdict: Verdict
    cost: Cost

    def list_metrics(self) -> dict[str, float]:
        """Give every figure, those of this machine's clock included."""
        return {**self.verdict.metrics, **self.cost.list_metrics()}


def evaluate_challenger(
    ch: ClickHouse,
    order: JobOrder,
    gate: Snapshot,
    model: TrainedModel,
    size_bytes: int,
    clock: Clock,
) -> Evaluation:
    """Score the gate rows and judge the challenger by them.

    `size_bytes` is of its weights and preprocessing.
    """
    spec = order.published.spec
    features = gate.read_features()
    scored = model.score(features)
    rows = gather_rows(ch, order, gate, model.target.classes, scored)
    cost = measure_cost(model.score, features, size_bytes, clock)
    promote = (spec.retrain or RetrainSpec()).promote
    return Evaluation(scored, judge_challenger(rows, promote, spec.windows.min_rows, spec.fairness, cost), cost)


def gather_rows(ch: ClickHouse, order: JobOrder, gate: Snapshot, learnt: Sequence[str], scored: Scored) -> GateRows:
    """Return the gate rows as the gates read them."""
    spec = order.published.spec
    ids = gate.table["record_id"]
    outputs = read_champion_outputs(ch, order.model, order.champion, gate.start, gate.end, ids)
    labels = gate.labels.to_numpy(zero_copy_only=False)
    classes = list_classes(outputs, labels, learnt) if spec.task == "multiclass" else ()
    sent = outputs["prediction"].to_numpy(np.float64, na_value=np.nan) if spec.task == "binary" else None
    found = {}
    if spec.segments:
        source = input_source(ch, order.model, gate.start, gate.end)
        found = read_segment_values(ch, order.model, gate.start, gate.end, source, spec.segments)
    return GateRows(
        spec.task,
        labels,
        arrange_champion(outputs, spec.task, classes),
        arrange_challenger(scored, spec.task, classes),
        classes or None,
        arrange_segments(found, order.published.segment_values, ids.to_pylist()),
        sent,
    )
