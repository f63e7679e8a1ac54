"""Rows on disk, in whatever blocks they come: read, hashed, chosen, encoded and learnt from as in memory."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain import disk, preprocessing, snapshot, tensors
from retrain.network import configure_network
from retrain.preprocessing import FeatureRows, fit_preprocessing
from retrain.snapshot import Snapshot, build_snapshot, guard_against_leaks
from retrain.target import fit_target
from retrain.tensors import Inputs, TrainingRows
from retrain.training import configure_training, train_network
from schemas.errors import Retryable
from schemas.spec import FeatureSpec

FEATURES = {
    "amount": FeatureSpec(type="number"),
    "country": FeatureSpec(type="category"),
    "comment": FeatureSpec(type="text"),
    "shape": FeatureSpec(type="embedding"),
}
ROW = st.tuples(
    st.integers(0, 30),  # the identity
    st.none() | st.sampled_from([0.0, 1.0]),
    st.none() | st.floats(-1e6, 1e6),
    st.none() | st.sampled_from(["DE", "FR", ""]),
    st.none() | st.sampled_from(["good", "not good", "ä ö", ""]),
    st.none() | st.sampled_from(["[1, 2]", "[3.5, -1]", "[]"]),
)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handful of rows be many blocks, and every array lie on disk."""
    for module in (disk, preprocessing, snapshot):
        monkeypatch.setattr(module, "BLOCK_ROWS", 4)
    monkeypatch.setattr(disk, "_IN_MEMORY_BYTES", 1)
    monkeypatch.setattr(snapshot, "_COMPARED_ROWS", 3)


def make_table(rows: list[tuple[object, ...]]) -> pa.Table:
    ids, labels, amounts, *texts = (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 6
    return pa.table(
        {
            "record_id": pa.array([f"r{number}" for number in ids], pa.string()),
            "ts": pa.array(range(len(rows)), pa.timestamp("ms", "UTC")),
            "f:amount": pa.array(amounts, pa.float64()),
            **{
                f"t:{name}": pa.array(values, pa.string())
                for name, values in zip(("country", "comment", "shape"), texts, strict=True)
            },
            "label": pa.array(labels, pa.float64()),
            "label_text": pa.nulls(len(rows), pa.string()),
        }
    )


def cut(table: pa.Table, places: list[int]) -> list[pa.Table]:
    """Cut rows into blocks as the store gives them: without the columns of which a block has no value."""
    edges = [0, *sorted(place % (table.num_rows + 1) for place in places), table.num_rows]
    blocks = [table.slice(start, end - start) for start, end in pairwise(edges)]
    return [
        block.select([name for name in block.column_names if ":" not in name or block[name].null_count < len(block)])
        for block in blocks
    ]


def read(rows: Snapshot) -> list[dict[str, object]]:
    names = [f"{kind}:{name}" for name in FEATURES for kind in "ft"]
    return [{name: value for name, value in row.items() if name not in names or value is not None}
            for row in rows.table.to_pylist()]  # fmt: skip


@given(rows=st.lists(ROW, max_size=24), places=st.lists(st.integers(0, 24), max_size=6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_blocks_do_not_matter(rows: list[tuple[object, ...]], places: list[int], seed: int) -> None:
    table = make_table(rows)
    found = build_snapshot(cut(table, places), "binary", FEATURES, 0, 100)
    whole = build_snapshot([table], "binary", FEATURES, 0, 100)
    assert found.sha256 == whole.sha256

    first: dict[object, dict[str, object]] = {}
    for row in table.drop_columns("label_text").to_pylist():
        if row["label"] is not None:
            first.setdefault(row["record_id"], {name: value for name, value in row.items() if value is not None})
    assert read(found) == list(first.values())

    chosen = np.flatnonzero(np.random.default_rng(seed).random(found.num_rows) < 0.5)
    assert read(found.take(chosen)) == [read(found)[place] for place in chosen]

    gate = Snapshot(whole.table, 100, 200, whole.sha256)
    trained = {row["record_id"] for row in read(found.take(chosen))}
    kept = guard_against_leaks(found.take(chosen), gate)
    assert read(kept) == [row for row in read(whole) if row["record_id"] not in trained]


@given(rows=st.lists(ROW, min_size=1, max_size=24), places=st.lists(st.integers(0, 24), max_size=6))
@settings(max_examples=40, deadline=None)
def test_what_is_learnt_and_encoded_is_that_of_all_rows(rows: list[tuple[object, ...]], places: list[int]) -> None:
    amounts = np.array([math.nan if row[2] is None else row[2] for row in rows])
    texts = {name: pa.array([row[at] for row in rows], pa.string())
             for at, name in enumerate(("country", "comment", "shape"), start=3)}  # fmt: skip
    in_memory = FeatureRows({"amount": amounts}, texts, len(rows))
    features = {**FEATURES, "constant": FeatureSpec(type="number")}
    in_memory.numbers["constant"] = np.ones(len(rows))  # type: ignore[index]
    stored = FeatureRows.of_table(pa.concat_tables(cut(to_table(in_memory), places), promote_options="default"))
    learnt = fit_preprocessing(stored, features)
    known = amounts[~np.isnan(amounts)]
    if known.size:
        amount = learnt.columns["amount"]
        assert amount.mean == pytest.approx(known.mean(), rel=1e-12, abs=1e-9)  # type: ignore[union-attr]
        assert amount.indicator == (known.size < len(rows))  # type: ignore[union-attr]
    assert learnt == fit_preprocessing(in_memory, features)
    together = learnt.encode(stored)
    for place in range(len(rows)):
        alone = learnt.encode(in_memory.slice(place, 1))
        assert np.array_equal(together.dense[place], alone.dense[0])
        assert np.array_equal(together.codes[place], alone.codes[0])
        for name, values in together.extra.items():
            assert np.array_equal(values[place], alone.extra[name][0])


def to_table(rows: FeatureRows) -> pa.Table:
    numbers = {f"f:{name}": pa.array(values, from_pandas=True) for name, values in rows.numbers.items()}
    return pa.table(numbers | {f"t:{name}": values for name, values in rows.texts.items()})


@pytest.mark.parametrize(("num_rows", "batch_rows"), [(1_000, 32), (1_024, 32), (999, 64), (50, 64), (65, 1)])
def test_every_row_comes_once_an_epoch_in_whole_batches(
    num_rows: int, batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "_SHUFFLED_WHOLE_BYTES", 0)
    monkeypatch.setattr(tensors, "_RUN_BYTES", 1_024)
    monkeypatch.setattr(tensors, "_RUNS_PER_PART", 3)
    inputs = Inputs(torch.zeros(num_rows, 8), torch.zeros(num_rows, 0, dtype=torch.int64))
    rows = TrainingRows(inputs, torch.zeros(num_rows), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    epochs = [list(rows.shuffle(generator, batch_rows)) for _ in range(2)]
    for parts in epochs:
        assert sorted(torch.cat(parts).tolist()) == list(range(num_rows))
        assert all(len(part) % batch_rows == 0 for part in parts[:-1])
        # Rows of a part lie in few places: runs of at least a batch.
        assert all(len(set((part // batch_rows).tolist())) <= len(part) // batch_rows + 1 for part in parts)
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))


def test_training_from_disk_gives_the_weights_of_training_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    num_rows = 3_000
    numbers = {f"x{place}": rng.normal(size=num_rows) for place in range(5)}
    labels = pa.array((numbers["x0"] + rng.normal(size=num_rows) > 0).astype(float))
    monkeypatch.setattr(tensors, "_RUN_BYTES", 512)
    monkeypatch.setattr(tensors, "_RUNS_PER_PART", 8)

    def train() -> dict[str, torch.Tensor]:
        rows = FeatureRows(numbers, {}, num_rows)
        learnt = fit_preprocessing(rows, dict.fromkeys(numbers, FeatureSpec(type="number")))
        target = fit_target("binary", labels)
        network = configure_network("mlp", learnt, target)
        data = TrainingRows.load(learnt.encode(rows), target.encode(labels), torch.device("cpu"))
        trained, _ = train_network(network, target, data, configure_training(num_rows, 0, network), lambda _: None)
        return trained.state_dict()

    monkeypatch.setattr(tensors, "_SHUFFLED_WHOLE_BYTES", 0)
    on_disk = train()
    monkeypatch.setattr(disk, "_IN_MEMORY_BYTES", 1 << 30)
    in_memory = train()
    assert all(torch.equal(on_disk[name], in_memory[name]) for name in in_memory)


def test_rows_that_the_disk_cannot_hold_are_told_with_a_remedy() -> None:
    with pytest.raises(Retryable, match="TMPDIR names another folder"):
        disk.allocate((1 << 50,), np.float64)
