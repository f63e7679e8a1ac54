"""A trained model as files, and as something that scores rows.

Owns the manifest and the form of the weights. It must not train, nor know where files lie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load, save

from retrain.network import NetworkConfig, TabularNetwork
from retrain.preprocessing import FeatureRows, Preprocessing
from retrain.target import Scored, Target
from retrain.training import TrainingConfig, compute_outputs

WEIGHTS, MANIFEST, CARD = "model.safetensors", "manifest.json", "README.md"
_FORMAT = 1


class DataRange(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one use: start ≤ ts < end (epoch ms), how many, and the hash of their content."""

    start: int
    end: int
    num_rows: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a trained model but its weights; a pure function of the job, so it holds no clock time."""

    model: str
    job_id: str
    architecture: str
    spec_version: int
    signature: dict[str, list[dict[str, Any]]]
    preprocessing: Preprocessing
    target: Target
    network: NetworkConfig
    training: TrainingConfig
    num_epochs: int
    train: DataRange
    gate: DataRange
    champion: str
    verdict: str
    metrics: dict[str, float]
    code_version: str
    torch_version: str
    device: str
    num_threads: int
    weights_sha256: str
    format: int = _FORMAT


class TrainedModel:
    """A network with its manifest; scores rows the same way wherever it runs."""

    def __init__(self, network: TabularNetwork, preprocessing: Preprocessing, target: Target) -> None:
        self._network = network.to("cpu").eval()
        self._preprocessing = preprocessing
        self._target = target

    def score(self, rows: FeatureRows) -> Scored:
        """Score n rows on the CPU; to the bit, a row's score does not depend on the rows beside it."""
        encoded = self._preprocessing.encode(rows)
        outputs = compute_outputs(self._network, torch.from_numpy(encoded.dense), torch.from_numpy(encoded.codes))
        return self._target.decode(outputs)


def save_weights(network: TabularNetwork) -> bytes:
    """Return the network's weights in the safetensors format."""
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in network.state_dict().items()}
    content: bytes = save(weights)
    return content


def load_model(files: Mapping[str, bytes]) -> TrainedModel:
    """Build the model that verified files describe; raises ValueError for a format of another time."""
    manifest = msgspec.json.decode(files[MANIFEST], type=Manifest)
    if manifest.format != _FORMAT:
        raise ValueError(f"the manifest has format {manifest.format}; this release reads format {_FORMAT}")
    network = manifest.network.build()
    network.load_state_dict(load(files[WEIGHTS]))
    return TrainedModel(network, manifest.preprocessing, manifest.target)


def describe_signature(preprocessing: Preprocessing, target: Target) -> dict[str, list[dict[str, Any]]]:
    """Return inputs and outputs as MLflow writes a signature: name, type, required."""
    inputs = [{"name": column.name, "type": "double", "required": False} for column in preprocessing.numbers]
    inputs += [{"name": column.name, "type": "string", "required": False} for column in preprocessing.categories]
    outputs = {
        "binary": [{"name": "prediction", "type": "long"}, {"name": "score", "type": "double"}],
        "regression": [{"name": "prediction", "type": "double"}],
        "multiclass": [
            {"name": "prediction", "type": "string"},
            *({"name": f"scores.{name}", "type": "double"} for name in target.classes),
        ],
    }
    return {"inputs": inputs, "outputs": outputs[target.task]}


@cache
def read_code_version() -> str:
    """Return the release and a digest of the code that trains, so that equal versions mean equal code."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    try:
        release = version("driftloop")
    except PackageNotFoundError:
        release = "0"
    return f"{release}+{digest.hexdigest()[:12]}"
