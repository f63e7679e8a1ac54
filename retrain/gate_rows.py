"""The rows that a challenger is judged on, with what both models say of them.

Owns which of them count. It must not judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.spec import Task

# As the monitor names it: what no reference row had.
OTHER = "__other__"


@dataclass(frozen=True, slots=True)
class GateRows:
    """n labelled rows with what both models say of them.

    Outputs are as in `measures.performance`: the probability of class 1 for binary, (n, len(classes))
    for multiclass, the prediction for regression; NaN where the champion said nothing. `segments` has
    each row's value by segment key, None where it has none. `champion_predictions` are what the
    champion sent beside its scores (binary), NaN where it sent none.
    """

    task: Task
    labels: NDArray[Any]
    champion: NDArray[np.float64]
    challenger: NDArray[np.float64]
    classes: Sequence[str] | None = None
    segments: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    champion_predictions: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[Any]) -> GateRows:
        """Return the rows that a mask or an index selects."""
        sent = self.champion_predictions
        return GateRows(
            self.task,
            self.labels[rows],
            self.champion[rows],
            self.challenger[rows],
            self.classes,
            {key: values[rows] for key, values in self.segments.items()},
            None if sent is None else sent[rows],
        )

    def select_comparable(self) -> GateRows:
        """Return the rows that both models scored."""
        missing = np.isnan(self.champion) | np.isnan(self.challenger)
        return self.take(np.logical_not(missing.any(axis=1) if missing.ndim == 2 else missing))


def arrange_segments(
    found: Mapping[str, Mapping[str, str]], known: Mapping[str, Sequence[str]], record_ids: Sequence[str]
) -> dict[str, NDArray[np.object_]]:
    """Return each row's value by segment key, from {key: {record_id: value}}.

    Where the reference's values of a key are `known`, any other value is `__other__`.
    """
    arranged = {}
    for key, values in found.items():
        kept = set(known.get(key, ()))
        named = [values.get(record_id) for record_id in record_ids]
        column = np.empty(len(named), dtype=np.object_)
        column[:] = [value if value is None or not kept or value in kept else OTHER for value in named]
        arranged[key] = column
    return arranged
