"""Images sent inline: what can be said of them without a model. Nothing that an event refers to is ever fetched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from schemas.columns import Floats
from schemas.texts import TextColumn, decode_each

if TYPE_CHECKING:
    from PIL import Image

# Decoded with three bytes a pixel 50 MB; a file of a few kilobytes may claim billions.
NUM_PIXELS_MAX = 1 << 24
# None of those that hand the content to another program, or that nobody sends.
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")


class _Media(msgspec.Struct):
    """An image as it is kept, its content in base64."""

    content: bytes | None = msgspec.field(default=None, name="bytes")


_DECODER = msgspec.json.Decoder(_Media)


def describe_images(texts: TextColumn) -> dict[str, Floats]:
    """Give size in bytes, width and height in pixels, and mean and standard deviation of the grey value (0 to 1).

    Each float64[n]: NaN where null, where the image is only referred to, and, except for the size in bytes, where it
    cannot be decoded. An image of too many pixels has no grey values.
    """
    names = ("num_bytes", "width", "height", "brightness", "contrast")
    found = {name: np.full(len(texts), np.nan) for name in names}
    for row, data in read_inline(texts):
        found["num_bytes"][row] = len(data)
        for name, value in _describe(data).items():
            found[name][row] = value
    return found


def read_inline(texts: TextColumn) -> Iterator[tuple[int, bytes]]:
    """Give the bytes of each image that was sent with them, and its row."""
    for row, media in decode_each(texts, _DECODER):
        if media.content is not None:
            yield row, media.content


def open_grey(data: bytes) -> Image.Image | None:
    """Decode an image to grey values of 8 bits; None where that cannot be done, or it has too many pixels."""
    opened = open_image(data)
    return None if opened is None else convert_image(opened, "L")


def _describe(data: bytes) -> dict[str, float]:
    opened = open_image(data)
    if opened is None:
        return {}
    described: dict[str, float] = {"width": opened.width, "height": opened.height}
    grey = convert_image(opened, "L")
    if grey is None:
        return described if opened.width * opened.height > NUM_PIXELS_MAX else {}
    # Whole numbers, so that the values are exact up to the last division.
    counts = grey.histogram()
    num, total = sum(counts), sum(value * count for value, count in enumerate(counts))
    squares = sum(value * value * count for value, count in enumerate(counts))
    described["brightness"] = total / (255 * num)
    described["contrast"] = math.sqrt(num * squares - total * total) / (255 * num)
    return described


def open_image(data: bytes) -> Image.Image | None:
    """Read an image's header; None where it is none."""
    # Only where a model has images.
    from PIL import Image

    try:
        opened = Image.open(BytesIO(data), formats=_FORMATS)
    except Exception:  # Pillow raises whatever its decoders do on broken input, and a warning of too many pixels
        return None
    return opened if opened.width > 0 and opened.height > 0 else None


def convert_image(opened: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image | None:
    """Decode the content to 8 bits, grey or coloured; None where that cannot be done, or there are too many pixels."""
    if opened.width * opened.height > NUM_PIXELS_MAX:
        return None
    try:
        if opened.mode == "F":
            return None  # in no unit that is known
        if opened.mode.startswith("I"):
            opened = _narrow(opened)
        return opened.convert(mode)
    except Exception:  # as above
        return None


def _narrow(opened: Image.Image) -> Image.Image:
    """Take the upper 8 of 16 bits; Pillow's own conversion cuts off."""
    from PIL import Image

    values = np.clip(np.asarray(opened), 0, 65_535).astype(np.uint16)
    return Image.fromarray((values >> 8).astype(np.uint8))
