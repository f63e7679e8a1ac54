"""The personal-data policy of a feature, applied before anything is stored or forwarded.

`drop` removes the feature, `hash` keeps only whether two values are equal, `mask` only that there was a value.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np

from schemas.declarations import Policy
from schemas.texts import TextColumn, no_texts

MASK = "***"


def protect_texts(values: TextColumn, policy: Policy | None, privacy_key: bytes) -> TextColumn:
    """Give the texts as they may be kept; nulls stay null. `drop` gives nulls: callers leave the column out."""
    if policy is None:
        return values
    if policy == "drop":
        return no_texts(len(values))
    if policy == "mask":
        return TextColumn.of_codes(np.minimum(values.length, 0), [MASK])
    codes, distinct = values.factorize()
    return TextColumn.of_codes(codes, [hash_text(value, privacy_key) for value in distinct])


def hash_text(value: str, privacy_key: bytes) -> str:
    """Give the keyed hash of a text: HMAC-SHA256, its first 128 bits in hexadecimal."""
    return hmac.new(privacy_key, value.encode(), hashlib.sha256).hexdigest()[:32]
