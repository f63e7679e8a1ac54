"""Starting from the champion's weights: which layers fit, and why the others do not.

Owns the comparison, by name, shape and meaning. It must not train.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from retrain.network import NetworkConfig, name_encoder
from retrain.target import Target
from retrain.trained_model import Start, TrainedModel, load_model
from schemas.errors import ConfigurationError
from store.artifacts import DamagedArtifactError, open_artifacts
from store.client import ClickHouse
from store.versions import read_version


@dataclass(frozen=True, slots=True)
class WarmWeights:
    """The weights that a network begins with, and the account of them; none where it starts from scratch."""

    start: Start
    weights: Mapping[str, Tensor]


def find_champion(ch: ClickHouse, artifacts: str, model: str, version: str) -> TrainedModel | str:
    """Load the champion; a sentence where it cannot be started from."""
    row = read_version(ch, model, version)
    if row is None:
        return f"the champion, version {version}, was not trained here"
    try:
        return load_model(open_artifacts(artifacts).read(row.uri, row.sha256))
    except (DamagedArtifactError, ConfigurationError, ValueError) as error:
        return f"the champion, version {version}, cannot be loaded: {error}"


def choose_weights(champion: TrainedModel, version: str, config: NetworkConfig, target: Target) -> WarmWeights:
    """Compare every layer of a network with the champion's of that name; what does not fit starts fresh."""
    theirs = champion.network.state_dict()
    ours = config.build().state_dict()
    taken: dict[str, Tensor] = {}
    fresh: dict[str, str] = {}
    for name, tensor in ours.items():
        found = theirs.get(name)
        if found is None:
            fresh[name] = "the champion has no such layer"
        elif found.shape != tensor.shape:
            fresh[name] = f"its shape is {_describe(tensor)}, the champion's {_describe(found)}"
        elif (reason := _find_other_meaning(name, champion, config, target)) is not None:
            fresh[name] = reason
        else:
            taken[name] = found
    return WarmWeights(
        Start(version=version, taken=tuple(taken), fresh=fresh, words=_put(version, taken, fresh)), taken
    )


def start_from_scratch(reason: str) -> WarmWeights:
    """Say that nothing is started from, and why."""
    return WarmWeights(Start(words=f"Started from scratch: {reason}."), {})


def _find_other_meaning(name: str, champion: TrainedModel, config: NetworkConfig, target: Target) -> str | None:
    """Say why a layer of equal name and shape means something else; None where it means the same."""
    before, now = champion.config.schema, config.schema
    same_inputs = _list_inputs(champion.config) == _list_inputs(config)
    same_classes = champion.target.task == target.task and champion.target.classes == target.classes
    if ":" in config.architecture or ":" in champion.config.architecture:
        # What a layer of the user's network reads is not known.
        return None if same_inputs and same_classes else "the inputs or the classes are others"
    if name.startswith("encoders."):
        inputs = {
            name_encoder(each.name): (each, other) for each in now.extra for other in before.extra if each == other
        }
        return None if name.split(".")[1] in inputs else "the champion read this input otherwise"
    if name.startswith("embedding.") and before.categories != now.categories:
        return "the categories are others"
    if name.startswith("layers.0.") and not same_inputs:
        return "it reads other inputs"
    if _read_place(name) == max(_read_place(each) for each in champion.network.state_dict()) and not same_classes:
        return "the classes are others"
    return None


def _list_inputs(config: NetworkConfig) -> tuple[object, ...]:
    schema = config.schema
    return schema.dense, schema.categories, tuple(each.name for each in schema.extra)


def _read_place(name: str) -> int:
    match = re.match(r"layers\.(\d+)\.", name)
    return int(match[1]) if match else -1


def _put(version: str, taken: Mapping[str, Tensor], fresh: Mapping[str, str]) -> str:
    total = len(taken) + len(fresh)
    if not fresh:
        return f"Started from version {version}: all {total} layers."
    reasons = "; ".join(f"{name} ({reason})" for name, reason in fresh.items())
    if not taken:
        return f"Started from scratch, since no layer of version {version} fits: {reasons}."
    return f"Started from version {version}: {len(taken)} of {total} layers. Fresh: {reasons}."


def _describe(tensor: Tensor) -> str:
    return " × ".join(str(side) for side in tensor.shape) or "1"
