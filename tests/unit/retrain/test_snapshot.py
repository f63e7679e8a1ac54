"""Snapshots: one hash for one content, and no row on both sides of the gate."""

from __future__ import annotations

import pyarrow as pa
import pytest

from retrain.snapshot import Snapshot, build_snapshot, guard_against_leaks
from schemas.spec import FeatureSpec

FEATURES = {
    "amount": FeatureSpec(type="number"),
    "country": FeatureSpec(type="category"),
    "comment": FeatureSpec(type="text"),
    "scan": FeatureSpec(type="image"),
    "shape": FeatureSpec(type="embedding"),
}


def make_table(**changes: list[object]) -> pa.Table:
    columns: dict[str, list[object]] = {
        "record_id": ["a", "b", "c"],
        "ts": [10, 20, 30],
        "label": [1.0, 0.0, 1.0],
        "f:amount": [0.5, None, 2.0],
        "t:country": ["DE", None, "FR"],
        "t:comment": ["a word", None, "a word"],
        "t:scan": ['{"bytes": "aGV4"}', '{"bytes": "aGV4"}', None],
        "t:shape": ["[0.1, 0.2]", "[0.1, 0.2]", "[]"],
        **changes,
    }
    return pa.table(
        {
            name: pa.array(values, pa.timestamp("ms", "UTC") if name == "ts" else None)
            for name, values in columns.items()
        }
    ).append_column("label_text", pa.nulls(len(columns["ts"]), pa.string()))


def take(table: pa.Table, start: int = 0, end: int = 100) -> Snapshot:
    return build_snapshot([table], "binary", FEATURES, start, end)


def test_hash_does_not_depend_on_the_blocks_in_which_rows_come() -> None:
    """A block that has no value of a feature has no column of it."""
    table = make_table()
    blocks = [table.slice(0, 1), table.slice(1, 1).drop_columns(["f:amount", "t:country", "t:comment"]), table.slice(2)]
    snapshot = build_snapshot(blocks, "binary", FEATURES, 0, 100)
    assert snapshot.sha256 == take(table).sha256
    assert snapshot.table["t:country"].to_pylist() == ["DE", None, "FR"]


@pytest.mark.parametrize(
    "changes",
    [
        {"record_id": ["a", "b", "d"]},
        {"ts": [10, 20, 31]},
        {"label": [1.0, 1.0, 1.0]},
        {"f:amount": [0.5, 0.0, 2.0]},
        {"f:amount": [0.5, None, 2.0000000000000004]},
        {"t:country": ["DE", "", "FR"]},
        {"t:country": ["DEF", None, "R"]},
        {"t:comment": ["a word", None, "a  word"]},
        {"t:scan": ['{"bytes": "aGV4"}', '{"bytes": "aGV5"}', None]},
        {"t:shape": ["[0.1, 0.2]", "[0.1, 0.3]", "[]"]},
    ],
)
def test_hash_changes_with_any_value(changes: dict[str, list[object]]) -> None:
    assert take(make_table(**changes)).sha256 != take(make_table()).sha256


def test_feature_that_nobody_declared_does_not_matter() -> None:
    other = make_table().append_column("f:other", pa.array([1.0, 2.0, 3.0]))
    assert take(other).sha256 == take(make_table()).sha256


def test_unlabelled_and_repeated_rows_are_left_out() -> None:
    table = make_table(record_id=["a", "b", "a"], label=[1.0, None, 0.0])
    snapshot = take(table)
    assert snapshot.table["record_id"].to_pylist() == ["a"]
    assert snapshot.labels.to_pylist() == [1.0]


def test_gate_must_follow_training() -> None:
    with pytest.raises(ValueError, match="reach into the gate"):
        guard_against_leaks(take(make_table(), 0, 50), take(make_table(), 40, 90))


def test_record_that_was_trained_on_is_not_judged_on() -> None:
    train = take(make_table(), 0, 40)
    gate = take(make_table(record_id=["x", "b", "y"], ts=[50, 60, 70]), 40, 90)
    kept = guard_against_leaks(train, gate)
    assert kept.table["record_id"].to_pylist() == ["x", "y"]
    assert kept.labels.to_pylist() == [1.0, 1.0]
