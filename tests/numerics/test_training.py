"""Training gives the same numbers everywhere it should, and learns what there is to learn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from retrain.device import pin_threads
from retrain.network import NetworkConfig, NetworkSchema, configure_network
from retrain.preprocessing import FeatureRows, fit_preprocessing
from retrain.target import Target, UnfitLabelsError, fit_target
from retrain.tensors import Inputs, TrainingRows
from retrain.trained_model import TrainedModel, save_weights
from retrain.training import (
    EpochMeasured,
    TrainingConfig,
    compute_outputs,
    configure_training,
    train_network,
)
from schemas.spec import FeatureSpec

FEATURES = {"amount": FeatureSpec(type="number"), "country": FeatureSpec(type="category")}
ROWS = 2_000


def make_rows(seed: int = 0) -> tuple[FeatureRows, np.ndarray]:
    """Features, and what a model should find out: 2·amount + 1 for DE."""
    rng = np.random.default_rng(seed)
    amount = rng.normal(size=ROWS)
    country = rng.choice(["DE", "FR"], ROWS)
    rows = FeatureRows({"amount": amount}, {"country": pa.array(country.tolist())}, ROWS)
    return rows, 2 * amount + (country == "DE")


def train(
    rows: FeatureRows, labels: pa.Array, task: str, architecture: str = "mlp", seed: int = 1
) -> tuple[TrainedModel, list[EpochMeasured], bytes]:
    pin_threads()
    preprocessing = fit_preprocessing(rows, FEATURES)
    target = fit_target(task, labels)  # type: ignore[arg-type]
    network_config = configure_network(architecture, preprocessing, target)
    data = TrainingRows.load(preprocessing.encode(rows), target.encode(labels), torch.device("cpu"))
    epochs: list[EpochMeasured] = []
    config = configure_training(len(labels), seed, network_config)
    network, _ = train_network(network_config, target, data, config, epochs.append)
    return TrainedModel(network, network_config, preprocessing, target), epochs, save_weights(network)


@pytest.fixture(scope="module")
def binary_labels() -> pa.Array:
    _, logit = make_rows()
    uniform = np.random.default_rng(3).random(ROWS)
    return pa.array((uniform < 1 / (1 + np.exp(-logit))).astype(float))


def test_golden_losses(binary_labels: pa.Array) -> None:
    """The first epochs of one run, to four digits: whoever changes the training notices here."""
    _, epochs, _ = train(make_rows()[0], binary_labels, "binary")
    assert [epoch.loss for epoch in epochs[:3]] == pytest.approx(GOLDEN_LOSSES, abs=2e-4)
    assert [epoch.validation_loss for epoch in epochs[:3]] == pytest.approx(GOLDEN_VALIDATION_LOSSES, abs=2e-4)


GOLDEN_LOSSES = [0.598663, 0.460412, 0.463613]
GOLDEN_VALIDATION_LOSSES = [0.489607, 0.505842, 0.512709]


def test_equal_runs_give_equal_weights_and_another_seed_others(binary_labels: pa.Array) -> None:
    rows = make_rows()[0]
    first, second, other = (train(rows, binary_labels, "binary", seed=seed)[2] for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize("architecture", ["auto", "mlp", "linear", "resnet"])
def test_binary_comes_close_to_the_truth(binary_labels: pa.Array, architecture: str) -> None:
    model, _, _ = train(make_rows()[0], binary_labels, "binary", architecture)
    rows, logit = make_rows(seed=9)
    scored = model.score(rows)
    assert scored.score is not None
    assert np.abs(scored.score - 1 / (1 + np.exp(-logit))).mean() < 0.04


def test_regression_comes_close_to_the_truth() -> None:
    rows, truth = make_rows()
    noise = np.random.default_rng(3).normal(size=ROWS)
    model, _, _ = train(rows, pa.array(1000 + 100 * truth + 10 * noise), "regression")
    later, expected = make_rows(seed=9)
    scored = model.score(later)
    assert scored.prediction is not None
    assert np.abs(scored.prediction - (1000 + 100 * expected)).mean() < 8


def test_multiclass_finds_the_classes() -> None:
    rows, truth = make_rows()
    labels = np.where(truth < -1, "low", np.where(truth < 1, "mid", "high"))
    model, _, _ = train(rows, pa.array(labels.tolist()), "multiclass")
    later, expected = make_rows(seed=9)
    scored = model.score(later)
    assert scored.scores is not None
    assert scored.prediction_text is not None
    assert sum(scored.scores.values()) == pytest.approx(np.ones(ROWS))
    right = np.where(expected < -1, "low", np.where(expected < 1, "mid", "high"))
    assert np.mean(np.array(scored.prediction_text) == right) > 0.95


def test_score_does_not_depend_on_the_rows_beside_it(binary_labels: pa.Array) -> None:
    """Redelivery cuts batches elsewhere; the prediction must be the same to the bit."""
    rows = make_rows()[0]
    model, _, _ = train(rows, binary_labels, "binary")
    together = model.score(rows).score
    assert together is not None
    for size in (1, 3, 17, 333, 1025):
        index = np.random.default_rng(size).choice(ROWS, size, replace=False)
        numbers, texts = {"amount": rows.numbers["amount"][index]}, {"country": rows.texts["country"].take(index)}
        part = FeatureRows(numbers, texts, size)
        assert np.array_equal(model.score(part).score, together[index])  # type: ignore[arg-type]


def test_no_rows_give_no_outputs() -> None:
    schema = NetworkSchema(dense=("amount",), categories=(), task="binary", num_outputs=1)
    network = NetworkConfig(architecture="mlp", schema=schema, hidden=(4,)).build()
    none = Inputs(torch.zeros((0, 1)), torch.zeros((0, 0), dtype=torch.int64))
    assert compute_outputs(network, none, 8).shape == (0, 1)


def test_diverging_training_says_so() -> None:
    rows, _ = make_rows()
    preprocessing = fit_preprocessing(rows, FEATURES)
    target = Target("regression")
    data = TrainingRows.load(preprocessing.encode(rows), np.full(ROWS, np.inf, np.float32), torch.device("cpu"))
    config = TrainingConfig(seed=0, batch_rows=512, max_epochs=2, patience_epochs=1)
    with pytest.raises(ArithmeticError, match="diverged"):
        train_network(configure_network("mlp", preprocessing, target), target, data, config, lambda _: None)


@pytest.mark.parametrize(
    ("task", "labels", "words"),
    [
        ("binary", [1.0, 1.0], "one class only"),
        ("binary", [0.0, 2.0], "must be 0 or 1"),
        ("regression", [3.0, 3.0], "all training labels are equal"),
        ("multiclass", ["a", "a"], "1 class only"),
    ],
)
def test_labels_without_anything_to_learn_are_refused(task: str, labels: list[object], words: str) -> None:
    with pytest.raises(UnfitLabelsError, match=words):
        fit_target(task, pa.array(labels))  # type: ignore[arg-type]
