"""The gate: does the challenger deserve to replace the champion?

Owns which gates there are, their verdict and its words. Each gate is a module of its own (`gate_gain`, `gate_groups`,
`gate_budgets`). It must not promote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from measures.intervals import bound_mean, bound_roc_auc, bound_share
from measures.performance import measure_performance
from measures.sampling import Comparison
from retrain.gate_budgets import Cost, judge_cost, without_times
from retrain.gate_gain import describe_calibration, describe_gain, judge_calibration, judge_gain
from retrain.gate_groups import judge_fairness, judge_segments
from retrain.gate_rows import GateRows
from schemas.spec import FairnessSpec, PromoteSpec
from store.gates import Gate

__all__ = ["PROMISE", "GateRows", "Verdict", "judge_challenger"]

# The bound of its primary metric that a version promises to keep: what its rollback is decided by.
PROMISE = "promised"

_NO_FAIRNESS = FairnessSpec()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger passed, why in plain words, every figure behind it, and each gate."""

    passed: bool
    words: str
    metrics: dict[str, float]
    gates: tuple[Gate, ...] = ()


def judge_challenger(
    rows: GateRows,
    promote: PromoteSpec,
    min_rows: int,
    fairness: FairnessSpec = _NO_FAIRNESS,
    cost: Cost | None = None,
) -> Verdict:
    """Put a challenger through all gates; with fewer than `min_rows` rows that both models scored, nothing passes.

    - `gain`, `gain_lower`: AUC (binary) or accuracy (multiclass) up by at least `min_gain`, mean absolute error
      (regression) down by 1 %, and surely up or down at all;
    - `calibration` (binary): log loss surely below that of the champion recalibrated on these rows;
    - `segment`: in no segment with `min_rows` rows surely worse by more than `segment_tolerance`;
    - `demographic_parity`, `equal_opportunity`, `disparate_impact`: not surely beyond the declared limit and worse
      than the champion;
    - `latency`, `size`: within the declared budgets.
    """
    rows = rows.select_comparable()
    num_rows = len(rows)
    enough = num_rows >= min_rows
    row_words = f"champion and challenger scored {num_rows} labelled rows in common, {min_rows} are needed"
    counted = Gate(name="rows", passed=enough, value=float(num_rows), limit=float(min_rows), words=row_words)
    metrics = {"gate_rows": float(num_rows)}
    if not enough:
        return Verdict(False, f"Refused: {row_words}.", metrics, (counted,))
    gain, gates = judge_gain(rows, promote)
    metrics |= _record(gain)
    words = describe_gain(gain, num_rows)
    if rows.task == "binary":
        loss, gate = judge_calibration(rows, promote)
        metrics |= _record(loss)
        words += f"; {describe_calibration(loss)}"
        gates.append(gate)
    segments = judge_segments(rows, promote, min_rows)
    gates += segments
    gates += judge_fairness(rows, fairness, min_rows)
    if segments:
        num_worse = sum(not gate.passed for gate in segments)
        words += f"; {num_worse or 'none'} of {len(segments)} segments surely worse"
    if cost is not None:
        gates += judge_cost(cost, promote)
    metrics |= _measure_each(rows) | _promise(rows)
    objections = [without_times(gate).words for gate in gates if not gate.passed]
    passed = not objections
    words = f"{'Passed' if passed else 'Refused'}: {words}."
    if objections:
        words += f" The challenger is not accepted because {' and '.join(objections)}."
    return Verdict(passed, words, metrics, (counted, *gates))


def _record(comparison: Comparison) -> dict[str, float]:
    """Name a comparison's figures; a metric that is undefined has none, since NaN says nothing in a table."""
    name = "log_loss_recalibrated" if comparison.metric == "log_loss" else comparison.metric
    found = {
        f"champion_{name}": comparison.champion,
        f"{name}_gain": comparison.difference,
        f"{name}_gain_lower": comparison.lower,
        f"{name}_gain_upper": comparison.upper,
    }
    return {key: value for key, value in found.items() if not np.isnan(value)}


def _measure_each(rows: GateRows) -> dict[str, float]:
    """Measure every metric of both models, the champion's as it is, not recalibrated."""
    found: dict[str, float] = {}
    for prefix, outputs in (("", rows.challenger), ("champion_", rows.champion)):
        if rows.task == "regression":
            values = measure_performance(rows.task, rows.labels, predictions=outputs)
        else:
            values = measure_performance(rows.task, rows.labels, scores=outputs, classes=rows.classes)
        found |= {f"{prefix}{name}": value for name, value in values.items() if not np.isnan(value)}
    return found


def _promise(rows: GateRows) -> dict[str, float]:
    """Bound the challenger's own primary metric on these rows: it should not fall below (an error: rise above) this."""
    if rows.task == "binary":
        bound = bound_roc_auc(np.asarray(rows.labels, dtype=np.float64), rows.challenger).lower
    elif rows.task == "multiclass":
        assert rows.classes is not None
        predicted = np.asarray(list(rows.classes), dtype=object)[rows.challenger.argmax(axis=1)]
        bound = bound_share(float(np.mean(predicted == rows.labels)), len(rows)).lower
    else:
        errors = np.abs(np.asarray(rows.labels, dtype=np.float64) - rows.challenger)
        bound = bound_mean(float(errors.mean()), float((errors**2).mean()), len(rows)).upper
    return {} if math.isnan(bound) else {PROMISE: bound}
