"""Trainings that several processes do together: `python -m torch.distributed.run … -m tests.rank_worker CASE FOLDER`.

Each process writes what it ended with to FOLDER: the weights, and the losses that it heard of.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import torch

from retrain import encoders
from retrain.device import pin_threads
from retrain.joint_training import end_training, follow, train_jointly
from retrain.network import configure_network
from retrain.preprocessing import fit_preprocessing
from retrain.ranks import ALONE, Ranks
from retrain.target import fit_target
from retrain.tensors import TrainingRows
from retrain.trained_model import save_weights
from retrain.training import EpochMeasured, configure_training
from schemas.spec import ResourceSpec, TrainingSpec
from tests.media import FEATURES, make_media

# 361 rows: the last step has one row, which two processes cannot share.
ROWS = 361
CASES: dict[str, tuple[str, tuple[str, ...], TrainingSpec]] = {
    # Steps of an odd number of rows, with weights, everything but images.
    "columns": (
        "auto",
        ("amount", "country", "comment", "shape"),
        TrainingSpec(epochs=3, batch_rows=45, early_stopping="none", class_weights="balanced", learning_rate=1e-3),
    ),
    "images": ("cnn", ("scan", "amount"), TrainingSpec(epochs=2, batch_rows=33, early_stopping="none")),
    "search": ("auto", ("amount", "country"), TrainingSpec(epochs=12, batch_rows=32, early_stopping=3)),
}


def train(case: str, ranks: Ranks = ALONE) -> tuple[bytes, list[tuple[float, float]]]:
    """Train a case as a job does; returns the weights and the losses of each epoch."""
    pin_threads()
    # Processes draw numbers of their own, so what they drop is not what one alone would.
    encoders._DROPOUT = 0.0
    architecture, names, spec = CASES[case]
    made = make_media(1, ROWS)
    preprocessing = fit_preprocessing(made.features, {name: FEATURES[name] for name in names})
    labels = pa.array(made.label)
    target = fit_target("binary", labels, spec.class_weights)
    network = configure_network(architecture, preprocessing, target)
    config = configure_training(ROWS, 1, network, spec)
    rows = TrainingRows.load(preprocessing.encode(made.features), target.encode(labels), torch.device("cpu"))
    heard: list[EpochMeasured] = []
    trained, _ = train_jointly(ranks, network, target, rows, config, heard.append, {})
    return save_weights(trained), [(epoch.loss, epoch.validation_loss) for epoch in heard]


def main(case: str, folder: Path) -> None:
    """Train a case as one of several processes; the leader writes what comes of it."""
    ranks = Ranks.join()
    if ranks.leads:
        weights, losses = train(case, ranks)
        end_training(ranks)
        (folder / "weights").write_bytes(weights)
        (folder / "losses.json").write_bytes(msgspec.json.encode(losses))
    else:
        encoders._DROPOUT = 0.0
        follow(ranks, ResourceSpec(accelerator="cpu"))
    ranks.leave()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
