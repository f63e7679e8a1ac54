"""A version for other programs: an ONNX graph, or a folder that MLflow can load.

Owns what stands in those folders. It must not change what a version says: the same rows give the same scores.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
import yaml
from torch import Tensor, nn

from retrain.preprocessing import FeatureRows
from retrain.target import Target
from retrain.tensors import Inputs
from retrain.trained_model import MANIFEST, Manifest, TrainedModel, load_model
from schemas.errors import ConfigurationError
from store.artifacts import list_hashes
from store.versions import VersionRow

GRAPH, PREPROCESSING, LISTING = "model.onnx", "preprocessing.json", "SHA256SUMS"

# Two, since an exporter takes a dimension of 1 for a constant.
_EXAMPLE_ROWS = 2
# Of all operators that the networks need, the oldest set that has them.
_OPSET = 18


def export_onnx(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of an ONNX export: the graph, what encodes rows for it, and the version's own cards.

    The graph reads encoded rows (`dense` float32, `codes` int64, and `extra_NAME` for each text, image and embedding)
    and gives `scores`: the probability of class 1 (n,), of each class (n, classes), or the prediction (n,). How columns
    become these inputs stands in `preprocessing.json`. Raises ConfigurationError where the extra is not installed or
    the network has a part that ONNX lacks.
    """
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxscript") is None:
        raise ConfigurationError(
            "an export to ONNX needs two more packages", key="--format", remedy="install driftloop[onnx]"
        )
    model = load_model(files)
    rows = FeatureRows({}, {}, _EXAMPLE_ROWS)
    inputs = Inputs.of(model.preprocessing.encode(rows))
    names = list(inputs.extra)
    graph = _Graph(model, names).eval()
    arguments = (inputs.dense, inputs.codes, *(inputs.extra[name] for name in names))
    input_names = ["dense", "codes", *(f"extra_{name}" for name in names)]
    rows_of = torch.export.Dim("rows", min=1, max=1 << 30)
    shapes = ({0: rows_of}, {0: rows_of}, tuple({0: rows_of} for _ in names))
    try:
        program = torch.onnx.export(
            graph,
            arguments,
            input_names=input_names,
            output_names=["scores"],
            dynamic_shapes=shapes if names else shapes[:2],
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None, "this exporter returns what it has written"
        written: bytes = program.model_proto.SerializeToString()
    except Exception as error:
        raise ConfigurationError(
            f"the network {model.config.architecture} cannot be written as ONNX: {str(error).splitlines()[0]}",
            key="--format",
            remedy="export it with --format mlflow",
        ) from error
    encoding = {"inputs": input_names, "preprocessing": model.preprocessing, "target": model.target}
    kept = {name: content for name, content in files.items() if name != "model.safetensors"}
    return kept | {GRAPH: written, PREPROCESSING: msgspec.json.format(msgspec.json.encode(encoding))}


def export_mlflow(files: Mapping[str, bytes], version: VersionRow, release: str) -> dict[str, bytes]:
    """Return the files of a folder in MLflow's format, which `mlflow.pyfunc.load_model` loads.

    It needs driftloop of this `release` where it is loaded. Nothing in it is pickled.
    """
    manifest = msgspec.json.decode(files[MANIFEST], type=Manifest)
    signature = {name: msgspec.json.encode(columns).decode() for name, columns in manifest.signature.items()}
    described: dict[str, Any] = {
        "artifact_path": "model",
        "flavors": {
            "python_function": {
                "loader_module": "retrain.mlflow_loader",
                "data": "data",
                "env": {"virtualenv": "python_env.yaml"},
            }
        },
        "metadata": {
            "driftloop": {"model": version.model, "version": version.version, "sha256": version.sha256},
        },
        "model_uuid": version.sha256[:32],
        "signature": signature,
    }
    data = {f"data/{name}": content for name, content in files.items()}
    return {
        **data,
        f"data/{LISTING}": list_hashes(files),
        "MLmodel": yaml.safe_dump(described, sort_keys=True).encode(),
        "python_env.yaml": yaml.safe_dump({"dependencies": ["-r requirements.txt"]}).encode(),
        "requirements.txt": f"driftloop=={release}\n".encode(),
    }


class _Graph(nn.Module):
    """A network with its head: encoded rows to scores."""

    def __init__(self, model: TrainedModel, names: list[str]) -> None:
        super().__init__()
        self.network = model.network
        self.names = names
        self.target: Target = model.target

    def forward(self, dense: Tensor, codes: Tensor, *extra: Tensor) -> Tensor:
        """As `Target.decode`, in float32."""
        # ONNX has the bag of embeddings for one kind of integers only.
        wide = [values.long() if values.dtype == torch.int32 else values for values in extra]
        outputs: Tensor = self.network(dense, codes, dict(zip(self.names, wide, strict=True)))
        if self.target.task == "binary":
            return torch.sigmoid(outputs[:, 0])
        if self.target.task == "regression":
            return outputs[:, 0] * self.target.scale + self.target.mean
        return torch.softmax(outputs, dim=1)
