"""Descriptors: numbers that say something of a text, an embedding or an image, as features of their own.

Owns which there are, what they are called, and where they are computed: at the end of reading an event's features, so
that counts, the store, the frozen reference and a scorer have the same ones. A row's descriptors follow from its own
value alone, whatever stands beside it and however it was encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from schemas.columns import Floats
from schemas.declarations import FeatureSpec, FeatureType, ModelSpec
from schemas.embeddings import NUM_PROJECTIONS, describe_embeddings
from schemas.errors import ConfigurationError
from schemas.images import describe_images
from schemas.texts import TextColumn

_PROJECTIONS = tuple(f"projection_{index}" for index in range(NUM_PROJECTIONS))

# In words, for people who read an alert.
WORDS: dict[str, str] = {
    "num_chars": "number of characters",
    "num_words": "number of words",
    "non_letter_share": "share of characters that are neither letters nor spaces",
    "norm": "length of the vector",
    **{name: f"projection on random direction {index}" for index, name in enumerate(_PROJECTIONS)},
    "num_bytes": "number of bytes",
    "width": "width in pixels",
    "height": "height in pixels",
    "brightness": "mean grey value",
    "contrast": "standard deviation of the grey value",
}
DESCRIPTORS: dict[FeatureType, tuple[str, ...]] = {
    "text": ("num_chars", "num_words", "non_letter_share"),
    "embedding": ("norm", *_PROJECTIONS),
    "image": ("num_bytes", "width", "height", "brightness", "contrast"),
}

# Letters and spaces as Unicode has them; of spaces only U+0020 is none of the odd characters, as with Evidently.
_WORD = r"\pL[^\s\pZ]*"
_NON_LETTER = r"[^\pL ]"


def derive_features(
    features: Mapping[str, FeatureSpec], num_dimensions: Mapping[str, int], file: str
) -> dict[str, FeatureSpec]:
    """Give the features with the descriptors of each text, embedding and image behind it, as numbers.

    What has a personal-data policy has none. `num_dimensions` are those of the reference's embeddings; one without any
    value there has no projections. ConfigurationError where a name is taken.
    """
    derived: dict[str, FeatureSpec] = {}
    for name, feature in features.items():
        derived[name] = feature
        if feature.policy is not None:
            continue
        size = num_dimensions.get(name) if feature.type == "embedding" else None
        for descriptor in DESCRIPTORS.get(feature.type, ()):
            if descriptor in _PROJECTIONS and size is None:
                continue
            own = f"{name}.{descriptor}"
            if own in features:
                raise ConfigurationError(
                    f"{own!r} is what a descriptor of {name!r} is called",
                    file=file,
                    key=f"features.{own}",
                    remedy="Rename the feature where events are produced, or leave the column out of the reference",
                )
            derived[own] = FeatureSpec(type="number", of=name, descriptor=descriptor, num_dimensions=size)
    return derived


def describe_contents(spec: ModelSpec, texts: Mapping[str, TextColumn]) -> dict[str, Floats]:
    """Give every descriptor of a complete spec by its name: float64[n], NaN where there is nothing to describe."""
    groups: dict[str, dict[str, FeatureSpec]] = {}
    for name, feature in spec.derived_features.items():
        assert feature.of is not None
        groups.setdefault(feature.of, {})[name] = feature
    found: dict[str, Floats] = {}
    for source, wanted in groups.items():
        first = next(iter(wanted.values()))
        values = _DESCRIBE[spec.features[source].type](texts[source], first.num_dimensions)
        found |= {name: values[str(feature.descriptor)] for name, feature in wanted.items()}
    return found


def name_in_words(name: str, feature: FeatureSpec | None) -> str:
    """Give a feature's name, that of a descriptor with what it is: "comment.num_chars (number of characters)"."""
    if feature is None or feature.descriptor is None:
        return name
    return f"{name} ({WORDS[feature.descriptor]})"


def describe_texts(texts: TextColumn) -> dict[str, Floats]:
    """Give characters, words (separated by white space, with a letter in them) and the share of odd characters."""
    # Only where a model has texts: PyArrow's functions take a tenth of a second to import.
    import pyarrow.compute as pc

    sent = texts.to_arrow()
    chars, words, odd = (
        counted.cast("float64").to_numpy(zero_copy_only=False)
        for counted in (
            pc.utf8_length(sent),
            pc.count_substring_regex(sent, _WORD),
            pc.count_substring_regex(sent, _NON_LETTER),
        )
    )
    shares = np.full(len(texts), np.nan)
    np.divide(odd, chars, out=shares, where=chars > 0)
    return {"num_chars": chars, "num_words": words, "non_letter_share": shares}


_DESCRIBE: dict[FeatureType, Callable[[TextColumn, int | None], dict[str, Floats]]] = {
    "text": lambda texts, _: describe_texts(texts),
    "embedding": describe_embeddings,
    "image": lambda texts, _: describe_images(texts),
}
