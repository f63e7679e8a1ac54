"""A reference goes through the validation that events go through, so that its rows mean what events mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftloop.references import freeze_reference, hash_reference, split_columns
from schemas.errors import ConfigurationError
from schemas.privacy import hash_text
from schemas.spec import ModelSpec, parse_spec
from tests.samples import read

KEY = b"a key of the tests"
SPEC = """
model: fraud
task: {task}
reference: {{file: reference.csv, columns: {{label: y{columns}}}}}
windows: {{size: 1h, origin: 2026-01-01}}
features:
  amount: {{type: number}}
  vip: {{type: boolean}}
  code: {{type: category}}
  mail: {{type: category, policy: hash}}
  name: {{type: text, policy: drop}}
"""


def make_spec(task: str = "binary", columns: str = "") -> ModelSpec:
    return parse_spec(SPEC.format(task=task, columns=columns), "fraud.yaml")


def make_frame(**changes: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "amount": [1.5, np.nan, 3.0],
            "vip": [True, False, True],
            "code": [1, 2, 1],
            "mail": ["a@x", None, "b@x"],
            "name": ["Ann", "Bob", "Cy"],
            "y": [0, 1, 0],
        }
        | changes
    )


def freeze(frame: pd.DataFrame, spec: ModelSpec | None = None) -> pd.DataFrame:
    spec = spec or make_spec()
    return freeze_reference(split_columns(frame, spec, "reference.csv"), spec, KEY)


def test_a_row_is_stored_as_an_event_with_the_same_content() -> None:
    frozen = freeze(make_frame())
    assert list(frozen.columns) == ["ts", "amount", "vip", "code", "mail", "label"]
    assert frozen["vip"].tolist() == [1.0, 0.0, 1.0]
    assert frozen["code"].tolist() == ["1", "2", "1"]
    assert frozen["mail"].tolist() == [hash_text("a@x", KEY), None, hash_text("b@x", KEY)]
    assert np.isnan(frozen["amount"][1])
    event = {"record_id": "r", "model": "fraud", "ts": "2026-01-01T00:00:00Z",
             "features": {"amount": 1.5, "vip": True, "code": 1, "mail": "a@x", "name": "Ann"}}  # fmt: skip
    (columns,) = read("records", [event]).columns  # under the sample spec: types by what came
    assert columns.texts["mail"] == ["a@x"]
    assert columns.numbers["vip"][0] == frozen["vip"][0]


def test_rows_without_times_take_the_interval_from_the_origin_on() -> None:
    assert freeze(make_frame())["ts"].tolist() == [1_767_225_600_000, 1_767_225_601_000, 1_767_225_602_000]
    with_times = make_frame(ts=["2026-02-01T00:00:00Z"] * 3)
    assert set(freeze(with_times)["ts"]) == {1_769_904_000_000}


@pytest.mark.parametrize(
    ("task", "labels", "stored"),
    [
        ("binary", [True, False, None], [1.0, 0.0, np.nan]),
        ("regression", [0.25, None, 3], [0.25, np.nan, 3.0]),
        ("multiclass", ["a", None, "b"], ["a", None, "b"]),
        ("multiclass", [1, 2, 3], ["1", "2", "3"]),
    ],
)
def test_labels_are_stored_as_the_task_has_them(task: str, labels: list[Any], stored: list[Any]) -> None:
    found = freeze(make_frame(y=pd.Series(labels, dtype=object)), make_spec(task))["label"].tolist()
    assert found == pytest.approx(stored, nan_ok=True) if task != "multiclass" else found == stored


def test_outputs_come_along_with_a_score_per_class() -> None:
    binary = freeze(make_frame(p=[0.25, 0.5, 0.75], said=[0, 1, 1]), make_spec(columns=", score: p, prediction: said"))
    assert binary["score"].tolist() == [0.25, 0.5, 0.75]
    assert binary["prediction"].tolist() == [0.0, 1.0, 1.0]
    frame = make_frame(y=["a", "b", "a"], p_a=[0.25, 0.5, 0.75], p_b=[0.75, 0.5, 0.25])
    multiclass = freeze(frame, make_spec("multiclass", ", scores: 'p_*'"))
    assert multiclass["scores:a"].tolist() == [0.25, 0.5, 0.75]
    assert multiclass["prediction"].tolist() == ["b", "a", "a"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"amount": [1.0, 2.0, np.inf]}, r"reference.csv: features.amount: row 2 is not valid \(1 rows are not\).*inf"),
        ({"amount": ["1", "2", "x"]}, r"features.amount: row 0 is not valid \(3 rows are not\)"),
        ({"y": [0, 1, 2]}, r"label: row 2 is not valid"),
        ({"ts": ["2026-01-01", "soon", "2026-01-01"]}, "'ts' is not a time"),
        ({"ts": [1.0e12, np.nan, 1.0e12]}, "1 rows without a time"),
    ],
)
def test_a_row_that_an_event_would_be_refused_for_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        freeze(make_frame(**changes))


def test_a_missing_label_does_not_shift_the_number_of_a_bad_row() -> None:
    with pytest.raises(ConfigurationError, match="label: row 2 is not valid"):
        freeze(make_frame(y=pd.Series([0, None, 7], dtype=object)))


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (make_frame().drop(columns="code"), "lacks the features code.*amount, vip, mail"),
        (make_frame().drop(columns="y"), "no column 'y'"),
        (make_frame().iloc[:0], "no rows"),
    ],
)
def test_what_a_reference_lacks_is_named(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        split_columns(frame, make_spec(), "reference.csv")


def test_no_column_for_the_score_pattern_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"reference.columns.scores: no column matches 'p_\*'"):
        split_columns(make_frame(), make_spec("multiclass", ", scores: 'p_*'"), "reference.csv")


def test_many_messages_keep_the_order_and_the_numbers_of_rows() -> None:
    num_rows = 45_000
    frame = pd.DataFrame({"amount": np.arange(num_rows, dtype=float), "y": np.arange(num_rows) % 2})
    spec = parse_spec(
        "model: m\ntask: binary\nreference: {file: f.csv, columns: {label: y}}\nwindows: {size: 1h}\n"
        "features: {amount: number}\n", "m.yaml",
    )  # fmt: skip
    frozen = freeze(frame, spec)
    assert (frozen["amount"] == np.arange(num_rows)).all()
    assert (frozen["label"] == np.arange(num_rows) % 2).all()
    frame.loc[41_234, "amount"] = np.inf
    with pytest.raises(ConfigurationError, match="row 41234 "):
        freeze(frame, spec)


def test_the_hash_follows_the_content_alone() -> None:
    frozen = freeze(make_frame())
    assert hash_reference(frozen) == hash_reference(frozen[sorted(frozen.columns, reverse=True)].copy())
    assert hash_reference(frozen) != hash_reference(frozen.iloc[::-1])
    assert hash_reference(frozen) != hash_reference(frozen.assign(amount=[1.5, np.nan, 3.5]))


def test_a_reference_file_stands_beside_its_spec(tmp_path: Path) -> None:
    from driftloop.references import load_reference

    make_frame().to_csv(tmp_path / "reference.csv", index=False)
    assert load_reference(make_spec(), tmp_path, None).num_rows == 3  # type: ignore[arg-type]  # not asked
