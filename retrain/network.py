"""The standard networks: how one is put together from what the features are.

Owns the architectures' names and shapes. It must not train, nor know where data comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec
import torch
from torch import Tensor, nn

from retrain.encoders import ImageEncoder, PixelEncoder, ResidualBlock, TextEncoder, VectorEncoder
from retrain.factory import build_with, hash_factory
from retrain.images import ImageInput
from retrain.preprocessing import ExtraInput, Preprocessing
from retrain.target import Target, Task
from retrain.texts import TextInput
from schemas.errors import ConfigurationError
from schemas.spec import ARCHITECTURES

# Wide enough for a thousand values; beyond, a table of 16 numbers a value learns no better.
_MAX_EMBEDDING_WIDTH = 16
_HIDDEN = (64, 32)
# As many numbers come from pixels or wide embeddings, not from columns: (256, 128) of 784 pixels are .89 of
# Fashion-MNIST, where (64, 32) are .87.
_WIDE, _WIDE_HIDDEN = 256, (256, 128)
_RESIDUAL_WIDTH, _NUM_RESIDUAL_BLOCKS = 64, 2
# A convolution over a block costs a thousand times what a tabular network does, and a single record costs a block.
_BLOCK_ROWS, _BLOCK_ROWS_IMAGES = 1_024, 32


class NetworkSchema(msgspec.Struct, frozen=True, kw_only=True):
    """What a network reads and gives, all of it from the features and the labels.

    `dense` names the columns of the dense tensor, `categories` the code columns with their numbers of codes, and
    `extra` describes the tensors of texts, images and embeddings.
    """

    dense: tuple[str, ...]
    categories: tuple[tuple[str, int], ...]
    extra: tuple[ExtraInput, ...] = ()
    task: Task
    num_outputs: int

    @classmethod
    def of(cls, preprocessing: Preprocessing, target: Target) -> NetworkSchema:
        """Describe what a preprocessing gives and a target wants."""
        return cls(
            dense=preprocessing.dense_names,
            categories=tuple((category.name, category.num_codes) for category in preprocessing.categories),
            extra=preprocessing.extra,
            task=target.task,
            num_outputs=target.num_outputs,
        )


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of a network, derived from the schema and the architecture's name.

    `block_rows` is the height at which outputs are computed; `factory_sha256` is of the user's code, empty for ours.
    """

    architecture: str
    schema: NetworkSchema
    hidden: tuple[int, ...] = ()
    num_blocks: int = 0
    convolutions: bool = False
    block_rows: int = _BLOCK_ROWS
    factory_sha256: str = ""

    def build(self) -> nn.Module:
        """Build the network with weights drawn from torch's global generator; ConfigurationError where code is gone."""
        if ":" in self.architecture:
            return build_with(self.architecture, self.factory_sha256, self.schema)
        return StandardNetwork(self)

    @property
    def has_images(self) -> bool:
        """Tell whether convolutions decide what a step costs."""
        return any(isinstance(each, ImageInput) for each in self.schema.extra)


class StandardNetwork(nn.Module):
    """Embeddings of the categories and encoders of the rest beside the dense numbers, then hidden layers (or none).

    All categories share one table, each with its own range of rows: one gather a batch instead of one
    a category takes half the time of a small network's step.
    """

    offsets: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        schema = config.schema
        num_codes = [number for _, number in schema.categories]
        embedding_width = choose_embedding_width(max(num_codes, default=0))
        starts = [sum(num_codes[:index]) for index in range(len(num_codes))]
        self.register_buffer("offsets", torch.tensor(starts, dtype=torch.int64), persistent=False)
        self.embedding = nn.Embedding(sum(num_codes), embedding_width)
        self.names = [(each.name, name_encoder(each.name)) for each in schema.extra]
        self.encoders = nn.ModuleDict(
            {key: _build_encoder(each, config) for (_, key), each in zip(self.names, schema.extra, strict=True)}
        )
        width = len(schema.dense) + len(num_codes) * embedding_width
        width += sum(encoder.width for encoder in self.encoders.values())  # type: ignore[misc]
        self.layers = nn.Sequential(*_build_layers(width, config))

    def forward(self, dense: Tensor, codes: Tensor, extra: Mapping[str, Tensor]) -> Tensor:
        """Map dense float32 (n, width), codes int64 (n, categories) and extra inputs to outputs (n, num_outputs)."""
        embedded = _look_up(self.embedding, codes + self.offsets)
        encoded = [self.encoders[key](extra[name]) for name, key in self.names]
        outputs: Tensor = self.layers(torch.cat([dense, embedded, *encoded], dim=1))
        return outputs


def _look_up(table: nn.Embedding, codes: Tensor) -> Tensor:
    """Return the embeddings of codes (n, categories) side by side, (n, categories · width)."""
    if codes.device.type != "cpu":
        return table(codes).flatten(start_dim=1)  # type: ignore[no-any-return]
    # The same numbers; its gradient takes a quarter of the time of an embedding's, which was a third of a step.
    return table.weight.index_select(0, codes.flatten()).view(codes.shape[0], codes.shape[1] * table.embedding_dim)


def choose_embedding_width(num_codes: int) -> int:
    """Return the width of an embedding: 1.6 · codes^0.56 (the rule of fast.ai), 2 to 16."""
    width: float = 1.6 * num_codes**0.56
    return min(_MAX_EMBEDDING_WIDTH, max(2, round(width)))


def name_encoder(feature: str) -> str:
    """Return the name of a feature's encoder among the layers, where a dot would part two names."""
    return f"of:{quote(feature, safe='').replace('.', '%2E')}"


def configure_network(architecture: str, preprocessing: Preprocessing, target: Target) -> NetworkConfig:
    """Derive a network's shape; ConfigurationError for an architecture that does not exist or does not fit."""
    schema = NetworkSchema.of(preprocessing, target)
    has_images = any(isinstance(each, ImageInput) for each in schema.extra)
    has_texts = any(isinstance(each, TextInput) for each in schema.extra)
    block_rows = _BLOCK_ROWS_IMAGES if has_images else _BLOCK_ROWS
    if ":" in architecture:
        return NetworkConfig(
            architecture=architecture,
            schema=schema,
            block_rows=block_rows,
            factory_sha256=hash_factory(architecture),
        )
    if architecture not in ARCHITECTURES:
        raise ConfigurationError(
            f"there is no architecture {architecture!r}",
            key="retrain.architecture",
            remedy=f"choose one of {', '.join(ARCHITECTURES)}, or your own module:factory",
        )
    for wanted, found, kind in (("cnn", has_images, "image"), ("text", has_texts, "text")):
        if architecture == wanted and not found:
            raise ConfigurationError(
                f"the architecture {wanted} needs a feature of type {kind} that training rows have values of",
                key="retrain.architecture",
                remedy=f"declare one with `type: {kind}`, or choose auto",
            )
    convolutions = has_images and architecture in ("auto", "cnn", "resnet", "text")
    # Images alone through convolutions go straight to the outputs: a hidden layer would only narrow them.
    images_only = convolutions and not schema.categories and all(isinstance(e, ImageInput) for e in schema.extra)
    has_columns = len(schema.dense) > sum(each.indicator for each in schema.extra)
    hidden: tuple[int, ...] = ()
    if architecture not in ("linear", "text") and not (images_only and not has_columns):
        hidden = _HIDDEN if _count_numbers(schema, convolutions) < _WIDE else _WIDE_HIDDEN
    return NetworkConfig(
        architecture=architecture,
        schema=schema,
        hidden=(_RESIDUAL_WIDTH,) if architecture == "resnet" else hidden,
        num_blocks=_NUM_RESIDUAL_BLOCKS if architecture == "resnet" else 0,
        convolutions=convolutions,
        block_rows=block_rows if convolutions else _BLOCK_ROWS,
    )


def _count_numbers(schema: NetworkSchema, convolutions: bool) -> int:
    """Count the numbers that reach the first layer as they are given: columns, and pixels without convolutions."""
    pixels = 0
    if not convolutions:
        images = [each for each in schema.extra if isinstance(each, ImageInput)]
        pixels = sum(image.channels * image.height * image.width for image in images)
    return len(schema.dense) + pixels


def _build_encoder(extra: ExtraInput, config: NetworkConfig) -> nn.Module:
    if isinstance(extra, ImageInput):
        return ImageEncoder(extra) if config.convolutions else PixelEncoder(extra)
    return TextEncoder(extra) if isinstance(extra, TextInput) else VectorEncoder(extra)


def _build_layers(width: int, config: NetworkConfig) -> list[nn.Module]:
    """Return the layers from `width` numbers to the outputs; a new layer is drawn after those before it."""
    layers: list[nn.Module] = []
    if config.num_blocks:
        (hidden,) = config.hidden
        layers = [nn.Linear(width, hidden), *(ResidualBlock(hidden) for _ in range(config.num_blocks))]
        return [*layers, nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, config.schema.num_outputs)]
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return [*layers, nn.Linear(width, config.schema.num_outputs)]
