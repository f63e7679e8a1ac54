"""How many drift alerts open where nothing changes, and how soon where something does?

Streams are drawn, counted, tested and judged by the real code (`bench.watched`), each with a reference of its own, and
the same streams are judged under every budget. Every figure follows from SEED alone, on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.delays import run_delays
from bench.results import Limit, Result
from bench.shapes import SESSIONS, SHAPES
from bench.surroundings import Options
from bench.watched import MONTH_MS, Cell, Fired, WatchedModel
from measures.budget import DAY_MS, HOUR_MS

SEED = 5
BUDGETS = (1.0, 0.35)


@dataclass(frozen=True, slots=True)
class Plan:
    """Streams of a size, of every shape: how many, and of how many days."""

    num_rows: int
    size_ms: int
    num_reference: int
    num_streams: int
    num_days: int


# References: as the docs advise, ten times the largest merged window; a fifth of that; a tenth. Six weeks of days are
# whole merged weeks.
LONG = (Plan(100, HOUR_MS, 24_000, 4, 30), Plan(1_000, HOUR_MS, 48_000, 4, 30), Plan(10_000, DAY_MS, 70_000, 4, 42))
SHORT = (Plan(100, HOUR_MS, 24_000, 1, 10), Plan(1_000, HOUR_MS, 48_000, 1, 2), Plan(10_000, DAY_MS, 70_000, 1, 14))


@dataclass(frozen=True, slots=True)
class Watch:
    """The alerts of each stream of a cell, and for how many months all of them were watched."""

    cell: Cell
    num_months: float
    fired: list[list[Fired]]

    def count(self, budget: float) -> int:
        """Give the number of alerts under a budget."""
        return sum(each.budget == budget for stream in self.fired for each in stream)

    def count_bunched(self, budget: float) -> int:
        """Give the number of streams with two alerts or more."""
        return sum(sum(each.budget == budget for each in stream) > 1 for stream in self.fired)


def run(options: Options) -> Iterator[Result]:
    watches = []
    for cell, plan in list_cells(SHORT if options.short else LONG):
        watches.append(watch_cell(cell, plan.num_streams, plan.num_days, BUDGETS))
        yield report_cell(watches[-1])
    yield from (report_pool(watches, budget, budget) for budget in BUDGETS)
    yield from report_sessions(*((1, 5) if options.short else (4, 30)))
    yield from run_delays(SEED, is_short=options.short)


def list_cells(plans: Sequence[Plan]) -> Iterator[tuple[Cell, Plan]]:
    """Give every shape in every size."""
    for plan in plans:
        for shape in SHAPES:
            yield Cell(shape, plan.num_rows, plan.size_ms, plan.num_reference), plan


def watch_cell(cell: Cell, num_streams: int, num_days: int, budgets: Sequence[float]) -> Watch:
    """Watch streams in which nothing changes."""
    fired = []
    for stream in range(num_streams):
        rng = np.random.default_rng([SEED, *cell.shape.name.encode(), cell.num_rows, stream])
        model = WatchedModel(cell, rng, budgets)
        num_rows = cell.num_rows * DAY_MS // cell.size_ms
        fired.append([each for _ in range(num_days) for each in model.take(cell.shape.draw(rng, num_rows))])
    return Watch(cell, num_streams * num_days * DAY_MS / MONTH_MS, fired)


def report_cell(watch: Watch) -> Result:
    """Give the alerts of one cell under the first budget, beside those under the others."""
    first, *others = BUDGETS
    name = f"false alerts, B = {first:g}: {watch.cell}, {watch.num_months:.3g} months"
    return Result(name, watch.count(first), "", ", ".join(f"B = {each:g}: {watch.count(each)}" for each in others))


def report_pool(watches: Sequence[Watch], budget: float, promised: float) -> Result:
    """Give the alerts of all cells under a budget, beside as many as the promised one allows: B·t + 2·√(B·t)."""
    num_months = sum(each.num_months for each in watches)
    expected = promised * num_months
    bunched = sum(each.count_bunched(budget) for each in watches)
    num_streams = sum(len(each.fired) for each in watches)
    name = f"false alerts, B = {budget:g}: all, {num_months:.3g} months"
    peer = f"two or more in {bunched} of {num_streams} streams"
    bound = round(expected + 2.0 * math.sqrt(expected), 1)
    return Result(name, sum(each.count(budget) for each in watches), "", peer, None, Limit("value", "at most", bound))


def report_sessions(num_streams: int, num_days: int) -> Iterator[Result]:
    """Give the alerts of dependent rows, taken for what they are, beside the same rows taken for independent.

    Two months of reference: of days, block mode needs thirty, and sixty where they seem alike.
    """
    cell = Cell(SESSIONS, 100, HOUR_MS, 60 * 24 * 100)
    blocks = watch_cell(replace(cell, rows="blocks"), num_streams, num_days, BUDGETS)
    independent = watch_cell(cell, num_streams, num_days, BUDGETS)
    for budget in BUDGETS:
        name = f"false alerts, B = {budget:g}, rows: blocks: {cell}, {blocks.num_months:.3g} months"
        yield Result(name, blocks.count(budget), "", f"rows: independent: {independent.count(budget)}")
