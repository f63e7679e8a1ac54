"""A table with times, ids, features, outputs and labels, ready to be sent; nothing here knows Kafka."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from schemas.declarations import DEFAULT_INTERVAL_MS
from schemas.errors import ConfigurationError
from schemas.spec import ModelSpec

# Where synthetic times begin unless told otherwise (2026-01-01), moved to the next window border.
DEFAULT_START_MS = 1_767_225_600_000
# As events are: 1e11 ms is March 1973, and a smaller number can only be seconds.
SECONDS_BELOW = 100_000_000_000


@dataclass(frozen=True, slots=True)
class ReplayColumns:
    """Which column is what, as the command line says; times in milliseconds."""

    time: str | None = None
    start_ms: int | None = None
    interval_ms: int | None = None
    record_id: str | None = None
    label: str | None = None
    label_delay_ms: int = 0
    labels_file: Path | None = None
    prediction: str | None = None
    score: str | None = None
    ignored: tuple[str, ...] = ()


@dataclass(slots=True)
class ReplaySource:
    """Rows in time order. `labels` has its own order: by the time at which each label arrives."""

    ts_ms: np.ndarray
    record_id: list[str]
    features: pd.DataFrame
    prediction: list[object] | None
    score: list[float | None] | None
    scores: dict[str, list[float | None]]
    label_ts_ms: np.ndarray
    label_id: list[str]
    label: list[object]
    label_delay_ms: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        return len(self.ts_ms)


def read_table(path: Path) -> pd.DataFrame:
    """Read CSV or Parquet (`.csv`, `.csv.gz`, `.parquet`, `.pq`); raises ConfigurationError naming the file."""
    try:
        if path.suffix in (".parquet", ".pq"):
            return pd.read_parquet(path)
        if ".csv" in path.suffixes:
            return pd.read_csv(path)
    except FileNotFoundError:
        raise ConfigurationError("there is no such file", file=str(path)) from None
    except Exception as error:
        raise ConfigurationError(f"cannot be read as {path.suffix}: {error}", file=str(path)) from error
    raise ConfigurationError(
        f"files of type {path.suffix!r} are not known", file=str(path), remedy="Use .csv, .csv.gz, .parquet or .pq"
    )


def build_source(frame: pd.DataFrame, file: Path, spec: ModelSpec, columns: ReplayColumns) -> ReplaySource:
    """Turn a table into events' columns; raises ConfigurationError for a column that is missing."""
    labels = read_table(columns.labels_file) if columns.labels_file else None
    named = [columns.time, columns.record_id, columns.prediction, None if labels is not None else columns.label]
    for column in named:
        require_column(frame, column, file)
    if labels is not None:
        require_column(labels, columns.label or "label", columns.labels_file or file)
    notes: list[str] = []
    ts_ms = choose_times(frame, file, spec, columns, notes)
    order = np.argsort(ts_ms, kind="stable")
    frame, ts_ms = frame.iloc[order].reset_index(drop=True), ts_ms[order]
    ids = (
        read_ids(frame, columns.record_id, file)
        if columns.record_id
        else [f"{file.name.split('.')[0]}-{row}" for row in order]
    )
    scores, score_columns = read_scores(frame, file, spec, columns)
    used = {column for column in (*named, *score_columns, *columns.ignored) if column}
    label_ids, label_values, label_ts = read_labels(frame, labels, columns, ids, ts_ms, order)
    return ReplaySource(
        ts_ms=ts_ms,
        record_id=ids,
        features=read_numbers(choose_features(frame, file, spec, used), file, spec, notes),
        prediction=plain_values(frame[columns.prediction]) if columns.prediction else None,
        score=scores.pop("", None),
        scores=scores,
        label_ts_ms=label_ts,
        label_id=label_ids,
        label=label_values,
        label_delay_ms=columns.label_delay_ms,
        notes=notes,
    )


def require_column(frame: pd.DataFrame, column: str | None, file: Path) -> None:
    if column is not None and column not in frame.columns:
        raise ConfigurationError(
            f"there is no column {column!r}",
            file=str(file),
            remedy=f"The columns are: {', '.join(map(str, frame.columns))}",
        )


def choose_times(
    frame: pd.DataFrame, file: Path, spec: ModelSpec, columns: ReplayColumns, notes: list[str]
) -> np.ndarray:
    """Event times in ms: the time column's, or synthetic ones that begin on a window border."""
    if columns.time:
        return read_times(frame, columns.time, file)
    window = spec.windows
    start_ms = columns.start_ms
    if start_ms is None:
        start_ms = -(-(DEFAULT_START_MS - window.origin_ms) // window.size_ms) * window.size_ms + window.origin_ms
    elif (start_ms - window.origin_ms) % window.size_ms:
        notes.append("the start that you gave lies inside a window, so the first window is a short one")
    interval_ms = columns.interval_ms or DEFAULT_INTERVAL_MS
    return start_ms + np.arange(len(frame), dtype=np.int64) * interval_ms


def read_times(frame: pd.DataFrame, name: str, file: Path) -> np.ndarray:
    """A column of RFC 3339 texts, timestamps or epoch milliseconds as int64 ms."""
    column = frame[name]
    if num_missing := int(column.isna().sum()):
        raise ConfigurationError(f"column {name!r} has {num_missing} rows without a time", file=str(file))
    if pd.api.types.is_numeric_dtype(column):
        ts_ms = column.to_numpy(np.int64)
        if len(ts_ms) and ts_ms.min() < SECONDS_BELOW:
            raise ConfigurationError(f"column {name!r} holds seconds", file=str(file), remedy="Give epoch milliseconds")
        return ts_ms
    try:
        parsed = pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"column {name!r} is not a time: {str(error).split('. You might')[0]}", file=str(file),
            remedy="Write 2026-01-31T12:00:00Z, or epoch milliseconds",
        ) from error  # fmt: skip
    return parsed.dt.as_unit("ms").astype(np.int64).to_numpy()


def read_ids(frame: pd.DataFrame, name: str, file: Path) -> list[str]:
    if num_missing := int(frame[name].isna().sum()):
        raise ConfigurationError(f"column {name!r} has {num_missing} rows without an id", file=str(file))
    return [str(value) for value in frame[name]]


def read_scores(
    frame: pd.DataFrame, file: Path, spec: ModelSpec, columns: ReplayColumns
) -> tuple[dict[str, list[float | None]], list[str]]:
    """`{"": score}` for one score column, `{class: score}` for a pattern with `*`; and the columns used."""
    if columns.score is None:
        return {}, []
    if "*" not in columns.score:
        require_column(frame, columns.score, file)
        return {"": plain_numbers(frame, columns.score, file)}, [columns.score]
    if spec.task != "multiclass":
        raise ConfigurationError(
            f"{columns.score!r} is a pattern, and the task of {spec.model} is {spec.task}",
            key="--score-column",
            remedy="Patterns are for multiclass models; name one column",
        )
    found = match_pattern(frame, columns.score, file)
    return {name: plain_numbers(frame, column, file) for name, column in found.items()}, list(found.values())


def match_pattern(frame: pd.DataFrame, pattern: str | None, file: Path, key: str = "") -> dict[str, str]:
    """`{class: column}` of the columns that match a pattern such as `proba_*`; nothing without a pattern."""
    if pattern is None:
        return {}
    expression = re.compile(fnmatch.translate(pattern).replace(".*", "(.*)", 1))
    found = {match.group(1): str(c) for c in frame.columns if (match := expression.match(str(c)))}
    if not found:
        raise ConfigurationError(
            f"no column matches {pattern!r}", file=str(file), key=key,
            remedy=f"The columns are: {', '.join(map(str, frame.columns))}",
        )  # fmt: skip
    return found


def read_labels(
    frame: pd.DataFrame,
    labels: pd.DataFrame | None,
    columns: ReplayColumns,
    ids: list[str],
    ts_ms: np.ndarray,
    order: np.ndarray,
) -> tuple[list[str], list[object], np.ndarray]:
    """Ids, values and arrival times of the labels, by arrival; a label arrives `label_delay_ms` after its record."""
    if labels is None and columns.label is None:
        return [], [], np.empty(0, np.int64)
    if labels is None:
        values, positions = plain_values(frame[columns.label]), np.arange(len(frame))
    else:
        values, positions = match_labels(labels, columns, ids, order)
    known = np.array([value is not None for value in values], bool)
    positions = positions[known]
    values = [value for value, keep in zip(values, known, strict=True) if keep]
    arrival = ts_ms[positions] + columns.label_delay_ms
    order = np.argsort(arrival, kind="stable")
    return [ids[positions[i]] for i in order], [values[i] for i in order], arrival[order]


def match_labels(
    labels: pd.DataFrame, columns: ReplayColumns, ids: list[str], order: np.ndarray
) -> tuple[list[object], np.ndarray]:
    """Labels of a separate file with the rows they belong to: by id, or without an id column by place in the file.

    `order` says from which place in the replayed file each row came.
    """
    file = columns.labels_file or Path("labels")
    values = plain_values(labels[columns.label or "label"])
    if columns.record_id is None:
        if len(labels) != len(ids):
            raise ConfigurationError(
                f"has {len(labels)} rows, and the replayed file {len(ids)}",
                file=str(file),
                remedy="Without --id-column labels are matched by position; name the id column of both files",
            )
        return values, np.argsort(order)
    require_column(labels, columns.record_id, file)
    place = {record_id: row for row, record_id in enumerate(ids)}
    rows = [place.get(str(value)) for value in labels[columns.record_id]]
    matched = [i for i, row in enumerate(rows) if row is not None]
    if not matched:
        raise ConfigurationError(
            f"no {columns.record_id!r} of it occurs in the replayed file", file=str(file), remedy="Check --id-column"
        )
    return [values[i] for i in matched], np.array([rows[i] for i in matched], np.int64)


def choose_features(frame: pd.DataFrame, file: Path, spec: ModelSpec, used: set[str]) -> pd.DataFrame:
    """The spec's declared features; raises ConfigurationError naming those that the file lacks."""
    missing = [name for name in spec.sent_features if name not in frame.columns]
    if missing:
        raise ConfigurationError(
            f"lacks {len(missing)} of the features of {spec.model}: {', '.join(missing)}",
            file=str(file),
            remedy=f"The columns are: {', '.join(map(str, frame.columns))}",
        )
    names = list(spec.sent_features) or [column for column in frame.columns if column not in used]
    return frame[names]


def read_numbers(features: pd.DataFrame, file: Path, spec: ModelSpec, notes: list[str]) -> pd.DataFrame:
    """In CSV one cell that is no number makes texts of its whole column: read the others as the numbers they are.

    The cells themselves are sent as they stand, become dead letters, and are told in `notes`.
    """
    if ".csv" not in file.suffixes:
        return features
    declared = (name for name, feature in spec.sent_features.items() if feature.type == "number")
    for name in declared:
        if features[name].dtype.kind in "biuf":
            continue
        numbers = pd.to_numeric(features[name], errors="coerce")
        odd = features[name].notna() & numbers.isna()
        if odd.any():
            notes.append(
                f"{name!r} is a number, and not so in {int(odd.sum())} of {len(features)} rows, "
                f"such as {features[name][odd].iloc[0]!r}: these records will be dead letters"
            )
        features = features.assign(**{name: features[name].where(odd, numbers)})
    return features


def plain_values(column: pd.Series) -> list[object]:
    """Python values, None for missing; whole floats of a column with gaps stay floats."""
    values = column.astype(object).where(column.notna(), None)
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def plain_numbers(frame: pd.DataFrame, name: str, file: Path) -> list[float | None]:
    if not pd.api.types.is_numeric_dtype(frame[name]):
        raise ConfigurationError(f"{name!r} is not a column of numbers", file=str(file))
    return [None if value is None else float(value) for value in plain_values(frame[name])]  # type: ignore[arg-type]
