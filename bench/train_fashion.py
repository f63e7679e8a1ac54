"""How many of Fashion-MNIST's 10,000 test images do the standard networks name rightly?

The images of Debian's package `dataset-fashion-mnist` as events: sent as PNG to `records`, their names to `labels`,
stored by a real sink, read back as a job's snapshot, and through the preprocessing and the training of a job, on one
thread. The limits are the accuracies that the data set's own page lists for two convolutions of fewer than 100,000
parameters and for an MLP of 256, 128 and 100.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.results import Limit, Result, not_run
from bench.surroundings import Options, run_roles, run_servers, separate, wait_until
from retrain.device import choose_device, pin_threads
from retrain.network import configure_network
from retrain.preprocessing import fit_preprocessing
from retrain.snapshot import Snapshot, take_snapshot
from retrain.target import fit_target
from retrain.tensors import TrainingRows
from retrain.trained_model import TrainedModel
from retrain.training import configure_training, train_network
from schemas.catalogue import PublishedSpec, encode_published
from schemas.connections import Runtime
from schemas.spec import (
    FeatureSpec,
    ModelSpec,
    ReferenceSource,
    TrainingSpec,
    WindowSpec,
    default_alerts,
    default_performance,
)
from store.client import ClickHouse
from store.log import Producer, apply_topics
from store.migrations import migrate

# Each with its spec's `retrain.training`: all rows are learnt from, since nothing changes in time here.
NETWORKS = {
    "cnn": (TrainingSpec(epochs=14, early_stopping="none"), 0.925),
    "mlp": (TrainingSpec(epochs=20, batch_rows=256, learning_rate=2e-3, early_stopping="none"), 0.883),
}
FEATURES = {"image": FeatureSpec(type="image")}
MODEL = "fashion"
PART_MS = 1_000_000
PARTS = {"train": 1_767_000_000_000, "t10k": 1_767_000_000_000 + PART_MS}
TIMEOUT_S = 300.0


def run(options: Options) -> Iterator[Result]:
    folder = options.fashion_mnist
    names = {
        architecture: f"Fashion-MNIST, {architecture}, {spec.epochs} epochs: accuracy on 10,000 test images"
        for architecture, (spec, _) in NETWORKS.items()
    }
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        yield from (not_run(name, f"there is no {folder}: install dataset-fashion-mnist") for name in names.values())
        return
    train, test = send_and_read(options)
    for architecture, (spec, accuracy) in NETWORKS.items():
        if options.short and architecture == "cnn":
            yield not_run(names[architecture], "it takes minutes: --long")
        else:
            yield measure(names[architecture], architecture, spec, accuracy, train, test)


def send_and_read(options: Options) -> tuple[Snapshot, Snapshot]:
    """Send both parts as events, wait until the sink has stored them, and take a snapshot of each."""
    with run_servers(options) as servers:
        runtime = separate(servers.runtime, "fashion")
        ch = ClickHouse(runtime.clickhouse)
        try:
            migrate(ch)
            apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
            publish(runtime)
            sizes = [send(runtime, options.fashion_mnist, part, start_ms) for part, start_ms in PARTS.items()]
            with run_roles(runtime, "sink") as roles:
                for table in ("records", "labels"):
                    wait_until(
                        lambda table=table: ch.query(f"SELECT uniqExact(record_id) FROM {table}")[0][0] == sum(sizes),
                        TIMEOUT_S, f"the sink to store all {table}", roles,
                    )  # fmt: skip
            train, test = (
                take_snapshot(ch, MODEL, "multiclass", FEATURES, start_ms, start_ms + PART_MS)
                for start_ms in PARTS.values()
            )
        finally:
            ch.close()
    assert [train.num_rows, test.num_rows] == sizes
    return train, test


def publish(runtime: Runtime) -> None:
    """Declare the model, so that the sink takes its events."""
    spec = ModelSpec(
        model=MODEL, task="multiclass", reference=ReferenceSource(file="r.parquet"), features=FEATURES,
        windows=WindowSpec(size_ms=PART_MS, lateness_ms=1000), performance=default_performance("multiclass"),
        alerts=default_alerts(),
    )  # fmt: skip
    published = PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="r", reference_rows=1
    )
    producer = Producer(runtime.kafka)
    producer.produce(runtime.topics("specs"), published.key, encode_published(published))
    producer.flush(20)
    producer.close()


def send(runtime: Runtime, folder: Path, part: str, start_ms: int) -> int:
    """Send one part's images and labels, an event each, a millisecond apart in their order; return how many."""
    producer = Producer(runtime.kafka, compression_type="lz4")
    pixels, labels = read_part(folder, part)
    for number, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        shared = {"record_id": f"{part}-{number}", "model": MODEL, "ts": start_ms + number}
        record = shared | {"features": {"image": write_image(image)}}
        producer.produce(runtime.topics("records"), shared["record_id"], json.dumps(record).encode())
        producer.produce(
            runtime.topics("labels"), shared["record_id"], json.dumps(shared | {"label": str(label)}).encode()
        )
    producer.flush(TIMEOUT_S)
    producer.close()
    return len(labels)


def measure(
    name: str, architecture: str, spec: TrainingSpec, accuracy: float, train: Snapshot, test: Snapshot
) -> Result:
    pin_threads()
    started_s = time.monotonic()
    rows, labels = train.read_features(), train.labels
    preprocessing = fit_preprocessing(rows, FEATURES)
    target = fit_target("multiclass", labels)
    config = configure_network(architecture, preprocessing, target)
    training = configure_training(rows.num_rows, 0, config, spec)
    data = TrainingRows.load(preprocessing.encode(rows), target.encode(labels), choose_device("auto"))
    network, _ = train_network(config, target, data, training, lambda _: None)
    model = TrainedModel(network, config, preprocessing, target)
    num_weights = sum(each.numel() for each in network.parameters())
    trained_s = time.monotonic() - started_s
    found = model.score(test.read_features()).prediction_text
    assert found is not None
    right = float(np.mean(np.array(found) == np.array(test.labels.to_pylist())))
    device = "GPU" if torch.cuda.is_available() else "one CPU thread"
    remark = f"{num_weights:,} weights, {trained_s:.0f} s from rows to network on {device}"
    return Result(name, right, remark, limit=Limit("value", "at least", accuracy))


def read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a part's images uint8 (n, 28, 28) and labels uint8 (n)."""
    images, labels = (
        np.frombuffer(gzip.decompress((folder / f"{part}-{name}-ubyte.gz").read_bytes()), np.uint8, offset=offset)
        for name, offset in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return images.reshape(-1, 28, 28), labels


def write_image(pixels: np.ndarray) -> dict[str, str]:
    """Write an image as an event has it."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    return {"bytes": base64.b64encode(content.getvalue()).decode(), "media_type": "image/png"}
