"""The fields of an event, read from a block into columns; what does not fit is a problem of its row.

Each reader looks at one group of fields. The order in which `validation` calls them is the order in which a row's
problems count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from schemas.codecs.blocks import Block
from schemas.columns import Floats, Kind
from schemas.declarations import FeatureSpec, ModelSpec, Task
from schemas.descriptors import describe_contents
from schemas.privacy import protect_texts
from schemas.problems import Problem, Problems, missing_field
from schemas.texts import NULL_LENGTH, TextColumn, no_texts
from schemas.values import (
    Check,
    Values,
    find_coerced,
    is_embedding,
    is_media,
    is_scalar,
    read_numbers,
    read_optional,
    read_texts,
    split_mixed,
)

EXTERNAL = "external"
# A probability computed as float32 may come as 1.0000001.
SCORE_TOLERANCE = 1e-6

_EVERY = frozenset({"record_id", "model", "ts", "segment", "trace_id"})
KNOWN_FIELDS: dict[Kind, frozenset[str]] = {
    "records": _EVERY | {"features"},
    "predictions": _EVERY | {"features", "model_version", "prediction", "score", "scores"},
    "labels": _EVERY | {"label"},
}

_CHECKS = {
    "embedding": Check(is_embedding, "a list of numbers", takes_scalars=False),
    "image": Check(is_media, 'an object with "uri" or "bytes"', takes_scalars=False),
}
_CLASSES = Check(is_scalar, "a class as text or number", takes_scalars=True)


@dataclass(slots=True)
class Features:
    """The features of n rows; see `EventColumns`."""

    present: npt.NDArray[np.bool_]
    numbers: dict[str, Floats] = field(default_factory=dict)
    texts: dict[str, TextColumn] = field(default_factory=dict)
    coerced: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    problems: Problems = field(default_factory=dict)


def read_features(block: Block, spec: ModelSpec, privacy_key: bytes, required: bool) -> Features:
    """Read `features`: the declared ones by their type and policy, the others as they come.

    Descriptors are computed, whatever was sent under their names.
    """
    mapping = block.mapping("features")
    found = Features(mapping.present, problems=dict(mapping.problems))
    if required:
        for position in np.flatnonzero(~mapping.present).tolist():
            found.problems.setdefault(position, missing_field("features", 'Send {"features": {…}}.'))
    num_rows = len(mapping.present)
    derived = spec.derived_features
    for name, declared in spec.features.items():
        if name in derived:
            continue
        _read_declared(found, name, mapping.columns.get(name), declared, privacy_key, num_rows)
    for name, values in mapping.columns.items():
        if name not in spec.features:
            numbers, texts, problems = split_mixed(values, f"features.{name}")
            _add_problems(found.problems, problems)
            if numbers is not None:
                found.numbers[name] = numbers
            if texts is not None:
                found.texts[name] = texts
    if derived:
        found.numbers |= describe_contents(spec, found.texts)
    return found


def _read_declared(
    found: Features, name: str, values: Values | None, declared: FeatureSpec, privacy_key: bytes, num_rows: int
) -> None:
    path = f"features.{name}"
    if declared.policy == "drop":
        return
    if values is not None and declared.type in ("number", "category", "text"):
        coerced = find_coerced(values, numeric=declared.type == "number")
        if coerced is not None:
            found.coerced[name] = coerced
    if declared.is_numeric:
        numbers = np.full(num_rows, np.nan)
        if values is not None:
            numbers, problems = read_numbers(values, path, boolean=declared.type == "boolean")
            _add_problems(found.problems, problems)
        found.numbers[name] = numbers
        return
    texts = no_texts(num_rows)
    if values is not None:
        texts, problems = read_texts(values, path, _CHECKS.get(declared.type))
        _add_problems(found.problems, problems)
    found.texts[name] = protect_texts(texts, declared.policy, privacy_key)


def read_segments(block: Block, spec: ModelSpec, privacy_key: bytes) -> tuple[dict[str, TextColumn], Problems]:
    """Read `segment`; a key that is a feature with a policy gets it too."""
    mapping = block.mapping("segment")
    problems = dict(mapping.problems)
    segments: dict[str, TextColumn] = {}
    for key, values in mapping.columns.items():
        texts, found = read_texts(values, f"segment.{key}")
        _add_problems(problems, found)
        policy = spec.features[key].policy if key in spec.features else None
        if policy != "drop":
            segments[key] = protect_texts(texts, policy, privacy_key)
    return segments, problems


def read_versions(block: Block) -> tuple[TextColumn, Problems]:
    """Read `model_version`; a prediction without one is of an outside model."""
    texts, problems = read_optional(block.column("model_version"), "model_version")
    if (texts.length > 0).all():
        return texts, problems
    emptied = TextColumn(texts.buffer, texts.start, np.where(texts.length == 0, NULL_LENGTH, texts.length))
    return emptied.fill_null(EXTERNAL), problems


@dataclass(slots=True)
class Output:
    """What a model said of n rows: numbers, or texts for multiclass."""

    prediction: Floats | None
    prediction_text: TextColumn | None
    score: Floats
    scores: dict[str, Floats]
    problems: Problems


def read_output(block: Block, task: Task) -> Output:
    """Read `prediction`, `score` and `scores`; a multiclass prediction left out is the class of the largest score."""
    problems: Problems = {}
    score, found = read_numbers(block.column("score"), "score")
    _add_problems(problems, found)
    if task == "binary":
        _add_problems(problems, _find_improbable(score))
    mapping = block.mapping("scores")
    _add_problems(problems, mapping.problems)
    scores: dict[str, Floats] = {}
    for name, values in mapping.columns.items():
        scores[name], found = read_numbers(values, f"scores.{name}")
        _add_problems(problems, found)
    number, text, found = _read_outcome(block.column("prediction"), "prediction", task)
    _add_problems(problems, found)
    if text is not None and scores:
        text = _fill_with_likeliest(text, scores)
    missing = _find_missing(number, text) & np.isnan(score)
    for values_of_class in scores.values():
        missing &= np.isnan(values_of_class)
    for position in np.flatnonzero(missing).tolist():
        problems.setdefault(position, missing_field("prediction", "Send a prediction, a score, or scores by class."))
    return Output(number, text, score, scores, problems)


def read_labels(block: Block, task: Task) -> tuple[Floats | None, TextColumn | None, Problems]:
    """Read `label`, which must be there."""
    values = block.column("label")
    number, text, problems = _read_outcome(values, "label", task)
    for position in np.flatnonzero(_find_missing(number, text)).tolist():
        problems.setdefault(position, missing_field("label", "Send the truth about the record."))
    return number, text, problems


def _read_outcome(values: Values, path: str, task: Task) -> tuple[Floats | None, TextColumn | None, Problems]:
    """Read predictions or labels: numbers for regression, 0 or 1 for binary, texts for multiclass."""
    if task == "multiclass":
        texts, problems = read_texts(values, path, _CLASSES)
        return None, texts, problems
    numbers, problems = read_numbers(values, path)
    if task == "binary":
        for position in np.flatnonzero(np.isfinite(numbers) & (numbers != 0) & (numbers != 1)).tolist():
            sentence = f"{path} is {numbers[position]:g}; of a binary model it is 0 or 1."
            remedy = "Send the probability as score." if path == "prediction" else "Send 0 or 1."
            problems.setdefault(position, Problem("out_of_range", path, f"{sentence} {remedy}"))
    return numbers, None, problems


def _find_missing(number: Floats | None, text: TextColumn | None) -> npt.NDArray[np.bool_]:
    """Tell where an outcome, of which one of the two is there, is null."""
    if text is not None:
        return text.is_null
    assert number is not None
    missing: npt.NDArray[np.bool_] = np.isnan(number)
    return missing


def _find_improbable(score: Floats) -> Problems:
    """Refuse what is no probability; rounding may put one a little beyond 0 or 1."""
    beyond = np.flatnonzero(np.abs(score - 0.5) > 0.5 + SCORE_TOLERANCE).tolist()
    return {
        position: Problem(
            "out_of_range",
            "score",
            f"score is {score[position]:g}; of a binary model it is the probability of 1. Send a number from 0 to 1.",
        )
        for position in beyond
    }


def _fill_with_likeliest(texts: TextColumn, scores: dict[str, Floats]) -> TextColumn:
    """Fill gaps with the class of the largest score; of equal ones the first in the order of names."""
    if not texts.is_null.any():
        return texts
    names = sorted(scores)
    table = np.column_stack([np.where(np.isnan(scores[name]), -np.inf, scores[name]) for name in names])
    likeliest = np.where(table.max(axis=1) > -np.inf, table.argmax(axis=1), -1)
    return texts.fill_null(TextColumn.of_codes(likeliest, names))


def read_extra(block: Block, kind: Kind) -> tuple[TextColumn | None, Problems]:
    """Read the fields that no one knows as JSON; None if no row has any."""
    values = block.unknown_fields(KNOWN_FIELDS[kind])
    if values is None:
        return None, {}
    return read_texts(list(values), "extra")


def read_traces(block: Block) -> tuple[TextColumn | None, Problems]:
    """Read `trace_id`; None if no row has one."""
    texts, problems = read_optional(block.column("trace_id"), "trace_id")
    return texts if texts.has_text else None, problems


def _add_problems(problems: Problems, more: Problems) -> None:
    for position, problem in more.items():
        problems.setdefault(position, problem)
