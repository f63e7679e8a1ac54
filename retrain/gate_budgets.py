"""The gates of cost: how long a challenger takes to score, and how much room it takes.

Owns the measuring and the words. Times depend on the machine, so they stand in the tables and not in the artifact,
whose hash is a function of the job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from retrain.preprocessing import FeatureRows
from schemas.clock import Clock
from schemas.spec import PromoteSpec
from store.gates import Gate

# 1 % of 300 is 3: the 99th percentile is not the one outlier that any machine has.
_NUM_SINGLE_ROWS = 300
# The first calls of a network allocate what later ones reuse.
_NUM_WARM_UP = 20
_NUM_BATCH_ROWS = 10_000
# A model that takes a second a row is known well enough after a few.
_SINGLE_ROWS_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs: the 99th percentile of scoring one row, rows a second in a batch, and its size."""

    latency_ms_p99: float
    rows_per_s: float
    size_bytes: int

    def list_metrics(self) -> dict[str, float]:
        """Name the figures as the tables have them."""
        return {
            "latency_ms_p99": self.latency_ms_p99,
            "rows_per_s": self.rows_per_s,
            "size_bytes": float(self.size_bytes),
        }


def measure_cost(score: Callable[[FeatureRows], object], rows: FeatureRows, size_bytes: int, clock: Clock) -> Cost:
    """Time `score` on the CPU of this process, threads as they are pinned: single rows, then one batch of up to 10,000.

    `rows` are at least one; they are taken in their order, again from the first when they end.
    """
    rows = rows.slice(0, _NUM_BATCH_ROWS)
    rows = FeatureRows(dict(rows.numbers), dict(rows.texts), rows.num_rows)  # read now, which is not scoring
    single_s: list[float] = []
    began_s = clock.monotonic_s()
    for index in range(_NUM_WARM_UP + _NUM_SINGLE_ROWS):
        row = rows.slice(index % rows.num_rows, 1)
        before_s = clock.monotonic_s()
        score(row)
        after_s = clock.monotonic_s()
        if index >= _NUM_WARM_UP or after_s - began_s > _SINGLE_ROWS_S_MAX:
            single_s.append(after_s - before_s)
        if after_s - began_s > _SINGLE_ROWS_S_MAX:
            break
    before_s = clock.monotonic_s()
    score(rows)
    batch_s = max(clock.monotonic_s() - before_s, 1e-9)
    return Cost(float(np.quantile(single_s, 0.99)) * 1000.0, rows.num_rows / batch_s, size_bytes)


def judge_cost(cost: Cost, promote: PromoteSpec) -> list[Gate]:
    """Hold what a model costs against the declared budgets; without a budget there is no gate."""
    gates = []
    if promote.max_latency_ms is not None:
        passed = cost.latency_ms_p99 <= promote.max_latency_ms
        words = (
            f"scoring one row takes {'at most' if passed else 'more than'} {promote.max_latency_ms} ms "
            f"in 99 of 100 cases ({cost.latency_ms_p99:.2f} ms)"
        )
        limit = float(promote.max_latency_ms)
        gates.append(Gate(name="latency", passed=passed, value=cost.latency_ms_p99, limit=limit, words=words))
    if promote.max_size_bytes is not None:
        passed = cost.size_bytes <= promote.max_size_bytes
        words = (
            f"its weights and preprocessing take {'at most' if passed else 'more than'} {promote.max_size_bytes:,} "
            f"bytes ({cost.size_bytes:,})"
        )
        limit = float(promote.max_size_bytes)
        gates.append(Gate(name="size", passed=passed, value=float(cost.size_bytes), limit=limit, words=words))
    return gates


def without_times(gate: Gate) -> Gate:
    """Return a gate as the artifact has it: what the machine's clock said is left out."""
    if gate.name != "latency":
        return gate
    return msgspec.structs.replace(gate, value=None, words=gate.words.partition(" (")[0])
