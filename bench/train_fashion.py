"""How many of Fashion-MNIST's 10,000 test images do the standard networks name rightly?

The images of Debian's package `dataset-fashion-mnist` as a store keeps them (PNG in base64 in JSON), through the
preprocessing and the training of a job, on one thread. The limits are the accuracies that the data set's own page lists
for two convolutions of fewer than 100,000 parameters and for an MLP of 256, 128 and 100.
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
import pyarrow as pa
import torch
from PIL import Image

from bench.results import Limit, Result, not_run
from bench.surroundings import Options
from retrain.device import choose_device, pin_threads
from retrain.network import configure_network
from retrain.preprocessing import FeatureRows, fit_preprocessing
from retrain.target import fit_target
from retrain.tensors import TrainingRows
from retrain.trained_model import TrainedModel
from retrain.training import configure_training, train_network
from schemas.spec import FeatureSpec, TrainingSpec

# Each with its spec's `retrain.training`: all rows are learnt from, since nothing changes in time here.
NETWORKS = {
    "cnn": (TrainingSpec(epochs=14, early_stopping="none"), 0.925),
    "mlp": (TrainingSpec(epochs=20, batch_rows=256, learning_rate=2e-3, early_stopping="none"), 0.883),
}
FEATURES = {"image": FeatureSpec(type="image")}


def run(options: Options) -> Iterator[Result]:
    for architecture, (spec, accuracy) in NETWORKS.items():
        name = f"Fashion-MNIST, architecture {architecture}, {spec.epochs} epochs: accuracy on 10,000 test images"
        if not (options.fashion_mnist / "train-images-idx3-ubyte.gz").exists():
            yield not_run(name, f"there is no {options.fashion_mnist}: install dataset-fashion-mnist")
        elif options.short and architecture == "cnn":
            yield not_run(name, "it takes minutes: --long")
        else:
            yield measure(name, architecture, spec, accuracy, options.fashion_mnist)


def measure(name: str, architecture: str, spec: TrainingSpec, accuracy: float, folder: Path) -> Result:
    pin_threads()
    started_s = time.monotonic()
    rows, labels = read_rows(folder, "train")
    preprocessing = fit_preprocessing(rows, FEATURES)
    target = fit_target("multiclass", labels)
    config = configure_network(architecture, preprocessing, target)
    training = configure_training(rows.num_rows, 0, config, spec)
    data = TrainingRows.load(preprocessing.encode(rows), target.encode(labels), choose_device("auto"))
    network, _ = train_network(config, target, data, training, lambda _: None)
    model = TrainedModel(network, config, preprocessing, target)
    num_weights = sum(each.numel() for each in network.parameters())
    trained_s = time.monotonic() - started_s
    test, truth = read_rows(folder, "t10k")
    found = model.score(test).prediction_text
    assert found is not None
    right = float(np.mean(np.array(found) == np.array(truth.to_pylist())))
    device = "GPU" if torch.cuda.is_available() else "one CPU thread"
    remark = f"{num_weights:,} weights, {trained_s:.0f} s from rows to network on {device}"
    return Result(name, right, remark, limit=Limit("value", "at least", accuracy))


def read_rows(folder: Path, part: str) -> tuple[FeatureRows, pa.Array]:
    """Read images as a snapshot has them, and their labels as text."""
    pixels = np.frombuffer(gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    images = [write_image(image) for image in pixels.reshape(-1, 28, 28)]
    return FeatureRows({}, {"image": pa.array(images, pa.string())}, len(images)), pa.array(map(str, labels.tolist()))


def write_image(pixels: np.ndarray) -> str:
    """Write an image as the store keeps it."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    return json.dumps({"bytes": base64.b64encode(content.getvalue()).decode(), "media_type": "image/png"})
