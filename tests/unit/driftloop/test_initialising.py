"""`driftloop init` writes a spec that parses, with the task guessed from the label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftloop.initialising import Roles, write_spec
from schemas.errors import ConfigurationError
from schemas.spec import ModelSpec, parse_spec


def write(frame: pd.DataFrame, folder: Path, **more: Any) -> ModelSpec:
    given = {"model": None, "task": None, "roles": Roles(), "output": None, "force": False} | more
    path, _ = write_spec(frame, folder / "my loans.v1.parquet", **given)
    return parse_spec(path.read_text(), str(path))


def make_frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {"amount": [1.5, 2.0, 3.0], "country": ["DE", "FR", "DE"], "vip": [True, False, True]} | columns
    )


@pytest.mark.parametrize(
    ("label", "task"),
    [
        ([0, 1, 1], "binary"),
        ([0.0, 1.0, np.nan], "binary"),
        ([True, False, True], "binary"),
        (["cat", "dog", "cow"], "multiclass"),
        ([1, 2, 3], "multiclass"),
        ([0.5, 1.5, 2.0], "regression"),
    ],
)
def test_the_task_is_guessed_from_the_label(tmp_path: Path, label: list[Any], task: str) -> None:
    assert write(make_frame(label=label), tmp_path).task == task


def test_the_spec_names_features_and_roles(tmp_path: Path) -> None:
    spec = write(make_frame(y_proba=[0.1, 0.2, 0.3], target=[0, 1, 0], record_id=["a", "b", "c"]), tmp_path)
    assert spec.model == "my_loans"
    assert {name: feature.type for name, feature in spec.features.items()} == {
        "amount": "number", "country": "category", "vip": "boolean",
    }  # fmt: skip
    columns = spec.reference.columns
    assert (columns.label, columns.score, columns.id) == ("target", "y_proba", "record_id")
    assert spec.reference.file == "my loans.v1.parquet"
    assert spec.reference.interval_ms == 1_000


def test_names_that_yaml_would_misread_come_back_as_they_were(tmp_path: Path) -> None:
    odd = {"no": [1, 2, 3], "1": [1, 2, 3], "a: b": [1, 2, 3], "größe, cm": [1, 2, 3], "x#y": [1, 2, 3]}
    spec = write(make_frame(**odd, label=[0, 1, 0]), tmp_path, model="1.0")
    assert spec.model == "1.0"
    assert set(odd) <= set(spec.features)


def test_what_the_command_line_names_outranks_guesses(tmp_path: Path) -> None:
    frame = make_frame(label=[0, 1, 0], repaid=["x", "y", "z"])
    spec = write(frame, tmp_path, roles=Roles(label="repaid"), task="multiclass", model="fraud")
    assert (spec.model, spec.task, spec.reference.columns.label) == ("fraud", "multiclass", "repaid")
    assert "label" in spec.features
    with pytest.raises(ConfigurationError, match="no column 'truth'"):
        write(frame, tmp_path, roles=Roles(label="truth"), force=True)


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    write(make_frame(), tmp_path)
    with pytest.raises(ConfigurationError, match=r"there already.*--force"):
        write(make_frame(), tmp_path)
    write(make_frame(), tmp_path, force=True)


def test_the_reference_is_found_from_where_the_spec_stands(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    spec = write(make_frame(label=[0, 1, 0]), tmp_path, output=tmp_path / "specs" / "loans.yaml")
    assert spec.reference.file == "../my loans.v1.parquet"


def test_a_pattern_names_the_scores_of_a_multiclass_model(tmp_path: Path) -> None:
    frame = make_frame(tier=["a", "b", "a"], proba_a=[0.9, 0.2, 0.7], proba_b=[0.1, 0.8, 0.3])
    spec = write(frame, tmp_path, roles=Roles(label="tier", score="proba_*"))
    assert (spec.task, spec.reference.columns.scores) == ("multiclass", "proba_*")
    assert set(spec.features) == {"amount", "country", "vip"}
    with pytest.raises(ConfigurationError, match=r"no column matches 'p_\*'"):
        write(frame, tmp_path, roles=Roles(score="p_*"), force=True)


def test_a_table_without_rows_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no rows"):
        write(make_frame().iloc[:0], tmp_path)


@pytest.mark.parametrize(("every", "size_h"), [("1s", 1), ("1min", 24), ("1h", 30 * 24), ("30d", 30 * 24)])
def test_a_window_is_as_long_as_its_rows_need(tmp_path: Path, every: str, size_h: int) -> None:
    times = pd.date_range("2026-01-01", periods=1_000, freq=every, tz="UTC")
    frame = pd.DataFrame({"amount": np.arange(1_000.0), "label": np.arange(1_000) % 2, "ts": times})
    assert write(frame, tmp_path).windows.size_ms == size_h * 3_600_000
    assert write(frame.assign(ts="soon"), tmp_path, force=True).windows.size_ms == 3_600_000
