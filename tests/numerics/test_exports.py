"""Exports say what the version says: ONNX through its runtime where there is one, MLflow by its loader."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import yaml

from retrain.device import pin_threads
from retrain.exporting import GRAPH, PREPROCESSING, export_mlflow, export_onnx
from retrain.network import configure_network
from retrain.preprocessing import FeatureRows, fit_preprocessing
from retrain.target import Scored, fit_target
from retrain.tensors import Inputs
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
from retrain.training import configure_training
from schemas.spec import TrainingSpec
from store.artifacts import DamagedArtifactError, hash_files
from store.versions import VersionRow
from tests.media import FEATURES, make_media, take_features

ROWS = 300
PARTS = [
    ("linear", ("amount", "country")),
    ("mlp", ("amount", "country", "shape")),
    ("resnet", ("amount", "country")),
    ("text", ("comment",)),
    ("cnn", ("scan",)),
    ("auto", tuple(FEATURES)),
]


def make_files(architecture: str, names: tuple[str, ...], task: str = "binary") -> dict[str, bytes]:
    """An artifact whose weights are as drawn: what is exported must say the same, not be right."""
    pin_threads()
    torch.manual_seed(3)
    made = make_media(1, ROWS, share_missing=0.05)
    labels = {
        "binary": pa.array(made.label.astype(float)),
        "multiclass": pa.array([f"class {value}" for value in np.arange(ROWS) % 3]),
        "regression": pa.array(np.linspace(-40, 90, ROWS)),
    }[task]
    preprocessing = fit_preprocessing(made.features, {name: FEATURES[name] for name in names})
    target = fit_target(task, labels)  # type: ignore[arg-type]
    config = configure_network(architecture, preprocessing, target)
    weights = save_weights(TrainedModel(config.build(), config, preprocessing, target).network)
    rows = DataRange(start=0, end=1, num_rows=ROWS, sha256="0")
    manifest = Manifest(
        model="parts", job_id="j", architecture=architecture, spec_version=1,
        signature=describe_signature(preprocessing, target), preprocessing=preprocessing, target=target,
        network=config, training=configure_training(ROWS, 1, config, TrainingSpec()), num_epochs=1, train=rows,
        gate=rows, champion="external", verdict="Passed.", metrics={}, code_version="0", torch_version="0",
        device="cpu", num_threads=1, weights_sha256="",
    )  # fmt: skip
    return {WEIGHTS: weights, MANIFEST: msgspec.json.encode(manifest), "README.md": b"# card", "card.json": b"{}"}


def arrange(scored: Scored) -> np.ndarray:
    if scored.score is not None:
        return scored.score
    if scored.scores is not None:
        return np.column_stack(list(scored.scores.values()))
    assert scored.prediction is not None
    return scored.prediction


@pytest.mark.filterwarnings("ignore")  # the exporter's own warnings are not ours
@pytest.mark.parametrize(
    ("architecture", "names", "task"),
    [(*part, "binary") for part in PARTS]
    + [("mlp", ("amount", "country"), task) for task in ("multiclass", "regression")],
)
def test_onnx_graph_scores_as_the_version_does(architecture: str, names: tuple[str, ...], task: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    files = make_files(architecture, names, task)
    exported = export_onnx(files)
    assert WEIGHTS not in exported
    session = runtime.InferenceSession(exported[GRAPH])
    encoding = json.loads(exported[PREPROCESSING])
    model = load_model(files)
    later = make_media(9, 70, share_missing=0.2).features
    for num_rows in (1, 2, 70):
        rows = take_features(later, np.arange(num_rows))
        inputs = Inputs.of(model.preprocessing.encode(rows))
        values = [inputs.dense, inputs.codes, *inputs.extra.values()]
        named = dict(zip(encoding["inputs"], (value.numpy() for value in values), strict=True))
        # What has no columns is no input of the graph.
        wanted = {each.name for each in session.get_inputs()}
        (scores,) = session.run(None, {name: value for name, value in named.items() if name in wanted})
        assert scores == pytest.approx(arrange(model.score(rows)), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_mlflow_folder_has_what_its_format_asks_for_and_its_loader_scores(task: str, tmp_path: Path) -> None:
    files = make_files("auto", tuple(FEATURES), task)
    version = VersionRow(
        model="parts", version="3", job_id="j", architecture="auto", metrics={}, data_hash="", sha256=hash_files(files),
        uri="", reference_hash="", manifest="", card="", created_at=0,
    )  # fmt: skip
    for name, content in export_mlflow(files, version, "0.1.0").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)

    described = yaml.safe_load((tmp_path / "MLmodel").read_text())
    flavor = described["flavors"]["python_function"]
    signature = {name: json.loads(columns) for name, columns in described["signature"].items()}
    assert [column["name"] for column in signature["inputs"]] == ["amount", "country", "comment", "scan", "shape"]
    assert all({"name", "type", "required"} <= set(column) for column in signature["inputs"])
    assert described["metadata"]["driftloop"]["sha256"] == version.sha256
    assert (tmp_path / "requirements.txt").read_text() == "driftloop==0.1.0\n"

    # As MLflow does it: import the loader module, hand it the folder of data.
    loaded = importlib.import_module(flavor["loader_module"])._load_pyfunc(str(tmp_path / flavor["data"]))
    later = make_media(9, 40, share_missing=0.2)
    frame = pd.DataFrame({"amount": later.amount, **later.texts})
    answer = loaded.predict(frame)
    scored = load_model(files).score(later.features)
    assert list(answer.columns) == [column["name"] for column in signature["outputs"]]
    if task == "regression":
        assert np.array_equal(answer["prediction"], arrange(scored))
    else:
        assert np.array_equal(answer.iloc[:, 1:].to_numpy().squeeze(), arrange(scored))

    # One bit is enough to refuse it.
    for name in files:
        path = tmp_path / "data" / name
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(DamagedArtifactError):
            importlib.import_module(flavor["loader_module"])._load_pyfunc(str(tmp_path / flavor["data"]))
        path.write_bytes(whole)


def test_features_that_a_frame_lacks_are_missing() -> None:
    from retrain.mlflow_loader import PyFunc

    model = load_model(make_files("mlp", ("amount", "country")))
    answer = PyFunc(model).predict(pd.DataFrame({"country": ["DE", None]}, index=[7, 9]))
    missing = FeatureRows({}, {"country": pa.array(["DE", None], pa.string())}, 2)
    assert list(answer.index) == [7, 9]
    assert np.array_equal(answer["score"], arrange(model.score(missing)))
