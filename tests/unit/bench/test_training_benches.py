"""The training benchmarks: what cannot be run says so, and images reach the network as the files have them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import train_cpu, train_fashion, train_gpu
from bench.results import format_row
from bench.surroundings import Options
from bench.train_fashion import PARTS
from retrain.preprocessing import fit_preprocessing


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_not_run() -> None:
    rows = [format_row(result) for result in train_gpu.run(Options())]
    assert len(rows) == 2
    assert all("| not run | there is no GPU |" in row for row in rows)


def test_without_the_images_it_is_not_run(tmp_path: Path) -> None:
    rows = [format_row(result) for result in train_fashion.run(Options(fashion_mnist=tmp_path))]
    assert all("| not run | there is no " in row and "install dataset-fashion-mnist" in row for row in rows)


def test_images_reach_the_network_as_the_files_have_them(tmp_path: Path) -> None:
    """Through the topics, the sink and the snapshot."""
    pixels = {part: np.random.default_rng(n).integers(0, 256, (20, 28, 28), np.uint8) for n, part in enumerate(PARTS)}
    labels = np.arange(20, dtype=np.uint8) % 10
    for part in PARTS:
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + pixels[part].tobytes()))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels.tobytes()))
    snapshots = train_fashion.send_and_read(Options(fashion_mnist=tmp_path))
    for part, snapshot in zip(PARTS, snapshots, strict=True):
        rows = snapshot.read_features()
        encoded = fit_preprocessing(rows, train_fashion.FEATURES).encode(rows)
        assert np.array_equal(encoded.extra["image"][:, 0], pixels[part])
        assert snapshot.labels.to_pylist() == [str(label) for label in labels]


def test_peers_learn_from_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both loops get a loss below that of guessing, or the benchmark stops."""
    monkeypatch.setattr(train_cpu, "NUM_ROWS", (4_000, 4_000))
    results = train_cpu.run(Options())
    assert [result.unit for result in results] == ["rows/s", "rows/s"]
    assert all(result.ratio is not None and result.ratio > 0 for result in results)
