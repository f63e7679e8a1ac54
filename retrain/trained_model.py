"""A trained model as files, and as something that scores rows.

Owns the manifest and the form of the weights. It must not train, nor know where files lie.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load, save
from torch import nn

from retrain.images import ImageInput
from retrain.network import NetworkConfig
from retrain.preprocessing import ExtraInput, FeatureRows, Preprocessing
from retrain.target import Scored, Target
from retrain.tensors import Inputs
from retrain.texts import TextInput
from retrain.training import TrainingConfig, compute_outputs

WEIGHTS, MANIFEST, CARD = "model.safetensors", "manifest.json", "README.md"
# 2: texts, images and embeddings, architectures beyond two, how training started.
_FORMAT = 2


class DataRange(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one use: start ≤ ts < end (epoch ms), how many, and the hash of their content."""

    start: int
    end: int
    num_rows: int
    sha256: str


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the weights began as: layers `taken` from a version (empty: from scratch), and why others were `fresh`."""

    version: str = ""
    taken: tuple[str, ...] = ()
    fresh: dict[str, str] = {}
    words: str = "Started from scratch."


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the training rows were learnt from, how many, `num_replayed` of them from before a change, and why."""

    window: str = "all"
    num_rows: int = 0
    num_replayed: int = 0
    losses: dict[str, float] = {}
    words: str = "Learnt from all training rows."

    def list_metrics(self) -> dict[str, float]:
        """Give the figures behind the choice by name."""
        return {f"candidate_{name}": value for name, value in self.losses.items() if math.isfinite(value)}


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
    start: Start = Start()
    num_epochs: int
    train: DataRange
    gate: DataRange
    choice: Choice = Choice()
    champion: str
    verdict: str
    metrics: dict[str, float]
    code_version: str
    torch_version: str
    device: str
    num_threads: int
    num_processes: int = 1
    weights_sha256: str
    format: int = _FORMAT


class TrainedModel:
    """A network with its manifest; scores rows the same way wherever it runs."""

    def __init__(self, network: nn.Module, config: NetworkConfig, preprocessing: Preprocessing, target: Target) -> None:
        self.network = network.to("cpu").eval()
        self.config = config
        self.preprocessing = preprocessing
        self.target = target

    def score(self, rows: FeatureRows) -> Scored:
        """Score n rows on the CPU; to the bit, a row's score does not depend on the rows beside it."""
        blocks = list(rows.split(self.preprocessing.block_rows)) or [rows]
        outputs = [
            compute_outputs(self.network, Inputs.of(self.preprocessing.encode(block)), self.config.block_rows)
            for block in blocks
        ]
        return self.target.decode(torch.cat(outputs))


def save_weights(network: nn.Module) -> bytes:
    """Return the network's weights in the safetensors format."""
    # Copied, because a network of the user's may hold one tensor under two names, which the format refuses.
    weights = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in network.state_dict().items()}
    content: bytes = save(weights)
    return content


class _Head(msgspec.Struct):
    format: int = 0


def load_model(files: Mapping[str, bytes]) -> TrainedModel:
    """Build the model that verified files describe; raises ValueError for a format of another time.

    Raises ConfigurationError where it needs code of the user's that cannot be imported or is another.
    """
    head = msgspec.json.decode(files[MANIFEST], type=_Head)
    if head.format != _FORMAT:
        raise ValueError(f"the manifest has format {head.format}; this release reads format {_FORMAT}")
    manifest = msgspec.json.decode(files[MANIFEST], type=Manifest)
    network = manifest.network.build()
    network.load_state_dict(load(files[WEIGHTS]))
    return TrainedModel(network, manifest.network, manifest.preprocessing, manifest.target)


def describe_signature(preprocessing: Preprocessing, target: Target) -> dict[str, list[dict[str, Any]]]:
    """Return inputs and outputs as MLflow writes a signature: name, type, required."""
    inputs = [{"name": column.name, "type": "double", "required": False} for column in preprocessing.numbers]
    inputs += [{"name": column.name, "type": "string", "required": False} for column in preprocessing.categories]
    inputs += [{"name": each.name, **_describe_input(each), "required": False} for each in preprocessing.extra]
    outputs = {
        "binary": [{"name": "prediction", "type": "long"}, {"name": "score", "type": "double"}],
        "regression": [{"name": "prediction", "type": "double"}],
        "multiclass": [
            {"name": "prediction", "type": "string"},
            *({"name": f"scores.{name}", "type": "double"} for name in target.classes),
        ],
    }
    return {"inputs": inputs, "outputs": outputs[target.task]}


def _describe_input(extra: ExtraInput) -> dict[str, Any]:
    if isinstance(extra, ImageInput):
        return {"type": "binary"}
    if isinstance(extra, TextInput):
        return {"type": "string"}
    return {"type": "array", "items": {"type": "double"}}


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
