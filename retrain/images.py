"""Images as arrays of one size: decoded, made grey or coloured as the training images are, and resized.

Owns the size. Whatever cannot be read is missing.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from schemas.images import convert_image, open_image, read_inline
from schemas.texts import TextColumn

# A convolution's cost grows with the area; above this many pixels a side, images are made smaller.
_MAX_SIDE = 64
# Two poolings halve a side twice, and something must be left of it.
_MIN_SIDE, _STEP = 8, 4
# So many training images tell their size, and their mean to a hundredth of a standard deviation.
_NUM_LOOKED_AT = 1_000
_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B"})


class ImageInput(msgspec.Struct, frozen=True, tag="image"):
    """An image: uint8 (n, channels, height, width); `mean` and `scale`, one a channel, standardise it in the network.

    `indicator`: a dense column says where it is missing; there, and where it cannot be read, it is all mean.
    """

    name: str
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    indicator: bool

    def encode(self, texts: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Decode n images as events carry them: (n, channels, height, width), and where there is none."""
        images = np.empty((len(texts), self.channels, self.height, self.width), np.uint8)
        missing = np.ones(len(texts), np.bool_)
        images[:] = np.round(self.mean).astype(np.uint8)[:, None, None]
        for row, content in read_inline(TextColumn.of_arrow(texts)):
            image = open_image(content)
            pixels = None if image is None else _read_pixels(image, self.channels, self.height, self.width)
            if pixels is not None:
                images[row], missing[row] = pixels, False
        return images, missing


def fit_image(name: str, blocks: Iterable[pa.Array]) -> ImageInput | None:
    """Choose size and channels as most training images have them; None where none can be read."""
    num_rows, num_valid = 0, 0
    for texts in blocks:
        num_rows += len(texts)
        num_valid += len(texts) - texts.null_count
    # Which of those that are there are looked at: evenly over all.
    chosen = np.unique(np.linspace(0, num_valid - 1, min(num_valid, _NUM_LOOKED_AT)).astype(np.int64))
    contents, start = [], 0
    for texts in blocks:
        valid = np.flatnonzero(pc.is_valid(texts).to_numpy(zero_copy_only=False))
        here = chosen[(chosen >= start) & (chosen < start + len(valid))] - start
        contents += list(read_inline(TextColumn.of_arrow(texts.take(pa.array(valid[here])))))
        start += len(valid)
    images = [image for _, content in contents if (image := open_image(content)) is not None]
    if not images:
        return None
    channels = 1 if all(image.mode in _GREY_MODES for image in images) else 3
    width, height = (float(side) for side in np.median([image.size for image in images], axis=0))
    shrink = min(1.0, _MAX_SIDE / max(width, height))
    width, height = (max(_MIN_SIDE, round(side * shrink / _STEP) * _STEP) for side in (width, height))
    decoded = [_read_pixels(image, channels, int(height), int(width)) for image in images]
    known = [each for each in decoded if each is not None]
    if not known:
        return None
    pixels = np.stack(known)
    mean, scale = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
    return ImageInput(
        name,
        channels,
        int(height),
        int(width),
        tuple(mean.tolist()),
        tuple(np.where(scale > 0, scale, 1.0).tolist()),
        # An image that cannot be read is missing too.
        indicator=num_valid < num_rows or len(known) < len(chosen),
    )


def _read_pixels(image: Image.Image, channels: int, height: int, width: int) -> NDArray[np.uint8] | None:
    """Decode to uint8 (channels, height, width); None where the content is damaged."""
    converted = convert_image(image, "L" if channels == 1 else "RGB")
    if converted is None:
        return None
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
