"""What an alert carries beside its words: figures for programs, under the names that `evidence` has for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from store.measurements import DriftRow, PerformanceRow
from streams.explaining import Explanation


def list_limits(reading: PerformanceRow | None) -> dict[str, Any]:
    """Give the limits of a performance metric, and the rows that it is of."""
    return {} if reading is None else {"lower": reading.lower, "upper": reading.upper, "num_rows": reading.num_rows}


def list_tested(row: DriftRow | None) -> dict[str, Any]:
    """Give how many columns have drifted, and of a test its p-value, level, and the windows that it is of."""
    if row is None:
        return {}
    evidence: dict[str, Any] = {"num_drifted": row.num_drifted}
    if row.alpha is not None:
        evidence |= {"p_value": row.p_value, "alpha": row.alpha, "num_windows": row.scale}
        evidence |= {"tested_from": row.window_start, "tested_to": row.window_end, "num_rows": row.num_rows}
    return evidence


def list_explained(explained: Sequence[Explanation]) -> dict[str, Any]:
    """Give the composition of the columns that drifted most, and what the change of each alone would cost."""
    evidence: dict[str, Any] = {}
    if explained:
        evidence["composition"] = [{"feature": each.feature, "values": each.values} for each in explained]
    blamed = [each for each in explained if each.harm is not None]
    if blamed:
        evidence["blame"] = [{"feature": each.feature, "harm": each.harm, "share": each.share} for each in blamed]
    return evidence
