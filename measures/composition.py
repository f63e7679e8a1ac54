"""What is a window made of, compared with its reference? Evidence that people can read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class ShareChange:
    """One value's share of the rows, before and now, both within 0 … 1."""

    value: str
    reference_share: float
    window_share: float

    @property
    def change(self) -> float:
        """The share's change: positive where the value became more frequent."""
        return self.window_share - self.reference_share

    def __str__(self) -> str:
        return f"{self.value}: {self.reference_share:.1%} → {self.window_share:.1%}"


def explain_composition(reference: NDArray[Any], current: NDArray[Any], top: int = 3) -> list[ShareChange]:
    """Return the `top` values whose share changed most, largest absolute change first, ties by name.

    Values may be strings or numbers (16.0 reads "16"); None and NaN are the value "(missing)".
    Values whose share is unchanged are left out. Empty if either side has no rows.

    >>> for change in explain_composition(np.array(["a", "a", "b", "c"]), np.array(["a", "c", "c", "c"])):
    ...     print(change)
    c: 25.0% → 75.0%
    a: 50.0% → 25.0%
    b: 25.0% → 0.0%
    """
    if len(reference) == 0 or len(current) == 0:
        return []
    before, after = _count(reference), _count(current)
    changes = [
        ShareChange(value, before[value] / len(reference), after[value] / len(current))
        for value in before.keys() | after.keys()
    ]
    changed = [each for each in changes if each.change != 0.0]
    # Rounded, so that equal changes (0.1 from 0.2 to 0.3 or from 0.7 to 0.8) tie and go by name.
    changed.sort(key=lambda each: (-round(abs(each.change), 12), each.value))
    return changed[:top]


def _count(values: NDArray[Any]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for value, number in Counter(np.asarray(values).tolist()).items():
        # NaN is counted once per object, hence the second sum, by name.
        counts[_name(value)] += number
    return counts


def _name(value: object) -> str:
    if value is None or value != value:
        return MISSING
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
