"""Every standard network learns what it should, from rows to an artifact and back, and scores rows one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import roc_auc_score

from retrain.card import describe_network
from retrain.compilation import choose_compilation
from retrain.device import pin_threads, repeatable
from retrain.encoders import ImageEncoder
from retrain.images import ImageInput
from retrain.network import configure_network
from retrain.preprocessing import FeatureRows, fit_preprocessing
from retrain.schedule import plan_one_cycle
from retrain.target import Target, fit_target
from retrain.tensors import Inputs, TrainingRows
from retrain.trained_model import (
    MANIFEST,
    WEIGHTS,
    DataRange,
    Manifest,
    TrainedModel,
    describe_signature,
    load_model,
    save_weights,
)
from retrain.training import EpochMeasured, compute_outputs, configure_training, train_network
from retrain.warm_start import WarmWeights, choose_weights
from schemas.errors import ConfigurationError
from schemas.spec import FeatureSpec, TrainingSpec
from tests.media import FEATURES, make_media, take_features

ROWS = 600
# Each feature agrees with the label in nine of ten rows, so that alone it gives an AUC of .90.
ALONE = 0.84


@dataclass
class Trained:
    """What a training gave."""

    model: TrainedModel
    config: object
    weights: bytes
    start: WarmWeights | None
    epochs: list[EpochMeasured] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        """The artifact, as a job writes it."""
        model, rows = self.model, DataRange(start=0, end=1, num_rows=ROWS, sha256="0")
        manifest = Manifest(
            model="parts", job_id="j", architecture=model.config.architecture, spec_version=1,
            signature=describe_signature(model.preprocessing, model.target), preprocessing=model.preprocessing,
            target=model.target, network=model.config, training=self.config, num_epochs=1, train=rows, gate=rows,
            champion="external", verdict="Passed.", metrics={}, code_version="0", torch_version="0", device="cpu",
            num_threads=1, weights_sha256="",
        )  # fmt: skip
        assert describe_network(model.config)
        return {WEIGHTS: self.weights, MANIFEST: msgspec.json.encode(manifest)}


def train(
    architecture: str = "auto",
    names: tuple[str, ...] = tuple(FEATURES),
    rows: FeatureRows | None = None,
    labels: pa.Array | None = None,
    task: str = "binary",
    champion: TrainedModel | None = None,
    is_resident: bool | None = None,
    seed: int = 1,
    **options: object,
) -> Trained:
    """Train as a job does."""
    pin_threads()
    made = make_media(1, ROWS, share_missing=0.05)
    rows, labels = rows or made.features, pa.array(made.label) if labels is None else labels
    spec = TrainingSpec(**options)  # type: ignore[arg-type]
    before = (champion.preprocessing, champion.target) if champion else (None, None)
    preprocessing = fit_preprocessing(rows, {name: FEATURES[name] for name in names}, before[0])
    target = fit_target(task, labels, spec.class_weights, before[1])  # type: ignore[arg-type]
    config = configure_network(architecture, preprocessing, target)
    start = choose_weights(champion, "7", config, target) if champion else None
    training = configure_training(len(labels), seed, config, spec)
    data = TrainingRows.load(
        preprocessing.encode(rows), target.encode(labels), torch.device("cpu"), is_resident=is_resident
    )
    epochs: list[EpochMeasured] = []
    with repeatable(spec.deterministic):
        weights = start.weights if start else None
        network, _ = train_network(config, target, data, training, epochs.append, weights)
    return Trained(TrainedModel(network, config, preprocessing, target), training, save_weights(network), start, epochs)


def measure_auc(model: TrainedModel) -> float:
    later = make_media(9, 800, share_missing=0.05)
    scored = model.score(later.features)
    assert scored.score is not None
    return float(roc_auc_score(later.label, scored.score))


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("linear", ("comment",)),
        ("text", ("comment",)),
        ("mlp", ("shape",)),
        ("resnet", ("amount", "country", "shape")),
        ("cnn", ("scan",)),
        ("auto", ("scan", "amount")),
    ],
)
def test_every_architecture_learns_from_its_features(architecture: str, names: tuple[str, ...]) -> None:
    trained = train(architecture, names)
    assert measure_auc(trained.model) > ALONE
    # The artifact scores to the bit as the network that was trained.
    again = load_model(trained.files)
    later = make_media(9, 50, share_missing=0.2).features
    assert np.array_equal(again.score(later).score, trained.model.score(later).score)  # type: ignore[arg-type]


def test_all_features_together_say_more_than_any_alone() -> None:
    trained = train()
    assert measure_auc(trained.model) > 0.96
    again = load_model(trained.files)
    rows = make_media(9, 100, share_missing=0.2).features
    together = again.score(rows).score
    assert together is not None
    for size in (1, 3, 33, 64):
        index = np.random.default_rng(size).choice(100, size, replace=False)
        assert np.array_equal(again.score(take_features(rows, index)).score, together[index])  # type: ignore[arg-type]


def test_the_image_network_is_small() -> None:
    image = ImageInput("scan", 1, 28, 28, (73.0,), (90.0,), indicator=False)
    encoder = ImageEncoder(image)
    assert sum(each.numel() for each in encoder.parameters()) + 10 * (encoder.width + 1) < 100_000
    for height, width in ((8, 8), (12, 64), (64, 64), (28, 28)):
        image = ImageInput("scan", 3, height, width, (0.0,) * 3, (1.0,) * 3, indicator=False)
        encoder = ImageEncoder(image)
        assert encoder(torch.zeros(2, 3, height, width, dtype=torch.uint8)).shape == (2, encoder.width)
        assert encoder.width <= 64 * 7 * 7


@pytest.mark.parametrize(("architecture", "kind"), [("cnn", "image"), ("text", "text"), ("forest", "forest")])
def test_architecture_that_does_not_fit_says_so(architecture: str, kind: str) -> None:
    preprocessing = fit_preprocessing(make_media(1, 50).features, {"amount": FEATURES["amount"]})
    with pytest.raises(ConfigurationError, match=kind):
        configure_network(architecture, preprocessing, Target("binary"))


def test_derived_number_is_left_out_where_its_source_is_read() -> None:
    made = make_media(1, 50)
    numbers = {"amount": made.amount, "note.length": made.amount}
    rows = FeatureRows(numbers, made.features.texts, 50)
    features: dict[str, FeatureSpec] = {
        "comment": FEATURES["comment"],
        "amount": FeatureSpec(type="number", of="comment"),
        "note.length": FeatureSpec(type="number", of="note"),
    }
    preprocessing = fit_preprocessing(rows, features)
    assert [column.name for column in preprocessing.numbers] == ["note.length"]
    assert preprocessing.ignored == ("amount",)


# Warm start


def measure_loss(model: TrainedModel, network: torch.nn.Module) -> float:
    made = make_media(1, ROWS, share_missing=0.05)
    inputs = Inputs.of(model.preprocessing.encode(made.features))
    outputs = compute_outputs(network, inputs, model.config.block_rows)
    return float(model.target.compute_loss(outputs, torch.from_numpy(made.label.astype(np.float32))))


def test_warm_network_begins_at_the_champions_loss_and_a_fresh_one_does_not() -> None:
    champion = train().model
    config = configure_network("auto", champion.preprocessing, champion.target)
    start = choose_weights(champion, "7", config, champion.target)
    assert start.start.words == f"Started from version 7: all {len(champion.network.state_dict())} layers."
    fresh, warm = config.build(), config.build()
    warm.load_state_dict(dict(start.weights), strict=False)
    expected = measure_loss(champion, champion.network)
    assert measure_loss(champion, warm) == expected < 0.3
    assert measure_loss(champion, fresh) > 0.5
    # A whole training on other rows begins there too.
    rows = make_media(5, ROWS, share_missing=0.05)
    again = train(rows=rows.features, labels=pa.array(rows.label), champion=champion, start="warm", epochs=2)
    scratch = train(rows=rows.features, labels=pa.array(rows.label), epochs=2)
    assert again.model.preprocessing == champion.preprocessing
    assert again.epochs[0].loss < 0.7 * scratch.epochs[0].loss


def test_layers_that_mean_something_else_start_fresh() -> None:
    champion = train(names=("amount", "country", "shape"), epochs=1).model
    start = train(names=("amount", "country", "comment", "shape"), champion=champion, epochs=1).start
    assert start is not None
    assert set(start.start.taken) >= {"embedding.weight", "encoders.of:shape.projection.weight", "layers.4.weight"}
    assert set(start.start.fresh) == {"encoders.of:comment.bag.weight", "layers.0.weight", "layers.0.bias"}
    assert "has no such layer" in start.start.fresh["encoders.of:comment.bag.weight"]
    assert "the champion's 64 ×" in start.start.fresh["layers.0.weight"]
    assert start.start.fresh["layers.0.bias"] == "it reads other inputs"
    assert start.start.words.startswith("Started from version 7: ")
    assert "Fresh: " in start.start.words


def test_classes_of_another_name_start_a_fresh_head() -> None:
    rows = make_media(1, ROWS)
    one = pa.array(np.where(rows.label, "b", "a").tolist())
    other = pa.array(np.where(rows.label, "c", "a").tolist())
    champion = train(names=("amount",), labels=one, task="multiclass", epochs=1).model
    start = train(names=("amount",), labels=other, task="multiclass", champion=champion, epochs=1).start
    assert start is not None
    assert start.start.fresh == dict.fromkeys(["layers.4.weight", "layers.4.bias"], "the classes are others")


def test_regression_keeps_the_scale_of_its_champion() -> None:
    rows = make_media(1, ROWS)
    champion = train(names=("amount",), labels=pa.array(100 + rows.amount), task="regression", epochs=2).model
    warm = train(names=("amount",), labels=pa.array(500 + rows.amount), task="regression", champion=champion, epochs=2)
    assert warm.model.target == champion.target


# Options


def test_balanced_weights_find_the_rare_class_and_scores_stay_probabilities() -> None:
    rows = make_media(1, 4000)
    kept = np.flatnonzero((rows.label == 0) | (np.arange(4000) % 20 == 0))
    features, labels = take_features(rows.features, kept), pa.array(rows.label[kept])
    share = float(rows.label[kept].mean())
    later = make_media(9, 4000)
    part = np.flatnonzero((later.label == 0) | (np.arange(4000) % 20 == 0))
    truth = later.label[part] == 1
    found, mean = {}, {}
    for weights in ("none", "balanced"):
        model = train("linear", ("amount",), features, labels, class_weights=weights).model
        scored = model.score(take_features(later.features, part))
        assert scored.score is not None
        assert scored.prediction is not None
        found[weights], mean[weights] = float(scored.prediction[truth].mean()), float(scored.score.mean())
    assert found["none"] < 0.5 < 0.8 < found["balanced"]
    assert mean == pytest.approx({"none": share, "balanced": share}, abs=0.02)


def test_balanced_classes_of_multiclass_weigh_the_same() -> None:
    target = fit_target("multiclass", pa.array(["a"] * 6 + ["b"] * 3 + ["c"]), "balanced")
    assert target.class_weights == pytest.approx((10 / 18, 10 / 9, 10 / 3))
    outputs, truth = torch.zeros(10, 3), torch.tensor([0] * 6 + [1] * 3 + [2])
    assert float(target.compute_loss(outputs, truth)) == pytest.approx(np.log(3))
    # Equal weighted logits are the prior's shares once the weights are taken out.
    scored = target.decode(torch.zeros(1, 3))
    assert scored.scores is not None
    assert [float(scored.scores[name][0]) for name in "abc"] == pytest.approx([0.6, 0.3, 0.1])


def test_equal_deterministic_runs_give_equal_bytes_and_another_seed_others() -> None:
    first, second = (train(epochs=2, deterministic=True).weights for _ in range(2))
    assert first == second
    assert not torch.are_deterministic_algorithms_enabled()
    assert train(epochs=2, deterministic=True, seed=2).weights != first


def test_algorithm_that_is_not_repeatable_is_a_configuration_error() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"retrain.training.deterministic: put_ does not have"),
        repeatable(True),
    ):
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
    assert not torch.are_deterministic_algorithms_enabled()


def test_rows_that_do_not_lie_on_the_device_train_the_same() -> None:
    assert train(epochs=2, is_resident=False).weights == train(epochs=2).weights


def test_rows_come_in_batches_of_the_order_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_media(1, 100).features
    encoded = fit_preprocessing(rows, FEATURES).encode(rows)
    order = torch.randperm(100)
    for chunk_rows, is_resident in ((7, True), (7, False), (1000, True), (1000, False), (30, False)):
        monkeypatch.setattr("retrain.tensors._CHUNK_ROWS", chunk_rows)
        data = TrainingRows.load(encoded, np.arange(100), torch.device("cpu"), is_resident=is_resident)
        batches = list(data.batch(order, 8))
        assert [len(truth) for _, truth in batches] == [8] * 12 + [4]
        assert torch.cat([truth for _, truth in batches]).tolist() == order.tolist()
        for name, values in encoded.extra.items():
            assert np.array_equal(torch.cat([inputs.extra[name] for inputs, _ in batches]), values[order])


def test_without_early_stopping_all_rows_are_learnt_from_for_all_epochs() -> None:
    trained = train(names=("amount",), epochs=3, early_stopping="none")
    assert [epoch.epoch for epoch in trained.epochs] == [1, 2, 3]
    assert all(np.isnan(epoch.validation_loss) and len(epoch.outputs) == 0 for epoch in trained.epochs)
    assert len(train(names=("amount",), epochs=30, early_stopping=1).epochs) < 30


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 10, 1234])
def test_schedule_is_that_of_torch(num_steps: int) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.02)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=num_steps)
    rates, momenta = plan_one_cycle(0.02, num_steps)
    for step in range(num_steps):
        (group,) = optimizer.param_groups
        assert rates[step] == pytest.approx(group["lr"], rel=1e-12)
        assert momenta[step] == pytest.approx(group["betas"][0], rel=1e-12)
        optimizer.step()
        if step + 1 < num_steps:
            scheduler.step()


def test_manifest_of_another_format_is_refused() -> None:
    files = train(names=("amount",), epochs=1).files
    old = msgspec.json.encode({**msgspec.json.decode(files[MANIFEST]), "format": 1, "network": {"hidden": [64]}})
    with pytest.raises(ValueError, match="has format 1; this release reads format 2"):
        load_model({**files, MANIFEST: old})


@pytest.mark.parametrize(
    ("device", "num_steps", "is_heavy", "deterministic", "expected"),
    [
        ("cpu", 10**9, False, False, "none"),
        ("cuda", 1_000, False, False, "none"),
        ("cuda", 10**6, False, False, "graphs"),
        ("cuda", 10**6, True, False, "kernels"),
        ("cuda", 10**6, False, True, "none"),
    ],
)
def test_compilation_is_decided_by_the_size_of_the_job(
    device: str, num_steps: int, is_heavy: bool, deterministic: bool, expected: str
) -> None:
    found = choose_compilation(torch.device(device), num_steps, is_heavy=is_heavy, deterministic=deterministic)
    assert found == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_compiled_network_trains_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU only the tracing is tested: the traced graph is run as it is."""
    compiled = []

    def trace(network: torch.nn.Module, **options: object) -> object:
        compiled.append(options)
        return torch._dynamo.optimize("eager", nopython=True)(network)

    expected = train(epochs=2).weights
    monkeypatch.setattr(torch, "compile", trace)
    monkeypatch.setattr("retrain.training.choose_compilation", lambda *_, **__: "graphs")
    assert train(epochs=2).weights == expected
    assert compiled == [{"mode": "reduce-overhead", "dynamic": False}] * 2
