"""Which of the training rows a network learns from: old ones, those from after the change, or a mix.

Owns the choice, which is a pure function of the rows, the spec and the seed. On some data rows from before a change
help and on some they hurt, so `auto` tries both, on rows that neither has seen and that come before the gate rows. It
must not look at the gate rows, nor judge the challenger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from measures.performance import measure_performance
from retrain.champion import arrange_challenger
from retrain.learner import Learner
from retrain.snapshot import Snapshot
from retrain.target import Task, UnfitLabelsError
from retrain.trained_model import Choice, TrainedModel
from schemas.spec import DataSpec

# Candidates are compared on the last three tenths of the rows from after the change, 150 of 500. On a tenth chance
# chose more often (tests/numerics/test_choosing.py), and so did a paired test that takes the newer rows only where they
# are surely better: it doubts where old rows hurt, and there a wrong choice costs most.
_VALIDATION_SHARE = 0.3
_MIN_VALIDATION_ROWS = 150
# With fewer rows from before the change there is nothing to choose between.
_MIN_OLDER_ROWS = 100

_LOSS: dict[Task, str] = {"binary": "log_loss", "multiclass": "log_loss", "regression": "mae"}
_LOSS_WORDS = {"log_loss": "log loss", "mae": "mean absolute error"}

# Trains on some rows, under a name, and gives the loss on others: log loss, or mean absolute error of a regression;
# infinite where the rows cannot be learnt from.
Measure = Callable[[str, Snapshot, Snapshot], float]


def choose_rows(
    train: Snapshot, change_at: int | None, data: DataSpec, task: Task, seed: int, measure: Measure
) -> tuple[Snapshot, Choice]:
    """Choose the rows to learn from, given when the world changed (epoch ms, None: nobody knows).

    Rows stay in the order of time. `auto` compares all rows with those from after the change, each trained without the
    last three tenths of the latter and measured on them; the smaller loss wins, and then learns from those, too.
    """
    num_newest = data.num_rows
    if num_newest is not None:
        train = train.slice(max(0, train.num_rows - num_newest), train.num_rows)
        words = f"Learnt from the newest {train.num_rows:,} training rows, as the spec says."
        return train, Choice(window=data.window, num_rows=train.num_rows, words=words)
    if data.span_ms is not None:
        words = f"Learnt from the training rows of the last {data.window}, as the spec says."
        return train, Choice(window=data.window, num_rows=train.num_rows, words=words)
    num_before = _count_before(train, change_at)
    num_after = train.num_rows - num_before
    everything = Choice(num_rows=train.num_rows)
    if data.window == "all" or not num_before or not num_after:
        return train, everything
    if data.window == "after_change":
        return _take_after(train, num_before, train.num_rows, data.replay, seed)
    return _compare(train, num_before, data, task, seed, measure)


def _compare(
    train: Snapshot, num_before: int, data: DataSpec, task: Task, seed: int, measure: Measure
) -> tuple[Snapshot, Choice]:
    num_after = train.num_rows - num_before
    num_validation = int(num_after * _VALIDATION_SHARE)
    if num_validation < _MIN_VALIDATION_ROWS or num_after < data.min_labels or num_before < _MIN_OLDER_ROWS:
        words = (
            f"Learnt from all training rows: {num_after:,} from after the change and {num_before:,} from before are "
            "too few to compare."
        )
        return train, Choice(num_rows=train.num_rows, words=words)
    cut = train.num_rows - num_validation
    validation = train.slice(cut, train.num_rows)
    newer, tried = _take_after(train, num_before, cut, data.replay, seed)
    losses = {
        "all": measure("all", train.slice(0, cut), validation),
        "after_change": measure("after_change", newer, validation),
    }
    chosen, choice, what = train, Choice(num_rows=train.num_rows), "all training rows"
    # Of equals all rows: more of the world is in them.
    if losses["after_change"] < losses["all"]:
        chosen, choice = _take_after(train, num_before, train.num_rows, data.replay, seed)
        what = "rows from after the change"
    loss = _LOSS[task]
    mixed = f" and {tried.num_replayed:,} older ones" if tried.num_replayed else ""
    words = (
        f"Learnt from {what}: on {num_validation:,} later rows that neither had seen, {_LOSS_WORDS[loss]} was "
        f"{losses['all']:.4f} after training on all rows, and {losses['after_change']:.4f} after training on those "
        f"from after the change{mixed}."
    )
    named = {f"{name}_{loss}": value for name, value in losses.items()}
    return chosen, msgspec.structs.replace(choice, losses=named, words=words)


def cross_validate(rows: Snapshot, num_folds: int, task: Task, measure: Measure) -> dict[str, float]:
    """Return the loss of each fold of an expanding window, and their mean: trained on what is before, measured after.

    The rows are cut into num_folds + 1 blocks of equal size in the order of time.
    """
    edges = np.linspace(0, rows.num_rows, num_folds + 2).astype(int).tolist()
    loss = _LOSS[task]
    found = {}
    for fold, (start, end) in enumerate(pairwise(edges[1:]), start=1):
        value = measure(f"fold_{fold}", rows.slice(0, start), rows.slice(start, end))
        if math.isfinite(value):
            found[f"fold_{fold}_{loss}"] = value
    if found:
        found[f"folds_{loss}"] = float(np.mean(list(found.values())))
    return found


def make_measure(learner: Learner, task: Task) -> Measure:
    """Give what trains as the job does, and measures."""

    def measure(name: str, rows: Snapshot, validation: Snapshot) -> float:
        try:
            learnt = learner.train(learner.prepare(name, rows))
        except (UnfitLabelsError, ArithmeticError):
            return math.inf
        return measure_loss(learnt.model, validation, task)

    return measure


def measure_loss(model: TrainedModel, rows: Snapshot, task: Task) -> float:
    """Return the log loss of a model on labelled rows, or the mean absolute error; infinite where it is undefined."""
    scored = model.score(rows.read_features())
    labels = rows.labels.to_numpy(zero_copy_only=False)
    classes: Sequence[str] = sorted({*model.target.classes, *labels.tolist()}) if task == "multiclass" else ()
    outputs = arrange_challenger(scored, task, classes)
    if task == "regression":
        value = measure_performance(task, labels, predictions=outputs, metrics=["mae"])["mae"]
    else:
        value = measure_performance(task, labels, scores=outputs, classes=classes or None, metrics=["log_loss"])[
            "log_loss"
        ]
    return value if math.isfinite(value) else math.inf


def _take_after(train: Snapshot, num_before: int, end: int, replay: float, seed: int) -> tuple[Snapshot, Choice]:
    """Take the rows from after the change, up to a place, and mix in older ones until they are `replay` of all."""
    num_after = end - num_before
    num_replayed = min(num_before, round(num_after * replay / (1 - replay)))
    older: NDArray[np.int64] = np.sort(np.random.default_rng(seed).permutation(num_before)[:num_replayed])
    rows = train.take(np.concatenate([older, np.arange(num_before, end)]))
    words = f"Learnt from the {num_after:,} training rows from after the change"
    words += f" and {num_replayed:,} of {num_before:,} older ones." if num_replayed else "."
    return rows, Choice(window="after_change", num_rows=rows.num_rows, num_replayed=num_replayed, words=words)


def _count_before(train: Snapshot, change_at: int | None) -> int:
    """Count the rows from before the change; they come first."""
    if change_at is None:
        return train.num_rows
    times = train.table["ts"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
    return int(pc.sum(pc.less(times, change_at)).as_py() or 0)
