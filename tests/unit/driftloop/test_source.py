"""A replayed table: times, ids, features, outputs and labels, and what is said when something is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftloop.replay.driver import cut_into_steps
from driftloop.replay.source import DEFAULT_START_MS, ReplayColumns, ReplaySource, build_source, read_table
from schemas.errors import ConfigurationError
from schemas.spec import parse_spec

FILE = Path("loans.csv")
HOUR_MS = 3_600_000


def make_spec(task: str = "binary", windows: str = "{size: 1h}", features: str = "{amount: number}") -> Any:
    return parse_spec(
        f"model: fraud\ntask: {task}\nreference: r.csv\nwindows: {windows}\nfeatures: {features}\n", "fraud.yaml"
    )


def make_source(frame: pd.DataFrame, spec: Any = None, **columns: Any) -> ReplaySource:
    return build_source(frame, FILE, spec or make_spec(), ReplayColumns(**columns))


def make_frame(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"amount": [1.0, 2.0, 3.0]} | columns)


def test_synthetic_times_begin_on_a_window_border() -> None:
    spec = make_spec(windows="{size: 7h, origin: 2026-01-01T00:20:00Z}")
    ts_ms = make_source(make_frame(), spec, interval_ms=250).ts_ms
    assert (ts_ms[0] - spec.windows.origin_ms) % spec.windows.size_ms == 0
    assert DEFAULT_START_MS <= ts_ms[0] < DEFAULT_START_MS + spec.windows.size_ms
    assert np.diff(ts_ms).tolist() == [250, 250]


def test_a_start_inside_a_window_is_taken_and_said() -> None:
    source = make_source(make_frame(), start_ms=DEFAULT_START_MS + 1)
    assert source.ts_ms[0] == DEFAULT_START_MS + 1
    assert "inside a window" in source.notes[0]
    assert not make_source(make_frame(), start_ms=DEFAULT_START_MS).notes


@pytest.mark.parametrize(
    "times",
    [
        ["2026-01-01T02:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T02:00:00+01:00"],
        [DEFAULT_START_MS + 2 * HOUR_MS, DEFAULT_START_MS, DEFAULT_START_MS + HOUR_MS],
    ],
)
def test_rows_are_sent_in_the_order_of_their_times(times: list[Any]) -> None:
    source = make_source(make_frame(at=times, id=["c", "a", "b"]), time="at", record_id="id")
    assert source.ts_ms.tolist() == [DEFAULT_START_MS + hours * HOUR_MS for hours in range(3)]
    assert source.record_id == ["a", "b", "c"]
    assert source.features["amount"].tolist() == [2.0, 3.0, 1.0]


def test_ids_are_the_file_and_the_row_where_none_are_named() -> None:
    source = make_source(make_frame(at=["2026-01-02", "2026-01-01", "2026-01-03"]), time="at")
    assert source.record_id == ["loans-1", "loans-0", "loans-2"]


def test_labels_of_the_file_arrive_after_their_delay_and_missing_ones_never() -> None:
    source = make_source(make_frame(y=[1, None, 0]), label="y", label_delay_ms=5_000)
    assert source.label_id == ["loans-0", "loans-2"]
    assert source.label == [1, 0]
    assert source.label_ts_ms.tolist() == [source.ts_ms[0] + 5_000, source.ts_ms[2] + 5_000]


def test_a_labels_file_is_matched_by_the_id_whatever_its_order(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"id": ["c", "x", "a"], "y": [3, 9, 1]}).to_csv(labels, index=False)
    frame = make_frame(id=["a", "b", "c"])
    source = make_source(frame, record_id="id", label="y", labels_file=labels)
    assert dict(zip(source.label_id, source.label, strict=True)) == {"a": 1, "c": 3}
    assert source.label_ts_ms.tolist() == source.ts_ms[[0, 2]].tolist()


def test_a_labels_file_without_ids_is_matched_by_the_rows_place_in_the_file(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"label": [0, 1, 2]}).to_csv(labels, index=False)
    frame = make_frame(at=["2026-01-03", "2026-01-01", "2026-01-02"])  # not in the order of time
    source = make_source(frame, time="at", labels_file=labels)
    assert dict(zip(source.label_id, source.label, strict=True)) == {"loans-0": 0, "loans-1": 1, "loans-2": 2}
    pd.DataFrame({"label": [0, 1]}).to_csv(labels, index=False)
    with pytest.raises(ConfigurationError, match="2 rows, and the replayed file 3"):
        make_source(frame, time="at", labels_file=labels)


def test_labels_of_which_no_id_occurs_are_refused(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"id": ["x"], "label": [1]}).to_csv(labels, index=False)
    with pytest.raises(ConfigurationError, match="no 'id' of it occurs"):
        make_source(make_frame(id=["a", "b", "c"]), record_id="id", labels_file=labels)


def test_a_score_pattern_gives_a_score_per_class() -> None:
    frame = make_frame(proba_a=[0.1, 0.2, None], proba_b_c=[0.9, 0.8, 0.7])
    source = make_source(frame, make_spec("multiclass"), score="proba_*")
    assert source.scores == {"a": [0.1, 0.2, None], "b_c": [0.9, 0.8, 0.7]}
    assert source.score is None
    one = make_source(make_frame(s=[0.1, None, 0.3]), score="s")
    assert (one.score, one.scores) == ([0.1, None, 0.3], {})


def test_missing_values_are_none_and_numbers_are_pythons() -> None:
    source = make_source(
        make_frame(p=pd.array([1, None, 0], "Int64"), y=[True, None, False]), prediction="p", label="y"
    )
    assert source.prediction == [1, None, 0]
    assert [type(value) for value in source.label] == [bool, bool]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"time": "when"}, "no column 'when'"),
        ({"record_id": "key"}, "no column 'key'"),
        ({"prediction": "yhat"}, "no column 'yhat'"),
        ({"score": "proba"}, "no column 'proba'"),
        ({"label": "truth"}, "no column 'truth'"),
        ({"score": "proba_*"}, "task of fraud is binary"),
        ({"labels_file": Path("nothing.csv")}, "no such file"),
        ({"time": "seconds"}, "holds seconds"),
        ({"time": "gaps"}, "1 rows? without a time"),
        ({"time": "texts"}, "not a time"),
        ({"record_id": "gaps"}, "1 rows? without an id"),
        ({"score": "texts"}, "'texts' is not a column of numbers"),
    ],
)
def test_what_is_missing_or_wrong_is_named(columns: dict[str, Any], said: str) -> None:
    frame = make_frame(
        seconds=[1_767_225_600] * 3, gaps=[1_767_225_600_000, None, 1_767_225_600_001], texts=["a", "b", "c"]
    )
    with pytest.raises(ConfigurationError, match=said):
        make_source(frame, **columns)


def test_a_missing_feature_is_named_with_the_columns_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"lacks 2 of the features of fraud: age, country.*amount, x"):
        make_source(make_frame(x=[1, 2, 3]), make_spec(features="{amount: number, age: number, country: category}"))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.pq"])
def test_every_kind_of_file_is_read(tmp_path: Path, name: str) -> None:
    frame = make_frame(country=["DE", "ES", "FR"])
    (frame.to_csv if "csv" in name else frame.to_parquet)(tmp_path / name, index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / name), frame)


@pytest.mark.parametrize(("name", "content"), [("a.csv", b""), ("a.parquet", b"no parquet"), ("a.xlsx", b"x")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=name):
        read_table(tmp_path / name)


def test_a_table_without_rows_is_nothing_to_send() -> None:
    source = make_source(make_frame().iloc[:0])
    assert source.num_rows == 0
    assert cut_into_steps(source, HOUR_MS, 0) == []


def test_one_bad_cell_of_a_csv_does_not_make_texts_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "loans.csv"
    path.write_text("amount\n1.5\nmany\n\n7\n", "utf-8")
    frame = pd.read_csv(path, skip_blank_lines=False)
    source = make_source(frame)
    amount = source.features["amount"]
    assert amount.where(amount.notna(), None).tolist() == [1.5, "many", None, 7.0]
    assert "not so in 1 of 4 rows, such as 'many'" in source.notes[0]
    parquet = build_source(frame, Path("loans.parquet"), make_spec(), ReplayColumns())
    assert parquet.features["amount"].iloc[0] == "1.5"
