"""The parts that networks are put together from: an encoder a kind of input, and a residual block.

Owns their layers. It must not know features' names, tasks or training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrain.images import ImageInput
from retrain.texts import TextInput
from retrain.vectors import VectorInput

_TEXT_WIDTH = 16
_VECTOR_WIDTH = 32
_FILTERS = (32, 64)
# What the last pooling may leave a side: 64 filters of 7 × 7 are 3,136 numbers, as of 28 × 28 pixels.
_SIDE_MAX = 7
_DROPOUT = 0.3


class PixelScaling(nn.Module):
    """Bytes (n, channels, height, width) to standardised floats, on the device where the network is."""

    mean: Tensor
    scale: Tensor

    def __init__(self, image: ImageInput) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(image.mean)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(image.scale)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Standardise each channel."""
        return (images.float() - self.mean) / self.scale


class PixelEncoder(nn.Module):
    """An image as its pixels, for networks without convolutions."""

    def __init__(self, image: ImageInput) -> None:
        super().__init__()
        self.scaling = PixelScaling(image)
        self.width = image.channels * image.height * image.width

    def forward(self, images: Tensor) -> Tensor:
        """Map bytes (n, channels, height, width) to floats (n, width)."""
        return self.scaling(images).flatten(start_dim=1)  # type: ignore[no-any-return]


class ImageEncoder(nn.Module):
    """Two convolutions of 3 × 3, each with batch normalisation and a pooling that halves the sides."""

    def __init__(self, image: ImageInput) -> None:
        super().__init__()
        self.scaling = PixelScaling(image)
        first, second = _FILTERS
        self.conv1 = nn.Conv2d(image.channels, first, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(second)
        self.dropout = nn.Dropout(_DROPOUT)
        sides = (image.height // 4, image.width // 4)
        # An adaptive pooling would do the same with less thought, but has no deterministic gradient on a GPU.
        self.shrink = math.ceil(max(sides) / _SIDE_MAX)
        self.width = second * math.prod(max(1, side // self.shrink) for side in sides)

    def forward(self, images: Tensor) -> Tensor:
        """Map bytes (n, channels, height, width) to floats (n, width)."""
        # Channels last: a third less time for a step, on the CPU and on tensor cores.
        values = self.scaling(images).contiguous(memory_format=torch.channels_last)
        values = functional.relu(functional.max_pool2d(self.norm1(self.conv1(values)), 2))
        values = functional.relu(functional.max_pool2d(self.norm2(self.conv2(values)), 2))
        if self.shrink > 1:
            height, width = (min(self.shrink, side) for side in values.shape[2:])
            values = functional.avg_pool2d(values, (height, width))
        return self.dropout(values.flatten(start_dim=1))  # type: ignore[no-any-return]


class TextEncoder(nn.Module):
    """The mean of the embeddings of a text's n-grams; zeros for a text without any."""

    def __init__(self, text: TextInput) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(text.num_buckets + 1, _TEXT_WIDTH, mode="mean", padding_idx=0)
        # Drawn small, an n-gram that training never saw says little.
        nn.init.uniform_(self.bag.weight, -1 / _TEXT_WIDTH, 1 / _TEXT_WIDTH)
        self.width = _TEXT_WIDTH

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes (n, n-grams), 0 for nothing, to floats (n, width)."""
        embedded: Tensor = self.bag(codes)
        return embedded


class VectorEncoder(nn.Module):
    """A linear projection of a given embedding."""

    def __init__(self, vector: VectorInput) -> None:
        super().__init__()
        self.width = min(vector.width, _VECTOR_WIDTH)
        self.projection = nn.Linear(vector.width, self.width)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors (n, their width) to floats (n, width)."""
        projected: Tensor = self.projection(vectors)
        return projected


class ResidualBlock(nn.Module):
    """x + linear(relu(linear(norm(x)))), the tabular residual block of Gorishniy et al. 2021.

    With layer instead of batch normalisation: the last batch of an epoch may be a single row.
    """

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(2 * width, width)

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, width) to (n, width)."""
        hidden = self.dropout(functional.relu(self.first(self.norm(values))))
        return values + self.second(hidden)  # type: ignore[no-any-return]
