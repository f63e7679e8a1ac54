"""How much of a model's performance would one column's change cost, if only that column had changed?

Owns the reweighting of the reference. It changes the shares of one column's cells to those of the window and leaves
everything else as it was among the rows of a cell: the effect of covariate shift in that column alone. It is blind to a
change of the relation between columns and label, and columns that change together each have the effect of all.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def resample_cells(reference: Ints, window: Ints, order: Floats) -> Ints | None:
    """Give positions int64[N] of N reference rows, with repetition, whose cells have the window's shares.

    `reference` int64[N] and `window` int64[n] are the cells (from 0) of the rows of both. Systematic sampling in the
    order of cell and `order` float64[N], so that within a cell the rows taken are spread evenly over `order` (outcomes
    that are alike should have like numbers there), and no chance enters. Cells that the reference lacks are left out.
    None where no row is left on either side.

    >>> resample_cells(np.array([0, 0, 0, 1]), np.array([0, 1]), np.array([3.0, 2.0, 1.0, 0.0])).tolist()
    [2, 0, 3, 3]
    """
    if len(reference) == 0 or len(window) == 0:
        return None
    size = int(max(reference.max(), window.max())) + 1
    known, wanted = np.bincount(reference, minlength=size), np.bincount(window, minlength=size)
    wanted[known == 0] = 0
    if not wanted.any():
        return None
    weight = np.divide(wanted, known, out=np.zeros(size), where=known > 0) / wanted.sum()
    places = np.lexsort((order, reference))
    ends = np.cumsum(weight[reference[places]])
    steps = (np.arange(len(reference)) + 0.5) / len(reference) * ends[-1]
    chosen: Ints = places[np.minimum(np.searchsorted(ends, steps, side="right"), len(reference) - 1)]
    return chosen


def share_effects(harms: Mapping[str, float]) -> dict[str, float]:
    """Give each column's share of all harm, 0 for those whose change alone does none; nothing where none does any.

    >>> share_effects({"a": 0.03, "b": 0.01, "c": -0.2})
    {'a': 0.75, 'b': 0.25, 'c': 0.0}
    """
    total = sum(max(harm, 0.0) for harm in harms.values())
    return {name: max(harm, 0.0) / total for name, harm in harms.items()} if total > 0.0 else {}
