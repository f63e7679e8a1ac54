"""Is a window's drift sure enough to alarm? Its counts against the reference's, at the level of the budget. Pure.

Owns which columns are tested, and so how often the budget is divided. The tests are `measures.calibration`, the levels
`measures.budget`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from measures.budget import Budget
from measures.calibration import DEFAULT_FLOORS, Comparison, compare_categories, compare_numbers
from measures.effects import Floors
from schemas.spec import PublishedSpec
from streams.logic.layouts import CategoryField, NumberField, Part, lay_out
from streams.logic.rows import list_segments

Ints = npt.NDArray[np.int64]
Field = NumberField | CategoryField

# Cells of one comparison (8 bytes each, some twenty arrays of them at a time): 250,000 take 40 MB.
_CELLS_MAX = 250_000


@dataclass(frozen=True, slots=True)
class Tested:
    """One column of one segment of a (merged) window. `p_alarm` alarms at or below the level; see `Comparison`.

    `num_window` and `num_reference` are the rows that have a value.
    """

    feature: str
    segment: str
    p_value: float
    p_alarm: float
    effect: float
    null_effect: float
    num_window: int
    num_reference: int


def make_budget(published: PublishedSpec) -> Budget:
    """Give the budget of a spec: its columns, with the outputs of the one version that speaks, times its segments."""
    spec = published.spec
    num_columns = sum(len(list_tested(published, part)) for part in ("inputs", "outputs"))
    num_segments = 1 + len(list_segments({key: published.segment_values.get(key, []) for key in spec.segments}))
    allowed, windows = spec.drift.false_alarms, spec.windows
    return Budget(allowed.count, allowed.per_ms, windows.size_ms, windows.origin_ms, num_columns * num_segments)


def find_budget(published: PublishedSpec) -> Budget | None:
    """Give the same; None where a fixed threshold decides."""
    return make_budget(published) if published.spec.drift.threshold == "calibrated" else None


def list_tested(published: PublishedSpec, part: Part) -> list[Field]:
    """Give the columns that are tested: those with cuts or categories of the reference, but for dropped features."""
    layout, kept = lay_out(published, part), published.spec.stored_features
    fields: list[Field] = [each for each in layout.numbers if len(each.cuts)]
    fields += [each for each in layout.categories if each.values]
    return [each for each in fields if part == "outputs" or each.name in kept]


def compare_counts(
    published: PublishedSpec,
    part: Part,
    window: dict[str, Ints],
    reference: dict[str, Ints],
    floors: Floors = DEFAULT_FLOORS,
) -> list[Tested]:
    """Compare counts int64[layout.num_slots] by segment, "" being the whole model, of a window and its reference.

    Segments that the reference lacks are left out. Counts of merged windows are the sums of theirs.
    """
    segments = [segment for segment in window if segment in reference]
    now, before = (np.stack([counts[each] for each in segments]) for counts in (window, reference))
    found: list[Tested] = []
    for columns in batch_columns(list_tested(published, part), len(segments)):
        compare = compare_numbers if isinstance(columns[0], NumberField) else compare_categories
        values, nulls = _flatten(*gather_columns(columns, now))
        reference_values, reference_nulls = _flatten(*gather_columns(columns, before))
        comparison = compare(values, reference_values, nulls, reference_nulls, floors)
        names = [(column.name, segment) for column in columns for segment in segments]
        found += _list(names, comparison, values.sum(axis=-1), reference_values.sum(axis=-1))
    return found


def batch_columns(fields: Sequence[Field], num_rows: int) -> Iterator[list[Field]]:
    """Give columns of one kind and of like length together, as many as fit with so many vectors of counts."""

    def describe(each: Field) -> tuple[bool, int]:
        return isinstance(each, NumberField), each.num_slots.bit_length()

    for (_, bits), group in groupby(sorted(fields, key=describe), key=describe):
        columns = list(group)
        step = max(1, _CELLS_MAX // (max(num_rows, 1) << bits))
        yield from (columns[begin : begin + step] for begin in range(0, len(columns), step))


def gather_columns(fields: Sequence[Field], counts: Ints) -> tuple[Ints, Ints]:
    """Give from counts [n, layout.num_slots] those of values [fields, n, cells] and of nulls [fields, n]."""
    sizes = [each.num_bins if isinstance(each, NumberField) else len(each.values) + 1 for each in fields]
    values = np.zeros((len(fields), len(counts), max(sizes)), np.int64)
    for place, each, size in zip(values, fields, sizes, strict=True):
        place[:, :size] = counts[:, each.slot : each.slot + size]
    nulls = np.stack([counts[:, each.slot + size] for each, size in zip(fields, sizes, strict=True)])
    return values, nulls


def _flatten(values: Ints, nulls: Ints) -> tuple[Ints, Ints]:
    return values.reshape(-1, values.shape[-1]), nulls.ravel()


def _list(names: Sequence[tuple[str, str]], found: Comparison, num_window: Ints, num_reference: Ints) -> list[Tested]:
    columns = (found.p_value, found.p_alarm, found.effect, found.null_effect, num_window, num_reference)
    return [
        Tested(*name, *values) for name, *values in zip(names, *(column.tolist() for column in columns), strict=True)
    ]
