"""The personal-data policy of a feature, applied before anything is stored or forwarded.

`drop` removes the feature, `hash` keeps only whether two values are equal, `mask` only that there was a value.
"""

from __future__ import annotations

import hashlib
import hmac

from schemas.columns import Texts
from schemas.declarations import Policy

MASK = "***"


def protect_texts(values: Texts, policy: Policy | None, privacy_key: bytes) -> Texts:
    """Give the texts as they may be kept; nulls stay null. `drop` gives nulls: callers leave the column out."""
    if policy is None:
        return values
    if policy == "drop":
        return [None] * len(values)
    if policy == "mask":
        return [None if value is None else MASK for value in values]
    hashed: dict[str | None, str | None] = {
        value: hash_text(value, privacy_key) for value in set(values) if value is not None
    }
    hashed[None] = None
    return [hashed[value] for value in values]


def hash_text(value: str, privacy_key: bytes) -> str:
    """Give the keyed hash of a text: HMAC-SHA256, its first 128 bits in hexadecimal."""
    return hmac.new(privacy_key, value.encode(), hashlib.sha256).hexdigest()[:32]
