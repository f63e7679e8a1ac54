"""The user's own network: `module:factory`, imported by name.

Owns finding the code and knowing it again. What it must be: `factory(schema)` takes a
`retrain.network.NetworkSchema` and returns a `torch.nn.Module` whose `forward(dense, codes, extra)`
takes float32 (n, dense columns), int64 (n, categories) and a mapping from the names of texts, images
and embeddings to their tensors, and returns float32 (n, schema.num_outputs): a logit a class for
multiclass, one logit for binary, one standardised value for regression. A row's output must not
depend on the rows beside it when the module is in its evaluation mode.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from schemas.errors import ConfigurationError

_KEY = "retrain.architecture"


def hash_factory(name: str) -> str:
    """Return SHA-256 of the file that defines the factory `module:factory`; ConfigurationError if there is none."""
    return _hash_source(name, _import_factory(name))


def build_with(name: str, sha256: str, schema: Any) -> nn.Module:
    """Build the network that a factory makes; ConfigurationError unless its code is the one that was trained with."""
    factory = _import_factory(name)
    found = _hash_source(name, factory)
    if found != sha256:
        raise ConfigurationError(
            f"the code of {name} is not what the model was trained with: its hash is {found[:12]}…, "
            f"recorded is {sha256[:12]}…",
            key=_KEY,
            remedy="install the version of the module that it was trained with, or retrain",
        )
    network = factory(schema)
    if not isinstance(network, nn.Module):
        raise ConfigurationError(
            f"{name} returned {type(network).__name__}, not a torch.nn.Module",
            key=_KEY,
            remedy="let the factory return a module",
        )
    _try_out(name, network, schema)
    return network


def _try_out(name: str, network: nn.Module, schema: Any) -> None:
    """Run two rows of zeros through it, so that a mistake is told before rows are read for hours."""
    dense, codes = torch.zeros(2, len(schema.dense)), torch.zeros(2, len(schema.categories), dtype=torch.int64)
    extra = {each.name: torch.from_numpy(each.encode(pa.nulls(2, pa.string()))[0]) for each in schema.extra}
    try:
        with torch.no_grad():
            outputs = network.eval()(dense, codes, extra)
        found = f"a tensor of {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    except Exception as error:  # whatever the user's code raises
        found = f"{type(error).__name__}: {error}"
    if found != f"a tensor of {(2, schema.num_outputs)}":
        raise ConfigurationError(
            f"the network of {name} gives, for two rows, {found}, not a tensor of {(2, schema.num_outputs)}",
            key=_KEY,
            remedy="forward(dense, codes, extra) returns n rows of schema.num_outputs numbers",
        )


def _import_factory(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(
            f"the module {module_name} of the architecture {name} cannot be imported: {error}",
            key=_KEY,
            remedy="install it where the train and score roles run, or name its folder in PYTHONPATH",
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigurationError(
            f"the module {module_name} has no function {attribute}",
            key=_KEY,
            remedy="write module:factory, where factory(schema) returns a torch.nn.Module",
        )
    return factory


def _hash_source(name: str, factory: Any) -> str:
    try:
        path = inspect.getsourcefile(factory)
    except TypeError:
        path = None
    if path is None:
        raise ConfigurationError(
            f"{name} has no source file whose content could be recorded",
            key=_KEY,
            remedy="define the factory as a function or class in a Python file",
        )
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
