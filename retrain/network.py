"""The tabular networks: what they are made of, and how to build one from a preprocessing.

Owns the architectures' names and shapes. It must not train, nor know where data comes from.
"""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor, nn

from retrain.preprocessing import Preprocessing
from schemas.errors import ConfigurationError

# Wide enough for a thousand values; beyond, a table of 16 numbers a value learns no better.
_MAX_EMBEDDING_WIDTH = 16


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of a tabular network, all of it derived from the feature schema and the architecture's name."""

    architecture: str
    dense_width: int
    num_codes: tuple[int, ...]
    num_outputs: int
    hidden: tuple[int, ...]

    def build(self) -> TabularNetwork:
        """Build the network with weights drawn from torch's global generator."""
        return TabularNetwork(self)


class TabularNetwork(nn.Module):
    """Embeddings of the categories beside the dense numbers, then hidden layers (none: a linear model).

    All categories share one table, each with its own range of rows: one gather a batch instead of one
    a category takes half the time of a small network's step.
    """

    offsets: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        num_codes = config.num_codes
        embedding_width = choose_embedding_width(max(num_codes, default=0))
        starts = [sum(num_codes[:index]) for index in range(len(num_codes))]
        self.register_buffer("offsets", torch.tensor(starts, dtype=torch.int64), persistent=False)
        self.embedding = nn.Embedding(sum(num_codes), embedding_width)
        width = config.dense_width + len(num_codes) * embedding_width
        layers: list[nn.Module] = []
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, config.num_outputs))

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        """Map dense float32 (n, width) and codes int64 (n, categories) to outputs (n, num_outputs)."""
        embedded = self.embedding(codes + self.offsets).flatten(start_dim=1)
        outputs: Tensor = self.layers(torch.cat([dense, embedded], dim=1))
        return outputs


def choose_embedding_width(num_codes: int) -> int:
    """Return the width of an embedding: 1.6 · codes^0.56 (the rule of fast.ai), 2 to 16."""
    width: float = 1.6 * num_codes**0.56
    return min(_MAX_EMBEDDING_WIDTH, max(2, round(width)))


_HIDDEN: dict[str, tuple[int, ...]] = {"mlp": (64, 32), "linear": ()}


def configure_network(architecture: str, preprocessing: Preprocessing, num_outputs: int) -> NetworkConfig:
    """Derive a network's shape; raises ConfigurationError for an architecture that does not exist."""
    if architecture not in _HIDDEN:
        raise ConfigurationError(
            f"there is no architecture {architecture!r}",
            key="retrain.architecture",
            remedy=f"choose one of {', '.join(sorted(_HIDDEN))}",
        )
    return NetworkConfig(
        architecture=architecture,
        dense_width=preprocessing.dense_width,
        num_codes=tuple(category.num_codes for category in preprocessing.categories),
        num_outputs=num_outputs,
        hidden=_HIDDEN[architecture],
    )
