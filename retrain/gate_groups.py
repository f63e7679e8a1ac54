"""The gates of groups: no declared segment may surely lose, and no gap between groups may surely be unfair.

Owns these guardrails and their words. A better mean must not be paid for by the few.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from measures.fairness import Disparity, measure_gap, measure_ratio
from measures.performance import complete_predictions
from retrain.gate_gain import METRIC_OF, NAMES, compare
from retrain.gate_rows import OTHER, GateRows
from schemas.spec import FairnessSpec, PromoteSpec
from store.gates import Gate

# The two ends of an interval of this confidence are a standard deviation away from its middle.
_ONE_SD = 0.682689492137086
# As many values of a key as the monitor measures.
_NUM_VALUES_MAX = 100

Bools = NDArray[np.bool_]


def judge_segments(rows: GateRows, promote: PromoteSpec, min_rows: int) -> list[Gate]:
    """Refuse a challenger that is surely worse than the champion by more than `segment_tolerance` in a segment.

    Every value of every segment key with at least `min_rows` rows is compared by the primary metric, all at
    the `confidence` of the gate together (Bonferroni). A bound so far out would need more resamples than a job
    can pay, so it is the normal one of the paired bootstrap's spread. Where the metric is undefined (one class
    only) a segment is not judged. The tolerance of a mean absolute error is a share of the champion's.
    """
    parts = [(segment, rows.take(members)) for segment, members in _list_segments(rows, min_rows)]
    metric = METRIC_OF[rows.task]
    found = [(segment, compare(part, metric, part.champion, _ONE_SD)) for segment, part in parts]
    found = [(segment, each) for segment, each in found if not math.isnan(each.difference)]
    gates = []
    for segment, each in found:
        z = float(special.ndtri(1.0 - (1.0 - promote.confidence) / 2.0 / len(found)))
        upper = each.difference + z * (each.upper - each.lower) / 2.0
        tolerated = promote.segment_tolerance * (each.champion if metric == "mae" else 1.0)
        passed = bool(upper >= -tolerated)
        surely = "not surely" if passed else "surely"
        words = (
            f"for {segment} its {NAMES[metric]} is {surely} worse by more than {tolerated:.4g} "
            f"({each.challenger:.4f} against {each.champion:.4f} on {each.num_rows:,} rows, "
            f"gain at most {upper:+.4f})"
        )
        gates.append(Gate(name="segment", segment=segment, passed=passed, value=upper, limit=-tolerated, words=words))
    return gates


def judge_fairness(rows: GateRows, fairness: FairnessSpec, min_rows: int) -> list[Gate]:
    """Refuse a binary challenger that is surely beyond a declared limit of fairness, and further than the champion.

    As the monitor judges it: the whole interval of 95 % must be beyond. So a challenger that passes opens no alert
    that the champion had not opened on the same rows, and one that is unfair but less so is let through.
    """
    if rows.task != "binary":
        return []
    challenger = rows.challenger >= 0.5
    champion = complete_predictions(rows.champion_predictions, rows.champion) == 1
    positive = rows.labels == 1
    everyone = np.ones(len(rows), dtype=np.bool_)
    gates = []
    for key in rows.segments:
        for name, limit, among in (
            ("demographic_parity", fairness.demographic_parity, everyone),
            ("equal_opportunity", fairness.equal_opportunity, positive),
            ("disparate_impact", fairness.disparate_impact, everyone),
        ):
            if limit is not None:
                before, after = (
                    _measure(name, *_count_groups(rows, key, hits, among, min_rows)) for hits in (champion, challenger)
                )
                if not math.isnan(after.value):
                    gates.append(_judge_disparity(name, key, before, after, limit))
    return gates


def _judge_disparity(name: str, key: str, before: Disparity, after: Disparity, limit: float) -> Gate:
    if name == "disparate_impact":
        beyond, worse, side = after.interval.upper < limit, not after.value >= before.value, "below"
    else:
        beyond, worse, side = after.interval.lower > limit, not after.value <= before.value, "above"
    passed = not (beyond and worse)
    words = (
        f"its {name.replace('_', ' ')} over {key} is {'not ' if passed else ''}surely {side} {limit:g} and worse than "
        f"the champion's ({after.value:.4f}, 95 % interval {after.interval.lower:.4f} to {after.interval.upper:.4f}, "
        f"against {before.value:.4f})"
    )
    return Gate(name=name, segment=key, passed=passed, value=after.value, limit=limit, words=words)


def _measure(name: str, num_hits: list[int], num_rows: list[int]) -> Disparity:
    return measure_ratio(num_hits, num_rows) if name == "disparate_impact" else measure_gap(num_hits, num_rows)


def _list_segments(rows: GateRows, min_rows: int) -> list[tuple[str, Bools]]:
    found = []
    for key in rows.segments:
        for value, members in _list_values(rows, key):
            if np.count_nonzero(members) >= min_rows:
                found.append((f"{key}={value}", members))
    return found


def _list_values(rows: GateRows, key: str) -> list[tuple[str, Bools]]:
    """Return the values of a key with their rows, the most frequent first, ties by name."""
    column = rows.segments[key]
    named = np.array(["" if value is None else value for value in column], dtype=np.str_)
    values, counts = np.unique(named, return_counts=True)
    ranked = sorted((-count, value) for value, count in zip(values.tolist(), counts.tolist(), strict=True) if value)
    return [(value, named == value) for _, value in ranked[:_NUM_VALUES_MAX]]


def _count_groups(rows: GateRows, key: str, hits: Bools, among: Bools, min_rows: int) -> tuple[list[int], list[int]]:
    """Count hits and rows of the groups with enough rows; the rest of a key is no group of its own."""
    num_hits, num_rows = [], []
    for value, members in _list_values(rows, key):
        size = int(np.count_nonzero(members & among))
        if value != OTHER and size >= min_rows:
            num_hits.append(int(np.count_nonzero(hits & members & among)))
            num_rows.append(size)
    return num_hits, num_rows
