"""What a network is to learn: labels as numbers, its loss, and its outputs as predictions.

Owns the three tasks' heads. It must not know features.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from retrain.disk import allocate, split_blocks
from retrain.spread import measure_spread

Task = Literal["binary", "multiclass", "regression"]
Floats = NDArray[np.float64]
Labels: TypeAlias = pa.Array | pa.ChunkedArray


class UnfitLabelsError(ValueError):
    """The labelled rows cannot be learnt from; str() says why in words."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of n rows; only the fields of its task are filled."""

    score: Floats | None = None
    prediction: Floats | None = None
    scores: Mapping[str, Floats] | None = None
    prediction_text: list[str] | None = None


class Target(msgspec.Struct, frozen=True):
    """A task with what its labels taught: the classes of multiclass, mean and scale of regression.

    `class_weights`, one a class (of binary: 0 and 1), weigh the loss; empty where all rows weigh the same.
    """

    task: Task
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    class_weights: tuple[float, ...] = ()

    @property
    def num_outputs(self) -> int:
        """Count the network's outputs: a logit a class for multiclass, else one."""
        return len(self.classes) if self.task == "multiclass" else 1

    def encode(self, labels: Labels) -> NDArray[np.float32] | NDArray[np.int64]:
        """Turn labels into what the loss reads: 0 and 1, class numbers, or standardised values."""
        encoded = allocate((len(labels),), np.int64 if self.task == "multiclass" else np.float32)
        code_of = {name: code for code, name in enumerate(self.classes)}
        for start, block in split_blocks(labels):
            values: Any = block.to_numpy(zero_copy_only=False)
            if self.task == "multiclass":
                values = [code_of[label] for label in values.tolist()]
            elif self.task == "regression":
                values = (values - self.mean) / self.scale
            encoded[start : start + len(block)] = values
        return encoded

    def compute_loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the mean loss: log loss, or Huber's for regression, whose models are judged by absolute error."""
        if self.task == "multiclass":
            if not self.class_weights:
                return functional.cross_entropy(outputs, truth)
            weights = outputs.new_tensor(self.class_weights)[truth]
            return (functional.cross_entropy(outputs, truth, reduction="none") * weights).mean()
        if self.task == "binary":
            weight = None
            if self.class_weights:
                negative, positive = self.class_weights
                weight = negative + (positive - negative) * truth
            return functional.binary_cross_entropy_with_logits(outputs[:, 0], truth, weight=weight)
        return functional.huber_loss(outputs[:, 0], truth)

    def decode(self, outputs: Tensor) -> Scored:
        """Turn outputs (n, num_outputs) into scores and predictions in float64.

        With class weights the prediction is the class with the largest weighted probability, and the
        scores have the weights taken out again (Elkan 2001, theorem 2), so that they remain probabilities.
        """
        values = outputs.detach().to("cpu", torch.float64)
        if self.task == "regression":
            return Scored(prediction=values[:, 0].numpy() * self.scale + self.mean)
        shift = torch.tensor(self.class_weights, dtype=torch.float64).log()
        if self.task == "binary":
            logits = values[:, 0]
            score = _compute_sigmoid(logits - (shift[1] - shift[0]) if self.class_weights else logits)
            weighted = _compute_sigmoid(logits) if self.class_weights else score
            return Scored(score=score, prediction=(weighted >= 0.5).astype(np.float64))
        shares = torch.softmax(values - shift if self.class_weights else values, dim=1).numpy()
        best = values.argmax(dim=1) if self.class_weights else torch.from_numpy(shares).argmax(dim=1)
        return Scored(
            scores={name: shares[:, code] for code, name in enumerate(self.classes)},
            prediction_text=[self.classes[code] for code in best.tolist()],
        )


def _compute_sigmoid(logits: Tensor) -> Floats:
    # The last values of a length that the processor's vectors do not divide are computed one by one, and may round
    # otherwise. So there are none: a row's score must not depend on its place.
    padded = functional.pad(logits, (0, -len(logits) % 64))
    values: Floats = torch.sigmoid(padded)[: len(logits)].numpy()
    return values


def fit_target(
    task: Task, labels: Labels, class_weights: Literal["none", "balanced"] = "none", known: Target | None = None
) -> Target:
    """Learn the target from training labels; raises UnfitLabelsError when they hold nothing to learn.

    Labels are numbers for binary (0 or 1) and regression, strings for multiclass. `balanced` weighs a
    class by n / (classes · its rows), so that all classes weigh the same and rows weigh 1 on average.
    A regression keeps the mean and scale of a `known` target, whose network's outputs mean them.
    """
    if task == "regression":
        target = _fit_regression(labels)
        return known if known is not None and known.task == task else target
    classes, counts = _count_classes(task, labels)
    weights = (len(labels) / (len(counts) * counts)).tolist() if class_weights == "balanced" else []
    return Target(task, classes=tuple(classes) if task == "multiclass" else (), class_weights=tuple(weights))


def _count_classes(task: Task, labels: Labels) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the classes in their order, and how many rows each has."""
    num_rows: Counter[Any] = Counter()
    for _, block in split_blocks(labels):
        found = pc.value_counts(block)
        num_rows.update(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
        strange = sorted(set(num_rows) - {0.0, 1.0}) if task == "binary" else []
        if strange:
            raise UnfitLabelsError(f"binary labels must be 0 or 1, and there are others, such as {strange[-1]:g}")
    classes = sorted(num_rows)
    if len(classes) < 2 and task == "binary":
        raise UnfitLabelsError("the training rows have one class only; both are needed")
    if len(classes) < 2:
        raise UnfitLabelsError(f"the training rows have {len(classes)} class only; two are needed")
    return classes, np.array([num_rows[each] for each in classes])


def _fit_regression(labels: Labels) -> Target:
    lowest, highest = pc.min_max(labels).as_py().values()
    spread = measure_spread(lambda: (block.to_numpy(zero_copy_only=False) for _, block in split_blocks(labels)))
    if spread is None or lowest == highest:
        raise UnfitLabelsError("all training labels are equal; there is nothing to learn")
    scale = spread.sd if math.isfinite(spread.sd) and spread.sd > 0 else 1.0
    return Target("regression", mean=spread.mean, scale=scale)
